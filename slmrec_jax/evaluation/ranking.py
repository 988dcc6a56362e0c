"""Exact ranking of all items for each user, excluding known items, in bounded memory.

`plan_ranking` does the work that does not depend on the embeddings. `rank` scores a chunk of users at a time and
searches the scores (`scoring.py`, `search.py`, `top_k.py`). On accelerators and meshes, one compiled program ranks all
chunks; on a single CPU, each tile is a separate call.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, Scalar

from slmrec_jax.config.protocols import RankingPrecision, Score
from slmrec_jax.devices import Target, compiler_of, current_target, memory_bytes, on_cpu
from slmrec_jax.errors import Diverged, UserError, setting
from slmrec_jax.evaluation.interactions import known_matrix
from slmrec_jax.evaluation.scoring import (
    ChunkShape,
    Queries,
    rank_again,
    rank_chunks,
    rank_on_mesh,
)
from slmrec_jax.evaluation.search import TopK
from slmrec_jax.evaluation.tiles import Tiles, divide_chunks, rank_in_tiles
from slmrec_jax.meshes import Layout, make_mesh, mesh_of
from slmrec_jax.top_k import block_width
from slmrec_jax.types import Embeddings, Interactions

MAX_CHUNK_BYTES = 16 * 2**20
"""The limit, in bytes, for the scores of one chunk on CPUs. Twice as much is 10 % faster for large catalogues."""

CHUNK_SHARE = 64
"""On accelerators, the scores of a chunk take at most 1 / `CHUNK_SHARE` of the device's memory."""

UNKNOWN_CHUNK_BYTES = 2**28
"""The limit on accelerators, in bytes, if the device's memory is unknown."""


FOUND = 4
"""The number of items found in bfloat16, as a multiple of the number of items returned."""


class Ranking(NamedTuple):
    """The best items of each user, best first. Ties are in item id order."""

    items: Int[np.ndarray, "users k"]
    """Item ids, int32; -1 if a user has no further candidate."""
    scores: Float[np.ndarray, "users k"]
    """Scores, float32; -inf if the item is -1."""


class RankingPlan(NamedTuple):
    """A prepared ranking, made by `plan_ranking` and valid for any embeddings of the same data."""

    queries: Queries
    first_pairs: Int[np.ndarray, " chunks"]
    """The index of each chunk's first known pair."""
    num_users: int
    num_items: int
    candidates: Int[np.ndarray, " candidates"] | None
    """The items to rank, ascending; `None` for all items."""
    chunk: ChunkShape
    tiles: Tiles
    """The division of scores on a CPU."""
    k: int
    precision: RankingPrecision


