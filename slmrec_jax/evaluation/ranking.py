"""Exact ranking of all items for each user, without known items, in bounded memory.

`plan_ranking` does the work that does not depend on the embeddings. `rank` scores a chunk of users at a time and
searches the scores (`search.py`): on accelerators all chunks in one compiled program, on CPUs one program for each.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int, Scalar

from slmrec_jax.config.protocols import Score
from slmrec_jax.devices import Target, compiler_of, current_target, memory_bytes, on_cpu, platform
from slmrec_jax.errors import Diverged, UserError
from slmrec_jax.evaluation.search import Scored, TopK, block_width, by_numpy, top_k
from slmrec_jax.types import Embeddings, Interactions

MAX_CHUNK_BYTES = 16 * 2**20
"""The memory limit for the scores of one chunk on CPUs. Twice as much is 10 % faster for large catalogues."""

CHUNK_SHARE = 64
"""On accelerators, a chunk's scores take at most one part in so many of the device's memory."""

UNKNOWN_CHUNK_BYTES = 2**28
"""Their limit if that memory is not known."""

IN_FLIGHT = 2
"""Chunks at a time. On a CPU, one core searches a chunk while the others compute the scores of the next."""

TPU_LANES = 128
"""A TPU pads the last axis of an array to a multiple of this: narrower blocks of columns take more memory."""


class Ranking(NamedTuple):
    """The best items of each user, best first; equal scores in the order of item ids."""

    items: Int[np.ndarray, "users k"]
    """int32; -1 if a user has no further candidate."""
    scores: Float[np.ndarray, "users k"]
    """float32; -inf if the item is -1."""


class RankingPlan(NamedTuple):
    """Users to rank for and items to leave out, from `plan_ranking`; valid for any embeddings of the same data."""

    queries: "Queries"
    first_pairs: Int[np.ndarray, " chunks"]
    """The index of each chunk's first known pair."""
    num_users: int
    num_items: int
    candidates: Int[np.ndarray, " candidates"] | None
    """Ascending; `None` for all items."""
    chunk: "ChunkShape"


class Queries(NamedTuple):
    """Device arrays of a plan. A row is the position of a user in the requested order."""

    users: Int[Array, " rows"]
    """User ids, padded to full chunks."""
    known_rows: Int[Array, " pairs"]
    """Sorted; padded with a row beyond all others, so that the last chunk can take a full-length slice."""
    known_items: Int[Array, " pairs"]
    """Positions among the candidates."""


class ChunkShape(NamedTuple):
    """Static arguments of the compiled program."""

    rows: int
    pairs: int
    """The largest number of known pairs in a chunk."""
    k: int
    score: Score
    num_ranked: int
    """Items to rank; further columns are padding."""
    width: int
    """Columns of a block."""


