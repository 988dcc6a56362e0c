"""Batches and negatives are drawn from the right sets, with the right probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import GRAPHS

from slmrec_jax.devices import compiling_for
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.objectives import sampling
from slmrec_jax.objectives.orders import NUM_WORDS, permutation, permuted_places, stable_argsort
from slmrec_jax.objectives.sampling import (
    NEGATIVES,
    SAMPLINGS,
    Sizes,
    distinct_users,
    permuted,
)
from slmrec_jax.types import Interactions


def graph_of(name):
    num_users, num_items, users, items = GRAPHS[name]
    return build_graph(Interactions(users, items), num_users, num_items)


def chain_of(count):
    """Return a graph with so many interactions, one for each user."""
    ids = np.arange(count, dtype=np.int32)
    return build_graph(Interactions(ids, ids), count, count)


# --- interactions ---


@pytest.mark.parametrize(("count", "size"), [(100, 10), (101, 10), (7, 100), (1, 1), (64, 64)])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_an_epoch_has_every_interaction_once(count, size, micro_batches):
    draw, graph, sizes = jax.jit(permuted, static_argnums=2), chain_of(count), Sizes(size, micro_batches)
    for seed in range(3):
        rows, mask = (np.asarray(of) for of in draw(jax.random.key(seed), graph, sizes))
        steps = SAMPLINGS["interactions"].num_steps(count, sizes)
        assert rows.shape == (steps, *([3] if micro_batches > 1 else []), min(size, count))
        assert sorted(rows[mask].tolist()) == list(range(count))
        assert mask[:-1].all()


def test_the_order_is_a_function_of_the_key():
    draw, graph = jax.jit(permuted, static_argnums=2), chain_of(50)
    first, again, other = (draw(jax.random.key(seed), graph, Sizes(10))[0].tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("count", [1, 2, 3, 1625, 1626, 60_000])
def test_a_permutation_is_the_one_that_jax_draws(count):
    # 1626 is the first count that is sorted twice; among 60,000 words two are often equal.
    keys = jax.random.split(jax.random.key(count), 3)
    ours = jax.jit(jax.vmap(lambda key: permutation(key, count)))(keys)
    theirs = jax.jit(jax.vmap(lambda key: jax.random.permutation(key, count)))(keys)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [1, 5, 64, 1626])
def test_computed_places_are_a_permutation(count):
    find = jax.jit(permuted_places, static_argnums=2)
    words = jax.random.bits(jax.random.key(count), (2, NUM_WORDS), jnp.uint32)
    first, other = (np.asarray(find(each, jnp.arange(count), count)) for each in words)
    np.testing.assert_array_equal(np.sort(first), np.arange(count))
    np.testing.assert_array_equal(find(words[0], jnp.array([count - 1, 0]), count), first[[-1, 0]])
    if count >= 64:
        assert np.mean(first == other) < 0.1
        assert np.mean(np.diff(first) == 1) < 0.1


def test_computed_places_look_random():
    """Over many permutations each place is about as often at each other; χ² with 24 degrees of freedom each."""
    words = jax.random.bits(jax.random.key(0), (5000, NUM_WORDS), jnp.uint32)
    found = np.asarray(jax.jit(jax.vmap(lambda each: permuted_places(each, jnp.arange(25), 25)))(words))
    counts = np.stack([np.bincount(found[:, place], minlength=25) for place in range(25)])
    assert (((counts - 200) ** 2 / 200).sum(axis=1) < 60).all()


@pytest.mark.parametrize(("count", "sizes"), [(100, Sizes(10)), (101, Sizes(10, 3)), (7, Sizes(100, 2)), (1, Sizes(1))])
def test_an_order_without_an_array_has_every_interaction_once(count, sizes, monkeypatch):
    monkeypatch.setattr(sampling, "LARGEST_ORDER", 0)
    graph, way = chain_of(count), SAMPLINGS["interactions"]
    drawn = jax.jit(lambda graph: way.order(jax.random.key(0), graph, sizes))(graph)
    rows = jax.jit(lambda drawn, graph: way.rows(drawn, jax.random.key(0), graph, sizes))
    assert max(x.size for x in jax.tree.leaves(drawn)) <= NUM_WORDS * way.num_steps(count, sizes)
    drawn = jax.tree.map(np.asarray, drawn)
    steps = [
        rows(jax.tree.map(lambda x, step=step: x[step], drawn), graph) for step in range(way.num_steps(count, sizes))
    ]
    users, items, real = (np.stack(each) for each in zip(*steps, strict=True))
    assert users.shape[1:] == sizes.shape(min(sizes.batch, count))
    np.testing.assert_array_equal(np.sort(users[real]), np.arange(count))
    np.testing.assert_array_equal(users, items)


@pytest.mark.parametrize("words", [[0], [3, 3], [5, 5, 5, 1, 2**32 - 1, 0, 5, 2**31, 1, 2**32 - 1], [7] * 9])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_equal_words_keep_their_order(words, platform):
    words = np.array(words, np.uint32)
    with compiling_for(platform):
        found = jax.jit(lambda words: stable_argsort(words))(words)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, np.argsort(words, kind="stable"))


# --- users ---


def test_a_batch_of_users_has_distinct_users_with_one_of_their_items():
    graph = graph_of("random")
    pairs = set(zip(*(ids.tolist() for ids in graph.interactions), strict=True))
    draw = jax.jit(jax.vmap(lambda key: distinct_users(0, key, graph, Sizes(9))))
    users, items, mask = (np.asarray(of) for of in draw(jax.random.split(jax.random.key(0), 400)))
    assert mask.all()
    assert all(len(set(batch)) == 9 for batch in users.tolist())
    assert set(zip(users.reshape(-1).tolist(), items.reshape(-1).tolist(), strict=True)) == pairs


def test_rows_without_a_user_are_not_real():
    draw = jax.jit(distinct_users, static_argnums=3)
    users, items, mask = (np.asarray(of) for of in draw(0, jax.random.key(0), graph_of("isolated"), Sizes(100)))
    assert mask.tolist() == [True, True, *[False] * 7]
    assert sorted(users[mask].tolist()) == [0, 4]
    assert items[users == 4].tolist() == [2]


def test_users_with_items_come_first_in_the_order_of_random_numbers():
    num_users, with_items = 50, np.arange(0, 50, 7, dtype=np.int32)
    graph = build_graph(Interactions(with_items, with_items), num_users, num_users)

    @jax.jit
    def draw(seed):
        key = jax.random.key(seed)
        drawn, _, mask = distinct_users(0, key, graph, Sizes(12))
        return drawn, mask, jax.random.uniform(jax.random.split(key)[0], (num_users,))

    for seed in range(20):
        drawn, mask, words = (np.asarray(of) for of in draw(seed))
        assert mask.tolist() == [True] * 8 + [False] * 4
        numbers = np.full(num_users, 2.0)
        numbers[with_items] = words[with_items]
        assert drawn.tolist() == np.argsort(numbers, kind="stable")[:12].tolist()


# --- negatives ---


def drawing(name):
    """Return the drawing of negatives as a function of the graph and the arguments of a draw."""
    return lambda graph, *given: NEGATIVES[name](graph)(*given)


@pytest.mark.parametrize("name", NEGATIVES)
def test_negatives_follow_their_distribution_over_the_other_items(name):
    num_users, num_items, users, items = GRAPHS["random"]
    weights = np.ones(num_items) if name == "uniform" else np.bincount(items, minlength=num_items)
    draws = 4000
    draw = jax.jit(drawing(name), static_argnums=4)
    graph, nothing = graph_of("random"), jnp.zeros(num_users, jnp.int32)
    drawn = np.asarray(draw(graph, jnp.arange(num_users), nothing, jax.random.key(0), draws))
    for user in range(num_users):
        own = items[users == user]
        counts = np.bincount(drawn[user], minlength=num_items)
        assert not counts[own].any()
        possible = np.setdiff1d(np.flatnonzero(weights), own)
        assert counts.sum() == counts[possible].sum()
        expected = draws * weights[possible] / weights[possible].sum()
        # Pearson's statistic has mean len - 1 and deviation sqrt(2 len); five deviations are allowed.
        statistic = ((counts[possible] - expected) ** 2 / expected).sum()
        assert statistic < len(possible) - 1 + 5 * np.sqrt(2 * len(possible))


@pytest.mark.parametrize("name", NEGATIVES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_negative_is_never_an_interaction(name, graph):
    _, num_items, users, items = GRAPHS[graph]
    pairs = set(zip(users.tolist(), items.tolist(), strict=True))
    draw = jax.jit(drawing(name), static_argnums=4)
    drawn = draw(graph_of(graph), jnp.array(users), jnp.array(items), jax.random.key(1), 50)
    for user, item, negatives in zip(users.tolist(), items.tolist(), drawn.tolist(), strict=True):
        own = {i for u, i in pairs if u == user}
        met = set(range(num_items)) if name == "uniform" else set(items.tolist())
        if met - own:
            assert set(negatives) <= met - own
        else:
            assert set(negatives) == {item}


@pytest.mark.parametrize("name", NEGATIVES)
def test_no_negatives_asked_for(name):
    draw = jax.jit(drawing(name), static_argnums=4)
    drawn = draw(graph_of("random"), jnp.array([1, 2]), jnp.array([0, 0]), jax.random.key(1), 0)
    assert drawn.shape == (2, 0)
