"""MMSSL's modality graphs: their products, and when and from what they are rebuilt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mmssl_problem import DIM, NUM_ITEMS, NUM_USERS, SPEC, dense, edges_of, normal, some_batch, some_rows, updated

from slmrec_jax.methods.mmssl import graphs as modality_graphs
from slmrec_jax.methods.mmssl.graph_updates import all_users, last_batches, mispaired
from slmrec_jax.methods.mmssl.graphs import (
    aggregate_items,
    aggregate_users,
    empty_graph,
    interaction_graph,
    interaction_rows,
    pad_graph,
    top_items,
)


def test_a_graph_divides_by_the_root_of_the_receivers_degree(graph):
    x, y = normal(0, NUM_ITEMS, DIM), normal(1, NUM_USERS, DIM)

    @jax.jit
    def products(graph, x, y):
        ours = interaction_graph(graph)
        made = ours, pad_graph(ours, 170), empty_graph(NUM_USERS, NUM_ITEMS, 10)
        return made, [(aggregate_items(each, x), aggregate_users(each, y)) for each in made]

    made, (*of_interactions, of_nothing) = products(graph, x, y)
    assert [each.entries.matrix.columns.shape[0] for each in made] == [150, 170, 10]
    ones = dense(graph)
    of_users, of_items = (
        np.where(d > 0, 1 / np.sqrt(np.maximum(d, 1)), 0)[:, None] for d in (ones.sum(1), ones.sum(0))
    )
    for to_users, to_items in of_interactions:
        np.testing.assert_allclose(to_users, of_users * (ones @ np.asarray(x)), atol=1e-5)
        np.testing.assert_allclose(to_items, of_items * (ones.T @ np.asarray(y)), atol=1e-5)
    assert not any(np.any(rows) for rows in of_nothing)


def test_the_interactions_of_a_repeated_user(graph):
    ids = jnp.asarray([4, 2, 4, 22], jnp.int32)
    np.testing.assert_array_equal(interaction_rows(graph, ids), dense(graph)[np.asarray(ids)])


@pytest.mark.parametrize("mask_training", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 23])
def test_nearest_items_do_not_depend_on_chunks(graph, monkeypatch, mask_training, chunk):
    monkeypatch.setattr(modality_graphs, "MAX_SCORE_BYTES", 4 * NUM_ITEMS * chunk)
    users, items, ids = normal(0, NUM_USERS, DIM), normal(1, NUM_ITEMS, DIM), jnp.arange(NUM_USERS)
    scores = np.asarray(users) @ np.asarray(items).T * (1 - dense(graph) * mask_training)
    found = jax.jit(lambda *given: top_items(*given, 4, mask_training=mask_training))(graph, users, items, ids)
    np.testing.assert_array_equal(found, np.argsort(-scores, axis=1, kind="stable")[:, :4])


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_the_graph_of_all_users_is_rebuilt_when_due(graph, similarity):
    updates, encoded, old = all_users(SPEC, 2, 3, similarity=similarity, mask_training=False), some_rows(), {}
    old = {name: pad_graph(interaction_graph(graph), updates.capacity) for name in SPEC.modalities}
    update = jax.jit(lambda step: updated(updates, step, old, (), graph, some_batch(), encoded)[0])
    for step in (0, 1, 3):
        jax.tree.map(np.testing.assert_array_equal, update(jnp.int32(step)), old)
    for name, made in update(jnp.int32(2)).items():
        scores = np.asarray(encoded.user_features[name]) @ np.asarray(encoded.item_features[name]).T
        if similarity == "cosine":
            scores = scores / np.linalg.norm(encoded.item_features[name], axis=1)[None, :]
        best = np.argsort(-scores, axis=1)[:, :2]
        expected = np.zeros((NUM_USERS, NUM_ITEMS))
        np.put_along_axis(expected, best, 1 / np.sqrt(2), axis=1)
        np.testing.assert_allclose(aggregate_items(made, jnp.eye(NUM_ITEMS)), expected, atol=1e-6)


def test_a_user_with_a_row_of_zeros_gets_no_edges(graph):
    updates, encoded = all_users(SPEC, 2, 1, similarity="cosine", mask_training=False), some_rows()
    encoded = encoded._replace(
        user_features={name: rows.at[7].set(0.0) for name, rows in encoded.user_features.items()}
    )
    old = {name: pad_graph(interaction_graph(graph), updates.capacity) for name in SPEC.modalities}
    update = jax.jit(lambda step: updated(updates, step, old, (), graph, some_batch(), encoded)[0])
    for made in update(jnp.int32(0)).values():
        rows = np.asarray(aggregate_items(made, jnp.eye(NUM_ITEMS)))
        assert np.array_equal(np.flatnonzero(~rows.any(axis=1)), [7])


@pytest.mark.parametrize(
    ("k", "every", "edges"),
    [
        (0, 1, [150, 0, 0, 0, 0, 0, 0, 0]),
        (1, 1, [150, 6, 0, 0, 0, 6, 0, 0]),
        (2, 2, [150, 150, 24, 24, 24, 24, 36, 36]),
    ],
)
def test_published_graphs_are_empty_most_of_the_time(graph, k, every, edges):
    """Edges after steps 0, 1, .. of epochs of four. With T = 2, an epoch's third step has the edges collected since."""
    updates = last_batches(SPEC, k, every, 4, 6, similarity="dot", mask_training=True)
    graphs, collected = (
        {n: pad_graph(interaction_graph(graph), updates.capacity) for n in SPEC.modalities},
        updates.init(),
    )
    update = jax.jit(lambda *state: updated(updates, *state, graph, some_batch(), some_rows()))
    for step, expected in enumerate(edges):
        graphs, collected = update(jnp.int32(step), graphs, collected)
        assert edges_of(graphs) == [expected] * 2, step


def test_padded_rows_give_no_edges(graph):
    updates = last_batches(SPEC, 1, 1, 4, 6, similarity="dot", mask_training=True)
    graphs, collected = (
        {n: empty_graph(NUM_USERS, NUM_ITEMS, updates.capacity) for n in SPEC.modalities},
        updates.init(),
    )
    update = jax.jit(lambda *state: updated(updates, *state, graph, some_batch(real=4), some_rows()))
    for step in range(2):
        graphs, collected = update(jnp.int32(step), graphs, collected)
    assert edges_of(graphs) == [4, 4]


def test_the_published_edges_join_wrong_pairs():
    users, items = jnp.asarray([7, 8, 9]), jnp.asarray([[1, 2], [3, 4], [5, 6]])
    pairs = set(zip(*(np.asarray(x).tolist() for x in mispaired(users, items)), strict=True))
    assert pairs == {(7, 1), (8, 2), (9, 3), (7, 4), (8, 5), (9, 6)}
    pairs = set(zip(*(np.asarray(x).tolist() for x in mispaired(users, items[:, :1])), strict=True))
    assert pairs == {(7, 1), (8, 3), (9, 5)}
