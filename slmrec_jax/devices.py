"""The platform that programs are compiled for. No other module asks JAX for it.

Code that differs between CPU, GPU and TPU calls `on_cpu` or `platform` while it is traced. The answer is JAX's default
platform, or that of the target that `compiling_for` names, so a program can be compiled for a device that is not
attached.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax

from slmrec_jax.program_cache import without_cache

OPTIONS: dict[str, dict[str, str | bool]] = {
    # By default XLA schedules a program for concurrency, which takes memory. The largest operations of a training step
    # use all cores anyway: scheduled for memory, a step finds more in the cache and touches half as many pages.
    "cpu": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
    # The same bits in every run: no atomic additions, and no choice of kernels by timing them.
    "gpu": {"xla_gpu_deterministic_ops": True},
    "tpu": {},
}
"""Compiler options by platform."""


class Target(NamedTuple):
    """A platform or a device to compile for, in place of JAX's default device."""

    platform: str
    """`cpu`, `gpu` or `tpu`."""
    devices: tuple[jax.Device, ...] = ()
    """The devices, which need not be attached; without any, programs are only traced as for the platform. A program is
    for the first one, unless its arguments are placed on several."""
    memory_bytes: int | None = None
    """The memory that JAX would use."""
    options: tuple[tuple[str, str | bool], ...] = ()
    """Compiler options besides the platform's."""


_TARGET: ContextVar[Target | None] = ContextVar("_TARGET", default=None)


def current_target() -> Target | None:
    """Return the target of the block of `compiling_for`; `None` outside of one."""
    return _TARGET.get()


def platform() -> str:
    """Return the platform that programs are compiled for: `cpu`, `gpu` or `tpu`."""
    target = _TARGET.get()
    return jax.default_backend() if target is None else target.platform


def on_cpu() -> bool:
    """Return whether programs are compiled for the CPU."""
    return platform() == "cpu"


def compiler_options() -> dict[str, str | bool]:
    """Return the compiler options for the platform and the target."""
    target = _TARGET.get()
    return OPTIONS[platform()] | dict(target.options if target else ())


def memory_bytes() -> int | None:
    """Return the memory of the accelerator that programs are compiled for; `None` if it is not known."""
    target = _TARGET.get()
    if target is not None:
        return target.memory_bytes
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")


@contextmanager
def compiling_for(target: str | Target) -> Iterator[None]:
    """Trace and compile for a platform or a target within the block.

    A function that was traced before for another platform must not be reused: `jax.jit` does not know of this choice.
    """
    chosen = Target(target) if isinstance(target, str) else target
    token = _TARGET.set(chosen)
    try:
        with without_cache() if chosen.devices else nullcontext():
            yield
    finally:
        _TARGET.reset(token)


def compiler_of(
    function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = (), static: tuple[int, ...] = ()
) -> Callable[[], jax.stages.Compiled]:
    """Trace and lower a function; the result compiles it, and may do so in another thread.

    Args:
        function: A pure function.
        arguments: Its arguments, or their shapes; those of a mesh with their shardings.
        donate: The places of arguments whose buffers the program reuses.
        static: The places of arguments that the program is compiled for.
    """
    target = _TARGET.get()
    if target is not None and target.devices:
        place = jax.sharding.SingleDeviceSharding(target.devices[0])
        arguments = tuple(
            argument if index in static else jax.tree.map(lambda leaf: _placed(leaf, place), argument)
            for index, argument in enumerate(arguments)
        )
    program = jax.jit(function, donate_argnums=donate, static_argnums=static, compiler_options=compiler_options())
    return program.lower(*arguments).compile


def _placed(leaf: Any, place: jax.sharding.Sharding) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is not None:
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)  # type: ignore[no-untyped-call]
