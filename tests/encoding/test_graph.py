import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from graphs import GRAPHS

from slmrec_jax.encoding import matrices
from slmrec_jax.encoding.graph import (
    build_graph,
    graph_shapes,
    interactions_among,
    kept_interactions,
    weighted_interactions,
)
from slmrec_jax.encoding.propagation import stacked_graph
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.types import Interactions


@pytest.fixture(params=itertools.product(GRAPHS, (0, matrices.MOST_VALUES)), ids=lambda param: f"{param[0]}-{param[1]}")
def case(request, monkeypatch):
    name, most_values = request.param
    monkeypatch.setattr(matrices, "MOST_VALUES", most_values)
    num_users, num_items, users, items = GRAPHS[name]
    graph = build_graph(Interactions(users, items), num_users, num_items)
    assert (graph.adjacency.matrix.values is None) == (most_values == 0)
    return graph, GRAPHS[name]


@jax.jit
def both_ways(graph):
    """Return the products of the adjacency and of its transpose with identities."""
    adjacency = graph.adjacency
    return matmul(adjacency, jnp.eye(graph.num_items)), matmul(adjacency.T, jnp.eye(graph.num_users))


def test_both_forms_hold_the_normalised_adjacency(case):
    graph, (num_users, num_items, users, items) = case
    dense = reference.adjacency(num_users, num_items, users, items)
    assert (graph.num_users, graph.num_items) == (num_users, num_items)
    by_edges = np.zeros_like(dense)
    nodes = stacked_graph(graph)
    by_edges[nodes.receivers, nodes.senders] = nodes.edges
    np.testing.assert_allclose(by_edges, dense, rtol=1e-6)
    np.testing.assert_allclose(both_ways(graph)[0], dense[:num_users, num_users:], rtol=1e-6)


def test_kept_interactions_are_normalised_by_the_degrees_that_remain(case):
    graph, (num_users, num_items, users, items) = case
    kept = (3 * users + 5 * items) % 4 < 2
    some = jax.jit(lambda graph: kept_interactions(graph, lambda u, i: (3 * u + 5 * i) % 4 < 2))(graph)
    dense = reference.adjacency(num_users, num_items, users[kept], items[kept])[:num_users, num_users:]
    for found, expected in zip(both_ways(some), (dense, dense.T), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert jax.tree.structure(some) == jax.tree.structure(jax.eval_shape(lambda: some))
    assert not some.derived


def test_weights_of_interactions_have_the_derivative_of_the_dense_matrix(case):
    graph, (num_users, num_items, users, items) = case
    if not graph.num_interactions:
        pytest.skip("there is no interaction to weigh")
    rng = np.random.default_rng(0)
    found_users, found_items = graph.interactions
    dense = reference.adjacency(num_users, num_items, users, items)[:num_users, num_users:]
    weights = rng.normal(size=graph.num_interactions).astype(np.float32)
    x, g = (jnp.asarray(rng.normal(size=(rows, 2)), jnp.float32) for rows in (num_items, num_users))

    def penalty(weights, products):
        of_users, of_items = products(weights)
        return jnp.sum(of_users**2) + jnp.sum(of_items**2)

    def ours(weights):
        adjacency = weighted_interactions(graph, weights).adjacency
        return matmul(adjacency, x), matmul(adjacency.T, g)

    def definition(weights):
        matrix = jnp.asarray(dense, jnp.float32) * jnp.zeros(dense.shape).at[found_users, found_items].set(weights)
        return matrix @ x, matrix.T @ g

    found, expected = (jax.jit(jax.value_and_grad(penalty), static_argnums=1)(weights, of) for of in (ours, definition))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


def test_weights_stay_in_the_graph_of_the_interactions_that_are_kept(case):
    graph, (num_users, num_items, users, items) = case
    weights = jnp.asarray(np.random.default_rng(0).normal(size=graph.num_interactions), jnp.float32)
    kept = (3 * users + 5 * items) % 4 < 2

    @jax.jit
    def products(graph, weights):
        weighted = weighted_interactions(graph, weights)
        return both_ways(kept_interactions(weighted, lambda u, i: (3 * u + 5 * i) % 4 < 2))

    dense = reference.adjacency(num_users, num_items, users[kept], items[kept])[:num_users, num_users:]
    dense[tuple(graph.interactions)] *= weights
    for found, expected in zip(products(graph, weights), (dense, dense.T), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_weights_of_weighted_interactions_multiply_and_must_be_as_many(case):
    graph, _ = case
    weights = jnp.arange(graph.num_interactions, dtype=jnp.float32)

    @jax.jit
    def both(graph, weights):
        twice = weighted_interactions(weighted_interactions(graph, weights), weights)
        once = weighted_interactions(graph, weights**2)
        return [(both_ways(each)[0], each.weights) for each in (twice, once)]

    (twice, weights_of_twice), (once, weights_of_once) = both(graph, weights)
    np.testing.assert_allclose(twice, once, rtol=1e-6)
    np.testing.assert_array_equal(weights_of_twice, weights_of_once)
    with pytest.raises(ValueError, match=r"give one for each of graph\.interactions"):
        weighted_interactions(graph, jnp.ones(graph.num_interactions + 2))


def test_item_degrees_count_interactions(case):
    graph, (_, num_items, _, items) = case
    ids = np.arange(num_items)[::-1]
    np.testing.assert_array_equal(
        jax.jit(type(graph).item_degrees)(graph, ids), np.bincount(items, minlength=num_items)[::-1]
    )


def test_an_interaction_that_stands_twice_counts_once():
    users, items = np.array([0, 1, 0], np.int32), np.array([1, 1, 1], np.int32)
    twice = build_graph(Interactions(users, items), 2, 2)
    once = build_graph(Interactions(users[:2], items[:2]), 2, 2)
    jax.tree.map(np.testing.assert_array_equal, twice, once)


def test_interactions_come_in_order_of_user_and_item(case):
    graph, (_, _, users, items) = case
    order = np.lexsort((items, users))
    np.testing.assert_array_equal(graph.interactions, (users[order], items[order]))
    places = np.arange(len(users))[::-1].reshape(-1, 1)
    found = jax.jit(lambda graph, places: (graph.users_of(places), graph.items_of(places)))(graph, places)
    np.testing.assert_array_equal(found, (users[order][::-1, None], items[order][::-1, None]))


def test_a_large_graph_takes_eight_bytes_an_interaction_and_its_offsets(monkeypatch):
    monkeypatch.setattr(matrices, "MOST_VALUES", 99)
    users = np.arange(100, dtype=np.int32)
    graph = build_graph(Interactions(users // 10, users % 10), 10, 10)
    arrays = [x for x in jax.tree.leaves(graph) if x.size >= 100]
    assert sum(x.nbytes for x in arrays) == 8 * 100
    shapes = graph_shapes(np.full(10, 10), np.full(10, 10))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), graph) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)


@pytest.mark.parametrize("order", ["all", "some, repeated"])
def test_interactions_among_users_and_items(case, order):
    graph, (num_users, num_items, users, items) = case
    dense = np.zeros((num_users, num_items), bool)
    dense[users, items] = True
    rows, columns = np.arange(num_users), np.arange(num_items)
    if order != "all":
        rng = np.random.default_rng(0)
        rows, columns = rng.choice(rows, 7), rng.choice(columns, 9)
    found = jax.jit(interactions_among)(graph, jnp.asarray(rows, jnp.int32), jnp.asarray(columns, jnp.int32))
    np.testing.assert_array_equal(found, dense[np.ix_(rows, columns)])
