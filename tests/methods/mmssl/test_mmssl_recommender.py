"""MMSSL's recommender: attention, id propagation, similarity rows and the contrast between views."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mmssl_problem import DIM, NUM_ITEMS, NUM_USERS, SPEC, normal

from slmrec_jax.config import MMSSLConfig
from slmrec_jax.encoding.rows import distinct_ids
from slmrec_jax.methods.mmssl.graphs import empty_graph, interaction_rows
from slmrec_jax.methods.mmssl.method import cross_view
from slmrec_jax.methods.mmssl.recommender import (
    collapsed_attention,
    cross_modal_attention,
    mmssl,
    no_dropout,
    propagate_ids,
    similarity_rows,
)
from slmrec_jax.types import Modality


def test_cross_modal_attention_is_its_definition():
    heads, views = 2, normal(0, 3, 7, DIM)
    params = {name: normal(n, DIM, DIM) for n, name in enumerate(("query", "key", "value", "output"))}
    x = {name: np.asarray(views, np.float64) @ np.asarray(params[name]) for name in ("query", "key", "value")}
    expected = np.zeros((7, DIM))
    for node in range(7):
        for query in range(3):
            parts = []
            for head in (slice(0, 4), slice(4, 8)):
                scores = np.array([x["query"][query, node, head] @ x["key"][m, node, head] / 2 for m in range(3)])
                weights = np.exp(scores) / np.exp(scores).sum()
                parts.append(sum(w * x["value"][m, node, head] for m, w in enumerate(weights)))
            expected[node] += np.concatenate(parts) @ np.asarray(params["output"]) / 3

    @jax.jit
    def rows_and_gradients(params, views):
        gradients = jax.grad(lambda p: jnp.sum(jnp.square(cross_modal_attention(p, views, heads))))(params)
        return cross_modal_attention(params, views, heads), gradients

    found, gradients = rows_and_gradients(params, views)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert all(np.any(np.abs(g) > 1e-3) for g in gradients.values())


def attention_maps(spec, **options):
    """Return the names of the attention's parameters."""
    return set(jax.eval_shape(mmssl(spec, MMSSLConfig(**options)).init, jax.random.key(0))["attention"])


def test_the_published_attention_is_one_map():
    views, params = normal(0, 3, 7, DIM), {"heads": normal(1, 4, DIM, DIM)}
    expected = np.asarray(views).mean(0) @ np.asarray(params["heads"]).sum(0)
    np.testing.assert_allclose(collapsed_attention(params, views), expected, rtol=1e-4, atol=1e-4)
    assert attention_maps(SPEC, attention="collapsed") == {"heads"}


def test_one_modality_needs_no_attention_weights():
    alone = SPEC._replace(modalities={"visual": Modality(5)})
    assert attention_maps(alone) == {"value", "output"}
    assert attention_maps(SPEC) == {"query", "key", "value", "output"}


@pytest.mark.parametrize(("id_propagation", "reaches"), [("simultaneous", True), ("sequential", False)])
def test_user_ids_reach_items_only_if_propagation_is_simultaneous(given, id_propagation, reaches):
    model = mmssl(SPEC, MMSSLConfig(heads=2, id_propagation=id_propagation))

    @jax.jit
    def gradients(key, given):
        inputs, graphs = model.prepare(given), {name: empty_graph(NUM_USERS, NUM_ITEMS, 1) for name in SPEC.modalities}
        total = lambda params: jnp.sum(jnp.sin(model.encode(params, inputs, graphs, no_dropout).items))  # noqa: E731
        return jax.grad(total)(model.init(key))

    gradient = gradients(jax.random.key(0), given)
    assert np.any(gradient["user"]) == reaches
    assert np.any(gradient["item"])


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("last_softmax", [False, True])
def test_layers_of_ids(sequential, last_softmax):
    a, users, items = np.asarray(normal(0, 3, 4)), normal(1, 3, 2), normal(2, 4, 2)
    options = {"sequential": sequential, "last_softmax": last_softmax}
    found = jax.jit(lambda *ids: propagate_ids(*ids, lambda x: a @ x, lambda x: a.T @ x, 2, **options))(users, items)

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True) if last_softmax else x

    u0, i0 = np.asarray(users), np.asarray(items)
    u1 = a @ i0
    i1 = a.T @ (u1 if sequential else u0)
    u2 = softmax(a @ i1)
    i2 = softmax(a.T @ (u2 if sequential else u1))
    np.testing.assert_allclose(found[0], (u0 + u1 + u2) / 3, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], (i0 + i1 + i2) / 3, rtol=1e-4, atol=1e-5)


