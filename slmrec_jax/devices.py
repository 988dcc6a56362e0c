"""The platform that programs are compiled for. Code that differs by platform asks here, not JAX.

It calls `on_cpu` or `platform` at trace time. The result is JAX's default
platform, or the platform of the target in `compiling_for`, so a program can be compiled for a device that is not
attached.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax

from slmrec_jax.program_cache import without_cache

OPTIONS: dict[str, dict[str, str | bool]] = {
    # By default, XLA schedules a program for concurrency, which takes memory. The largest operations of a training step
    # use all cores anyway. Scheduled for memory, a step has more cache hits and touches half as many pages.
    "cpu": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
    # Bitwise identical results in every run: no atomic additions, and no selection of kernels by timing.
    "gpu": {"xla_gpu_deterministic_ops": True},
    "tpu": {},
}
"""Compiler options by platform."""


class Target(NamedTuple):
    """A platform or device to compile for, instead of JAX's default device."""

    platform: str
    """`cpu`, `gpu` or `tpu`."""
    devices: tuple[jax.Device, ...] = ()
    """The devices, which need not be attached. If there are none, programs are only traced as for the platform. A
    program is compiled for the first device, unless its arguments are placed on several."""
    memory_bytes: int | None = None
    """The memory, in bytes, that JAX would use."""
    options: tuple[tuple[str, str | bool], ...] = ()
    """Compiler options in addition to the platform's."""


_TARGET: ContextVar[Target | None] = ContextVar("_TARGET", default=None)


def current_target() -> Target | None:
    """Return the target of the enclosing `compiling_for` block; `None` outside of one."""
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
    """Return the bytes of memory of the device that programs are compiled for; `None` if unknown."""
    target = _TARGET.get()
    if target is not None:
        return target.memory_bytes
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")


@contextmanager
def compiling_for(target: str | Target) -> Iterator[None]:
    """Trace and compile for a platform or a target within the block.

    A function that was already traced for another platform must not be reused, since `jax.jit` does not know the
    target.
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
    """Trace and lower a function, and return a function that compiles it, possibly in another thread.

    Args:
        function: A pure function.
        arguments: The arguments, or their shapes; on a mesh, shapes need shardings.
        donate: The positions of donated arguments, whose buffers the program reuses.
        static: The positions of static arguments.
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
