import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import GRAPHS

from slmrec_jax.graph import build_graph, is_interaction, sample_negatives
from slmrec_jax.sparse import matmul
from slmrec_jax.types import Interactions


@pytest.fixture(params=GRAPHS)
def case(request):
    num_users, num_items, users, items = GRAPHS[request.param]
    return build_graph(Interactions(users, items), num_users, num_items), GRAPHS[request.param]


def test_both_forms_hold_the_normalised_adjacency(case):
    graph, (num_users, num_items, users, items) = case
    dense = reference.adjacency(num_users, num_items, users, items)
    assert (graph.num_users, graph.num_items) == (num_users, num_items)
    by_edges = np.zeros_like(dense)
    by_edges[graph.nodes.receivers, graph.nodes.senders] = graph.nodes.edges
    np.testing.assert_allclose(by_edges, dense, rtol=1e-6)
    half = matmul(graph.adjacency, jnp.eye(num_items))
    np.testing.assert_allclose(half, dense[:num_users, num_users:], rtol=1e-6)


def test_an_interaction_that_stands_twice_counts_once():
    users, items = np.array([0, 1, 0], np.int32), np.array([1, 1, 1], np.int32)
    twice = build_graph(Interactions(users, items), 2, 2)
    once = build_graph(Interactions(users[:2], items[:2]), 2, 2)
    jax.tree.map(np.testing.assert_array_equal, twice, once)


def test_interactions_come_in_order_of_user_and_item(case):
    graph, (_, _, users, items) = case
    order = np.lexsort((items, users))
    np.testing.assert_array_equal(graph.interactions, (users[order], items[order]))


def test_is_interaction_for_every_pair(case):
    graph, (num_users, num_items, users, items) = case
    dense = np.zeros((num_users, num_items), bool)
    dense[users, items] = True
    asked = is_interaction(graph, jnp.arange(num_users)[:, None], jnp.arange(num_items)[None, :])
    np.testing.assert_array_equal(asked, dense)


def test_negatives_are_never_interactions_and_all_equally_likely():
    num_users, num_items, users, items = GRAPHS["random"]
    graph = build_graph(Interactions(users, items), num_users, num_items)
    draws = 4000
    everyone = jnp.arange(num_users)
    drawn = jax.jit(sample_negatives, static_argnames="count")(
        graph, everyone, jnp.zeros(num_users, jnp.int32), jax.random.key(0), count=draws
    )
    for user in range(num_users):
        own = items[users == user]
        counts = np.bincount(drawn[user], minlength=num_items)
        assert not counts[own].any()
        others = np.delete(counts, own)
        expected = draws / len(others)
        # Pearson's statistic has mean len - 1 and deviation sqrt(2 len); five deviations are allowed.
        statistic = ((others - expected) ** 2 / expected).sum()
        assert statistic < len(others) - 1 + 5 * np.sqrt(2 * len(others))


def test_a_user_with_every_item_gets_the_positive_back():
    graph = build_graph(Interactions(*GRAPHS["one item"][2:]), 6, 1)
    drawn = sample_negatives(graph, jnp.array([2, 3]), jnp.array([0, 0]), jax.random.key(1), 4)
    np.testing.assert_array_equal(drawn, np.zeros((2, 4)))


def test_no_negatives_asked_for():
    graph = build_graph(Interactions(*GRAPHS["random"][2:]), 23, 31)
    assert sample_negatives(graph, jnp.array([1, 2]), jnp.array([0, 0]), jax.random.key(1), 0).shape == (2, 0)
