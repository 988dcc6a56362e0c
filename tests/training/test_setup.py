"""The public setup: what a notebook or a benchmark trains with, step by step."""

import dataclasses
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax import Config, setup, train
from slmrec_jax.config import BASE
from slmrec_jax.errors import UserError
from slmrec_jax.methods import make_method
from slmrec_jax.methods.micro_batches import LEAST_STEPS, choose_micro_batches
from slmrec_jax.models.work import slmrec_work
from slmrec_jax.training.loop import epoch
from slmrec_jax.training.setup import outline
from slmrec_jax.types import Batch, Method, Modality, Spec, Work

pytestmark = pytest.mark.usefixtures("optax_promotion")

CONFIG = Config(model="mf", dim=8, batch_size=128)


@pytest.fixture(scope="module")
def made(tiny):
    with jax.numpy_dtype_promotion("standard"):
        return setup(CONFIG, tiny)


def test_steps_by_hand_are_an_epoch_of_the_loop(made, tiny):
    """The batches are those that training draws, and a step is what training takes."""
    step = jax.jit(made.step)
    state, seen = made.init(), []
    for number in range(made.loop.steps_per_epoch):
        batch = made.batch(number)
        seen.extend(zip(batch.users[batch.mask].tolist(), batch.items[batch.mask].tolist(), strict=True))
        state, _ = step(state, made.inputs, batch)
    assert sorted(seen) == sorted(zip(tiny.train.users.tolist(), tiny.train.items.tolist(), strict=True))
    start = made.loop.init(made.keys())
    run = jax.jit(partial(epoch, made.loop))
    after = run(start, made.inputs, made.keys()).state
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state, after)


def test_a_batch_is_the_same_under_jit(made):
    for number in (0, made.steps_per_epoch, 1):
        jax.tree.map(np.testing.assert_array_equal, jax.jit(made.batch)(number)[:3], made.batch(number)[:3])


def test_an_outline_has_no_batches(tiny):
    with pytest.raises(ValueError, match="pass it through with_inputs"):
        outline(CONFIG, tiny).batch(0)


def test_the_loss_is_what_a_step_reports(made):
    state, batch = made.init(), made.batch(0)
    value, parts = made.loss(state.params, made.inputs, batch)
    metrics = made.step(state, made.inputs, batch)[1]
    np.testing.assert_allclose(value, metrics["loss"], rtol=1e-6)
    assert set(metrics) == {"loss", *parts}


def test_a_method_without_one_loss_says_so(made):
    without = made._replace(method=made.method._replace(loss=None))
    with pytest.raises(ValueError, match="mf does not minimise a single function"):
        without.loss(made.init().params, made.inputs, made.batch(0))


def test_embeddings_score_by_the_ids_of_the_data_set(made, tiny):
    embeddings = made.embed(made.init(), made.inputs)
    assert (len(embeddings.users), len(embeddings.items)) == (tiny.num_users, tiny.num_items)


