"""A few training steps as one program, as training runs them; without PyTorch, whose memory would count as ours."""

import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from slmrec_jax import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.methods import make_method
from slmrec_jax.training.fit import SEGMENT_SECONDS
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import make_keys, make_loop
from slmrec_jax.training.numbering import by_degree


def our_steps(dataset: Dataset, task: str) -> tuple[Callable[[int], object], float]:
    """What runs so many steps as one call, and how long it took to compile."""
    config = replace(Config(), task=task)
    method = make_method(config, make_spec(config, dataset))
    inputs, keys = method.prepare(make_inputs(dataset, numbering=by_degree(dataset))), make_keys(0)
    loop = make_loop(method, config.batch_size)
    progress = loop.begin(jax.jit(method.init)(keys.init), inputs, keys)
    drawn = jax.jit(loop.order)(inputs, keys, jnp.int32(0))
    start = time.perf_counter()
    segment = jax.jit(loop.segment, donate_argnums=0).lower(progress, drawn, inputs, keys, jnp.int32(0)).compile()
    compile_seconds = time.perf_counter() - start
    at = [progress]

    def run(steps: int) -> object:
        at[0] = segment(at[0], drawn, inputs, keys, at[0].state.step + jnp.int32(steps))
        return at[0].means

    return run, compile_seconds


def steps_a_call(run: Callable[[int], object]) -> int:
    """How many training takes at a time."""
    jax.block_until_ready(run(1))  # nothing is cold
    start = time.perf_counter()
    jax.block_until_ready(run(1))
    return max(1, int(SEGMENT_SECONDS / (time.perf_counter() - start)))
