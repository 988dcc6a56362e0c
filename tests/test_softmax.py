"""The in-batch softmax by blocks equals its definition, in value and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax import softmax
from slmrec_jax.softmax import cross_entropy, inbatch_cross_entropy


def definition(x, y, real):
    return cross_entropy(x @ y.T, real, real[None, :])


def batch(size, dim=5, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(scale * rng.normal(size=(size, dim)), jnp.float32) for _ in range(2))


def assert_equal(found, expected, largest_score=1.0):
    for ours, defined in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(defined).max()), float(largest_score) / 10)
        np.testing.assert_allclose(ours, defined, rtol=1e-5, atol=1e-5 * scale)


@pytest.fixture(params=[7, 512])
def block_rows(request, monkeypatch):
    monkeypatch.setattr(softmax, "BLOCK_ROWS", request.param)


@pytest.mark.parametrize("size", [1, 14, 37])
@pytest.mark.parametrize("num_real", [1, None])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_equals_the_definition(block_rows, size, num_real, scale):
    x, y = batch(size, scale=scale)
    real = jnp.arange(size) < (num_real or size)
    found = jax.value_and_grad(lambda x, y: 3.0 * inbatch_cross_entropy(x, y, real), (0, 1))(x, y)
    expected = jax.value_and_grad(lambda x, y: 3.0 * definition(x, y, real), (0, 1))(x, y)
    assert_equal(found, expected, jnp.abs(x @ y.T).max())
    np.testing.assert_allclose(inbatch_cross_entropy(x, y, real), found[0] / 3.0, rtol=1e-6, atol=1e-7)


def test_what_padded_rows_hold_does_not_matter(block_rows):
    x, y = batch(20)
    real = jnp.arange(20) < 13
    noise = jnp.where(real[:, None], 0.0, jnp.nan)
    clean = jax.value_and_grad(inbatch_cross_entropy, (0, 1))(x, y, real)
    dirty = jax.value_and_grad(inbatch_cross_entropy, (0, 1))(x + noise, y + noise, real)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), clean, dirty))
    assert not np.asarray(clean[1][0][13:]).any()
    assert not np.asarray(clean[1][1][13:]).any()


def test_batched_and_compiled_alike(block_rows):
    seeds = [batch(19, seed=seed) for seed in range(3)]
    x, y = (jnp.stack(side) for side in zip(*seeds, strict=True))
    real = jnp.arange(19) < 17
    one = jax.value_and_grad(lambda x, y: inbatch_cross_entropy(x, y, real), (0, 1))
    together = jax.jit(jax.vmap(one))(x, y)
    for place, of_seed in enumerate(seeds):
        assert_equal(jax.tree.map(lambda leaf, place=place: leaf[place], together), one(*of_seed))


def test_the_scores_are_never_held_whole():
    """A batch of 16,384 has scores of 1 GiB; a block of them is all that the program holds."""
    x = jax.ShapeDtypeStruct((16_384, 8), jnp.float32)
    real = jax.ShapeDtypeStruct((16_384,), bool)
    program = jax.jit(jax.value_and_grad(inbatch_cross_entropy, (0, 1))).lower(x, x, real).compile()
    assert program.memory_analysis().temp_size_in_bytes < 6 * softmax.BLOCK_ROWS * 16_384 * 4
