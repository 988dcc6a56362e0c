import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from slmrec_jax import UserError, setup
from slmrec_jax.config import Config, with_protocol
from slmrec_jax.objectives.sampling import LARGEST_ORDER, Sizes
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.loop import epoch, make_keys, make_loop
from slmrec_jax.training.selection import best_epoch, check_epochs, finished, improves
from slmrec_jax.types import Method

pytestmark = pytest.mark.usefixtures("optax_promotion")


def recording_method(num_negatives):
    """A method whose metrics show what it was given; its state counts."""

    def init(key):
        state = TrainState.create(apply_fn=None, params={"x": jnp.zeros(())}, tx=optax.sgd(1.0))
        return state.replace(step=jnp.int32(0))

    def step(state, inputs, batch):
        metrics = {"real": jnp.mean(batch.mask, dtype=jnp.float32), "key": jax.random.uniform(batch.key)}
        metrics["negatives"] = jnp.sum(batch.negatives).astype(jnp.float32)
        metrics["first"] = batch.users[0] * 1.0
        return state.replace(step=state.step + 1, params={"x": state.params["x"] + 1}), metrics

    return Method(init, step, None, num_negatives=num_negatives)


def recorded(tiny, num_negatives, batch_size):
    """The loop of a recording method, its inputs, and an epoch as one compiled function of progress and keys."""
    inputs = make_inputs(tiny)
    loop = make_loop(recording_method(num_negatives), inputs, Sizes(batch_size))
    run = jax.jit(lambda progress, keys: epoch(loop, progress, inputs, keys))
    return loop, run


def test_means_weigh_interactions_not_steps(tiny):
    count = len(tiny.train.users)
    size = count - 1
    loop, run = recorded(tiny, 0, size)
    means = run(loop.init(make_keys(0)), make_keys(0)).means
    np.testing.assert_allclose(means.values["real"], ((count - 1) * 1 + 1 * (1 / size)) / count, rtol=1e-5)
    assert means.rows == count


def test_steps_draw_different_keys_and_negatives_and_means_restart(tiny):
    loop, run = recorded(tiny, 3, len(tiny.train.users))
    first = run(loop.init(make_keys(0)), make_keys(0))
    second = run(first, make_keys(0))
    assert first.means.rows == second.means.rows == len(tiny.train.users)
    for name in ("key", "negatives"):
        assert first.means.values[name] != second.means.values[name]


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch(tiny):
    loop, run = recorded(tiny, 1, 100)
    seen = []
    for seed, step in ((0, 0), (0, 0), (0, loop.steps_per_epoch), (1, 0)):
        start = loop.init(make_keys(0))
        start = start._replace(state=start.state.replace(step=jnp.int32(step)))
        seen.append(float(run(start, make_keys(seed)).means.values["first"]))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def cut(made, stops):
    """An epoch in parts that end at these steps."""
    loop, inputs, keys = made.loop, made.inputs, made.keys()
    progress, drawn, step = loop.init(keys), loop.order(inputs, keys, jnp.int32(0)), 0
    run = jax.jit(loop.run)
    for stop in stops:
        progress = run(progress, drawn, inputs, keys, jnp.int32(stop - step))
        step = stop
    assert run._cache_size() == 1
    return progress


