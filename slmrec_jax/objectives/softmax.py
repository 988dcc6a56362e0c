"""The in-batch softmax, which identifies each row's own column among those of the batch: definition and fast version.

Popular items and active users appear in a batch many times: 2048 interactions of TikTok have about 690 users and 1,350
items. Equal terms are computed once and weighted by their counts: Σ_b log Σ_c exp S_bc = Σ_r n_r log Σ_k m_k exp S_rk,
where r and k run over distinct rows and columns, which appear n_r and m_k times in the batch.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from slmrec_jax.devices import on_cpu
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.layers import mean
from slmrec_jax.meshes import num_shares, on_own_rows, sum_over_shares
from slmrec_jax.types import Distinct

SCORE_BLOCK_ROWS = 256
"""The number of score rows that a CPU holds at a time. With a batch of 2048 they take 2 MiB and stay in cache, unlike
the whole matrix, which autodiff would write and read several times."""

SCORE_BLOCK_BYTES = 2**23
"""The bytes of scores that an accelerator holds at a time: half of a batch of 2048, in a few large products. A CPU
holds at most as much."""

LEAST_BLOCK_ROWS = 16
"""The minimum number of score rows at a time, however many columns there are."""

WIDTHS = (0.75, 0.875, 1.0)
"""The candidate widths of a block, as shares of the batch. The first that holds all distinct columns is used. Each is
compiled separately."""


def cross_entropy(
    scores: Float[Array, "batch batch"], rows: Bool[Array, " batch"], columns: Bool[Array, "_ batch"]
) -> Scalar:
    """Compute the mean over unmasked rows b of log Σ_c exp S_bc - S_bb, with c over b and the allowed columns.

    The diagonal of the scores S holds the positives. `rows` marks the unmasked rows. `columns` marks the allowed
    columns, either for all rows at once (a single row) or for each row.
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
    offsets: Float[Array, " batch"] | None = None,
) -> Scalar:
    """Compute `cross_entropy(S, real, real)` for the scores S_bc = x[rows.places]_b · y[columns.places]_c + offset_c.

    x, y and the offsets are those of the distinct rows and columns; `rows` and `columns` give their counts and their
    places in the batch, and `real` marks the batch's unmasked rows. The positive of row b is column b. Offsets default
    to 0 and are treated as constants: a column with an offset counts exp(offset) times.
    """
    positives = jnp.sum(take(x, rows.places) * take(y, columns.places), axis=1)
    counts = columns.counts
    if offsets is not None:
        # The largest offset is subtracted from both terms, so that no count overflows.
        offsets = jax.lax.stop_gradient(offsets - jnp.max(jnp.where(counts > 0, offsets, -jnp.inf)))
        counts = jnp.where(counts > 0, counts * jnp.exp(offsets), 0.0)
        positives = positives + offsets[columns.places]
    return log_normalisers(x, y, rows.counts, counts) / jnp.sum(rows.counts) - mean(positives, real)


def self_cross_entropy(
    x: Float[Array, "batch dim"], y: Float[Array, "batch dim"], counts: Float[Array, " batch"]
) -> Scalar:
    """Compute `inbatch_cross_entropy` between two representations of the same users or items: each identifies itself.

    Both representations must be finite even for padding. Each user or item appears `counts` times in the batch.
    """
    return _mean_over_rows(log_normalisers(x, y, counts, counts), x, y, counts)


def two_view_cross_entropy(
    x: Float[Array, "batch dim"],
    y: Float[Array, "batch dim"],
    counts: Float[Array, " batch"],
    temperature: float,
) -> Scalar:
    """Compute the loss of users or items that identify their own y among the x and y of all others.

    It is the mean over rows b, weighted by n_b, of

        log(e^{x_b · y_b / τ} + Σ_{c≠b} n_c (e^{x_b · x_c / τ} + e^{x_b · y_c / τ})) - x_b · y_b / τ,

    where n are the counts. Rows must have norm 1. The smallest possible value is representable in float32 if the
    temperature τ is at least 0.025.
    """
    rows = x / temperature
    sides = jnp.stack([x, y], axis=1).reshape(2 * x.shape[0], x.shape[1])
    normalisers = log_normalisers(rows, sides, counts, jnp.repeat(counts, 2), jnp.array([0.0, 1.0]))
    return _mean_over_rows(normalisers, rows, y, counts)


def identification(
    x: Float[Array, "batch dim"],
    y: Float[Array, "batch dim"],
    others: Float[Array, "nodes dim"],
    counts: Float[Array, " batch"],
) -> Scalar:
    """Compute the mean over rows b, weighted by `counts`, of log Σ_n exp(x_b · others_n) - x_b · y_b.

    The positive y_b must be one of the others.
    """
    return _mean_over_rows(log_normalisers(x, others, counts, jnp.ones(others.shape[0])), x, y, counts)


def _mean_over_rows(log_normalisers: Scalar, x: Array, y: Array, counts: Array) -> Scalar:
    return (log_normalisers - jnp.sum(counts * jnp.sum(x * y, axis=1))) / jnp.sum(counts)


@jax.custom_vjp
def log_normalisers(
    x: Float[Array, "rows dim"],
    y: Float[Array, "columns dim"],
    row_counts: Float[Array, " rows"],
    column_counts: Float[Array, " columns"],
    own_counts: Float[Array, " own"] | None = None,
) -> Scalar:
    """Compute Σ_r n_r log Σ_k m_k exp(x_r · y_k) without materialising x yᵀ.

    With `own_counts` of length j, each row owns j consecutive columns, in row order. For the row that owns them, these
    columns have the counts `own_counts` instead of their `column_counts`.

    The backward pass only scales by the scalar cotangent, so one pass over blocks of rows computes the value and both
    gradients: with the softmax p, these are n_r Σ_k p_rk y_k and Σ_r n_r p_rk x_r. All counts are treated as constants.
    The result cannot be differentiated twice. A row or column with count 0 may hold any values; on CPU, those after the
    last nonzero count cost little.
    """
    return _normalisers_forward(x, y, row_counts, column_counts, own_counts)[0]


