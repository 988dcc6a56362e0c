"""The platform that programs are compiled for. No other module asks JAX for it.

Code that differs between CPU, GPU and TPU calls `on_cpu` while it is traced. The answer is JAX's default platform, or
the one that `compiling_for` names, so a program can be compiled for a device that is not attached.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_TARGET: ContextVar[str | None] = ContextVar("_TARGET", default=None)

CPU_OPTIONS: dict[str, str | bool] = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""By default XLA schedules a program for concurrency, which takes memory. The largest operations of a training step use
all cores anyway: scheduled for memory, a step finds more in the cache and touches half as many pages."""


def platform() -> str:
    """Return the platform that programs are compiled for: `cpu`, `gpu` or `tpu`."""
    return _TARGET.get() or jax.default_backend()


def on_cpu() -> bool:
    """Return whether programs are compiled for the CPU."""
    return platform() == "cpu"


@contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Trace for another platform within the block.

    A function that was traced before for another platform must not be reused: `jax.jit` does not know of this choice.
    """
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def compiler_options() -> dict[str, str | bool] | None:
    """Return the compiler options for the platform, `None` for XLA's defaults."""
    return CPU_OPTIONS if on_cpu() else None