def plan_ranking(
    users: Int[np.ndarray, " users"],
    known: Sequence[Interactions],
    num_items: int,
    k: int,
    *,
    candidates: Int[np.ndarray, " candidates"] | None = None,
    score: Score = "dot",
    max_bytes: int | None = None,
) -> RankingPlan:
    """Plan the ranking of all items for `users`, without the items that `known` pairs them with.

    Args:
        users: Ids in any order, repeats allowed; the result has the same order.
        known: Pairs to leave out, each in any order. Pairs of other users are ignored.
        num_items: Items have the ids 0..num_items-1.
        k: The number of items to return for each user.
        candidates: The items to rank, ascending; by default all.
        score: "dot" ranks by the inner product. "sigmoid" ranks by its float32 sigmoid: the same order, except that
            scores above about 16.6 saturate at 1 and tie. Use it to reproduce references that rank this way.
        max_bytes: The limit for a chunk's scores (float32, users of a chunk × items), by default the platform's. On
            CPUs, `IN_FLIGHT` chunks exist at a time, twice as many under "sigmoid" or if k exceeds a quarter of the
            items. A row is never split.

    Raises:
        UserError: `k` is below 1 or above the number of candidates.
    """
    num_ranked = num_items if candidates is None else len(candidates)
    if not 1 <= k <= num_ranked:
        raise UserError(f"k is {k}, and there are {num_ranked} items to rank: give 1 to {num_ranked}")
    num_users = len(users)
    max_bytes = default_chunk_bytes() if max_bytes is None else max_bytes
    num_chunks = -(-num_users // max(1, max_bytes // (4 * num_ranked)))
    chunk_rows = -(-num_users // max(1, num_chunks))  # chunks of nearly equal size need the least padding
    num_rows = num_chunks * chunk_rows

    masked = _known_matrix(users, known, num_items)
    if candidates is not None:
        masked = masked[:, candidates]
    masked_rows = np.repeat(np.arange(num_users), np.diff(masked.indptr))
    bounds = masked.indptr[np.minimum(np.arange(num_chunks + 1) * chunk_rows, num_users)].astype(np.int32)
    chunk_pairs = int(np.diff(bounds).max(initial=0))
    queries = Queries(
        jnp.asarray(np.pad(users, (0, num_rows - num_users)), np.int32),
        jnp.asarray(np.pad(masked_rows, (0, chunk_pairs), constant_values=num_rows), np.int32),
        jnp.asarray(np.pad(masked.indices, (0, chunk_pairs)), np.int32),
    )
    width = block_width(num_ranked, k)
    if platform() == "tpu":
        width = max(width, TPU_LANES) if k * TPU_LANES <= num_ranked else 1
    chunk = ChunkShape(chunk_rows, chunk_pairs, k, score, num_ranked, width)
    return RankingPlan(queries, bounds[:-1], num_users, num_items, candidates, chunk)


def default_chunk_bytes() -> int:
    """Return the limit for the scores of a chunk: small enough for a CPU's cache, or a share of the device's memory."""
    if on_cpu():
        return MAX_CHUNK_BYTES
    memory = memory_bytes()
    return UNKNOWN_CHUNK_BYTES if memory is None else memory // CHUNK_SHARE


def rank(plan: RankingPlan, embeddings: Embeddings, way: str | None = None) -> Ranking:
    """Rank all items for the users of `plan` by the inner product of embeddings, in float32.

    `way` is a name of `WAYS`; by default `host` on CPU and `device` elsewhere.

    Raises:
        Diverged: Embeddings are NaN, infinite or so large that scores overflow, so that they have no order.
        ValueError: The number of items differs from the plan's.
    """
    embeddings = Embeddings(jnp.asarray(embeddings.users), jnp.asarray(embeddings.items))
    if embeddings.items.shape[0] != plan.num_items:
        raise ValueError(f"the plan ranks {plan.num_items} items, the embeddings hold {embeddings.items.shape[0]}")
    if not np.isfinite(_largest_score(embeddings)):
        raise Diverged(
            "the embeddings hold NaN, infinite or overflowing values, so that items cannot be ranked: "
            "training has diverged; lower the learning rate or the weights of the losses"
        )
    if plan.candidates is not None:
        embeddings = embeddings._replace(items=embeddings.items[plan.candidates])
    items, scores = WAYS[way or ("host" if on_cpu() else "device")](plan, embeddings)
    if plan.candidates is not None:
        items = np.where(items < 0, -1, plan.candidates[items]).astype(np.int32)
    return Ranking(items[: plan.num_users], scores[: plan.num_users])


def _rank_on_host(plan: RankingPlan, embeddings: Embeddings) -> TopK:
    """Search one chunk's scores with NumPy while the next one's are computed."""
    embeddings = _in_blocks(embeddings, plan.chunk)
    rows, num_chunks = plan.chunk.rows, len(plan.first_pairs)
    items = np.empty((num_chunks * rows, plan.chunk.k), np.int32)
    scores = np.empty(items.shape, np.float32)
    buffers = [jnp.empty((rows, len(embeddings.items)), jnp.float32) for _ in range(min(IN_FLIGHT, num_chunks))]

    def rank_chunk(index: int) -> None:
        first_row = np.int32(index * rows)
        scored = _score_into(buffers.pop(), embeddings, plan.queries, first_row, plan.first_pairs[index], plan.chunk)
        here = slice(first_row, first_row + rows)
        items[here], scores[here] = by_numpy(scored, plan.chunk.k)
        buffers.append(scored.scores)

    chunks = iter(range(num_chunks))
    for first in itertools.islice(chunks, 1):  # alone, so that two threads do not compile the same program
        rank_chunk(first)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(rank_chunk, chunks))  # `list` raises the exceptions of the threads
    return items, scores


def _rank_on_device(plan: RankingPlan, embeddings: Embeddings) -> TopK:
    """Rank in one program, and fetch its result once."""
    if not plan.num_users:
        return np.empty((0, plan.chunk.k), np.int32), np.empty((0, plan.chunk.k), np.float32)
    found = ranking_program(plan, embeddings)(embeddings, plan.queries, plan.first_pairs)
    items, scores = jax.device_get(found)
    return items, scores


def ranking_program(plan: RankingPlan, embeddings: Embeddings) -> jax.stages.Compiled:
    """Compile `rank_chunks` for a plan and for embeddings, or their shapes; the last programs are remembered."""
    leaves, form = jax.tree.flatten((embeddings, plan.queries, plan.first_pairs))
    return _compiled_ranking(tuple((leaf.shape, leaf.dtype) for leaf in leaves), form, plan.chunk, current_target())


@lru_cache(maxsize=8)
def _compiled_ranking(
    shapes: tuple[tuple[tuple[int, ...], np.dtype], ...], form: Any, chunk: ChunkShape, target: Target | None
) -> jax.stages.Compiled:
    leaves = [jax.ShapeDtypeStruct(*shape) for shape in shapes]  # type: ignore[no-untyped-call]
    return compiler_of(rank_chunks, *jax.tree.unflatten(form, leaves), chunk, static=(3,))()


WAYS: dict[str, Callable[[RankingPlan, Embeddings], TopK]] = {"host": _rank_on_host, "device": _rank_on_device}


def rank_chunks(
    embeddings: Embeddings, queries: Queries, first_pairs: Int[Array, " chunks"], chunk: ChunkShape
) -> tuple[Int[Array, "rows k"], Float[Array, "rows k"]]:
    """Rank all chunks, one after the other, on the device."""
    embeddings = _in_blocks(embeddings, chunk)

    def rank_chunk(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        return top_k(_scored(embeddings, queries, *bounds, chunk), chunk.k)

    first_rows = jnp.arange(len(first_pairs), dtype=jnp.int32) * chunk.rows
    items, scores = jax.lax.map(rank_chunk, (first_rows, first_pairs))
    return items.reshape(-1, chunk.k), scores.reshape(-1, chunk.k)


def _scored(
    embeddings: Embeddings,
    queries: Queries,
    first_row: Int[Array, ""],
    first_pair: Int[Array, ""],
    chunk: ChunkShape,
) -> Scored:
    """Score all items for a chunk of users; -inf for known items and columns of padding."""
    users = jax.lax.dynamic_slice_in_dim(queries.users, first_row, chunk.rows)
    rows = jax.lax.dynamic_slice_in_dim(queries.known_rows, first_pair, chunk.pairs) - first_row
    items = jax.lax.dynamic_slice_in_dim(queries.known_items, first_pair, chunk.pairs)
    scores = _inner_products(embeddings, users)
    if chunk.score == "sigmoid":
        scores = jax.nn.sigmoid(scores)
    # The slice may include pairs of later chunks: their rows are beyond this block, and `mode="drop"` ignores them.
    # One scatter masks known items and padding: a second one would copy the scores.
    padding = jnp.indices((chunk.rows, scores.shape[1] - chunk.num_ranked), jnp.int32).reshape(2, -1)
    rows, items = jnp.concatenate([rows, padding[0]]), jnp.concatenate([items, padding[1] + chunk.num_ranked])
    scores = scores.at[rows, items].set(-jnp.inf, mode="drop", unique_indices=True)
    if chunk.width == 1:
        return Scored(scores, scores)
    return Scored(scores, jnp.max(scores.reshape(chunk.rows, -1, chunk.width), axis=2))


# The scores overwrite the first argument, a buffer: on CPUs, fresh memory costs as much time as the product.
_score_into = jax.jit(
    lambda buffer, *arguments: _scored(*arguments), static_argnums=5, donate_argnums=0, keep_unused=True
)


def _in_blocks(embeddings: Embeddings, chunk: ChunkShape) -> Embeddings:
    """Pad the items to full blocks of columns."""
    padding = -embeddings.items.shape[0] % chunk.width
    return embeddings._replace(items=jnp.pad(embeddings.items, ((0, padding), (0, 0))))


def _inner_products(embeddings: Embeddings, users: Int[Array, " rows"]) -> Float[Array, "rows items"]:
    # Full precision: accelerators round the factors by default, which would swap items of nearly equal scores.
    return jnp.matmul(
        embeddings.users[users],
        embeddings.items.T,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


@jax.jit
def _largest_score(embeddings: Embeddings) -> Scalar:
    """Return an upper bound of |score|. It is finite only if all embeddings and scores are, and much cheaper."""
    largest = [jnp.abs(table.astype(jnp.float32)).max() for table in embeddings]
    return embeddings.items.shape[1] * largest[0] * largest[1]


def _known_matrix(
    users: Int[np.ndarray, " users"], known: Sequence[Interactions], num_items: int
) -> scipy.sparse.csr_array:
    """Return a sparse matrix with a row for each of `users` and an entry for each known item."""
    nothing = np.empty(0, np.int32)
    owners = np.concatenate([nothing, *(pairs.users for pairs in known)])
    items = np.concatenate([nothing, *(pairs.items for pairs in known)])
    num_users = 1 + int(max(owners.max(initial=0), users.max(initial=0)))
    entries = np.ones(len(owners), np.int8)
    return scipy.sparse.csr_array((entries, (owners, items)), shape=(num_users, num_items))[users]
