"""Initialisers and an affine layer with PyTorch's conventions, as used in the field; row norms and masked means."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Scalar

Linear = dict[str, Float[Array, "..."]]
"""The parameters of an affine layer: `kernel` of shape (inputs, outputs) and `bias` of shape (outputs,)."""


def xavier_uniform(key: Key[Array, ""], rows: int, columns: int) -> Float[Array, "rows columns"]:
    """Draw uniformly from ± sqrt(6 / (rows + columns)). For an embedding table, `rows` is the number of entries.

    Args:
        key: A PRNG key.
        rows: The number of rows.
        columns: The number of columns.
    """
    bound = math.sqrt(6.0 / (rows + columns))
    return jax.random.uniform(key, (rows, columns), jnp.float32, -bound, bound)


def xavier_normal(key: Key[Array, ""], rows: int, columns: int) -> Float[Array, "rows columns"]:
    """Draw from a normal distribution with standard deviation sqrt(2 / (rows + columns))."""
    return math.sqrt(2.0 / (rows + columns)) * jax.random.normal(key, (rows, columns), jnp.float32)


def linear(key: Key[Array, ""], inputs: int, outputs: int) -> Linear:
    """Initialise an affine layer: Xavier-uniform kernel, bias uniform in ± 1 / sqrt(inputs)."""
    # One draw for both, since each draw takes a fifth of a second to compile.
    drawn = jax.random.uniform(key, (inputs + 1, outputs), jnp.float32, -1.0, 1.0)
    return {"kernel": math.sqrt(6.0 / (inputs + outputs)) * drawn[:-1], "bias": drawn[-1] / math.sqrt(inputs)}


def affine(params: Linear, x: Float[Array, "rows inputs"]) -> Float[Array, "rows outputs"]:
    """Compute x W + b."""
    return x @ params["kernel"] + params["bias"][None, :]


def normalize(x: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
    """Divide each row by the maximum of its L2 norm and 1e-12. The gradient of a zero row is finite.

    In float32, squares overflow above 1.8e19, and the cubes of norms in the gradient above 7e12. Rows with large values
    are therefore scaled first, which changes neither the result nor its gradient; other rows are multiplied by 1.

    Args:
        x: Rows along the last axis.
    """
    exact = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x  # in float16, squares overflow above a norm of 255
    exact = exact * moderating_powers(exact)
    return (exact * inverse_norms(exact)).astype(x.dtype)


def moderating_powers(x: Float[Array, "*rows dim"]) -> Float[Array, "*rows 1"]:
    """Return the power of two that makes the squares of each row fit in float32; 1 for rows without large values."""
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0)
    scale = jnp.where(largest > 2.0**80, 2.0**-104, jnp.where(largest > 2.0**32, 2.0**-56, 1.0))
    return scale.astype(x.dtype)


def inverse_norms(x: Float[Array, "*rows dim"]) -> Float[Array, "*rows 1"]:
    """Compute 1 / max(norm, 1e-12) of each row. The squares must fit in float32."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def mean(values: Float[Array, " batch"], mask: Bool[Array, " batch"]) -> Scalar:
    """Compute the mean over unmasked rows. Masked rows may hold any values, even NaN.

    Args:
        values: One value per row of a batch.
        mask: True for real rows, such as `Batch.mask`.
    """
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.sum(mask, dtype=values.dtype)
