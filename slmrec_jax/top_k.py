"""Exact top-k in the rows of a matrix, with ties going to the leftmost column.

A search first reduces each row to the maxima of blocks of columns. The k largest scores are all in the k blocks with
the largest maxima; otherwise each of these k blocks would hold a score that ranks higher.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from slmrec_jax.devices import platform

TPU_LANES = 128
"""A TPU pads the last axis of arrays to a multiple of this, so narrower blocks of columns take more memory."""


class Scored(NamedTuple):
    """Scores and the maxima of their blocks, of which there are at least k. Excluded columns have score -inf.

    Ranking reuses the scores' buffer after a search, so results must not share its memory.
    """

    scores: Float[Array, "rows columns"]
    maxima: Float[Array, "rows blocks"]


def block_width(num_columns: int, k: int) -> int:
    """Return the number of columns of a block for a search of the k best columns on this platform.

    It is the power of two at which searching all block maxima and searching k blocks cost about the same.
    """
    width = 1 << int(math.log2(max(1.0, math.sqrt(num_columns / k))))
    if platform() != "tpu":
        return width
    return max(width, TPU_LANES) if k * TPU_LANES <= num_columns else 1


def top_k(scored: Scored, k: int) -> tuple[Int[Array, "rows k"], Float[Array, "rows k"]]:
    """Return the columns of the k largest scores of each row, and the scores.

    Rows with fewer than k columns that are not excluded are padded with -1 and -inf.
    """
    scores, maxima = scored
    num_rows, num_blocks = maxima.shape
    width = scores.shape[1] // num_blocks
    if width == 1:
        best, columns = leftmost_top_k(scores, k)
    else:
        _, chosen = leftmost_top_k(maxima, k)
        chosen = jnp.sort(chosen, axis=1)  # column order, so that ties go to the leftmost
        candidates = scores.reshape(num_rows, num_blocks, width)[jnp.arange(num_rows)[:, None], chosen]
        best, places = leftmost_top_k(candidates.reshape(num_rows, k * width), k)
        columns = jnp.take_along_axis(chosen, places // width, axis=1) * width + places % width
    return jnp.where(best == -jnp.inf, -1, columns), best


def leftmost_top_k(x: Float[Array, "rows columns"], k: int) -> tuple[Float[Array, "rows k"], Int[Array, "rows k"]]:
    """Return `jax.lax.top_k` with -0 equal to 0; JAX documents that ties go to the lower index."""
    best, places = jax.lax.top_k(jnp.where(x == 0, 0.0, x), k)
    return best, places
