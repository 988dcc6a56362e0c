"""Steps that are timed are those of training: the same state as its loop reaches, across epochs."""

import jax
import numpy as np
import pytest

from slmrec_jax import Config, UserError
from slmrec_jax.training.loop import epoch
from slmrec_jax.training.timing import Steps, choose_steps_per_call, compiled_setup, time_steps

CONFIG = Config(model="mf", dim=4, batch_size=128)


@pytest.fixture(scope="module")
def made(tiny):
    with jax.numpy_dtype_promotion("standard"):
        return compiled_setup(CONFIG, tiny)


def test_steps_are_those_of_training(made):
    setup, seconds = made
    assert seconds > 0
    steps, per_epoch = Steps(setup), setup.steps_per_epoch
    for count in (1, per_epoch, per_epoch - 1):  # two epochs, cut at other places than training cuts
        steps(count)
    progress = setup.loop.init(setup.keys())
    for _ in range(2):
        progress = epoch(setup.loop, progress, setup.inputs, setup.keys())
    for ours, theirs in zip(*map(jax.tree.leaves, (steps.progress, progress)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert steps.interactions_per_step() == setup.inputs.graph.num_interactions / per_epoch


def test_a_call_takes_about_a_second_and_at_least_a_step(monkeypatch):
    taken = []
    assert choose_steps_per_call(taken.append) > 1
    assert taken == [1, 1]
    monkeypatch.setattr("slmrec_jax.training.timing.SEGMENT_SECONDS", 0.0)
    assert choose_steps_per_call(taken.append) == 1


def test_settings_are_checked_before_anything_is_compiled(tiny):
    with pytest.raises(UserError, match="dim"):
        time_steps(Config(model="mf", dim=0), tiny, 1)