@pytest.mark.parametrize(
    ("sampling", "micro_batches", "largest_order"),
    [
        ("interactions", 1, LARGEST_ORDER),
        ("users", 1, LARGEST_ORDER),
        ("interactions", 2, 0),
        pytest.param("users", 2, LARGEST_ORDER, marks=pytest.mark.slow),
    ],
)
def test_the_bits_do_not_depend_on_where_an_epoch_is_cut(tiny, sampling, micro_batches, largest_order, monkeypatch):
    from slmrec_jax.methods import make_method

    monkeypatch.setattr("slmrec_jax.objectives.sampling.LARGEST_ORDER", largest_order)

    def method(config, spec):
        return make_method(config, spec)._replace(sampling=sampling)

    config = Config(dim=8, batch_size=64 // micro_batches, micro_batches=micro_batches, model="mf")
    made = setup(config, tiny, method=method)
    steps = made.loop.steps_per_epoch
    assert steps > 4
    whole = cut(made, [steps])
    for stops in (range(1, steps + 1), [3, 4, steps], [steps - 1, steps]):
        jax.tree.map(np.testing.assert_array_equal, cut(made, stops), whole)


def test_a_rollback_draws_order_and_steps_differently():
    keys, once, twice = make_keys(3), make_keys(3, 1), make_keys(3, 2)
    assert len({str(jax.random.key_data(each.step)) for each in (keys, once, twice)}) == 3
    assert len({str(jax.random.key_data(each.order)) for each in (keys, once, twice)}) == 3
    assert keys.init == once.init


@pytest.mark.slow
def test_training_lowers_the_loss(tiny):
    config = Config(dim=16, batch_size=128, optimizer=dataclasses.replace(Config().optimizer, learning_rate=1e-2))
    made = setup(config, tiny)
    keys, values = made.keys(), []
    run = jax.jit(lambda progress, inputs: epoch(made.loop, progress, inputs, keys), donate_argnums=0)
    progress = made.loop.init(keys)
    for _ in range(6):
        progress = run(progress, made.inputs)
        values.append(float(progress.means.values["loss"]))
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.9 * values[0]


def history_of(values, protocol):
    """Records of epochs with these selecting values; None is an epoch that is not evaluated."""
    history = []
    for number, value in enumerate(values, 1):
        selected = {} if value is None else {"recall@20": value}
        improved = improves(history, number, selected, protocol)
        history.append({"epoch": number, "selected": selected, "improved": improved})
    return history


def test_early_stopping_waits_for_the_patience():
    protocol = with_protocol(Config(), "strict").eval._replace(patience=2)
    values = [0.1, 0.3, 0.3, 0.2, 0.25]
    assert not finished(history_of(values[:4], protocol), protocol)
    assert finished(history_of(values, protocol), protocol)
    assert best_epoch(history_of(values, protocol)) == 2


def test_rounding_makes_an_equal_value_no_improvement():
    values = [0.10001, 0.10004, 0.10006]
    exact, rounded = (with_protocol(Config(), name).eval for name in ("strict", "mmrec"))
    assert best_epoch(history_of(values, exact)) == 3
    assert best_epoch(history_of(values[:2], rounded)) == 1
    assert best_epoch(history_of(values, rounded)) == 3


def test_the_first_epoch_may_not_count():
    protocol = with_protocol(Config(), "slmrec").eval
    assert best_epoch(history_of([0.9, 0.1], protocol)) == 2
    assert best_epoch(history_of([0.9], protocol)) == 0


@pytest.mark.parametrize(("every", "first"), [(1, 2), (3, 4)])
def test_training_goes_on_until_an_epoch_can_count(every, first):
    protocol = with_protocol(Config(), "slmrec").eval._replace(patience=0, evaluate_every=every)
    values = [0.9, *[None] * (every - 1), 0.1]
    assert not any(finished(history_of(values[:epochs], protocol), protocol) for epochs in range(first + 1))
    assert best_epoch(history_of(values, protocol)) == first
    assert finished(history_of([*values, *[None] * (every - 1), 0.1], protocol), protocol)
    check_epochs(Config(epochs=first, eval=protocol))
    with pytest.raises(UserError, match=f"epochs={first - 1} is too few: .* give epochs at least {first}$"):
        check_epochs(Config(epochs=first - 1, eval=protocol))
    check_epochs(Config(epochs=1, eval=protocol._replace(metric=None)))


def test_epochs_that_are_not_evaluated_neither_improve_nor_stop():
    protocol = with_protocol(Config(), "strict").eval._replace(patience=1)
    history = history_of([0.2, None, None, None], protocol)
    assert best_epoch(history) == 1
    assert not finished(history, protocol)


def test_a_protocol_without_selection_keeps_the_last_epoch():
    protocol = with_protocol(Config(), "lightgcn").eval
    history = history_of([None, None], protocol)
    assert best_epoch(history) == 2
    assert not finished(history, protocol)
