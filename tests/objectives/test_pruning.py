import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import GRAPHS

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.objectives.pruning import degree_pruning, end_of_race
from slmrec_jax.types import Interactions


def graph_of(name):
    num_users, num_items, users, items = GRAPHS[name]
    return build_graph(Interactions(users, items), num_users, num_items)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8, 0.999])
@pytest.mark.parametrize("name", GRAPHS)
def test_pruning_keeps_a_number_of_interactions_in_both_directions(name, rate):
    graph = graph_of(name)
    layers = jax.jit(lambda key: degree_pruning(rate).edges(key, graph, 2))(jax.random.key(1))
    assert len(layers) == 2
    dense = np.asarray(matmul(layers[0].adjacency, jnp.eye(graph.num_items)))
    np.testing.assert_array_equal(dense.T, matmul(layers[0].adjacency.T, jnp.eye(graph.num_users)))
    kept = dense > 0
    thousandths = round(1000 * rate)  # whole numbers, since 150 · (1 - 0.8) is below 30 in floating point
    assert kept.sum() == graph.num_interactions * (1000 - thousandths) // 1000
    whole = np.zeros(dense.shape, bool)
    whole[graph.interactions] = True
    assert not (kept & ~whole).any()
    with np.errstate(divide="ignore"):
        users, items = (np.where(d > 0, d**-0.5, 0.0) for d in (kept.sum(1, dtype=float), kept.sum(0, dtype=float)))
    np.testing.assert_allclose(dense, users[:, None] * kept * items, rtol=1e-6)


def test_interactions_are_drawn_one_after_the_other_with_these_weights():
    """Three of five are kept: the share of each set is that of its orders, drawn without replacement."""
    users, items = np.array([0, 0, 0, 1, 2], np.int32), np.array([0, 1, 2, 0, 0], np.int32)
    graph = build_graph(Interactions(users, items), 3, 3)
    weights = (np.bincount(users)[users] * np.bincount(items)[items]) ** -0.5
    expected = dict.fromkeys(itertools.combinations(range(5), 3), 0.0)
    for order in itertools.permutations(range(5), 3):
        left, chance = weights.sum(), 1.0
        for drawn in order:
            chance, left = chance * weights[drawn] / left, left - weights[drawn]
        expected[tuple(sorted(order))] += chance

    def draw(key):
        return degree_pruning(0.4).edges(key, graph, 1)[0].adjacency.matrix.weights > 0

    count = 20_000
    drawn = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count)))
    sets = [tuple(np.flatnonzero(kept)) for kept in drawn]
    for kept, chance in expected.items():
        assert abs(sets.count(kept) / count - chance) < 5 * np.sqrt(chance * (1 - chance) / count)


@pytest.mark.parametrize("count", [0, 1, 17, 99, 100])
def test_the_end_of_a_race_lies_between_two_times(count):
    rng = np.random.default_rng(0)
    times = (rng.exponential(size=100) * 10.0 ** rng.uniform(-20, 20, 100)).astype(np.float32)
    last = end_of_race(jnp.asarray(times), count)
    assert (times < last).sum() == count


def test_times_next_to_each_other_are_told_apart():
    times = np.float32([1.0, np.nextafter(np.float32(1), np.float32(2)), 2.0])
    assert [int((times < end_of_race(jnp.asarray(times), count)).sum()) for count in range(4)] == [0, 1, 2, 3]


def test_another_key_prunes_other_interactions():
    graph = graph_of("random")
    first, again, other = (
        degree_pruning(0.5).edges(jax.random.key(seed), graph, 1)[0].adjacency.matrix.weights for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert ((first > 0) != (other > 0)).any()
