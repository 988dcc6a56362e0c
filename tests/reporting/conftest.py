"""Finished runs with random parameters: reports only read runs, and training takes long to compile."""

import jax
import jax.numpy as jnp
import pytest

from slmrec_jax.training import train
from slmrec_jax.training.loop import Means, Progress, zero_means
from slmrec_jax.training.memory import Memory

LOSSES = ("loss", "main")


@pytest.fixture(scope="module")
def untrained():
    """Let `train` write complete run folders without compiling or taking a step."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(train, "compiled", _without_steps)
        patch.setattr(train, "estimate_within", lambda *arguments: (Memory(*[0] * len(Memory._fields)), True))
        yield


def _without_steps(planned):
    def skip(progress, drawn, inputs, keys, num_steps):
        state = progress.state.replace(step=progress.state.step + num_steps)
        return Progress(state, Means(dict.fromkeys(LOSSES, 1 / jnp.float32(state.step)), jnp.int32(1)))

    loop = planned.loop._replace(
        init=lambda keys: Progress(planned.method.init(keys.init), zero_means(LOSSES)),
        order=lambda *arguments: None,
        run=skip,
    )
    return planned._replace(loop=loop)
