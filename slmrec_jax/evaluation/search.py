"""Top-k search in the rows of a score matrix, by a compiled program or on the host, with the same result."""

from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int

from slmrec_jax.top_k import Scored, top_k

TopK: TypeAlias = tuple[Int[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]
"""Columns and their scores, padded with -1 and -inf in rows with fewer than k candidates."""

NARROW = 8
"""The minimum block width for `by_numpy`: narrower blocks would leave nearly all scores as candidates."""

NO_KEY = np.iinfo(np.int64).max
"""A key that sorts after all others."""


def by_xla(scored: Scored, k: int) -> TopK:
    """Search with a compiled program."""
    found: TopK = jax.device_get(_compiled_top_k(scored, k))
    return found


def by_numpy(scored: Scored, k: int, first_column: int = 0, searched: int = 0, before: TopK | None = None) -> TopK:
    """Search on the host, where NumPy's vectorised sort is several times as fast as XLA's top-k.

    Scores below the k-th largest block maximum cannot be among the k largest. Usually only slightly more than k
    candidates remain in each row; they are sorted together with their columns. If ties leave many candidates or a large
    k makes the blocks narrow, `by_xla` is used instead, since it then needs less memory.

    Args:
        scored: Scores of consecutive columns.
        k: The number of columns to find per row.
        first_column: The index of the first column.
        searched: The number of leading columns that `before` already covers; they are not found again.
        before: The result for all previous columns, if there are any. Only scores above its k-th best are candidates,
            and these become few once many columns have been searched.
    """
    scores, maxima = (np.asarray(array) for array in scored)
    num_rows, num_blocks = maxima.shape
    width = scores.shape[1] // num_blocks
    least = np.full((num_rows, 1), np.finfo(np.float32).min)  # above -inf
    if before is not None:
        least = np.maximum(least, np.nextafter(before[1][:, -1:], np.float32(np.inf)))
    if before is None or np.count_nonzero(maxima >= least) > 2 * k * num_rows:
        least = np.maximum(least, np.sort(maxima, axis=1)[:, num_blocks - k, None])
    blocks = np.flatnonzero(maxima >= least)
    if width < NARROW or len(blocks) > 2 * k * num_rows:
        return _by_xla_after(scored, k, first_column, searched, before)
    rows = blocks // num_blocks
    candidates = np.take(scores.reshape(-1, width), blocks, axis=0)
    places = np.flatnonzero(candidates >= least[rows])
    rows, columns = rows[places // width], (blocks % num_blocks)[places // width] * width + places % width
    counts = np.bincount(rows, minlength=num_rows)
    most = counts.max(initial=k if before is None else 0)
    if most > k * width:
        return _by_xla_after(scored, k, first_column, searched, before)
    keys = np.full((num_rows, most), NO_KEY)
    within_row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.where(columns < searched, -1, columns + first_column)
    keys[rows, within_row] = _keys_of(found, candidates.reshape(-1)[places])
    return _least_keys(keys, k, before)


def _by_xla_after(scored: Scored, k: int, first_column: int, searched: int, before: TopK | None) -> TopK:
    columns, best = by_xla(scored, k)
    if before is None:
        return columns, best
    return _least_keys(_keys_of(np.where(columns < searched, -1, columns + first_column), best), k, before)


def _keys_of(columns: Int[np.ndarray, "..."], scores: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Return numbers that sort by descending score and then by column; `NO_KEY` where the column is -1."""
    keys = (-_ordered(scores).astype(np.int64) << 32) | columns.astype(np.int64)
    return np.where(columns < 0, NO_KEY, keys)


def _least_keys(keys: Int[np.ndarray, "rows candidates"], k: int, before: TopK | None) -> TopK:
    """Return the columns and scores of the k smallest keys, including those of the previous result."""
    if before is not None:
        keys = np.concatenate([_keys_of(*before), keys], axis=1)
    keys = np.sort(keys, axis=1)[:, :k]
    found = keys != NO_KEY
    best = _ordered((-(keys >> 32)).astype(np.int32)).view(np.float32)
    return np.where(found, keys & 0xFFFFFFFF, -1).astype(np.int32), np.where(found, best, -np.inf)


_compiled_top_k = jax.jit(top_k, static_argnames="k")


def _ordered(bits: Float[np.ndarray, "..."] | Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Map the bits of float32 numbers to integers in the same order, or back. Both zeros are equal."""
    bits = bits.view(np.int32)
    ordered: np.ndarray = np.where(bits < 0, np.iinfo(np.int32).min - bits, bits)
    return ordered
