"""A few training steps as one program, as training runs them; without PyTorch, whose memory would count as ours."""

import time
from collections.abc import Callable
from dataclasses import replace

import jax

from slmrec_jax import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.methods import make_method
from slmrec_jax.training.fit import SEGMENT_SECONDS
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.numbering import by_degree, prepared
from slmrec_jax.training.steps import compile_steps


def our_steps(dataset: Dataset, task: str) -> tuple[Callable[[int], object], float]:
    """What takes so many steps, and how long its programs took to compile.

    As training does, in one call within an epoch, and in another beyond its end.
    """
    config = replace(Config(), task=task)
    method = make_method(config, make_spec(config, dataset))
    inputs = prepared(method, make_inputs(dataset, numbering=by_degree(dataset)))
    programs = compile_steps(method, inputs, config)
    steps = programs.on(inputs)
    at = steps.init(), 0

    def run(count: int) -> object:
        nonlocal at
        progress, step = at
        end = step + count
        while step < end:
            stop = min(end, (step // steps.per_epoch + 1) * steps.per_epoch)
            progress, step = steps.run(progress, step, stop, 0), stop
        at = progress, step
        return progress.means

    return run, programs.compile_seconds


def steps_a_call(run: Callable[[int], object]) -> int:
    """How many training takes at a time."""
    jax.block_until_ready(run(1))  # nothing is cold
    start = time.perf_counter()
    jax.block_until_ready(run(1))
    return max(1, int(SEGMENT_SECONDS / (time.perf_counter() - start)))
