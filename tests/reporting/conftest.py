"""Finished runs for reports, whose parameters are random: reports read runs, and training takes long to compile."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from slmrec_jax.training.steps import Steps

from slmrec_jax.training import numbering, run
from slmrec_jax.training.loop import Means, Progress, no_steps
from slmrec_jax.training.memory import Memory


@pytest.fixture(scope="module")
def untrained():
    """Let `train` write complete run folders without compiling or taking a step."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(run, "compile_steps", _no_programs)
        patch.setattr(run, "estimate", lambda *arguments: Memory(*[0] * len(Memory._fields)))
        yield


def _no_programs(method, inputs, config):
    def skip(progress, step, stop, rollbacks):
        losses = dict.fromkeys(("loss", "main"), jnp.float32(1 / stop))
        return Progress(progress.state.replace(step=jnp.int32(stop)), Means(losses, jnp.int32(1)))

    def on(inputs):
        return Steps(
            per_epoch=1,
            shapes=None,
            init=lambda: Progress(method.init(jax.random.key(config.seed)), no_steps(("loss", "main"))),
            begin=None,
            run=skip,
            batch=None,
            embed=lambda state: numbering.embed(method, state, inputs),
        )

    return SimpleNamespace(on=on, compile_seconds=0.0)
