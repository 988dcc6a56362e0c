"""Rows by ids on every platform: value and derivatives are those of indexing, and additions have a fixed order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.devices import compiling_for
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.rows import distinct_ids

PLATFORMS = ("cpu", "gpu", "tpu")
IDS = {
    "repeated": [3, 1, 3, 3, 0, 1, 6, 3],
    "distinct": [5, 2, 0],
    "one": [4],
    "one many times": [2] * 400,
    "two axes": [[1, 2, 1], [6, 1, 0]],
}


BATCH = np.array([5, 2, 5, 5, 0, 2, 7, 0, 5], np.int32)


def random(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("columns", [(), (3,)])
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_value_and_derivatives_are_those_of_indexing(platform, ids, columns):
    ids = jnp.asarray(np.array(IDS[ids], np.int32))
    table, weights = random((7, *columns)), random((*ids.shape, *columns), 1)

    def both(rows_of):
        def value(table):
            return jnp.sum(weights * rows_of(table, ids) ** 3)

        def penalty(table):
            return jnp.sum(jax.grad(value)(table) ** 2)

        return jax.jit(lambda table: (jax.value_and_grad(value)(table), jax.grad(penalty)(table)))

    with compiling_for(platform):
        found = both(take)(table)
    jax.tree.map(
        lambda ours, defined: np.testing.assert_allclose(ours, defined, rtol=1e-5, atol=1e-4),
        found,
        both(lambda table, ids: table[ids])(table),
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_distinct_ids_of_a_batch(platform):
    ids, real = jnp.asarray(BATCH), jnp.asarray(np.arange(9) < 6)
    table, weights = random((8, 3)), random((9, 3), 1)

    def value(table, rows_of):
        of = distinct_ids(ids, real, 8)
        return jnp.sum(of.counts[:, None] * weights * rows_of(table, of) ** 2)

    with compiling_for(platform):
        found = jax.jit(jax.value_and_grad(lambda table: value(table, take)))(table)
    expected = jax.jit(jax.value_and_grad(lambda table: value(table, lambda table, of: table[of.ids])))(table)
    jax.tree.map(lambda ours, defined: np.testing.assert_allclose(ours, defined, rtol=1e-5), found, expected)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("real", [(0, 1, 2, 3, 4, 5, 6, 7, 8), (3,), (2, 5, 8)])
def test_distinct_ids_are_the_same_on_every_platform(platform, real):
    ids, mask = jnp.asarray(BATCH), jnp.asarray(np.isin(np.arange(9), real))
    with compiling_for(platform):
        found = jax.jit(lambda ids, mask: distinct_ids(ids, mask, 8))(ids, mask)
    expected = jax.jit(lambda ids, mask: distinct_ids(ids, mask, 8))(ids, mask)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_ids_and_ids_that_are_no_integers(platform):
    table = random((7, 3))
    with compiling_for(platform):
        sum_of_none = jax.value_and_grad(lambda table: jnp.sum(take(table, jnp.zeros((4, 0), jnp.int32))))
        value, gradient = jax.jit(sum_of_none)(table)
        assert value == 0
        np.testing.assert_array_equal(gradient, np.zeros((7, 3)))
        assert take(table, jnp.int32(2)).shape == (3,)
        with pytest.raises(TypeError):
            take(table, jnp.ones(7, bool))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_flows_back_from_padding(platform):
    """Even from a mean that counts it."""
    ids = jnp.asarray([1, 1, 1, 3], jnp.int32)
    with compiling_for(platform):
        of = jax.jit(lambda ids: distinct_ids(ids, jnp.ones(4, bool), 5))(ids)
        gradient = jax.jit(jax.grad(lambda table: jnp.mean(take(table, of))))(random((5, 2)))
    np.testing.assert_allclose(gradient, [[0, 0], [1 / 8] * 2, [0, 0], [1 / 8] * 2, [0, 0]])


def test_batches_of_ids():
    ids, tables = jnp.asarray(np.array([[0, 2, 2], [1, 1, 0]], np.int32)), random((2, 3, 4))
    with compiling_for("gpu"):
        together = jax.jit(jax.vmap(jax.grad(lambda table, ids: jnp.sum(take(table, ids) ** 3))))(tables, ids)
    gradient = jax.jit(jax.grad(lambda table, ids: jnp.sum(table[ids] ** 3)))
    alone = [gradient(*each) for each in zip(tables, ids, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5)
