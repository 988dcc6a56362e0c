import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from slmrec_jax.encoding import item_graphs
from slmrec_jax.encoding.item_graphs import item_graph, nearest_items, similarities, symmetric
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.types import DenseFeature


def features(count=23, columns=5, dtype=np.float32):
    """Items 3 and 8 lack the modality, item 5 has a row of zeros, and 10 to 15 have the same row."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(count, columns)).astype(dtype)
    values[10:16] = [1, 2, 0, -2, 4]
    present = np.ones(count, np.float32)
    present[[3, 8]] = 0
    values[[3, 5, 8]] = 0
    return DenseFeature(jnp.asarray(values), jnp.asarray(present))


def nearest(feature, k):
    """Return the nearest items as arrays of the host."""
    # A new lambda, so that each test compiles with its own block sizes.
    found = jax.jit(lambda feature: nearest_items(feature, k))(feature)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
    ("k", "dtype", "block"),
    [
        (1, np.float32, (4, 5, 100)),
        (4, np.float32, (4, 23, 40)),
        (2, np.float16, (6, 16, 200)),
        (40, np.float16, (4, 5, 100)),
        (40, np.float32, (23, 23, 200)),
    ],
)
def test_the_nearest_items_are_those_of_the_definition(k, dtype, block, monkeypatch):
    for name, size in zip(("BLOCK_ROWS", "BLOCK_COLUMNS", "BLOCK_VALUES"), block, strict=True):
        monkeypatch.setattr(item_graphs, name, size)
    feature = features(dtype=dtype)
    found = nearest(feature, k)
    expected = reference.nearest_items(np.asarray(feature.values), np.asarray(feature.present), k)
    for item, neighbours in enumerate(expected):
        counts = found.counts[item] > 0
        assert dict.fromkeys(found.ids[item][counts].tolist()).keys() == neighbours.keys()
        np.testing.assert_allclose(found.similarities[item][counts], list(neighbours.values()), atol=1e-6)
        assert (found.ids[item][~counts] == item).all()
        assert not found.similarities[item][~counts].any()
    assert (np.diff(found.ids) >= 0).all()


def test_an_item_that_lacks_the_modality_is_no_neighbour():
    found = nearest(features(), 4)
    assert not found.counts[[3, 5, 8]].any()
    assert not set(found.ids[found.counts > 0].tolist()) & {3, 5, 8}


@pytest.mark.parametrize("block", [(256, 16384), (4, 5)])
def test_among_equal_cosines_an_item_itself_and_then_lower_ids_win(block, monkeypatch):
    for name, size in zip(("BLOCK_ROWS", "BLOCK_COLUMNS"), block, strict=True):
        monkeypatch.setattr(item_graphs, name, size)
    found = nearest(features(), 3)
    assert found.ids[10:16].tolist() == [[10, 11, 12]] * 3 + [[10, 11, 13], [10, 11, 14], [10, 11, 15]]


def test_shapes_are_known_without_values():
    shapes = jax.eval_shape(lambda feature: nearest_items(feature, 4), features())
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, nearest(features(), 4))


@pytest.mark.parametrize("values", ["ones", "similarities"])
def test_a_graph_and_its_transpose_have_the_normalised_entries(values):
    feature = features()
    reversed_rows = DenseFeature(jnp.asarray(np.asarray(feature.values)[::-1]), jnp.asarray(np.ones(23, np.float32)))
    weighted = ((0.1, feature), (0.9, reversed_rows))

    @jax.jit
    def both_ways(weighted):
        parts = []
        for weight, each in weighted:
            found = nearest_items(each, 4)
            of_each = found.counts if values == "ones" else found.similarities
            parts.append((found.ids, weight * symmetric(found.ids, of_each)))
        graph = item_graph(*zip(*parts, strict=True))
        return matmul(graph, jnp.eye(23)), matmul(graph.T, jnp.eye(23))

    expected = sum(
        weight * reference.item_graph(np.asarray(each.values), np.asarray(each.present), 4, values)
        for weight, each in weighted
    )
    for found, entries in zip(both_ways(weighted), (expected, expected.T), strict=True):
        np.testing.assert_allclose(found, entries, atol=1e-6)


def test_similarities_and_the_graph_have_the_gradient_of_dense_cosines():
    feature = features()
    found = nearest(feature, 4)
    kept = np.zeros((23, 23), np.float32)
    rows = np.broadcast_to(np.arange(23)[:, None], found.ids.shape)
    kept[rows, found.ids] = found.counts
    x, seen = jax.random.normal(jax.random.key(1), (2, 23, 6))

    def by_neighbours(y):
        ids = jnp.asarray(found.ids)
        graph = item_graph([ids], [symmetric(ids, similarities(y, found._replace(ids=ids)))])
        return jnp.sum(jnp.sin(matmul(graph, x) * seen))

    def by_definition(y):
        unit = y / jnp.maximum(jnp.linalg.norm(y, axis=1, keepdims=True), 1e-12)
        entries = jnp.asarray(kept) * (unit @ unit.T)
        sums = jnp.sum(entries, axis=1)
        scale = jnp.where(sums > 0, 1 / jnp.sqrt(jnp.where(sums > 0, sums, 1.0)), 0.0)
        return jnp.sum(jnp.sin((scale[:, None] * entries * scale[None, :]) @ x * seen))

    y = jax.random.uniform(jax.random.key(2), (23, 3))  # row sums near 0 would make the comparison meaningless
    (value, gradient), (expected, of_definition) = (
        jax.jit(jax.value_and_grad(f))(y) for f in (by_neighbours, by_definition)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, of_definition, rtol=1e-4, atol=1e-5)
