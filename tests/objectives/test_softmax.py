"""The in-batch softmax over distinct rows equals its definition over the batch's, in value and gradients."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import full_jit

from slmrec_jax.devices import compiling_for
from slmrec_jax.encoding.layers import mean
from slmrec_jax.encoding.rows import distinct_ids
from slmrec_jax.objectives import softmax
from slmrec_jax.objectives.softmax import (
    cross_entropy,
    inbatch_cross_entropy,
    log_normalisers,
    self_cross_entropy,
    two_view_cross_entropy,
)

NODES = 11


def tables(dim=5, scale=1.0, seed=0, nodes=NODES):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(scale * rng.normal(size=(nodes, dim)), jnp.float32) for _ in range(2))


def ids(size, kinds, seed=1, nodes=NODES):
    """Return row and column ids of a batch, drawn from at most `kinds` different nodes."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(nodes)[:kinds]
    return tuple(jnp.asarray(rng.choice(some, size), jnp.int32) for _ in range(2))


def definition(x, y, rows, columns, real):
    return cross_entropy(x[rows] @ y[columns].T, real, real[None, :])


def by_distinct(x, y, rows, columns, real):
    of_rows, of_columns = (distinct_ids(of, real, len(x)) for of in (rows, columns))
    return inbatch_cross_entropy(x[of_rows.ids], y[of_columns.ids], of_rows, of_columns, real)


def with_themselves(x, y, rows, real):
    of = distinct_ids(rows, real, len(x))
    return self_cross_entropy(x[of.ids], y[of.ids], of.counts)


def assert_equal(found, expected, largest=1.0):
    """Compare to five digits of the largest summand; summands may cancel."""
    for ours, defined in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(defined).max()), largest / 10)
        np.testing.assert_allclose(ours, defined, rtol=1e-5, atol=1e-5 * scale)


@pytest.fixture(params=[7, 512])
def block_rows(request, monkeypatch):
    monkeypatch.setattr(softmax, "SCORE_BLOCK_ROWS", request.param)
    return request.param


@cache
def every_way(block_rows):
    """Return a program, compiled for blocks of so many rows, of all values and gradients that the tests compare."""

    def values_and_gradients(x, y, rows, columns, real):
        def ours(x, y):
            return 3.0 * by_distinct(x, y, rows, columns, real)

        def defined(x, y):
            return 3.0 * definition(x, y, rows, columns, real)

        return (
            [jax.value_and_grad(of, (0, 1))(x, y) for of in (ours, defined)],
            by_distinct(x, y, rows, columns, real),
            jax.value_and_grad(with_themselves, (0, 1))(x, y, rows, real),
            jax.value_and_grad(definition, (0, 1))(x, y, rows, rows, real),
        )

    return jax.jit(values_and_gradients)


@pytest.mark.parametrize(("size", "kinds"), [(1, 1), (14, 11), (37, 4)])
@pytest.mark.parametrize("num_real", [1, 13, None])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_equals_the_definition(block_rows, size, kinds, num_real, scale):
    x, y = tables(scale=scale)
    rows, columns = ids(size, kinds)
    real = np.arange(size) < (num_real or size)
    (found, expected), value, of_themselves, defined = every_way(block_rows)(x, y, rows, columns, real)
    largest = max(float(np.abs(of).max()) for of in (x, y, np.asarray(x) @ np.asarray(y).T))
    assert_equal(found, expected, largest)
    np.testing.assert_allclose(value, found[0] / 3.0, rtol=1e-6, atol=1e-7)
    assert_equal(of_themselves, defined, largest)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_offsets_equal_the_definition(scale):
    """Offsets of any size: a correction of popularity among a million, of either sign."""
    x, y = tables(scale=scale)
    (rows, columns), real = ids(37, 9), jnp.arange(37) < 31
    offsets = jnp.asarray(np.random.default_rng(2).normal(scale=14.0, size=NODES), jnp.float32)

    def ours(x, y):
        of_rows, of_columns = (distinct_ids(of, real, NODES) for of in (rows, columns))
        return inbatch_cross_entropy(
            x[of_rows.ids], y[of_columns.ids], of_rows, of_columns, real, offsets[of_columns.ids]
        )

    def defined(x, y):
        return cross_entropy(x[rows] @ y[columns].T + offsets[columns][None, :], real, real[None, :])

    found, expected = (jax.jit(jax.value_and_grad(of, (0, 1)))(x, y) for of in (ours, defined))
    assert_equal(found, expected, float(np.abs(np.asarray(x) @ np.asarray(y).T).max()))


