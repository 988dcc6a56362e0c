"""Ranking on one CPU, one tile of scores (some users × some items) at a time, within a memory limit."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slmrec_jax.evaluation.scoring import ChunkShape, Queries, score_into
from slmrec_jax.evaluation.search import TopK, by_numpy
from slmrec_jax.top_k import block_width
from slmrec_jax.types import Embeddings

IN_FLIGHT = 2
"""The number of tiles in progress. One core searches a tile while the others compute the scores of the next."""

TILE_ROWS = 256
"""The number of users of a tile, if memory allows: a product with few rows is bound by reading the items."""

LEAST_TILE_COLUMNS = 2048
"""The minimum number of items of a tile, below which starting a program is not worthwhile."""

LEAST_COLUMNS_OF_K = 128
"""The minimum number of items of a tile per returned item. With fewer, the blocks of the search are narrow."""


class Tiles(NamedTuple):
    """The division of a plan's scores on the host."""

    chunks: int
    """The number of consecutive chunks of the plan whose users form one tile."""
    pairs: int
    """The maximum number of known pairs of a tile's users."""
    columns: int
    """The number of items of a tile. The last tile overlaps the one before, so that all tiles run the same program,
    which gives equal items equal scores."""


def divide_chunks(num_chunks: int, rows: int, num_ranked: int, k: int, max_bytes: int) -> tuple[int, int]:
    """Return the number of chunks and columns of a tile, which has `TILE_ROWS` users if that leaves enough columns."""
    least = max(LEAST_TILE_COLUMNS, LEAST_COLUMNS_OF_K * k)
    chunks = max(1, min(num_chunks, TILE_ROWS // max(1, rows), max_bytes // (4 * max(1, rows) * least)))
    chunks = -(-num_chunks // -(-num_chunks // chunks)) if num_chunks else 1  # groups of similar size
    if chunks == 1:
        return 1, num_ranked
    columns = max_bytes // (4 * chunks * rows)
    width = block_width(columns, k)
    tiles = -(-num_ranked // columns)
    return chunks, min(num_ranked, -(-num_ranked // (tiles * width)) * width)


def rank_in_tiles(
    embeddings: Embeddings, queries: Queries, first_pairs: Int[np.ndarray, " chunks"], chunk: ChunkShape, tiles: Tiles
) -> TopK:
    """Rank all candidates for all users exactly, with ties in item order.

    Tiles of the same items are processed consecutively, so that only these items are copied. Each user's best items so
    far leave few candidates in later tiles. One tile is searched with NumPy while the scores of the next one are
    computed.
    """
    rows, num_groups = chunk.rows * tiles.chunks, len(first_pairs) // tiles.chunks
    width = block_width(tiles.columns, chunk.k)
    tile = chunk._replace(rows=rows, pairs=tiles.pairs, num_ranked=tiles.columns, width=width)
    padding = -tiles.columns % width
    buffers = [jnp.empty((rows, tiles.columns + padding), jnp.float32) for _ in range(min(IN_FLIGHT, num_groups))]
    items = np.empty((num_groups * rows, chunk.k), np.int32)
    scores = np.empty(items.shape, np.float32)
    last = chunk.num_ranked - tiles.columns
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for start in range(0, chunk.num_ranked, tiles.columns):
            first = min(start, last)
            columns = _columns(embeddings.items, np.int32(first), tiles.columns, padding)

            def rank_group(group: int, start: int = start, first: int = first, columns: Array = columns) -> None:
                here = slice(group * rows, (group + 1) * rows)
                places = np.int32(here.start), first_pairs[group * tiles.chunks], np.int32(first)
                scored = score_into(buffers.pop(), embeddings.users, columns, queries, *places, tile)
                before = (items[here], scores[here]) if start > 0 else None
                items[here], scores[here] = by_numpy(scored, chunk.k, first, start - first, before)
                buffers.append(scored.scores)

            # The first group runs alone, so that two threads do not compile the same program.
            alone = min(1, num_groups) if start == 0 else 0
            for group in range(alone):
                rank_group(group)
            list(pool.map(rank_group, range(alone, num_groups)))  # `list` re-raises exceptions of the threads
    return items, scores


@partial(jax.jit, static_argnums=(2, 3))
def _columns(
    items: Float[Array, "items dim"], first: Int[Array, ""], count: int, padding: int
) -> Float[Array, "dim columns"]:
    own = jax.lax.dynamic_slice_in_dim(items, first, count)
    return jnp.pad(own, ((0, padding), (0, 0))).T
