import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.encoding import rows
from slmrec_jax.encoding.rows import all_rows, concatenated, distinct_ids, memoized, projected, rows_of, with_biases
from slmrec_jax.types import ALL, DenseFeature


def test_memoized_computes_each_array_of_ids_once():
    asked = []
    table = memoized(lambda ids: asked.append(ids) or jnp.ones((2, 2)))
    ids, others = jnp.array([0, 1]), jnp.array([0, 1])
    for wanted in (ids, ids, others, ALL, ALL):
        table(wanted)
    assert len(asked) == 3


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
    found = distinct_ids(jnp.asarray(ids), jnp.asarray(real), 8)
    first_come = list(dict.fromkeys(ids[real].tolist()))
    assert found.ids.tolist() == first_come + [5] * (9 - len(first_come))
    assert found.counts.tolist() == [(ids[real] == i).sum() for i in first_come] + [0] * (9 - len(first_come))
    np.testing.assert_array_equal(found.ids[found.places][real], ids[real])
    assert (np.asarray(found.places) < len(first_come)).all()


def test_distinct_ids_where_the_first_rows_are_not_real():
    found = distinct_ids(jnp.array([1, 2, 3, 2]), jnp.array([False, True, True, True]), 4)
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