@pytest.mark.parametrize("kinds", [4, 24, 25, 28, 29, 32])
def test_every_width_equals_the_definition(kinds):
    """Exactly as many columns as each width for a batch of 32 holds, and one more."""
    x, y = tables(nodes=40)
    rows = np.arange(32, dtype=np.int32) % kinds
    columns = (rows * 7 + 3) % kinds
    (found, expected), *_ = every_way(softmax.SCORE_BLOCK_ROWS)(x, y, rows, columns, np.ones(32, bool))
    assert_equal(found, expected)


def test_off_cpu_nothing_depends_on_values(block_rows):
    x, y = tables()
    rows, columns = ids(23, 9)
    real = np.arange(23) < 20
    both = jax.value_and_grad(by_distinct, (0, 1))
    here = jax.jit(both)(x, y, rows, columns, real)
    with compiling_for("gpu"):
        traced = jax.jit(lambda *given: both(*given)).trace(x, y, rows, columns, real)
    assert "cond" not in str(traced.jaxpr)
    assert "while" not in str(traced.jaxpr)
    assert_equal(traced.lower().compile()(x, y, rows, columns, real), here)


@pytest.mark.parametrize(("size", "kinds"), [(1, 1), (14, 1), (37, 11)])
def test_two_views_equal_the_definition(block_rows, size, kinds):
    """A user is not their own negative, however often they are in the batch."""
    x, y = tables(scale=0.7)
    rows, _ = ids(size, kinds)
    real = jnp.arange(size) < max(1, size - 3)

    def by_rows(x, y):
        z, h, others = x[rows] / 0.3, y[rows], rows[:, None] != rows[None, :]
        own = jnp.sum(z * h, axis=1)
        both = jnp.exp(z @ x[rows].T) + jnp.exp(z @ h.T)
        below = jnp.exp(own) + jnp.sum(jnp.where(others & real[None, :], both, 0.0), axis=1)
        return mean(jnp.log(below) - own, real)

    def by_distinct_rows(x, y):
        of = distinct_ids(rows, real, NODES)
        return two_view_cross_entropy(x[of.ids], y[of.ids], of.counts, 0.3)

    found, expected = (jax.jit(jax.value_and_grad(of, (0, 1)))(x, y) for of in (by_distinct_rows, by_rows))
    assert_equal(found, expected)
    with compiling_for("gpu"):
        assert_equal(jax.jit(jax.value_and_grad(lambda x, y: by_distinct_rows(x, y), (0, 1)))(x, y), expected)


def test_rows_of_count_0_may_hold_anything(block_rows):
    x, y = tables(nodes=20)
    counts = np.where(np.arange(20) < 13, 2.0, 0.0).astype(np.float32)
    counts[3] = 0.0
    noise = np.where(counts[:, None] > 0, 0.0, np.nan).astype(np.float32)
    both = jax.jit(jax.value_and_grad(lambda *given: log_normalisers(*given), (0, 1)))
    clean, dirty = both(x, y, counts, counts), both(x + noise, y + noise, counts, counts)
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    for gradient in clean[1]:
        assert not np.asarray(gradient)[counts == 0].any()


def test_rows_in_half_precision_are_counted_in_full():
    x, y = (table.astype(jnp.bfloat16) for table in tables())
    counts = np.r_[np.full(NODES - 1, 1000.0), 0.0].astype(np.float32)
    both = jax.jit(jax.value_and_grad(lambda *given: log_normalisers(*given), (0, 1)))
    value, gradients = both(x, y, counts, counts)
    full = both(*(of.astype(jnp.float32) for of in (x, y)), counts, counts)
    np.testing.assert_allclose(value, full[0], rtol=1e-6)
    assert {of.dtype.name for of in gradients} == {"bfloat16"}
    for found, expected in zip(gradients, full[1], strict=True):
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=0.01)


def test_vmap_is_a_loop(block_rows):
    seeds = [(*tables(seed=seed), *ids(19, 3 + 4 * seed, seed=seed)) for seed in range(3)]
    real = jnp.asarray(np.arange(19) < 17)
    one = jax.value_and_grad(lambda x, y, rows, columns: by_distinct(x, y, rows, columns, real), (0, 1))
    together = jax.jit(jax.vmap(one))(*(np.stack(side) for side in zip(*seeds, strict=True)))
    one = jax.jit(one)
    for place, of_seed in enumerate(seeds):
        assert_equal(jax.tree.map(lambda leaf, place=place: leaf[place], together), one(*of_seed))


def test_the_scores_are_never_held_whole():
    """A batch of 16,384 has scores of 1 GiB; a block of them is all that the program holds."""
    x = jax.ShapeDtypeStruct((16_384, 8), jnp.float32)
    counts = jax.ShapeDtypeStruct((16_384,), jnp.float32)
    program = full_jit(jax.value_and_grad(log_normalisers, (0, 1))).lower(x, x, counts, counts).compile()
    assert program.memory_analysis().temp_size_in_bytes < 12 * softmax.SCORE_BLOCK_ROWS * 16_384 * 4