@pytest.mark.parametrize(
    ("precision", "stated"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")]
)
def test_precision_is_stated_in_every_dense_product_of_the_objective(tiny, precision, stated):
    made = setup(dataclasses.replace(CONFIG, model="slmrec", precision=precision), tiny)
    state, batch = jax.eval_shape(made.init), jax.eval_shape(made.batch, 0)
    text = str(jax.make_jaxpr(jax.grad(made.loss, has_aux=True))(state.params, made.inputs, batch))
    found = re.findall(r"precision=(.*)", text)
    assert len(found) == len(re.findall(r"(?<!_)dot_general\[", text)) > 10
    assert all(re.search(rf"\b{stated}\b", each) for each in found), set(found)


@pytest.mark.slow
def test_a_step_and_the_ranking_do_not_depend_on_the_numbering(tiny):
    """One step from the same rows with the same batch, by shuffled ids and by falling degree."""
    from slmrec_jax.data.dataset import take_rows

    rng = np.random.default_rng(0)
    users, items = (rng.permutation(count).astype(np.int32) for count in (tiny.num_users, tiny.num_items))
    shuffled = take_rows(tiny, users, items)  # the row of a user u of `shuffled` is users[u] of `tiny`
    config = dataclasses.replace(CONFIG, model="slmrec", task="fm")
    first, other = setup(config, tiny), setup(config, shuffled)
    batch = first.batch(0)
    places = [np.argsort(order) for order in (users, items)]
    moved = Batch(
        *(jnp.asarray(place[ids], jnp.int32) for place, ids in zip(places, (batch.users, batch.items), strict=True)),
        batch.mask,
        jnp.asarray(places[1][batch.negatives], jnp.int32),
        batch.key,
    )
    state = first.init()
    model = dict(state.params["model"])
    model |= {"user": model["user"][users], "item": model["item"][items]}
    moved_state = state.replace(params={**state.params, "model": model})
    after, metrics = jax.jit(first.step)(state, first.inputs, batch)
    moved_after, moved_metrics = jax.jit(other.step)(moved_state, other.inputs, moved)
    for name, value in metrics.items():
        np.testing.assert_allclose(moved_metrics[name], value, rtol=1e-5)
    found, expected = other.embed(moved_after, other.inputs), first.embed(after, first.inputs)
    for ours, theirs, order in zip(found, expected, (users, items), strict=True):
        # Adam's first step is the gradient's sign, which rounding may turn where the gradient is nearly zero.
        assert np.mean(np.abs(np.asarray(ours) - np.asarray(theirs)[order]) > 1e-5) < 0.02


def test_stale_embeddings_are_those_before_the_last_step_of_an_epoch(tiny):
    config = dataclasses.replace(CONFIG, batch_size=len(tiny.train.users) // 2 + 1)
    stale = dataclasses.replace(config, eval=config.eval._replace(stale_embeddings=True))
    plain, wrapped = setup(config, tiny), setup(stale, tiny)
    assert plain.loop.steps_per_epoch == 2
    step, wrapped_step = (jax.jit(each.step) for each in (plain, wrapped))
    state, wrapped_state = plain.init(), wrapped.init()
    for number in range(4):
        before = plain.embed(state, plain.inputs)
        state, _ = step(state, plain.inputs, plain.batch(number))
        wrapped_state, _ = wrapped_step(wrapped_state, wrapped.inputs, wrapped.batch(number))
        expected = before if number % 2 else plain.embed(state, plain.inputs)
        found = wrapped.embed(wrapped_state, wrapped.inputs)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)
    # A skipped step changes only the count: the embeddings are the current ones.
    skipped = wrapped_state.replace(step=wrapped_state.step + 1)
    current = plain.embed(state, plain.inputs)
    found = wrapped.embed(skipped, wrapped.inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, current)


def test_a_method_of_ones_own_gets_the_precision_and_the_numbering(tiny, tmp_path):
    seen = []

    def method(config, spec):
        seen.append((config.optimizer.learning_rate, spec.num_users))
        return make_method(config, spec)

    train(dataclasses.replace(CONFIG, epochs=1), tiny, out=tmp_path / "run", method=method)
    assert seen == [(BASE[CONFIG.model]["optimizer.learning_rate"], tiny.num_users)]


def test_auto_takes_as_many_micro_batches_as_make_propagation_a_fifth(tiny):
    made = setup(Config(dim=8, batch_size=4, micro_batches="auto"), tiny)
    sizes = made.config.micro_batches, made.steps_per_epoch
    assert isinstance(sizes[0], int)
    (line,) = [note for note in made.method.notes if note.startswith("micro-batches: ")]
    assert line.startswith(
        f"micro-batches: {sizes[0]}, {sizes[1]} steps per pass; their shared work, such as propagation, is about "
    )
    assert sizes[1] >= LEAST_STEPS
    again = setup(made.config, tiny)
    assert (again.config.micro_batches, again.steps_per_epoch) == sizes


@pytest.mark.parametrize(
    ("work", "expected"),
    [(Work(1.0, 4.0), 1), (Work(1.0, 3.9), 2), (Work(1000.0, 1.0), 100), (Work(1.0, 0.0), 100), (None, 100)],
)
def test_the_number_of_micro_batches(work, expected):
    method = Method(None, None, None, work=work)
    chosen, reason = choose_micro_batches(method, 100 * 10 * LEAST_STEPS, 10)
    assert chosen == expected
    assert reason.startswith(f"{expected}, ")
    assert choose_micro_batches(method, 1, 10)[0] == 1


def test_a_method_of_ones_own_that_takes_one_batch_a_step(tiny):
    def method(config, spec):
        return make_method(config, spec)._replace(micro_batches=False)

    for given in (2, "auto"):
        with pytest.raises(UserError, match=f"micro_batches={given!r}: the method takes one batch per step"):
            setup(Config(micro_batches=given), tiny, method=method)
    assert setup(Config(), tiny, method=method).config.micro_batches == 1


def test_an_epoch_of_many_steps_is_advised_to_take_micro_batches(tiny, monkeypatch):
    monkeypatch.setattr("slmrec_jax.training.setup.MANY_STEPS", 100)
    few, many = (setup(Config(model="mf", batch_size=size), tiny) for size in (64, 1))
    assert not any("micro_batches" in note for note in few.method.notes)
    assert any("computes over all users and items; micro_batches='auto'" in note for note in many.method.notes)

    def one_batch_alone(config, spec):
        if config.num_micro_batches > 1:
            raise UserError("a step takes one batch")
        return make_method(config, spec)

    refusing = setup(Config(model="mf", batch_size=1), tiny, method=one_batch_alone)
    assert not any("micro_batches" in note for note in refusing.method.notes)


def test_more_micro_batches_than_batches_are_as_many_as_there_are(tiny):
    made = setup(Config(model="mf", batch_size=200, micro_batches=50), tiny)
    assert made.config.micro_batches == math.ceil(len(tiny.train.users) / 200) > 1
    assert made.steps_per_epoch == 1
    assert any("because a pass over the interactions has no more batches" in note for note in made.method.notes)


def test_words_count_by_their_vectors_and_not_by_the_vocabulary():
    sizes = {"num_users": 100, "num_items": 1000, "num_interactions": 5000, "dim": 8}
    of = {
        name: slmrec_work(Config(), Spec(**sizes, modalities={"textual": modality}), cached=())
        for name, modality in {"words": Modality(50_000, words=True), "vectors": Modality(128)}.items()
    }
    assert of["words"] == of["vectors"]
