"""Compiled programs that score all items for chunks of users and search for the best, on a device or a mesh."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from slmrec_jax.config.protocols import Score
from slmrec_jax.meshes import DATA, MODEL, part
from slmrec_jax.top_k import Scored, block_width, leftmost_top_k, top_k
from slmrec_jax.types import Embeddings


class Queries(NamedTuple):
    """The device arrays of a plan. A row is the position of a user in the requested order."""

    users: Int[Array, " rows"]
    """User ids, padded to full chunks."""
    known_rows: Int[Array, " pairs"]
    """The rows of known pairs, sorted, and padded with a row beyond all others so that the last chunk can take a
    full-length slice."""
    known_items: Int[Array, " pairs"]
    """The items of known pairs, as positions among the candidates."""


class ChunkShape(NamedTuple):
    """The static arguments of the compiled program."""

    rows: int
    pairs: int
    """The maximum number of known pairs in a chunk."""
    k: int
    score: Score
    num_ranked: int
    """The number of items to rank. Further columns are padding."""
    width: int
    """The number of columns of a block."""


def rank_chunks(
    embeddings: Embeddings, queries: Queries, first_pairs: Int[Array, " chunks"], chunk: ChunkShape
) -> tuple[Int[Array, "rows k"], Float[Array, "rows k"]]:
    """Rank all chunks, one after another, on one device."""
    embeddings = in_blocks(embeddings, chunk)

    def rank_chunk(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        return top_k(scored_chunk(embeddings, queries, *bounds, chunk), chunk.k)

    first_rows = jnp.arange(len(first_pairs), dtype=jnp.int32) * chunk.rows
    items, scores = jax.lax.map(rank_chunk, (first_rows, first_pairs))
    return items.reshape(-1, chunk.k), scores.reshape(-1, chunk.k)


AGAIN_ROWS = 256
"""The number of users processed at a time by `rank_again`."""


@partial(jax.jit, static_argnames=("k", "mesh"))
def rank_again(
    embeddings: Embeddings, users: Int[Array, " rows"], found: Int[Array, "rows found"], k: int, mesh: Mesh | None
) -> tuple[Int[Array, "rows k"], Float[Array, "rows k"]]:
    """Return the k best of each user's found items by float32 scores, with ties in id order; -1 for none."""

    def best_of(asked: tuple[Array, Array]) -> tuple[Array, Array]:
        user, items = asked
        # Unlike in a matrix product, these sums do not depend on an item's position, so equal items tie.
        scores = jnp.sum(embeddings.items[items] * embeddings.users[user][None, :], axis=1, dtype=jnp.float32)
        behind = jnp.where(items < 0, jnp.inf, jnp.where(scores == 0, 0.0, -scores))
        behind, items = jax.lax.sort((behind, items), num_keys=2)
        return jnp.where(behind[:k] == jnp.inf, -1, items[:k]), 0.0 - behind[:k]

    best: tuple[Array, Array] = jax.lax.map(best_of, (users, found), batch_size=AGAIN_ROWS)
    if mesh is not None:
        best = jax.lax.with_sharding_constraint(best, NamedSharding(mesh, part()))  # type: ignore[no-untyped-call]
    return best


