"""Training steps as training runs them. PyTorch is not imported here, because its memory would count as ours."""

import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from slmrec_jax import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.training.fit import SEGMENT_SECONDS
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.setup import Setup, compiled, outline, with_inputs


def our_setup(config: Config, dataset: Dataset) -> tuple[Setup, float]:
    """Return a compiled setup, made as training makes it, and the seconds that compiling took."""
    planned = outline(config, dataset.by_degree())
    start = time.perf_counter()
    planned = compiled(planned)
    seconds = time.perf_counter() - start
    return with_inputs(planned, make_inputs(planned.dataset, config.missing)), seconds


def our_steps(dataset: Dataset, task: str) -> tuple[Callable[[int], object], float]:
    """Return a function that takes a number of steps, and the seconds that its programs took to compile.

    As in training, one call of a program takes steps of one epoch.
    """
    setup, seconds = our_setup(replace(Config(), task=task), dataset)
    loop, inputs, keys = setup.loop, setup.inputs, setup.keys()
    progress, step = loop.init(keys), 0
    drawn = loop.order(inputs, keys, jnp.int32(0))

    def run(count: int) -> object:
        nonlocal progress, step, drawn
        end = step + count
        while step < end:
            if step % loop.steps_per_epoch == 0:
                drawn = loop.order(inputs, keys, jnp.int32(step))
            stop = min(end, (step // loop.steps_per_epoch + 1) * loop.steps_per_epoch)
            progress, step = loop.run(progress, drawn, inputs, keys, jnp.int32(stop - step)), stop
        return progress.means

    return run, seconds


def steps_a_call(run: Callable[[int], object]) -> int:
    """Return the number of steps that training takes at a time."""
    jax.block_until_ready(run(1))  # warm up
    start = time.perf_counter()
    jax.block_until_ready(run(1))
    return max(1, int(SEGMENT_SECONDS / (time.perf_counter() - start)))
