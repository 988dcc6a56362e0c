"""The in-batch softmax: each row must know its own column among the batch's. The definition, and the same by blocks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from slmrec_jax.layers import mean

BLOCK_ROWS = 512
"""Rows of scores that are held at a time. Against a batch of 2048 their 4 MiB stay in a processor's cache; the whole
matrix, which autodiff would write and read several times, does not."""


def cross_entropy(
    scores: Float[Array, "batch batch"], rows: Bool[Array, " batch"], columns: Bool[Array, "_ batch"]
) -> Scalar:
    """The mean over real rows of log Σ_c exp S_bc - S_bb, where c runs over b itself and the columns allowed for b.

    Args:
        scores: S; the diagonal holds the positives.
        rows: which rows are real.
        columns: which columns may stand in the denominator, for all rows at once (one row) or for each.
    """
    allowed = columns | jnp.eye(scores.shape[0], dtype=bool)
    positive = jnp.diagonal(scores)
    return mean(jax.nn.logsumexp(jnp.where(allowed, scores, -jnp.inf), axis=1) - positive, rows)


def inbatch_cross_entropy(
    x: Float[Array, "batch dim"], y: Float[Array, "batch dim"], real: Bool[Array, " batch"]
) -> Scalar:
    """`cross_entropy(x yᵀ, real, real)`, without ever holding x yᵀ.

    The loss is linear in its cotangent, so one pass over blocks of rows gives the value and both gradients: with
    w_b = 1 / (number of real rows) and the softmax p, they are w_b (Σ_c p_bc y_c - y_b) and Σ_b w_b p_bc x_b - w_c x_c.

    Args:
        x: rows.
        y: columns; the positive of row b is column b.
        real: which rows, and which columns, are real; what others hold does not matter.
    """
    return _cross_entropy(x, y, real)


@jax.custom_vjp
def _cross_entropy(x: Array, y: Array, real: Array) -> Array:
    return _forward(x, y, real)[0]


def _forward(x: Array, y: Array, real: Array) -> tuple[Array, tuple[Array, Array]]:
    x = jnp.where(real[:, None], x, 0.0)
    # A column that is not real repeats a real one: it never is the largest, and its exponential counts 0.
    y = jnp.where(real[:, None], y, y[jnp.argmax(real)][None, :])
    batch, dim = x.shape
    num_blocks = -(-batch // BLOCK_ROWS)
    block_rows = -(-batch // num_blocks)
    weights = jnp.where(real, 1.0 / jnp.sum(real, dtype=x.dtype), 0.0)
    counts = jnp.where(real, 1.0, 0.0)[None, :]

    def blocks(rows: Array) -> Array:
        padded = jnp.pad(rows, [(0, num_blocks * block_rows - batch)] + [(0, 0)] * (rows.ndim - 1))
        return padded.reshape(num_blocks, block_rows, *rows.shape[1:])

    def block(to_columns: Array, share: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        rows, weight = share
        scores = rows @ y.T
        largest = jnp.max(scores, axis=1)
        exponentials = counts * jnp.exp(scores - largest[:, None])
        total = jnp.sum(exponentials, axis=1)
        # What could scale or transpose the block of scores does so with the small factor, which costs nothing.
        factor = (weight / total)[:, None]
        return to_columns + (rows * factor).T @ exponentials, (largest + jnp.log(total), factor * (exponentials @ y))

    to_columns, (normalisers, to_rows) = jax.lax.scan(
        block, jnp.zeros((dim, batch), x.dtype), (blocks(x), blocks(weights))
    )
    value = jnp.sum(weights * (normalisers.reshape(-1)[:batch] - jnp.sum(x * y, axis=1)))
    weights = weights[:, None]
    return value, (to_rows.reshape(-1, dim)[:batch] - weights * y, to_columns.T - weights * x)


def _backward(gradients: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, None]:
    to_x, to_y = gradients
    return cotangent * to_x, cotangent * to_y, None


_cross_entropy.defvjp(_forward, _backward)
