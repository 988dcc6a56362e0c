import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slmrec_jax.config import Config, with_protocol
from slmrec_jax.methods import make_method
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import make_epoch, make_keys, make_loop
from slmrec_jax.training.selection import best_epoch, finished, improves
from slmrec_jax.training.steps import compile_steps
from slmrec_jax.types import Method

pytestmark = pytest.mark.usefixtures("optax_promotion")


def recording_method(size):
    """A method whose metrics show what it was given; its state counts."""
    from flax.training.train_state import TrainState

    def init(key):
        state = TrainState.create(apply_fn=None, params={"x": jnp.zeros(())}, tx=optax.sgd(1.0))
        return state.replace(step=jnp.int32(0))

    def step(state, inputs, batch):
        metrics = {"real": jnp.mean(batch.mask, dtype=jnp.float32), "key": jax.random.uniform(batch.key)}
        metrics["negatives"] = jnp.sum(batch.negatives).astype(jnp.float32)
        return state.replace(step=state.step + 1, params={"x": state.params["x"] + 1}), metrics

    return Method(init, step, None, num_negatives=size)


def test_compiling_leaves_the_collector_as_it_was(tiny):
    method = recording_method(0)
    for was in (True, False):
        (gc.enable if was else gc.disable)()
        try:
            with pytest.raises(TypeError, match="not callable"):  # no `embed`, which comes to light last
                compile_steps(method, make_inputs(tiny), Config(batch_size=64))
            assert gc.isenabled() == was
        finally:
            gc.enable()


def test_means_weigh_interactions_not_steps(tiny):
    method, inputs, keys = recording_method(0), make_inputs(tiny), make_keys(0)
    count = len(tiny.train.users)
    size = count - 1
    epoch = make_epoch(method, size)(method.init(keys.init), inputs, keys)
    np.testing.assert_allclose(epoch.metrics["real"], ((count - 1) * 1 + 1 * (1 / size)) / count, rtol=1e-5)


def test_steps_draw_different_keys_and_negatives(tiny):
    method, inputs, keys = recording_method(3), make_inputs(tiny), make_keys(0)
    run = jax.jit(make_epoch(method, len(tiny.train.users)))
    first = run(method.init(keys.init), inputs, keys)
    second = run(first.state, inputs, keys)
    for name in ("key", "negatives"):
        assert first.metrics[name] != second.metrics[name]


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch(tiny):
    method, inputs, keys = recording_method(1), make_inputs(tiny), make_keys(0)
    seen = []
    method = method._replace(
        step=lambda state, inputs, batch: (state.replace(step=state.step + 1), {"first": batch.users[0] * 1.0})
    )
    steps = -(-len(tiny.train.users) // 100)
    for seed, step in ((0, 0), (0, 0), (0, steps), (1, 0)):
        state = method.init(keys.init).replace(step=jnp.int32(step))
        seen.append(float(make_epoch(method, 100)(state, inputs, make_keys(seed)).metrics["first"]))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def cut(loop, stops, inputs, keys, state):
    """An epoch in stretches that end before these steps."""
    progress, drawn = loop.begin(state, inputs, keys), loop.order(inputs, keys, jnp.asarray(state.step))
    segment = jax.jit(loop.segment, compiler_options={"xla_backend_optimization_level": 0})
    for stop in stops:
        progress = segment(progress, drawn, inputs, keys, jnp.int32(stop))
    assert segment._cache_size() == 1
    return progress


@pytest.mark.parametrize("sampling", ["interactions", "users"])
def test_the_bits_do_not_depend_on_where_an_epoch_is_cut(tiny, sampling):
    config = Config(dim=8, batch_size=64, model="mf")
    method = make_method(config, make_spec(config, tiny))._replace(sampling=sampling)
    inputs, keys = method.prepare(make_inputs(tiny)), make_keys(0)
    loop, state = make_loop(method, config.batch_size), method.init(keys.init)
    steps = loop.num_steps(inputs)
    assert steps > 4
    whole = cut(loop, [steps], inputs, keys, state)
    for stops in (range(1, steps + 1), [3, 4, steps], [steps - 1, steps]):
        jax.tree.map(np.testing.assert_array_equal, cut(loop, stops, inputs, keys, state), whole)


def test_a_rollback_draws_order_and_steps_anew():
    keys, anew, again = make_keys(3), make_keys(3, 1), make_keys(3, 2)
    assert len({str(jax.random.key_data(each.step)) for each in (keys, anew, again)}) == 3
    assert len({str(jax.random.key_data(each.order)) for each in (keys, anew, again)}) == 3
    assert keys.init == anew.init


def test_training_lowers_the_loss(tiny):
    config = Config(dim=16, batch_size=128, optimizer=dataclasses.replace(Config().optimizer, learning_rate=1e-2))
    method = make_method(config, make_spec(config, tiny))
    inputs, keys = method.prepare(make_inputs(tiny)), make_keys(0)
    run = jax.jit(make_epoch(method, config.batch_size), donate_argnums=0)
    state, values = method.init(keys.init), []
    for _ in range(6):
        state, metrics = run(state, inputs, keys)
        values.append(float(metrics["loss"]))
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
