"""The in-batch softmax: each row must know its own column among the batch's. The definition, and the same faster.

Popular items stand in a batch many times, and so do busy users: 2048 interactions of TikTok are of some 690 users and
1,350 items. What is alike is computed once and counted: Σ_b log Σ_c exp S_bc = Σ_r n_r log Σ_k m_k exp S_rk, where r
and k run over distinct rows and columns, which stand in the batch n_r and m_k times.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from slmrec_jax.encoding.layers import mean
from slmrec_jax.types import Distinct

BLOCK_ROWS = 256
"""Rows of scores that are held at a time. Against a batch of 2048 their 2 MiB stay in a processor's cache; the whole
matrix, which autodiff would write and read several times, does not."""

WIDTHS = (0.75, 0.875, 1.0)
"""How wide a block may be, as shares of the batch: the first that holds all distinct columns is taken. Each is compiled
apart."""


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
    x: Float[Array, "batch dim"],
    y: Float[Array, "batch dim"],
    rows: Distinct,
    columns: Distinct,
    real: Bool[Array, " batch"],
) -> Scalar:
    """`cross_entropy(S, real, real)` of the scores S = x[rows.places] y[columns.places]ᵀ.

    Args:
        x: the distinct rows.
        y: the distinct columns.
        rows: how often each row stands in the batch, and where; the positive of the batch's row b is its column b.
        columns: likewise.
        real: which of the batch's rows are.
    """
    positives = jnp.sum(x[rows.places] * y[columns.places], axis=1)
    return log_normalisers(x, y, rows.counts, columns.counts) / jnp.sum(rows.counts) - mean(positives, real)


def self_cross_entropy(
    x: Float[Array, "batch dim"], y: Float[Array, "batch dim"], counts: Float[Array, " batch"]
) -> Scalar:
    """`inbatch_cross_entropy` where rows and columns are the same users or items: each must know itself.

    Args:
        x: one side of each, finite also where it does not count.
        y: the other side.
        counts: how often each stands in the batch.
    """
    positives = jnp.sum(x * y, axis=1)
    return (log_normalisers(x, y, counts, counts) - jnp.sum(counts * positives)) / jnp.sum(counts)


def log_normalisers(
    x: Float[Array, "rows dim"],
    y: Float[Array, "columns dim"],
    row_counts: Float[Array, " rows"],
    column_counts: Float[Array, " columns"],
) -> Scalar:
    """Σ_r n_r log Σ_k m_k exp(x_r · y_k), without ever holding x yᵀ.

    It is linear in its cotangent, so one pass over blocks of rows gives the value and both gradients: with the softmax
    p, they are n_r Σ_k p_rk y_k and Σ_r n_r p_rk x_r. Both counts are taken as constant; second derivatives there are
    none.

    Args:
        x: rows.
        y: columns.
        row_counts: n; a row that counts 0 may hold anything. On CPU what comes after the last that counts costs little.
        column_counts: m; likewise.
    """
    return _log_normalisers(x, y, row_counts, column_counts)


@jax.custom_vjp
def _log_normalisers(x: Array, y: Array, row_counts: Array, column_counts: Array) -> Array:
    return _forward(x, y, row_counts, column_counts)[0]


def _forward(x: Array, y: Array, row_counts: Array, column_counts: Array) -> tuple[Array, tuple[Array, Array]]:
    num_rows, num_columns = x.shape[0], y.shape[0]
    given, dtype = (x.dtype, y.dtype), jnp.dtype(x.dtype if x.dtype.itemsize >= 4 else "float32")  # half cannot count
    x, y, row_counts, column_counts = (of.astype(dtype) for of in (x, y, row_counts, column_counts))
    x = jnp.where(row_counts[:, None] > 0, x, 0.0)
    # A column that does not count repeats one that does: it never is the largest.
    y = jnp.where(column_counts[:, None] > 0, y, y[jnp.argmax(column_counts > 0)][None, :])
    most_blocks = -(-num_rows // BLOCK_ROWS)
    block_rows = -(-num_rows // most_blocks)
    padding = most_blocks * block_rows - num_rows
    x, row_counts = jnp.pad(x, ((0, padding), (0, 0))), jnp.pad(row_counts, (0, padding))
    if jax.default_backend() == "cpu":
        num_blocks: Array | int = -(-_last(row_counts) // block_rows)
        widths = sorted({max(1, int(share * num_columns)) for share in WIDTHS})
    else:  # a loop or a branch that depends on values would wait for the host, and a product is cheap
        num_blocks, widths = most_blocks, [num_columns]
    ways: list[Callable[..., tuple[Array, Array, Array]]] = [
        partial(_by_blocks, width=width, block_rows=block_rows) for width in widths
    ]
    width = jnp.sum(_last(column_counts) > jnp.array(widths))
    value, to_rows, to_columns = jax.lax.switch(width, ways, x, y, row_counts, column_counts, num_blocks)
    return value, (to_rows[:num_rows].astype(given[0]), to_columns.astype(given[1]))


def _by_blocks(
    x: Array, y: Array, row_counts: Array, column_counts: Array, num_blocks: Array | int, *, width: int, block_rows: int
) -> tuple[Array, Array, Array]:
    """Of the first blocks of rows and the first columns: the value, and the gradients of rows and columns."""
    columns, counts = y[:width], column_counts[None, :width]

    def block(index: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, to_rows, to_columns = sums
        start = index * block_rows
        rows, weights = (jax.lax.dynamic_slice_in_dim(of_all, start, block_rows) for of_all in (x, row_counts))
        scores = rows @ columns.T
        largest = jnp.max(scores, axis=1)
        exponentials = counts * jnp.exp(scores - largest[:, None])
        total = jnp.sum(exponentials, axis=1)
        # What could scale or transpose the block of scores does so with the small factor, which costs nothing: laid out
        # again behind a barrier, or XLA would have the product do it on the way (3 % of all this on CPUs).
        factor = (weights / total)[:, None]
        factors: Array = jax.lax.optimization_barrier((rows * factor).T)  # type: ignore[no-untyped-call]
        to_these = factor * (exponentials @ columns)
        return (
            value + jnp.sum(weights * (largest + jnp.log(total))),
            jax.lax.dynamic_update_slice_in_dim(to_rows, to_these, start, axis=0),
            to_columns + factors @ exponentials,
        )

    nothing = jnp.zeros((), x.dtype), jnp.zeros_like(x), jnp.zeros((x.shape[1], width), x.dtype)
    value, to_rows, to_columns = jax.lax.fori_loop(0, num_blocks, block, nothing)
    return value, to_rows, jnp.pad(to_columns.T, ((0, y.shape[0] - width), (0, 0)))


def _last(counts: Float[Array, " places"]) -> Int[Array, ""]:
    """How many places there are up to the last that counts."""
    return jnp.max(jnp.where(counts > 0, jnp.arange(1, counts.shape[0] + 1), 0))


def _backward(gradients: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, None, None]:
    to_x, to_y = gradients
    return cotangent.astype(to_x.dtype) * to_x, cotangent.astype(to_y.dtype) * to_y, None, None


_log_normalisers.defvjp(_forward, _backward)
