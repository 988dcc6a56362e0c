"""The in-batch softmax over distinct rows equals its definition over the batch's, in value and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.devices import compiling_for
from slmrec_jax.encoding.rows import distinct_ids
from slmrec_jax.objectives import softmax
from slmrec_jax.objectives.softmax import cross_entropy, inbatch_cross_entropy, log_normalisers, self_cross_entropy

NODES = 11


def tables(dim=5, scale=1.0, seed=0, nodes=NODES):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(scale * rng.normal(size=(nodes, dim)), jnp.float32) for _ in range(2))


def ids(size, kinds, seed=1, nodes=NODES):
    """So many rows, of so many different nodes at most."""
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
    """To five digits of what is added up, which may cancel."""
    for ours, defined in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(defined).max()), largest / 10)
        np.testing.assert_allclose(ours, defined, rtol=1e-5, atol=1e-5 * scale)


@pytest.fixture(params=[7, 512])
def block_rows(request, monkeypatch):
    monkeypatch.setattr(softmax, "SCORE_BLOCK_ROWS", request.param)


@pytest.mark.parametrize(("size", "kinds"), [(1, 1), (14, 1), (14, 11), (37, 4), (37, 11)])
@pytest.mark.parametrize("num_real", [1, 13, None])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_equals_the_definition(block_rows, size, kinds, num_real, scale):
    x, y = tables(scale=scale)
    rows, columns = ids(size, kinds)
    real = jnp.arange(size) < (num_real or size)
    found = jax.value_and_grad(lambda x, y: 3.0 * by_distinct(x, y, rows, columns, real), (0, 1))(x, y)
    expected = jax.value_and_grad(lambda x, y: 3.0 * definition(x, y, rows, columns, real), (0, 1))(x, y)
    largest = max(float(jnp.abs(of).max()) for of in (x, y, x @ y.T))
    assert_equal(found, expected, largest)
    np.testing.assert_allclose(by_distinct(x, y, rows, columns, real), found[0] / 3.0, rtol=1e-6, atol=1e-7)
    of_themselves = jax.value_and_grad(with_themselves, (0, 1))(x, y, rows, real)
    assert_equal(of_themselves, jax.value_and_grad(definition, (0, 1))(x, y, rows, rows, real), largest)


@pytest.mark.parametrize("kinds", [4, 24, 25, 28, 29, 32])
def test_every_width_equals_the_definition(kinds):
    """As many columns as the widths for a batch of 32 hold, and one more."""
    x, y = tables(nodes=40)
    rows = jnp.arange(32) % kinds
    columns = (rows * 7 + 3) % kinds
    real = jnp.ones(32, bool)
    found, expected = (
        jax.jit(jax.value_and_grad(way, (0, 1)))(x, y, rows, columns, real) for way in (by_distinct, definition)
    )
    assert_equal(found, expected)


def test_off_cpu_nothing_depends_on_values(block_rows):
    x, y = tables()
    rows, columns = ids(23, 9)
    real = jnp.arange(23) < 20
    here = jax.value_and_grad(by_distinct, (0, 1))(x, y, rows, columns, real)
    with compiling_for("gpu"):
        away = jax.make_jaxpr(jax.value_and_grad(by_distinct, (0, 1)))(x, y, rows, columns, real)
        found = jax.value_and_grad(by_distinct, (0, 1))(x, y, rows, columns, real)
    assert "cond" not in str(away)
    assert "while" not in str(away)
    assert_equal(found, here)


def test_what_rows_hold_that_do_not_count_does_not_matter(block_rows):
    x, y = tables(nodes=20)
    counts = jnp.where(jnp.arange(20) < 13, 2.0, 0.0).at[3].set(0.0)
    noise = jnp.where(counts[:, None] > 0, 0.0, jnp.nan)
    both = jax.value_and_grad(log_normalisers, (0, 1))
    clean, dirty = both(x, y, counts, counts), both(x + noise, y + noise, counts, counts)
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    for gradient in clean[1]:
        assert not np.asarray(gradient)[counts == 0].any()


def test_rows_in_half_precision_are_counted_in_full():
    x, y = (table.astype(jnp.bfloat16) for table in tables())
    counts = jnp.full(NODES, 1000.0).at[-1].set(0.0)
    value, gradients = jax.value_and_grad(log_normalisers, (0, 1))(x, y, counts, counts)
    full = jax.value_and_grad(log_normalisers, (0, 1))(*(of.astype(jnp.float32) for of in (x, y)), counts, counts)
    np.testing.assert_allclose(value, full[0], rtol=1e-6)
    assert {of.dtype.name for of in gradients} == {"bfloat16"}
    for found, expected in zip(gradients, full[1], strict=True):
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=0.01)


def test_batched_and_compiled_alike(block_rows):
    seeds = [(*tables(seed=seed), *ids(19, 3 + 4 * seed, seed=seed)) for seed in range(3)]
    real = jnp.arange(19) < 17
    one = jax.value_and_grad(lambda x, y, rows, columns: by_distinct(x, y, rows, columns, real), (0, 1))
    together = jax.jit(jax.vmap(one))(*(jnp.stack(side) for side in zip(*seeds, strict=True)))
    for place, of_seed in enumerate(seeds):
        assert_equal(jax.tree.map(lambda leaf, place=place: leaf[place], together), one(*of_seed))


def test_the_scores_are_never_held_whole():
    """A batch of 16,384 has scores of 1 GiB; a block of them is all that the program holds."""
    x = jax.ShapeDtypeStruct((16_384, 8), jnp.float32)
    counts = jax.ShapeDtypeStruct((16_384,), jnp.float32)
    program = jax.jit(jax.value_and_grad(log_normalisers, (0, 1))).lower(x, x, counts, counts).compile()
    assert program.memory_analysis().temp_size_in_bytes < 12 * softmax.SCORE_BLOCK_ROWS * 16_384 * 4
