"""BM3's loss against NumPy, for items with and without a modality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.rows import distinct_ids
from slmrec_jax.models.bm3 import bm3, bootstrap_agreement
from slmrec_jax.types import ALL, NO_AUGMENTATION, Batch, Context, DenseFeature, Inputs, Interactions, Modality, Spec

NUM_USERS, NUM_ITEMS, DIM, COLUMNS = 5, 6, 4, 3
PRESENT = np.array([1, 1, 0, 1, 0, 1], np.float32)
WEIGHT = 1.7


@pytest.fixture(scope="module")
def problem():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(NUM_ITEMS, COLUMNS)).astype(np.float32) * PRESENT[:, None]
    edges = Interactions(np.array([0, 0, 1, 2, 3, 4, 4], np.int32), np.array([0, 2, 1, 3, 4, 5, 0], np.int32))
    spec = Spec(NUM_USERS, NUM_ITEMS, len(edges.users), DIM, {"visual": Modality(COLUMNS)})
    model = bm3(spec, num_layers=1)
    graph = build_graph(edges, NUM_USERS, NUM_ITEMS)
    features = {"visual": DenseFeature(jnp.asarray(values), jnp.asarray(PRESENT))}
    params = model.init(jax.random.key(1))
    params["modalities"]["visual"]["change"] += 0.3  # as after some steps
    return model, params, model.prepare(Inputs(graph, features))


def context_of(model, params, inputs, users, items):
    users, items, mask = jnp.asarray(users), jnp.asarray(items), jnp.ones(len(users), bool)
    encode = model.encode(params, inputs)
    return Context(
        view=encode(NO_AUGMENTATION, jax.random.key(0)),
        batch=Batch(users, items, mask, jnp.zeros((len(users), 0), jnp.int32), jax.random.key(0)),
        users=distinct_ids(users, mask, NUM_USERS),
        items=distinct_ids(items, mask, NUM_ITEMS),
        encode=encode,
        inputs=inputs,
        model_params=params,
        key=jax.random.key(0),
        negatives=jnp.zeros(0, jnp.int32),
    )


def distance(predicted, target):
    return 1 - np.sum(predicted * target, axis=1) / np.linalg.norm(predicted, axis=1) / np.linalg.norm(target, axis=1)


def test_the_loss_is_the_mean_of_its_terms(problem):
    """Items 2 and 4 lack the modality, and only they have no terms of it."""
    users, items = np.array([0, 0, 1, 3]), np.array([0, 2, 1, 4])
    context = context_of(*problem, users, items)
    value, parts = bootstrap_agreement(WEIGHT, dropout_rate=0.0).apply({}, context)

    def float64(x):
        return np.asarray(x, np.float64)

    view, predictor = context.view, jax.tree.map(float64, problem[1]["predictor"])
    u, i = float64(view.user_modalities["id"](ALL))[users], float64(view.item_modalities["id"](ALL))[items]
    x = float64(view.item_modalities["visual"](ALL))[items]
    assert not x[PRESENT[items] == 0].any()

    def predicted(rows):
        return rows @ predictor["kernel"] + predictor["bias"]

    alignment = distance(predicted(u), i) + distance(predicted(i), u)
    there = PRESENT[items] > 0
    contrast = np.sum(distance(predicted(x), i)[there] + distance(predicted(x[there]), x[there])) / len(items)
    np.testing.assert_allclose(parts["contrast"], contrast, rtol=1e-5)
    np.testing.assert_allclose(value, alignment.mean() + WEIGHT * contrast, rtol=1e-5)


@pytest.mark.slow
def test_features_change_only_where_there_are_any(problem):
    model, params, inputs = problem

    def loss(params):
        return bootstrap_agreement().apply(
            {}, context_of(model, params, inputs, np.arange(NUM_USERS), np.arange(NUM_USERS))
        )[0]

    moved = np.any(np.asarray(jax.grad(loss)(params)["modalities"]["visual"]["change"]) != 0, axis=1)
    np.testing.assert_array_equal(moved, (PRESENT > 0) & (np.arange(NUM_ITEMS) < NUM_USERS))


def test_targets_are_dropped_by_the_steps_key(problem):
    context = context_of(*problem, np.arange(4), np.arange(4))
    drawn = [
        bootstrap_agreement(dropout_rate=0.5).apply({}, context._replace(key=jax.random.key(seed)))[0]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
