"""SLMRec: self-supervised learning for multimedia recommendation, on JAX.

Names are imported on first use, so that code that only reads an exported folder never loads the training code.
"""

import importlib
from typing import TYPE_CHECKING, Any

from slmrec_jax.program_cache import quiet_xla

if TYPE_CHECKING:
    from slmrec_jax.config import Config, with_preset, with_protocol
    from slmrec_jax.data import Dataset, Feature, Words, load
    from slmrec_jax.data.frames import dataset
    from slmrec_jax.data.new_items import NewItems, read_new_items
    from slmrec_jax.encoding.gathers import take
    from slmrec_jax.encoding.graph import weighted_interactions
    from slmrec_jax.encoding.layers import mean, normalize, xavier_uniform
    from slmrec_jax.encoding.rows import rows_of
    from slmrec_jax.errors import UserError
    from slmrec_jax.joining import joined
    from slmrec_jax.methods import gradient_method, make_method, make_optimizer
    from slmrec_jax.models import make_recipe, slmrec_recipe
    from slmrec_jax.objectives.losses import bpr, info_nce, view_agreement
    from slmrec_jax.studies.blending import Blend, blend
    from slmrec_jax.training.events import Event
    from slmrec_jax.training.loading import load_run
    from slmrec_jax.training.run import Run
    from slmrec_jax.training.setup import Setup, setup
    from slmrec_jax.training.train import train
    from slmrec_jax.types import Augmentation, Context, Loss, Method, Model, Term, View

quiet_xla()  # before anything imports jax

_PLACES = {
    "config": ("Config", "with_preset", "with_protocol"),
    "data": ("Dataset", "Feature", "Words", "load"),
    "data.frames": ("dataset",),
    "data.new_items": ("NewItems", "read_new_items"),
    "encoding.gathers": ("take",),
    "encoding.graph": ("weighted_interactions",),
    "encoding.layers": ("mean", "normalize", "xavier_uniform"),
    "encoding.rows": ("rows_of",),
    "errors": ("UserError",),
    "joining": ("joined",),
    "methods": ("gradient_method", "make_method", "make_optimizer"),
    "models": ("make_recipe", "slmrec_recipe"),
    "objectives.losses": ("bpr", "info_nce", "view_agreement"),
    "studies.blending": ("Blend", "blend"),
    "training.events": ("Event",),
    "training.loading": ("load_run",),
    "training.run": ("Run",),
    "training.setup": ("Setup", "setup"),
    "training.train": ("train",),
    "types": ("Augmentation", "Context", "Loss", "Method", "Model", "Term", "View"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Augmentation",
    "Blend",
    "Config",
    "Context",
    "Dataset",
    "Event",
    "Feature",
    "Loss",
    "Method",
    "Model",
    "NewItems",
    "Run",
    "Setup",
    "Term",
    "UserError",
    "View",
    "Words",
    "blend",
    "bpr",
    "dataset",
    "gradient_method",
    "info_nce",
    "joined",
    "load",
    "load_run",
    "make_method",
    "make_optimizer",
    "make_recipe",
    "mean",
    "normalize",
    "read_new_items",
    "rows_of",
    "setup",
    "slmrec_recipe",
    "take",
    "train",
    "view_agreement",
    "weighted_interactions",
    "with_preset",
    "with_protocol",
    "xavier_uniform",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