def rank_on_mesh(
    embeddings: Embeddings, queries: Queries, first_pairs: Int[Array, " chunks"], chunk: ChunkShape, mesh: Mesh
) -> tuple[Int[Array, "rows k"], Float[Array, "rows k"]]:
    """Rank all chunks on the devices of a mesh, with the same result as `rank_chunks`, including ties.

    The axis `data` splits the users of a chunk, `model` the items. Each device finds its own k best items. These are
    merged in item order, so that ties go to the leftmost item again.
    """
    groups, shares = mesh.shape[DATA], mesh.shape[MODEL]
    rows = -(-chunk.rows // groups)
    k = min(chunk.k, -(-chunk.num_ranked // shares))
    width = block_width(-(-chunk.num_ranked // shares), k)
    columns = -(-chunk.num_ranked // (shares * width)) * width
    padding = shares * columns - embeddings.items.shape[0]
    items = jnp.pad(embeddings.items, ((0, padding), (0, 0)))
    # The last group's rows may extend beyond the chunk; their results are cut off.
    users = jnp.pad(queries.users, (0, groups * rows))
    divided = embeddings.users.shape[1] % shares == 0

    def rank_own(table: Array, items: Array, users: Array, queries: Queries, first_pairs: Array) -> tuple[Array, Array]:
        first_item = jax.lax.axis_index(MODEL) * columns
        is_item = jnp.arange(columns) < chunk.num_ranked - first_item

        def rank_chunk(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            first_row, first_pair = bounds[0] + jax.lax.axis_index(DATA) * rows, bounds[1]
            own_users = table[jax.lax.dynamic_slice_in_dim(users, first_row, rows)]
            if divided:
                own_users = jax.lax.all_gather(own_users, MODEL, axis=1, tiled=True)
            scores = jnp.where(is_item[None, :], _scores(own_users, items, chunk), -jnp.inf)
            scores = _without_known(scores, queries, (first_row, first_pair, first_item), chunk.pairs, columns)
            found, best = top_k(_with_maxima(scores, width), k)
            found = jax.lax.all_gather(jnp.where(found < 0, -1, found + first_item), MODEL, axis=1, tiled=True)
            best, places = leftmost_top_k(jax.lax.all_gather(best, MODEL, axis=1, tiled=True), chunk.k)
            return jnp.take_along_axis(found, places, axis=1), best

        first_rows = jnp.arange(len(first_pairs), dtype=jnp.int32) * chunk.rows
        found: tuple[Array, Array] = jax.lax.map(rank_chunk, (first_rows, first_pairs))
        return found

    whole, by_groups = part(), part(None, DATA)
    places = part(None, MODEL) if divided else whole, part(MODEL), whole, whole, whole
    ranked = jax.shard_map(rank_own, mesh=mesh, in_specs=places, out_specs=(by_groups, by_groups), check_vma=False)
    found = ranked(embeddings.users, items, users, queries, first_pairs)
    merged = tuple(each[:, : chunk.rows].reshape(-1, chunk.k) for each in found)
    best: tuple[Array, Array] = jax.lax.with_sharding_constraint(merged, NamedSharding(mesh, whole))  # type: ignore[no-untyped-call]
    return best


def scored_chunk(
    embeddings: Embeddings,
    queries: Queries,
    first_row: Int[Array, ""],
    first_pair: Int[Array, ""],
    chunk: ChunkShape,
) -> Scored:
    """Score all items for a chunk of users; -inf for known items and padding columns."""
    users = jax.lax.dynamic_slice_in_dim(queries.users, first_row, chunk.rows)
    scores = _scores(embeddings.users[users], embeddings.items, chunk)
    scores = _without_known(scores, queries, (first_row, first_pair, 0), chunk.pairs, chunk.num_ranked)
    return _with_maxima(scores, chunk.width)


def scored_tile(
    users: Float[Array, "users dim"],
    columns: Float[Array, "dim columns"],
    queries: Queries,
    first_row: Int[Array, ""],
    first_pair: Int[Array, ""],
    first_column: Int[Array, ""],
    tile: ChunkShape,
) -> Scored:
    """Score some items, whose factors are given as columns, for a chunk of users; see `scored_chunk`.

    A CPU multiplies faster with columns than with rows: 237 versus 127 GFLOP/s for 256 users × 16,384 items × 64 on two
    busy cores (best of five, 29 Nov 2026).
    """
    own_users = users[jax.lax.dynamic_slice_in_dim(queries.users, first_row, tile.rows)]
    scores = _scores(own_users, columns.T, tile)
    scores = _without_known(scores, queries, (first_row, first_pair, first_column), tile.pairs, tile.num_ranked)
    return _with_maxima(scores, tile.width)


def _without_known(
    scores: Float[Array, "rows columns"],
    queries: Queries,
    first: tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""] | int],
    num_pairs: int,
    num_ranked: int,
) -> Float[Array, "rows columns"]:
    """Set the scores of known items, and of the columns from `num_ranked` on, to -inf.

    Args:
        scores: A block of scores.
        queries: The queries with their known items.
        first: The query of the block's first row, its first pair of a query and a known item, and the item of its first
            column.
        num_pairs: The number of pairs to read. Those of other blocks are ignored.
        num_ranked: The number of columns that are items.
    """
    rows, columns = scores.shape
    first_row, first_pair, first_item = first
    row = jax.lax.dynamic_slice_in_dim(queries.known_rows, first_pair, num_pairs) - first_row
    item = jax.lax.dynamic_slice_in_dim(queries.known_items, first_pair, num_pairs) - first_item
    own = (row >= 0) & (row < rows) & (item >= 0) & (item < num_ranked)
    # The others go to distinct rows beyond the block, which `mode="drop"` ignores. One scatter masks both known items
    # and padding, since a second one would copy the scores.
    row = jnp.where(own, row, rows + jnp.arange(num_pairs))
    padding = jnp.indices((rows, columns - num_ranked), jnp.int32).reshape(2, -1)
    row = jnp.concatenate([row, padding[0]])
    item = jnp.concatenate([jnp.where(own, item, 0), padding[1] + num_ranked])
    return scores.at[row, item].set(-jnp.inf, mode="drop", unique_indices=True)


def _with_maxima(scores: Float[Array, "rows columns"], width: int) -> Scored:
    """Return scores with the maxima of their blocks of `width` columns."""
    if width == 1:
        return Scored(scores, scores)
    return Scored(scores, jnp.max(scores.reshape(scores.shape[0], -1, width), axis=2))


# The scores overwrite the first argument, a buffer, since on CPUs fresh memory costs as much time as the product.
score_into = jax.jit(
    lambda buffer, *arguments: scored_tile(*arguments), static_argnums=7, donate_argnums=0, keep_unused=True
)


def in_blocks(embeddings: Embeddings, chunk: ChunkShape) -> Embeddings:
    """Pad the items to full blocks of columns."""
    padding = -embeddings.items.shape[0] % chunk.width
    return embeddings._replace(items=jnp.pad(embeddings.items, ((0, padding), (0, 0))))


def _scores(
    users: Float[Array, "rows dim"], items: Float[Array, "items dim"], chunk: ChunkShape
) -> Float[Array, "rows items"]:
    # Full precision, since accelerators round the factors by default, which would swap items with similar scores.
    scores = jnp.matmul(users, items.T, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    return jax.nn.sigmoid(scores) if chunk.score == "sigmoid" else scores
