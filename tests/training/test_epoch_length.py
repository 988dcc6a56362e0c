"""An epoch of any number of steps: where it is evaluated changes, and no bit of what is trained."""

import dataclasses
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState
from listeners import on_epoch

from slmrec_jax import Config, UserError, setup, train, with_protocol
from slmrec_jax.errors import Interrupted
from slmrec_jax.objectives.sampling import Sizes
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.loop import epoch, make_keys, make_loop
from slmrec_jax.training.small_data import batch_warnings
from slmrec_jax.types import Method

pytestmark = pytest.mark.usefixtures("cheap_runs", "optax_promotion")

STEPS = 8
"""The steps of a pass over the interactions."""


@pytest.fixture(scope="module")
def config(tiny):
    """Every epoch is evaluated, and the last one is kept."""
    size = math.ceil(len(tiny.train.users) / STEPS)
    made = with_protocol(Config(model="mf", dim=4, batch_size=size, epochs=3, ks=(5,)), "lightgcn")
    return dataclasses.replace(made, eval=made.eval._replace(evaluate_every=1))


@pytest.fixture(scope="module")
def whole(config, tiny, tmp_path_factory):
    """Three epochs, each a pass."""
    with jax.numpy_dtype_promotion("standard"):
        return train(config, tiny, out=tmp_path_factory.mktemp("whole") / "run")


def shorter(config, steps, epochs):
    return dataclasses.replace(config, steps_per_epoch=steps, epochs=epochs)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("steps", [3, pytest.param(4, marks=pytest.mark.slow), 12])
def test_the_length_of_an_epoch_changes_no_bit(config, whole, tiny, tmp_path, steps):
    run = train(shorter(config, steps, 3 * STEPS // steps), tiny, out=tmp_path / "run")
    assert [record["epoch"] for record in run.history] == list(range(1, 3 * STEPS // steps + 1))
    assert_equal(run.embeddings, whole.embeddings)
    assert run.history[-1]["metrics"] == whole.history[-1]["metrics"]


def test_a_run_stopped_within_a_pass_resumes_to_the_same_bits(config, whole, tiny, tmp_path):
    def stop(event):
        if event.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    short = shorter(config, 3, STEPS)
    with pytest.raises(Interrupted):
        train(short, tiny, out=tmp_path / "run", callbacks=[on_epoch(stop)])
    assert_equal(train(short, tiny, out=tmp_path / "run", resume=True).embeddings, whole.embeddings)
    with pytest.raises(UserError, match=r"steps_per_epoch"):
        train(shorter(config, 4, STEPS), tiny, out=tmp_path / "run", resume=True)


def recording():
    """A method whose state depends on the rows and the key of every step, in their order."""

    def init(key):
        return TrainState.create(apply_fn=None, params=jnp.float32(0), tx=optax.identity()).replace(step=jnp.int32(0))

    def step(state, inputs, batch):
        seen = jnp.sum(batch.users * batch.mask) / 100 + jax.random.uniform(batch.key)
        return state.replace(step=state.step + 1, params=state.params / 2 + seen), {"loss": seen}

    return Method(init, step, None)


def looped(config, tiny, steps):
    """The loop of a recording method, and an epoch of it as one compiled function."""
    inputs, keys = make_inputs(tiny), make_keys(0)
    loop = make_loop(recording(), inputs, Sizes(config.batch_size), steps_per_epoch=steps)
    return loop.init(keys), jax.jit(lambda progress: epoch(loop, progress, inputs, keys))


def test_losses_are_means_of_the_steps_of_an_epoch(config, tiny):
    progress, run = looped(config, tiny, 3)
    rows = []
    for _ in range(4):
        progress = run(progress)
        rows.append(int(progress.means.rows))
    padding = STEPS * config.batch_size - len(tiny.train.users)
    full = 3 * config.batch_size
    assert rows == [full, full, full - padding, full]  # the third epoch reaches into the second pass


@pytest.mark.parametrize("steps", [3, 4, 12, 16])
def test_an_epoch_as_one_function_takes_the_same_steps(config, tiny, steps):
    ends = []
    for length in (None, steps):
        progress, run = looped(config, tiny, length)
        for _ in range(48 // (length or STEPS)):
            progress = run(progress)
        ends.append(progress.state)
    assert ends[0].step == ends[1].step == 48
    assert ends[0].params == ends[1].params


def test_a_number_that_is_none_is_refused(config, tiny, tmp_path):
    with pytest.raises(UserError, match="steps_per_epoch"):
        train(shorter(config, 0, 1), tiny, out=tmp_path / "run")
    most = (2**31 - 1) // config.batch_size
    with pytest.raises(
        UserError, match=f"more than 2147483647 interactions, the most that can be counted; give at most {most}"
    ):
        train(shorter(config, most + 1, 1), tiny, out=tmp_path / "run")


def test_an_epoch_of_many_passes_is_a_loop(config, tiny):
    """Its program does not grow with their number."""
    sizes = []
    for passes in (2, 50):
        progress, run = looped(config, tiny, passes * STEPS)
        sizes.append(len(run.lower(progress).as_text()))
    assert sizes[1] < sizes[0] * 1.1


def test_few_steps_a_pass_are_no_doubt_where_an_epoch_has_its_own_number(config, tiny):
    made = setup(dataclasses.replace(config, batch_size=1000), tiny)
    assert any("which usually trains better" in line for line in batch_warnings(made.method, made.config, tiny))
    longer = dataclasses.replace(made.config, steps_per_epoch=100)
    assert not any("which usually trains better" in line for line in batch_warnings(made.method, longer, tiny))
