"""Propagation by chains equals the definition, and the definition equals powers of the dense matrix."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from graphs import GRAPHS

from slmrec_jax.encoding import propagation
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.types import ALL, DenseFeature, Interactions, Spec

LAYERS = [0, 1, 2, 3, 4]
QUICK = {("random", 0), ("random", 2), *((graph, 3) for graph in GRAPHS)}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow) for pair in itertools.product(GRAPHS, LAYERS)
]


@pytest.fixture(scope="module", params=GRAPHS)
def case(request):
    num_users, num_items, users, items = GRAPHS[request.param]
    graph = build_graph(Interactions(users, items), num_users, num_items)
    return graph, reference.adjacency(num_users, num_items, users, items)


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@partial(jax.jit, static_argnames="num_layers")
def definition(graph, x, num_layers):
    """Compute M_L x, layer by layer, for users stacked on items."""
    total = x
    for _ in range(num_layers):
        x = propagation.aggregate(graph, x)
        total = total + x
    return total / (num_layers + 1)


def read_out(channel):
    return propagation.Halves(*(rows(ALL) for rows in channel))


@pytest.mark.parametrize("num_layers", LAYERS)
def test_propagation_is_the_read_out_of_matrix_powers(case, num_layers):
    graph, p = case
    x = rows(0, len(p), 5)
    value = definition(graph, x, num_layers)
    np.testing.assert_allclose(value, reference.read_out(p, x, num_layers), rtol=1e-5, atol=1e-6)


def test_a_hop_by_halves_is_the_definition(case):
    graph, p = case
    x = np.asarray(rows(2, len(p), 4))
    halves = propagation.Halves(x[: graph.num_users], x[graph.num_users :])
    for hop in (propagation.hop, propagation.hop_by_definition):
        np.testing.assert_allclose(np.concatenate(jax.jit(hop)(graph, halves)), p @ x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("case", "num_layers"), PAIRS, indirect=["case"])
def test_chains_are_the_definition_in_value_and_gradient(case, num_layers):
    graph, _ = case
    users, items = rows(3, graph.num_users, 5), rows(4, graph.num_items, 5)
    weights = rows(5, graph.num_users + graph.num_items, 5)

    def by_chains(users, items):
        user, item = (read_out(chain([graph], x, num_layers)) for chain, x in both_chains(users, items))
        return jnp.concatenate([user.users + item.users, user.items + item.items])

    def by_definition(users, items):
        return definition(graph, jnp.concatenate([users, items]), num_layers)

    compare(by_chains, by_definition, weights, users, items)


@pytest.mark.slow
def test_chains_are_the_definition_with_a_hub_of_sixteen_thousand():
    """Degrees are powers of 4 and rows are integers, so float32 rounds almost nothing.

    In general rounding grows with the degree: with 10^4 random rows the two results differed by 4e-4.
    """
    degree = 4**7
    last = np.arange(degree - 4, degree)
    users = np.r_[np.arange(degree), np.repeat(last, 3)].astype(np.int32)
    items = np.r_[np.zeros(degree), np.tile([1, 2, 3], 4)].astype(np.int32)
    graph = build_graph(Interactions(users, items), degree, 5)
    assert np.diff(graph.adjacency.transposed.offsets).max() == degree

    def by_chains(users, items):
        user, item = (read_out(chain([graph], x, 3)) for chain, x in both_chains(users, items))
        return jnp.concatenate([user.users + item.users, user.items + item.items])

    def by_definition(users, items):
        return definition(graph, jnp.concatenate([users, items]), 3)

    x, weights = np.random.default_rng(12).integers(-1, 2, (2, degree + 5, 4)).astype(np.float32)
    compare(by_chains, by_definition, weights, x[:degree], x[degree:])


def both_chains(users, items):
    return (propagation.user_chain, users), (propagation.item_chain, items)


def test_a_first_hop_that_is_known_is_not_computed_again(case):
    graph, _ = case
    users, items = rows(3, graph.num_users, 5), rows(4, graph.num_items, 5)
    for chain, x, first in (
        (propagation.user_chain, users, jax.jit(propagation.to_items)(graph, users)),
        (propagation.item_chain, items, jax.jit(propagation.to_users)(graph, items)),
    ):
        tables = jax.jit(lambda graph, x, known, chain=chain: read_out(chain([graph], x, 3, known)))
        given, computed, nothing = (tables(graph, x, known) for known in (first, None, np.zeros_like(first)))
        jax.tree.map(np.testing.assert_array_equal, given, computed)
        own, other = nothing if chain is propagation.user_chain else nothing[::-1]
        np.testing.assert_array_equal(own, np.asarray(x) / 4)  # layer 0 alone
        assert not np.asarray(other).any()


@pytest.mark.parametrize(("case", "num_layers"), PAIRS, indirect=["case"])
def test_a_frozen_chain_is_the_definition_of_the_projected_feature(case, num_layers, monkeypatch):
    monkeypatch.setattr(propagation, "CACHE_COLUMNS", 4)  # so that 6 columns take two blocks
    graph, _ = case
    present = (np.arange(graph.num_items) % 3 != 1).astype(np.float32)
    values = np.asarray(rows(6, graph.num_items, 6)) * present[:, None]
    feature = DenseFeature(jnp.asarray(values), jnp.asarray(present))
    kernel, bias = rows(7, 6, 5), rows(8, 5)
    weights = rows(9, graph.num_users + graph.num_items, 5)
    cached = jax.jit(lambda graph, feature: propagation.frozen_chain(graph, feature, num_layers))(graph, feature)

    def by_cache(kernel, bias):
        return jnp.concatenate(
            [values @ kernel + p[:, None] * bias[None] for values, p in zip(cached.values, cached.present, strict=True)]
        )

    def by_definition(kernel, bias):
        items = feature.values @ kernel + feature.present[:, None] * bias[None]
        return definition(graph, jnp.concatenate([jnp.zeros((graph.num_users, 5)), items]), num_layers)

    compare(by_cache, by_definition, weights, kernel, bias)


def test_a_frozen_chain_in_half_precision_is_the_same_rounded(case):
    graph, _ = case
    feature = DenseFeature(rows(6, graph.num_items, 6), jnp.asarray(np.ones(graph.num_items, np.float32)))
    half, full = (
        jax.jit(lambda graph, feature, held_as=held_as: propagation.frozen_chain(graph, feature, 3, held_as))(
            graph, feature
        )
        for held_as in ("bfloat16", "float32")
    )
    assert {values.dtype.name for values in half.values} == {"bfloat16"}
    jax.tree.map(np.testing.assert_array_equal, half.present, full.present)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(a.dtype)), half.values, full.values)


def test_relabelling_nodes_permutes_the_rows():
    num_users, num_items, users, items = GRAPHS["random"]
    rng = np.random.default_rng(10)
    user_order, item_order = rng.permutation(num_users).astype(np.int32), rng.permutation(num_items).astype(np.int32)
    one = build_graph(Interactions(users, items), num_users, num_items)
    other = build_graph(Interactions(user_order[users], item_order[items]), num_users, num_items)
    x = rows(11, num_users, 4)
    moved = np.zeros_like(x)
    moved[user_order] = x
    tables = jax.jit(lambda graph, x: read_out(propagation.user_chain([graph], x, 3)))
    ours, theirs = tables(one, x), tables(other, moved)
    np.testing.assert_allclose(theirs.users[user_order], ours.users, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(theirs.items[item_order], ours.items, rtol=1e-5, atol=1e-6)


def test_the_cost_rule():
    choose = partial(propagation.choose_chain, Spec(30_000, 70_000, 450_000, 64, {}), num_layers=3)
    assert choose(256, batch_size=2048)[0]
    assert not choose(256, batch_size=200_000)[0]
    cached, reason = choose(20_000, batch_size=2048)
    assert not cached
    assert "GiB" in reason
    assert not choose(11_000, batch_size=2048)[0]
    assert choose(11_000, batch_size=2048, held_as="bfloat16")[0]


def test_the_neighbour_mean_is_the_plain_mean(case):
    graph, dense = case
    linked = (dense > 0).astype(np.float64)
    counts = linked.sum(1, keepdims=True)
    x = np.random.default_rng(0).normal(size=(len(dense), 3)).astype(np.float32)
    expected = np.divide(linked @ x, counts, out=np.zeros_like(x, np.float64), where=counts > 0)
    for hop in (propagation.hop, propagation.hop_by_definition):
        found = jax.jit(lambda *given, hop=hop: propagation.neighbour_mean(*given, hop))(graph, x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def compare(one, other, weights, *arguments):
    """Compare values, and gradients of a weighted sum by every argument, to 1e-5 of the largest entry."""
    places = tuple(range(len(arguments)))

    def found(f, arguments):
        return f(*arguments), *jax.grad(lambda *a: jnp.sum(f(*a) * weights), places)(*arguments)

    both = jax.jit(lambda *arguments: (found(one, arguments), found(other, arguments)))(*arguments)
    for ours, theirs in zip(*both, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
