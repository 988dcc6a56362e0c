"""Initialisers and the affine layer, with the field's (that is, PyTorch's) conventions; norms and means of rows."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Scalar

Linear = dict[str, Float[Array, "..."]]
"""`kernel` (inputs, outputs) and `bias` (outputs,)."""


def xavier_uniform(key: Key[Array, ""], rows: int, columns: int) -> Float[Array, "rows columns"]:
    """Uniform within ± sqrt(6 / (rows + columns)); for an embedding table the rows are its entries."""
    bound = math.sqrt(6.0 / (rows + columns))
    return jax.random.uniform(key, (rows, columns), jnp.float32, -bound, bound)


def xavier_normal(key: Key[Array, ""], rows: int, columns: int) -> Float[Array, "rows columns"]:
    """Normal with standard deviation sqrt(2 / (rows + columns))."""
    return math.sqrt(2.0 / (rows + columns)) * jax.random.normal(key, (rows, columns), jnp.float32)


def linear(key: Key[Array, ""], inputs: int, outputs: int) -> Linear:
    """An affine layer: Xavier-uniform kernel, bias uniform within ± 1 / sqrt(inputs)."""
    # One draw for both: each takes the compiler a fifth of a second.
    drawn = jax.random.uniform(key, (inputs + 1, outputs), jnp.float32, -1.0, 1.0)
    return {"kernel": math.sqrt(6.0 / (inputs + outputs)) * drawn[:-1], "bias": drawn[-1] / math.sqrt(inputs)}


def affine(params: Linear, x: Float[Array, "rows inputs"]) -> Float[Array, "rows outputs"]:
    """X W + b."""
    return x @ params["kernel"] + params["bias"][None, :]


def normalize(x: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
    """Divide each row by its L2 norm, or by 1e-12 where that is smaller; the gradient of a zero row is finite.

    Squares of float32 overflow from 1.8e19 on, and the cubes of norms that the gradient has from 7e12 on. So rows with
    large values are scaled first, which changes neither the result nor its gradient; others are multiplied by 1.
    """
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0)
    scale = jnp.where(largest > 2.0**80, 2.0**-104, jnp.where(largest > 2.0**32, 2.0**-56, 1.0))
    x = x * scale.astype(x.dtype)
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def mean(values: Float[Array, " batch"], mask: Bool[Array, " batch"]) -> Scalar:
    """The mean over real rows; what padded rows hold, NaN too, does not matter."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.sum(mask, dtype=values.dtype)
