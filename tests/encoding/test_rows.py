import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.devices import compiling_for
from slmrec_jax.encoding import rows
from slmrec_jax.encoding.rows import (
    MICRO_BATCHES,
    all_rows,
    concatenated,
    distinct_ids,
    memoized,
    projected,
    rows_for_all,
    rows_of,
    whole_for_many,
    with_biases,
)
from slmrec_jax.types import ALL, DenseFeature


def test_memoized_computes_each_array_of_ids_once():
    asked = []
    table = memoized(lambda ids: asked.append(ids) or jnp.ones((2, 2)))
    ids, others = jnp.array([0, 1]), jnp.array([0, 1])
    for wanted in (ids, ids, others, ALL, ALL):
        table(wanted)
    assert len(asked) == 3


@pytest.mark.parametrize("count", [4, 5, 40])
def test_many_rows_are_read_from_the_whole_table(count):
    """Equal in value and gradient; each row of the table is computed once, however often it is asked for."""
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 3), (3, 2)))
    ids, weights = rng.integers(0, 5, count), np.arange(count, dtype=np.float32)[:, None]
    asked = []

    def table(x):
        def rows(ids):
            asked.append(ids)
            return jnp.tanh(x[ids] @ kernel)

        return rows

    def loss(x, many):
        rows = whole_for_many(table(x), len(x)) if many else table(x)
        return jnp.sum(jnp.square(rows(jnp.asarray(ids))) * weights)

    ours, expected = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(x, many) for many in (True, False))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, expected)
    assert (asked[0] is ALL) == (count >= 5)


def test_memoized_does_not_let_a_value_out_of_a_branch():
    table = rows_of(jnp.arange(6.0).reshape(3, 2))

    @jax.jit
    def both(ids):
        inside = jax.lax.cond(ids[0] > 0, lambda: jnp.sum(table(ids)), lambda: 0.0)
        return inside + jnp.sum(table(ids))

    assert both(jnp.array([1, 2])) == 2 * (2 + 3 + 4 + 5)


def test_a_row_that_is_not_present_is_projected_to_zero():
    rng = np.random.default_rng(0)
    values, present = rng.normal(size=(4, 3)).astype(np.float32), np.array([1, 0, 1, 1], np.float32)
    values[1] = 0
    kernel, bias = rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    feature = DenseFeature(jnp.asarray(values), jnp.asarray(present))
    table = projected(feature, {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)})
    expected = (values @ kernel + bias) * present[:, None]
    np.testing.assert_allclose(table(ALL), expected, rtol=1e-5)
    np.testing.assert_allclose(table(jnp.array([3, 1])), expected[[3, 1]], rtol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 11])
def test_a_table_by_blocks_is_the_whole_table(count, monkeypatch):
    monkeypatch.setattr(rows, "TABLE_BLOCK_ROWS", 4)
    x, kernel = (jnp.asarray(np.random.default_rng(i).normal(size=s)) for i, s in enumerate([(count, 3), (3, 2)]))
    sizes = []

    def table(ids):
        sizes.append(len(x[ids]))
        return x[ids] @ kernel

    np.testing.assert_allclose(all_rows(table, count), x @ kernel, rtol=1e-6)
    assert max(sizes) <= 4


@pytest.mark.parametrize("num_real", [1, 4, 9])
def test_distinct_ids_with_their_counts_and_places(num_real):
    ids, real = np.array([5, 2, 5, 5, 0, 2, 7, 0, 5], np.int32), np.arange(9) < num_real
    found = jax.jit(distinct_ids, static_argnums=2)(ids, real, 8)
    first_come = list(dict.fromkeys(ids[real].tolist()))
    assert found.ids.tolist() == first_come + [5] * (9 - len(first_come))
    assert found.counts.tolist() == [(ids[real] == i).sum() for i in first_come] + [0] * (9 - len(first_come))
    np.testing.assert_array_equal(found.ids[found.places][real], ids[real])
    assert (np.asarray(found.places) < len(first_come)).all()


def test_distinct_ids_where_the_first_rows_are_not_real():
    real = np.array([False, True, True, True])
    found = jax.jit(distinct_ids, static_argnums=2)(np.array([1, 2, 3, 2], np.int32), real, 4)
    assert found.ids.tolist()[:2] == [2, 3]
    assert found.counts.tolist() == [2, 1, 0, 0]


def test_biases_are_added_to_the_inner_product():
    rng = np.random.default_rng(0)
    users, items, biases = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 2), (4, 2), (4,)))
    tables = with_biases(*(rows_of(jnp.asarray(x)) for x in (users, items, biases)))
    np.testing.assert_allclose(tables[0](ALL) @ tables[1](ALL).T, users @ items.T + biases, rtol=1e-5)


def test_tables_side_by_side():
    tables = [rows_of(jnp.full((3, width), float(width))) for width in (1, 2)]
    np.testing.assert_array_equal(concatenated(tables)(jnp.array([2, 0])), [[1, 2, 2], [1, 2, 2]])


@pytest.mark.parametrize(("platform", "distinct"), [("cpu", True), ("gpu", False), ("gpu", True)])
def test_rows_for_all_micro_batches_in_value_and_derivative(platform, distinct):
    """Mapped over micro-batches, there is one gather and no table for each of them, also in the derivative."""
    rng = np.random.default_rng(0)
    table, weights = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((50, 3), (4, 6, 3)))
    ids = jnp.asarray(rng.integers(0, 50, (4, 6)), jnp.int32).at[:, 1].set(7)
    real = jnp.ones((4, 6), bool).at[2, 3:].set(False)

    def own(rows, ids, real, weights):
        wanted = distinct_ids(ids, real, 50) if distinct else ids
        return jnp.sum(weights * rows(wanted) ** 2)

    def mapped(table, for_all):
        def of_one(ids, real, weights):
            return own(rows_for_all(rows_of(table)) if for_all else rows_of(table), ids, real, weights)

        return jnp.sum(jax.vmap(of_one, axis_name=MICRO_BATCHES)(ids, real, weights))

    def in_turn(table):
        return sum(own(rows_of(table), *one) for one in zip(ids, real, weights, strict=True))

    with compiling_for(platform):
        together = jax.jit(jax.value_and_grad(lambda table: mapped(table, True)))
        text = together.lower(table).as_text()
        found, expected = together(table), jax.jit(jax.value_and_grad(in_turn))(table)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
    assert "4x50x3x" not in text


def test_rows_outside_of_micro_batches_are_the_same_rows():
    rows = rows_for_all(rows_of(jnp.arange(6.0).reshape(3, 2)))
    assert rows(jnp.array([2, 0])).tolist() == [[4, 5], [0, 1]]