def plan_ranking(
    users: Int[np.ndarray, " users"],
    known: Sequence[Interactions],
    num_items: int,
    k: int,
    *,
    candidates: Int[np.ndarray, " candidates"] | None = None,
    score: Score = "dot",
    precision: RankingPrecision = "float32",
    max_bytes: int | None = None,
) -> RankingPlan:
    """Plan the ranking of all items for `users`, excluding the pairs in `known`.

    Args:
        users: User ids in any order; repeats are allowed. The result has the same order.
        known: Sets of pairs to exclude, in any order. Pairs of other users are ignored.
        num_items: The number of items. Their ids are 0..num_items-1.
        k: The number of items to return per user.
        candidates: The items to rank, ascending; by default all items.
        score: `"dot"` ranks by the inner product. `"sigmoid"` ranks by its float32 sigmoid: the order is the same,
            except that scores above about 16.6 saturate at 1 and tie. Use it to reproduce references that rank this
            way.
        precision: The dtype of the factors of the scores. With `"bfloat16"`, the best `FOUND` · k items are found in
            bfloat16 and ranked again in float32. This misses an item only if rounding moves it behind more than 3 k
            others.
        max_bytes: The limit for the scores of a chunk (float32, users of the chunk × items); by default the platform's.
            On CPUs, `IN_FLIGHT` chunks are in memory at a time, or twice as many for `"sigmoid"` or if more than a
            quarter of the items are requested. A row is never split.

    Raises:
        UserError: `k` is below 1 or above the number of candidates, or sigmoids, which tie, are ranked in bfloat16.
    """
    if precision != "float32" and score == "sigmoid":
        raise UserError(
            f"{setting('eval.precision', precision)} ranks inner products: with {setting('eval.score', score)} any "
            f"number of items tie; give {setting('eval.precision', 'float32')}"
        )
    num_ranked = num_items if candidates is None else len(candidates)
    if not 1 <= k <= num_ranked:
        raise UserError(f"k is {k}: give 1 to {num_ranked}, the number of items to rank")
    found = k if precision == "float32" else min(num_ranked, FOUND * k)
    num_users = len(users)
    max_bytes = default_chunk_bytes() if max_bytes is None else max_bytes
    num_chunks = -(-num_users // max(1, max_bytes // (4 * num_ranked)))
    chunk_rows = -(-num_users // max(1, num_chunks))  # chunks of similar size need the least padding
    grouped, columns = (
        divide_chunks(num_chunks, chunk_rows, num_ranked, found, max_bytes) if on_cpu() else (1, num_ranked)
    )
    num_chunks += -num_chunks % grouped
    num_rows = num_chunks * chunk_rows

    masked = known_matrix(users, known, num_items)
    if candidates is not None:
        masked = masked[:, candidates]
    masked_rows = np.repeat(np.arange(num_users, dtype=np.int32), np.diff(masked.indptr))
    bounds = masked.indptr[np.minimum(np.arange(num_chunks + 1) * chunk_rows, num_users)].astype(np.int32)
    chunk_pairs, most_pairs = (int(np.diff(ends).max(initial=0)) for ends in (bounds, bounds[::grouped]))
    queries = Queries(
        jnp.asarray(np.pad(users, (0, num_rows - num_users)), np.int32),
        jnp.asarray(np.pad(masked_rows, (0, most_pairs), constant_values=num_rows), np.int32),
        jnp.asarray(np.pad(masked.indices, (0, most_pairs)), np.int32),
    )
    chunk = ChunkShape(chunk_rows, chunk_pairs, found, score, num_ranked, block_width(num_ranked, found))
    tiles = Tiles(grouped, most_pairs, columns)
    return RankingPlan(queries, bounds[:-1], num_users, num_items, candidates, chunk, tiles, k, precision)


def default_chunk_bytes() -> int:
    """Return the byte limit for the scores of a chunk: fixed on CPUs, otherwise a share of the device's memory."""
    if on_cpu():
        return MAX_CHUNK_BYTES
    memory = memory_bytes()
    # A power of two, so that devices with similar memory run the same program.
    return UNKNOWN_CHUNK_BYTES if memory is None else 1 << int(math.log2(memory // CHUNK_SHARE))


def rank(plan: RankingPlan, embeddings: Embeddings, way: str | None = None) -> Ranking:
    """Rank all items for the users of `plan` by the inner products of embeddings.

    `way` is a name in `WAYS`; by default `mesh` for embeddings on several devices, `host` on one CPU, and otherwise
    `device`.

    Raises:
        Diverged: Embeddings are NaN, infinite or so large that scores overflow, so they have no order.
        ValueError: The number of items differs from the plan's.
    """
    embeddings = Embeddings(jnp.asarray(embeddings.users), jnp.asarray(embeddings.items))
    if embeddings.items.shape[0] != plan.num_items:
        raise ValueError(f"the plan ranks {plan.num_items} items, but the embeddings hold {embeddings.items.shape[0]}")
    if not np.isfinite(_largest_score(embeddings)):
        raise Diverged(
            "the embeddings hold NaN, infinite or overflowing values, so items cannot be ranked: "
            "training has diverged; lower the learning rate or the weights of the losses"
        )
    if plan.candidates is not None:
        embeddings = embeddings._replace(items=embeddings.items[plan.candidates])
    mesh = mesh_of(embeddings.items)
    default = "mesh" if mesh is not None else "host" if on_cpu() else "device"
    ranked = WAYS[way or default](plan, factors(plan, embeddings))
    items, scores = ranked if plan.precision == "float32" else _ranked_again(plan, embeddings, ranked[0])
    if plan.candidates is not None:
        items = np.where(items < 0, -1, plan.candidates[items]).astype(np.int32)
    return Ranking(items[: plan.num_users], scores[: plan.num_users])


def factors(plan: RankingPlan, embeddings: Embeddings) -> Embeddings:
    """Return the factors of the scores: the embeddings, rounded if the plan requires it."""
    if plan.precision == "float32":
        return embeddings
    rounded: Embeddings = jax.tree.map(lambda x: x.astype(plan.precision), embeddings)
    return rounded


def _ranked_again(plan: RankingPlan, embeddings: Embeddings, found: Int[np.ndarray, "rows found"]) -> TopK:
    asked, mesh = (plan.queries.users, found), mesh_of(embeddings.items)
    asked = asked if mesh is None else _whole_on(mesh).put(asked)
    items, scores = jax.device_get(rank_again(embeddings, *asked, plan.k, mesh))
    return items, scores


def _rank_on_mesh(plan: RankingPlan, embeddings: Embeddings) -> TopK:
    """Rank on a mesh: the devices share the work, and every process gets the whole result."""
    mesh = mesh_of(embeddings.items)
    if mesh is None:
        mesh = make_mesh()
        embeddings = _whole_on(mesh).put(embeddings)
    queries, first_pairs = _whole_on(mesh).put((plan.queries, plan.first_pairs))
    return _rank_on_device(plan._replace(queries=queries, first_pairs=first_pairs), embeddings)


def _rank_on_device(plan: RankingPlan, embeddings: Embeddings) -> TopK:
    """Rank with one program, and fetch its result once."""
    if not plan.num_users:
        return np.empty((0, plan.chunk.k), np.int32), np.empty((0, plan.chunk.k), np.float32)
    found = ranking_program(plan, embeddings)(embeddings, plan.queries, plan.first_pairs)
    items, scores = jax.device_get(found)
    return items, scores


def ranking_program(plan: RankingPlan, embeddings: Embeddings) -> jax.stages.Compiled:
    """Compile the ranking of a plan for embeddings, or their shapes, on their devices. The last programs are cached.

    `embeddings` are the result of `factors`.
    """
    mesh, items = mesh_of(embeddings.items), embeddings.items
    if items.shape[0] != plan.chunk.num_ranked:  # the embeddings have all items, and only the candidates are ranked
        shape = (plan.chunk.num_ranked, *items.shape[1:])
        ranked: Any = jax.ShapeDtypeStruct(shape, items.dtype, sharding=items.sharding)  # type: ignore[no-untyped-call]
        embeddings = embeddings._replace(items=ranked)
    asked: Any = plan.queries, plan.first_pairs
    leaves, form = jax.tree.flatten((embeddings, *(asked if mesh is None else _whole_on(mesh).shapes(asked))))
    shapes = tuple((leaf.shape, leaf.dtype, None if mesh is None else leaf.sharding) for leaf in leaves)
    return _compiled_ranking(shapes, form, plan.chunk, mesh, current_target())


@lru_cache(maxsize=8)
def _compiled_ranking(
    shapes: tuple[tuple[Any, ...], ...], form: Any, chunk: ChunkShape, mesh: Mesh | None, target: Target | None
) -> jax.stages.Compiled:
    arguments = jax.tree.unflatten(form, [jax.ShapeDtypeStruct(*shape[:2], sharding=shape[2]) for shape in shapes])  # type: ignore[no-untyped-call]
    if mesh is None:
        return compiler_of(rank_chunks, *arguments, chunk, static=(3,))()
    return compiler_of(partial(rank_on_mesh, mesh=mesh), *arguments, chunk, static=(3,))()


def _whole_on(mesh: Mesh) -> Layout:
    return Layout(mesh, num_rows=frozenset())


WAYS: dict[str, Callable[[RankingPlan, Embeddings], TopK]] = {
    "host": lambda plan, embeddings: rank_in_tiles(embeddings, plan.queries, plan.first_pairs, plan.chunk, plan.tiles),
    "device": _rank_on_device,
    "mesh": _rank_on_mesh,
}


@jax.jit
def _largest_score(embeddings: Embeddings) -> Scalar:
    """Compute a cheap upper bound of |score|, which is finite only if all embeddings and scores are."""
    largest = [jnp.abs(table.astype(jnp.float32)).max() for table in embeddings]
    return embeddings.items.shape[1] * largest[0] * largest[1]
