"""The k largest scores of each row, of equal ones the leftmost; exact.

Both ways look at the largest score of each block of columns first: one of the k largest lies in one of the k blocks
whose maxima are the largest. For if its block were not among these, each of them would hold something larger, or as
large and further left.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Scored(NamedTuple):
    """Scores, -inf in columns that must not be returned, and the largest of each block.

    There are at least as many blocks as are searched for. What a search returns shares no memory with the scores, which
    are overwritten next.
    """

    scores: Float[Array, "rows columns"]
    maxima: Float[Array, "rows blocks"]


Found: TypeAlias = tuple[Int[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]
"""Columns, -1 where a row has no further one, and their scores."""

NARROW = 8
"""Columns of a block, below which as many numbers are in question as there are scores, or nearly."""

NO_KEY = np.iinfo(np.int64).max
"""Sorts behind all keys."""


def block_width(num_columns: int, k: int) -> int:
    """The power of two for which two small searches, of all blocks and within k of them, cost about the same."""
    return 1 << int(math.log2(max(1.0, math.sqrt(num_columns / k))))


def default_search() -> str:
    """The search for the device that JAX computes on."""
    return "numpy" if jax.default_backend() == "cpu" else "xla"


def by_xla(scored: Scored, k: int) -> Found:
    """Where the scores lie."""
    found: Found = jax.device_get(_top_k(scored, k))
    return found


def by_numpy(scored: Scored, k: int) -> Found:
    """On the host, whose NumPy sorts with vectors: several times as fast on a CPU as XLA's search, a heap of branches.

    What is smaller than the k-th largest maximum is none of the k largest. What is not are hardly more than k numbers a
    row, which are sorted together with their columns. Where ties make them many, or blocks are narrow because many
    columns are asked for, `by_xla` takes less memory.
    """
    scores, maxima = (np.asarray(array) for array in scored)
    num_rows, num_blocks = maxima.shape
    width = scores.shape[1] // num_blocks
    least = np.sort(maxima, axis=1)[:, num_blocks - k, None]
    least = np.maximum(least, np.finfo(np.float32).min)  # above -inf
    blocks = np.flatnonzero(maxima >= least)
    if width < NARROW or len(blocks) > 2 * k * num_rows:
        return by_xla(scored, k)
    rows = blocks // num_blocks
    candidates = np.take(scores.reshape(-1, width), blocks, axis=0)
    places = np.flatnonzero(candidates >= least[rows])
    rows, columns = rows[places // width], (blocks % num_blocks)[places // width] * width + places % width
    counts = np.bincount(rows, minlength=num_rows)
    most = counts.max(initial=k)
    if most > k * width:
        return by_xla(scored, k)
    keys = np.full((num_rows, most), NO_KEY)
    falling = -_ordered(candidates.reshape(-1)[places]).astype(np.int64)
    keys[rows, places_in_rows(counts)] = (falling << 32) | columns
    keys = np.sort(keys, axis=1)[:, :k]
    found = keys != NO_KEY
    best = _ordered((-(keys >> 32)).astype(np.int32)).view(np.float32)
    return np.where(found, keys & 0xFFFFFFFF, -1).astype(np.int32), np.where(found, best, -np.inf)


def places_in_rows(counts: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " entries"]:
    """0, 1, 2, … for the entries of each row in turn."""
    places: np.ndarray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


SEARCHES: dict[str, Callable[[Scored, int], Found]] = {"xla": by_xla, "numpy": by_numpy}


@partial(jax.jit, static_argnames="k")
def _top_k(scored: Scored, k: int) -> tuple[Int[Array, "rows k"], Float[Array, "rows k"]]:
    scores, maxima = scored
    num_rows, num_blocks = maxima.shape
    width = scores.shape[1] // num_blocks
    if width == 1:
        best, columns = _leftmost_top_k(scores, k)
    else:
        _, chosen = _leftmost_top_k(maxima, k)
        chosen = jnp.sort(chosen, axis=1)  # so that what stands further left in the row does so among the chosen
        candidates = scores.reshape(num_rows, num_blocks, width)[jnp.arange(num_rows)[:, None], chosen]
        best, places = _leftmost_top_k(candidates.reshape(num_rows, k * width), k)
        columns = jnp.take_along_axis(chosen, places // width, axis=1) * width + places % width
    return jnp.where(best == -jnp.inf, -1, columns), best


def _leftmost_top_k(x: Float[Array, "rows columns"], k: int) -> tuple[Float[Array, "rows k"], Int[Array, "rows k"]]:
    """`top_k`, of which it is documented that of equal values the lower index comes first; but it sets -0 below 0."""
    best, places = jax.lax.top_k(jnp.where(x == 0, 0.0, x), k)
    return best, places


def _ordered(bits: Float[np.ndarray, "..."] | Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Integers in the order of float32 numbers, both zeros alike; and back from these to the bits of the numbers."""
    bits = bits.view(np.int32)
    ordered: np.ndarray = np.where(bits < 0, np.iinfo(np.int32).min - bits, bits)
    return ordered
