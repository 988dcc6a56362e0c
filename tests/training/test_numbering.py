"""Renumbered by degree, a system is the same system."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax import Config
from slmrec_jax.data.dataset import Words
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.methods import make_method
from slmrec_jax.objectives.sampling import uniform
from slmrec_jax.training import numbering
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.types import Batch

pytestmark = pytest.mark.usefixtures("optax_promotion")

KEY = jax.random.key(5)


@pytest.mark.parametrize("task", ["fac", "fm"])
def test_a_step_and_the_ranking_are_those_of_the_given_ids(tiny, task):
    """One step from the same rows with the same batch, by the data set's ids and by others."""
    config = dataclasses.replace(Config(), dim=8, task=task)
    method = make_method(config, make_spec(config, tiny))
    plain = method.prepare(make_inputs(tiny))
    places = numbering.by_degree(tiny)
    other = method.prepare(make_inputs(tiny, numbering=places))
    state = method.init(KEY)
    users, items = (x[::3] for x in plain.graph.interactions)
    negatives = uniform(plain.graph)(users, items, KEY, method.num_negatives)
    batch = Batch(users, items, jnp.ones(users.shape, bool), negatives, KEY)
    moved = Batch(places.users[users], places.items[items], batch.mask, places.items[negatives], KEY)
    by_id, metrics = jax.jit(method.step)(state, plain, batch)
    by_degree, moved_metrics = jax.jit(method.step)(renumbered(state, places), other, moved)
    for name, value in metrics.items():
        np.testing.assert_allclose(moved_metrics[name], value, rtol=1e-5)
    found = numbering.embed(method, by_degree, other)
    for ours, theirs in zip(found, method.embed(by_id, plain), strict=True):
        # Adam's first step is the gradient's sign, which rounding may turn where the gradient is nearly zero.
        assert np.mean(np.abs(np.asarray(ours) - np.asarray(theirs)) > 1e-5) < 0.02
    for given, expected in zip(numbering.given(moved, places)[:4], batch[:4], strict=True):
        np.testing.assert_array_equal(given, expected)


def test_the_nodes_with_most_interactions_come_first(tiny):
    places = numbering.by_degree(tiny)
    for rank, ends, count in (
        (places.users, tiny.train.users, tiny.num_users),
        (places.items, tiny.train.items, tiny.num_items),
    ):
        degrees = np.bincount(ends, minlength=count)[np.argsort(rank)]
        assert (np.diff(degrees) <= 0).all()
        np.testing.assert_array_equal(np.sort(rank), np.arange(count))


def test_what_an_item_brings_along_moves_with_it(tiny):
    """Vectors, which of them are there, and words: each row stands at its item's new place."""
    rng = np.random.default_rng(3)
    words = Words(rng.integers(tiny.num_items, size=200), rng.integers(9, size=200), 9)
    dataset = dataclasses.replace(tiny, features={"visual": tiny.features["visual"], "words": words})
    places = numbering.by_degree(dataset)
    assert (places.items != np.arange(tiny.num_items)).sum() > tiny.num_items / 2
    plain, moved = make_inputs(dataset).features, make_inputs(dataset, numbering=places).features
    assert 0 < plain["visual"].present.sum() < tiny.num_items
    for given, found in zip(plain["visual"], moved["visual"], strict=True):
        np.testing.assert_array_equal(found[places.items], given)
    given, found = (np.asarray(matmul(features["words"], jnp.eye(9))) for features in (plain, moved))
    assert len(np.unique(given, axis=0)) > tiny.num_items / 2
    np.testing.assert_array_equal(found[places.items], given)


def renumbered(state, places):
    """The same rows in their new places."""
    params = state.params
    model = dict(params["model"])
    for name, order in (("user", places.users), ("item", places.items)):
        model[name] = model[name][jnp.argsort(order)]
    return state.replace(params={**params, "model": model})
