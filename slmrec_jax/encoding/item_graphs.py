"""Graphs that connect each item to the items with the nearest features, by cosine.

The search is exact and works on blocks of rows × columns, so that memory grows with items × k, not with items². It can
be traced: shapes depend only on the number of items and on k.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slmrec_jax.encoding import layers, vectors
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.matrices import Operator, compressed, reordered
from slmrec_jax.top_k import Scored, block_width, leftmost_top_k, top_k
from slmrec_jax.types import DenseFeature

BLOCK_ROWS, BLOCK_COLUMNS = 256, 2**14
"""The maximum size of the block of cosines that is in memory (16 MiB). Each block gives k candidates a row, so that a
few long blocks leave less to merge than many short ones."""

BLOCK_VALUES = 2**24
"""The maximum number of feature values of a block of columns (64 MiB), unless fewer than `BLOCK_ROWS` would fit."""


class Neighbours(NamedTuple):
    """The k nearest items of each item, including itself, by ascending id.

    A row with fewer neighbours is padded with the item's own id; `counts` marks the padding.
    """

    ids: Int[Array, "items k"]
    similarities: Float[Array, "items k"]
    """Cosines; 0 for padding. They are constants; `similarities` computes cosines with a gradient."""
    counts: Float[Array, "items k"]
    """1 for a neighbour, 0 for padding."""


def nearest_items(feature: DenseFeature, k: int) -> Neighbours:
    """Find for each item the k items with the largest cosine between features.

    An item is always its own neighbour, even if others have the same features. Ties between float32 cosines go to the
    lower id. An item without the modality, or whose features are all 0, has no neighbours and is no item's neighbour.
    Naive code would give it cosine 0 with every item, and so make it a neighbour wherever the k-th cosine is negative.

    Args:
        feature: The features of all items, in any precision; cosines are computed in float32.
        k: The number of neighbours, at least 1. It is limited by the number of items with the modality.
    """
    count = feature.values.shape[0]
    k = min(k, count)
    num_rows = _parts_of(count, BLOCK_ROWS)
    most_columns = min(BLOCK_COLUMNS, max(BLOCK_ROWS, BLOCK_VALUES // max(1, feature.values.shape[1])))
    num_columns = _parts_of(count, most_columns)
    width = block_width(num_columns, k)
    num_columns = -(-num_columns // width) * width  # a multiple of the width

    def block(start: Int[Array, ""], size: int) -> tuple[Array, Float[Array, "size dim"], Bool[Array, " size"]]:
        """Return ids, which may lie beyond the last item; normalised rows; and whether each item has a direction."""
        ids = start + jnp.arange(size, dtype=jnp.int32)
        within = jnp.minimum(ids, count - 1)
        rows = vectors.rows(feature, within)
        there = (take(feature.present, within) > 0) & jnp.any(rows != 0, axis=1) & (ids < count)
        return ids, layers.normalize(rows), there

    def search(best: tuple[Array, Array], start: Int[Array, ""]) -> tuple[tuple[Array, Array], None]:
        """Merge a block of columns into the best cosines of all items, where the item itself has infinity, and ids."""
        ids, columns, there = block(start, num_columns)

        def merge(of_rows: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            row_start, best_cosines, best_ids = of_rows
            row_ids, rows, rows_there = block(row_start, num_rows)
            cosines = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
            cosines = jnp.where(ids[None, :] == row_ids[:, None], jnp.inf, cosines)
            cosines = jnp.where(rows_there[:, None] & there[None, :], cosines, -jnp.inf)
            maxima = jnp.max(cosines.reshape(num_rows, -1, width), axis=2)
            places, largest = top_k(Scored(cosines, maxima), min(k, num_columns))
            # Ties go to the first value, which has the lower id, since blocks come in order. Where a place is -1, the
            # cosine of -inf keeps the id from being found.
            largest, chosen = leftmost_top_k(jnp.concatenate([best_cosines, largest], axis=1), k)
            return largest, jnp.take_along_axis(jnp.concatenate([best_ids, ids[places]], axis=1), chosen, axis=1)

        return jax.lax.map(merge, (row_starts, *best)), None

    row_starts = _starts(count, num_rows)
    shape = len(row_starts), num_rows, k
    nothing = jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)
    best, _ = jax.lax.scan(search, nothing, _starts(count, num_columns))
    cosines, ids = (x.reshape(-1, k)[:count] for x in best)
    found = cosines > -jnp.inf
    ids = jnp.where(found, ids, jnp.arange(count, dtype=jnp.int32)[:, None])
    cosines = jnp.where(found, jnp.minimum(cosines, 1.0), 0.0)
    order = jnp.argsort(ids, axis=1)
    return Neighbours(*(jnp.take_along_axis(x, order, axis=1) for x in (ids, cosines, found.astype(jnp.float32))))


def _parts_of(count: int, most: int) -> int:
    """Return the size of the parts if `count` is divided evenly into as few parts of at most `most` as possible."""
    return -(-count // -(-count // most))


def _starts(count: int, size: int) -> Int[Array, " parts"]:
    return jnp.arange(0, count, size, dtype=jnp.int32)


def similarities(x: Float[Array, "items dim"], neighbours: Neighbours) -> Float[Array, "items k"]:
    """Compute the cosines between items and their neighbours, differentiable in the rows x; 0 for padding."""
    directions = layers.normalize(x)
    cosines = jnp.sum(directions[:, None, :] * take(directions, neighbours.ids), axis=-1)
    return cosines * neighbours.counts


def symmetric(ids: Int[Array, "items k"], values: Float[Array, "items k"]) -> Float[Array, "items k"]:
    """Compute the values of D^-1/2 A D^-1/2, where A has the given values and D holds its row sums, on both sides.

    A row whose sum is not positive has factor 0. If each row has k values of 1, all results are 1 / k.
    """
    sums = jnp.sum(values, axis=1)
    positive = sums > 0
    scale = jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, sums, 1.0)), 0.0)
    return scale[:, None] * values * take(scale, ids)


def item_graph(ids: Sequence[Int[Array, "items _"]], values: Sequence[Float[Array, "items _"]]) -> Operator:
    """Build the operator Σ_m A_m, where row i of A_m has `values[m][i]` in the columns `ids[m][i]`.

    Entries of several graphs at the same position add up. The operator is differentiable with respect to the given
    values, from which both of its copies are made.
    """
    columns, entries = jnp.concatenate(ids, axis=1), jnp.concatenate(values, axis=1)
    count, width = columns.shape
    rows = jnp.repeat(jnp.arange(count, dtype=jnp.int32), width)
    order = width * rows + jnp.argsort(columns, axis=1).reshape(-1)
    columns, entries = columns.reshape(-1)[order], reordered(entries.reshape(-1), order)
    return Operator(compressed(rows, columns, entries, count), compressed(columns, rows, entries, count))
