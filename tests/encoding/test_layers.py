"""Rows divided by their norms, whatever their size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.data import Feature, make_dataset
from slmrec_jax.data.inspect.findings import oddities
from slmrec_jax.data.inspect.inspection import inspect_dataset
from slmrec_jax.encoding.layers import normalize
from slmrec_jax.evaluation import analysis
from slmrec_jax.types import Interactions

SIZES = [1e-30, 1e-12, 1e-6, 1.0, 1e13, 1e15, 1e19, 1e30, 3e38]


def rows(size):
    values = np.random.default_rng(0).uniform(-1, 1, (5, 7))
    values[3] = 0
    return (size * values / np.abs(values).max()).astype(np.float32)


def unit(x):
    """The definition, in float64."""
    return x / np.maximum(np.linalg.norm(np.float64(x), axis=-1, keepdims=True), 1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_rows_of_any_size_are_divided_by_their_norms(size):
    x = rows(size)
    assert np.allclose(normalize(jnp.asarray(x)), unit(x), rtol=1e-6, atol=1e-30)
    assert np.allclose(analysis.unit_rows(x), unit(x), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e13, 1e19, 1e30])
def test_the_gradient_is_that_of_the_definition(size):
    x, g = rows(size)[:3], np.random.default_rng(1).normal(size=(3, 7))
    found = jax.vjp(normalize, jnp.asarray(x))[1](jnp.asarray(g, jnp.float32))[0]
    u = unit(x)
    expected = (g - u * (g * u).sum(axis=1, keepdims=True)) / np.linalg.norm(np.float64(x), axis=1, keepdims=True)
    assert np.allclose(np.float64(found) * size, expected * size, rtol=1e-4, atol=1e-6)


def test_ordinary_rows_are_the_same_to_the_last_bit():
    x = jnp.asarray(rows(3.7))
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    assert jnp.array_equal(normalize(x), x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24)))


def test_rows_in_float16_are_normalised_in_float32():
    x = jnp.asarray([[200.0, 200.0, 200.0, 200.0], [0.0] * 4], jnp.float16)
    found = normalize(x)
    assert found.dtype == jnp.float16
    assert np.array_equal(found, [[0.5] * 4, [0.0] * 4])


def test_what_is_not_finite_shows():
    for wrong in (np.nan, np.inf):
        assert not jnp.isfinite(normalize(jnp.array([[wrong, 1.0]]))).all()


def test_inspect_warns_of_squares_that_overflow():
    pairs = Interactions(*np.zeros((2, 1), np.int64))
    for size, warned in ((1e17, False), (1e30, True)):
        features = {"visual": Feature(rows(size), np.arange(5) != 3)}
        dataset = make_dataset("small", pairs, pairs, pairs, num_users=1, num_items=5, features=features)
        assert any("squares overflow in float32" in line for line in oddities(inspect_dataset(dataset))) == warned
