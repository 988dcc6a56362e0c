"""SLMRec: self-supervised learning for multimedia recommendation, on JAX.

Names are imported when they are first used: what only reads an exported folder never loads what trains.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slmrec_jax.config import Config, with_preset, with_protocol
    from slmrec_jax.data import load
    from slmrec_jax.errors import UserError
    from slmrec_jax.training.run import Run, load_run
    from slmrec_jax.training.setup import Setup, setup
    from slmrec_jax.training.train import train

__all__ = ["Config", "Run", "Setup", "UserError", "load", "load_run", "setup", "train", "with_preset", "with_protocol"]

_MODULES = {
    "Config": "config",
    "with_preset": "config",
    "with_protocol": "config",
    "load": "data",
    "UserError": "errors",
    "Run": "training.run",
    "load_run": "training.run",
    "Setup": "training.setup",
    "setup": "training.setup",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