def test_similarity_rows_and_their_zeros(graph):
    users, items, ids = normal(0, 4, DIM), normal(1, NUM_ITEMS, DIM), jnp.arange(4)
    known = interaction_rows(graph, ids)
    for row in (similarity_rows(users, items, None), similarity_rows(users, items, 1.0 - known)):
        np.testing.assert_allclose(np.linalg.norm(row, axis=1), 1, rtol=1e-5)
    assert not np.any(np.asarray(row)[np.asarray(known) == 1])


def test_cross_view_is_its_definition_and_no_user_their_own_negative():
    z, h, tau = normal(0, 5, DIM), normal(1, 5, DIM), 0.3
    users, mask = jnp.asarray([4, 1, 4, 2, 0]), jnp.asarray([True, True, True, True, False])
    a, b = ((np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True))[np.asarray(users)] for x in (z, h))
    values = []
    for row in range(4):
        others = [c for c in range(4) if users[c] != users[row]]
        below = sum(np.exp(a[row] @ a[c] / tau) + np.exp(a[row] @ b[c] / tau) for c in others)
        positive = np.exp(a[row] @ b[row] / tau)
        values.append(-np.log(positive / (below + positive)))
    found = jax.jit(lambda z, h: cross_view(z, h, distinct_ids(users, mask, 5), tau))(z, h)
    np.testing.assert_allclose(found, np.mean(values), rtol=1e-5)


def test_without_edges_the_contrast_teaches_nothing():
    users, h = distinct_ids(jnp.arange(6), jnp.ones(6, bool), 6), normal(0, 6, DIM)
    value_and_gradients = jax.jit(jax.value_and_grad(cross_view, argnums=1), static_argnums=3)
    value, gradients = value_and_gradients(jnp.zeros((6, DIM)), h, users, 0.5)
    np.testing.assert_allclose(value, math.log(11), rtol=1e-6)
    np.testing.assert_allclose(gradients, 0, atol=1e-7)
    assert np.any(value_and_gradients(normal(1, 6, DIM), h, users, 0.5)[1])


@pytest.mark.slow
def test_modalities_keep_their_names_when_compiled(given):
    """Compiled functions receive dictionaries in the order of their keys, which is not that of the spec."""
    assert list(SPEC.modalities) != sorted(SPEC.modalities)
    model = mmssl(SPEC, MMSSLConfig(heads=2))
    graphs = {name: empty_graph(NUM_USERS, NUM_ITEMS, 1) for name in SPEC.modalities}

    def features(params, inputs):
        return model.encode(params, inputs, graphs, no_dropout).item_features

    params = model.init(jax.random.key(0))
    inputs = model.prepare(given)
    eager, compiled = features(params, inputs), jax.jit(features)(params, inputs)
    for name in SPEC.modalities:
        np.testing.assert_allclose(compiled[name], eager[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_views_of_weight_0_are_left_out(given):
    """The rows are those with a tiny weight, and the views are not computed."""

    def rows_of(view_weight):
        model = mmssl(SPEC, MMSSLConfig(heads=2, view_weight=view_weight))
        graphs = {name: empty_graph(NUM_USERS, NUM_ITEMS, 1) for name in SPEC.modalities}

        def rows(params, inputs):
            encoded = model.encode(params, inputs, graphs, no_dropout)
            return encoded.users, encoded.items

        params, inputs = model.init(jax.random.key(0)), model.prepare(given)
        lowered = jax.jit(rows).lower(params, inputs)
        return lowered.compile()(params, inputs), lowered.as_text().count("stablehlo.dot_general")

    (without, products), (tiny, more_products) = rows_of(0.0), rows_of(1e-20)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), without, tiny)
    assert products < more_products
