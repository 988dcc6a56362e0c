"""A method compiled for its inputs: what the host calls to train."""

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState
from jaxtyping import PyTree

from slmrec_jax.config import Config
from slmrec_jax.objectives.sampling import NEGATIVES
from slmrec_jax.training import numbering
from slmrec_jax.training.loop import Keys, Progress, make_keys, make_loop, no_steps
from slmrec_jax.types import Batch, Embeddings, Inputs, Method

CPU_OPTIONS: dict[str, str | bool] = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""By default XLA orders a program so that much of it can run at once, and holds what that takes. Its largest parts have
all cores at work anyway: ordered to hold little, a step finds more in the cache and touches half as many pages."""


def compiler_options() -> dict[str, str | bool] | None:
    """For the device that JAX computes on."""
    return CPU_OPTIONS if jax.default_backend() == "cpu" else None


class Steps(NamedTuple):
    """What runs; a step is known by how many were done before it, and by how often training was rolled back."""

    per_epoch: int
    shapes: Progress
    """Of what runs take and leave, without values."""
    init: Callable[[], Progress]
    """Where training starts."""
    begin: Callable[[Progress, int], Progress]
    """`(progress, step) -> progress`: the means start again with each epoch."""
    run: Callable[[Progress, int, int, int], Progress]
    """`(progress, step, stop, rollbacks) -> progress`: takes the steps from `step`, where `progress` stands, to before
    `stop`, which lie in one epoch; the buffers of `progress` are used up."""
    batch: Callable[[int, int], Batch]
    """`(step, rollbacks) -> batch`."""
    embed: Callable[[TrainState], Embeddings]


class Programs(NamedTuple):
    """What training runs, compiled before there is anything to run it on."""

    inputs: Inputs
    """Of what the method prepared, without values."""
    shapes: Progress
    """Of what runs take and leave, without values."""
    order: jax.stages.Compiled
    segment: jax.stages.Compiled
    embed: jax.stages.Compiled
    on: Callable[[Inputs], Steps]
    """`(inputs) -> steps`, for inputs of those shapes."""
    compile_seconds: float


def compile_steps(method: Method, inputs: Inputs, config: Config) -> Programs:
    """Compiles what training runs: one program for segments of every length.

    Args:
        method: what steps.
        inputs: as it prepares them, or their shapes: values are not looked at.
        config: of the run.
    """
    start = time.perf_counter()
    loop = make_loop(method, config.batch_size, negatives=NEGATIVES[config.negatives])
    per_epoch = loop.num_steps(inputs)

    @lru_cache(maxsize=1)
    def keys_after(rollbacks: int) -> Keys:
        return make_keys(config.seed, rollbacks)

    with _nothing_collected(), ThreadPoolExecutor() as pool:  # XLA compiles a program while Python traces the next

        def compiled(
            function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()
        ) -> "Future[jax.stages.Compiled]":
            program = jax.jit(function, donate_argnums=donate, compiler_options=compiler_options())
            return pool.submit(program.lower(*arguments).compile)

        state = jax.eval_shape(method.init, keys_after(0).init)
        shapes = jax.eval_shape(loop.begin, state, inputs, keys_after(0))
        drawn = jax.eval_shape(loop.order, inputs, keys_after(0), jnp.int32(0))
        programs = (  # the largest first: the others are traced meanwhile
            compiled(loop.segment, shapes, drawn, inputs, keys_after(0), jnp.int32(0), donate=(0,)),
            compiled(loop.order, inputs, keys_after(0), jnp.int32(0)),
            compiled(method.init, keys_after(0).init),
            compiled(partial(numbering.embed, method), shapes.state, inputs),
        )
        segment, order, make_state, embed = (program.result() for program in programs)

    def begin(progress: Progress, step: int) -> Progress:
        return Progress(progress.state, no_steps(shapes.means.values)) if step % per_epoch == 0 else progress

    def on(inputs: Inputs) -> Steps:
        @lru_cache(maxsize=1)
        def drawn_for(epoch: int, rollbacks: int) -> PyTree:
            return order(inputs, keys_after(rollbacks), jnp.int32(epoch * per_epoch))

        def run(progress: Progress, step: int, stop: int, rollbacks: int) -> Progress:
            drawn, keys = drawn_for(step // per_epoch, rollbacks), keys_after(rollbacks)
            after: Progress = segment(begin(progress, step), drawn, inputs, keys, jnp.int32(stop))
            return after

        return Steps(
            per_epoch,
            shapes,
            init=lambda: Progress(make_state(keys_after(0).init), no_steps(shapes.means.values)),
            begin=begin,
            run=run,
            batch=lambda step, rollbacks: numbering.given(
                loop.batch(drawn_for(step // per_epoch, rollbacks), inputs, keys_after(rollbacks), jnp.int32(step)),
                inputs.numbering,
            ),
            embed=lambda state: embed(state, inputs),
        )

    return Programs(inputs, shapes, order, segment, embed, on, time.perf_counter() - start)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Tracing makes many objects, for which Python's collector goes through all that libraries hold, time and again.

    That is a fifth of what a second run takes to find its programs. It holds for the whole process.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
