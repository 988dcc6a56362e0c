"""A feature of half precision is read as its float32 copy would be, to the bit, and is never copied as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import FULL
from graphs import GRAPHS

from slmrec_jax.encoding import features, layers, propagation, vectors
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.rows import feature_rows, projected
from slmrec_jax.types import ALL, DenseFeature, Interactions, Modality

HALVES = [jnp.float16, jnp.bfloat16]
ROWS, COLUMNS = 301, 37


def pair_of(dtype, rows=ROWS, columns=COLUMNS, seed=0):
    """Return a feature of half precision and the same in float32; some rows are 0, some have large or tiny values."""
    rng = np.random.default_rng(seed)
    largest, smallest = (4, -3) if dtype == jnp.float16 else (38, -18)
    values = rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(smallest, largest, (rows, 1))
    values[::7] = 0
    half, present = values.astype(dtype), (np.arange(rows) % 7 != 0).astype(np.float32)
    return jax.tree.map(jnp.asarray, (DenseFeature(half, present), DenseFeature(half.astype(np.float32), present)))


def frozen_pair(dtype, *, normalized=True, **sizes):
    modality = Modality(sizes.get("columns", COLUMNS))
    return [features.frozen(feature, modality, normalized=normalized) for feature in pair_of(dtype, **sizes)]


def linear(columns=COLUMNS, dim=8):
    return jax.jit(layers.linear, static_argnums=(1, 2))(jax.random.key(1), columns, dim)


def is_same(one, other):
    np.testing.assert_array_equal(*(np.asarray(each).view(np.int32) for each in (one, other)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("columns", [1, 37, 128, 1000])
def test_normalised_rows_have_the_bits_of_the_float32_table(dtype, columns, monkeypatch):
    monkeypatch.setattr(vectors, "_BLOCK_VALUES", 100 * columns)  # so that 301 rows take four blocks
    half, full = frozen_pair(dtype, columns=columns)
    assert half.values.dtype == dtype
    assert not full.scales
    for ids in (ALL, jnp.array([0, 300, 5, 5])):
        is_same(vectors.rows(half, ids), vectors.rows(full, ids))
    is_same(vectors.columns(half, 0, columns), full.values)
    expected = layers.normalize(pair_of(dtype, columns=columns)[1].values)
    np.testing.assert_allclose(vectors.rows(half, ALL), expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("normalized", [True, False])
def test_projected_rows_and_their_derivative_have_the_bits_of_the_float32_table(dtype, normalized):
    half, full = frozen_pair(dtype, normalized=normalized)
    ids = jnp.array([3, 0, 299, 3])

    for each in (ALL, ids):
        gradient = jax.jit(
            jax.grad(lambda params, feature, each=each: jnp.sum(jnp.sin(projected(feature, params)(each))))
        )
        is_same(*(projected(feature, linear())(each) for feature in (half, full)))
        jax.tree.map(is_same, *(gradient(linear(), feature) for feature in (half, full)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("held_as", ["float32", "bfloat16"])
def test_a_frozen_chain_has_the_bits_of_the_float32_table(dtype, held_as, monkeypatch):
    monkeypatch.setattr(propagation, "CACHE_COLUMNS", 16)  # so that 37 columns take three blocks
    num_users, num_items, users, items = GRAPHS["random"]
    graph = build_graph(Interactions(users, items), num_users, num_items)
    half, full = frozen_pair(dtype, rows=num_items)
    chains = [propagation.frozen_chain(graph, feature, 3, held_as) for feature in (half, full)]
    jax.tree.map(lambda *pair: is_same(*(np.asarray(each).astype(np.float32) for each in pair)), *chains)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rows", [5, 64, 301])
def test_a_product_by_blocks_is_the_product(dtype, rows, monkeypatch):
    monkeypatch.setattr(vectors, "WHOLE_BYTES", 0)
    monkeypatch.setattr(vectors, "_BLOCK_VALUES", 64 * COLUMNS)
    half, full = frozen_pair(dtype, rows=rows)
    weights = np.random.default_rng(2).normal(size=(rows, 8)).astype(np.float32)

    def loss(params, feature):
        return jnp.sum(weights * projected(feature, params)(ALL))

    for function in (lambda params, feature: projected(feature, params)(ALL), jax.grad(loss)):
        found, expected = (function(linear(), feature) for feature in (half, full))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_no_program_makes_a_large_table_in_float32(dtype):
    rows, columns = 200_000, 128
    shapes = DenseFeature(
        jax.ShapeDtypeStruct((rows, columns), dtype),
        jax.ShapeDtypeStruct((rows,), jnp.float32),
        (jax.ShapeDtypeStruct((rows,), jnp.float32),),
    )
    params = jax.eval_shape(lambda: linear(columns))

    def temporary(function, *arguments):
        program = jax.jit(function).lower(*arguments).compile(FULL)
        return program.memory_analysis().temp_size_in_bytes

    def loss(params, feature, ids):
        return jnp.sum(jnp.sin(projected(feature, params)(ids)))

    table = 4 * rows * columns
    result = 4 * rows * 8
    assert temporary(jax.grad(lambda *given: loss(*given, ALL)), params, shapes) < table / 4 + 3 * result
    assert temporary(jax.grad(loss), params, shapes, jax.ShapeDtypeStruct((2048,), jnp.int32)) < table / 4
    assert temporary(lambda feature: feature_rows(feature)(jnp.arange(2048)), shapes) < table / 4
    assert temporary(lambda feature: vectors.columns(feature, 32, 64), shapes) < table / 2
    block = jax.ShapeDtypeStruct((8192, columns), dtype)
    assert temporary(vectors._block_scales, block) < 4 * 4 * 8192 * columns