def _normalisers_forward(
    x: Array, y: Array, row_counts: Array, column_counts: Array, own_counts: Array | None = None
) -> tuple[Array, tuple[Array, Array]]:
    num_rows = x.shape[0]
    given = x.dtype, y.dtype
    dtype = jnp.dtype(x.dtype if x.dtype.itemsize >= 4 else "float32")  # half precision cannot represent counts
    x, y, row_counts, column_counts = (of.astype(dtype) for of in (x, y, row_counts, column_counts))
    x = jnp.where(row_counts[:, None] > 0, x, 0.0)
    # A column with count 0 repeats one with a positive count, so it never exceeds the largest score.
    y = jnp.where(column_counts[:, None] > 0, y, y[jnp.argmax(column_counts > 0)][None, :])
    own_counts = jnp.zeros(0) if own_counts is None else own_counts
    shares, places = num_shares(), jnp.arange(num_rows)
    if shares == 1:
        value, to_rows, to_columns = _normalisers(x, row_counts, places, y, column_counts, own_counts)
    else:
        padding = -num_rows % shares
        x = jnp.pad(x, ((0, padding), (0, 0)))
        row_counts, places = (jnp.pad(of_rows, (0, padding)) for of_rows in (row_counts, places))

        def own_rows(*given: Array) -> tuple[Array, Array, Array]:
            value, to_rows, to_columns = _normalisers(*given)
            return sum_over_shares(value), to_rows, sum_over_shares(to_columns)

        divided = on_own_rows(own_rows, 3, 3, outputs=(False, True, False))
        value, to_rows, to_columns = divided(x, row_counts, places, y, column_counts, own_counts)
    return value, (to_rows[:num_rows].astype(given[0]), to_columns.astype(given[1]))


@jax.custom_batching.sequential_vmap  # type: ignore[untyped-decorator]
def _normalisers(
    x: Array, row_counts: Array, places: Array, y: Array, column_counts: Array, own_counts: Array
) -> tuple[Array, Array, Array]:
    """Compute the value and both gradients by blocks of rows; several micro-batches are processed one after another.

    `places` are the indices of the rows among all rows, which a mesh splits.
    """
    num_rows, num_columns = x.shape[0], y.shape[0]
    most_rows = max(LEAST_BLOCK_ROWS, SCORE_BLOCK_BYTES // (x.dtype.itemsize * num_columns))
    most_rows = min(SCORE_BLOCK_ROWS, most_rows) if on_cpu() else most_rows
    most_blocks = -(-num_rows // most_rows)
    block_rows = -(-num_rows // most_blocks)
    padding = most_blocks * block_rows - num_rows
    x = jnp.pad(x, ((0, padding), (0, 0)))
    row_counts, places = (jnp.pad(of_rows, (0, padding)) for of_rows in (row_counts, places))
    if on_cpu():
        num_blocks: Array | int = -(-_last(row_counts) // block_rows)
        widths = sorted({max(1, int(share * num_columns)) for share in WIDTHS})
    else:  # a value-dependent loop or branch would wait for the host, and products are cheap
        num_blocks, widths = most_blocks, [num_columns]
    ways = [partial(_by_blocks, width=width, block_rows=block_rows) for width in widths]
    chosen = jnp.sum(_last(column_counts) > jnp.array(widths))
    value, to_rows, to_columns = jax.lax.switch(
        chosen, ways, x, y, row_counts, places, column_counts, own_counts, num_blocks
    )
    return value, to_rows[:num_rows], to_columns


def _by_blocks(
    x: Array,
    y: Array,
    row_counts: Array,
    places: Array,
    column_counts: Array,
    own_counts: Array,
    num_blocks: Array | int,
    *,
    width: int,
    block_rows: int,
) -> tuple[Array, Array, Array]:
    """Compute the value and both gradients from the first blocks of rows and the first columns."""
    columns, counts, num_own = y[:width], column_counts[None, :width], len(own_counts)

    def counted(exponentials: Array, rows: Array) -> Array:
        if num_own == 0:
            return counts * exponentials
        of = jnp.arange(width)
        own = rows[:, None] == of[None, :] // num_own
        return jnp.where(own, own_counts[of % num_own][None, :], counts) * exponentials

    def block(index: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, to_rows, to_columns = sums
        start = index * block_rows
        rows, weights, ids = (
            jax.lax.dynamic_slice_in_dim(of_all, start, block_rows) for of_all in (x, row_counts, places)
        )
        scores = rows @ columns.T
        largest = jnp.max(scores, axis=1)
        exponentials = counted(jnp.exp(scores - largest[:, None]), ids)
        total = jnp.sum(exponentials, axis=1)
        # Scale and transpose the small factor instead of the block of scores. The barrier keeps XLA from moving the
        # transposition into the product (3 % of this function on CPUs).
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
    """Return the number of places up to and including the last one with a nonzero count."""
    return jnp.max(jnp.where(counts > 0, jnp.arange(1, counts.shape[0] + 1), 0))


def _normalisers_backward(gradients: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, None, None, None]:
    to_x, to_y = gradients
    return cotangent.astype(to_x.dtype) * to_x, cotangent.astype(to_y.dtype) * to_y, None, None, None


log_normalisers.defvjp(_normalisers_forward, _normalisers_backward)
