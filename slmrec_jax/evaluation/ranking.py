"""The best items of each user among all items, known ones left out: exact, and in bounded memory.

`prepare` does once what does not depend on the embeddings; `rank` runs one compiled program for every chunk of users,
and searches the scores that it leaves (`search.py`).
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from slmrec_jax.config.protocols import Score
from slmrec_jax.errors import Diverged, UserError
from slmrec_jax.evaluation.search import SEARCHES, Scored, block_width, default_search, places_in_rows
from slmrec_jax.types import Embeddings, Interactions

MAX_SCORE_BYTES = 16 * 2**20
"""What the scores of one chunk may take. Twice as much would be a tenth faster on CPUs for large catalogues."""

IN_FLIGHT = 2
"""Chunks at a time. On a CPU the search of one runs on one core; the product of the next takes the others meanwhile."""


class Ranking(NamedTuple):
    """The best items of each user, best first; equal scores in the order of item ids."""

    items: Int[np.ndarray, "users k"]
    """int32; -1 where a user has no further candidate."""
    scores: Float[np.ndarray, "users k"]
    """float32; -inf where the item is -1."""


class RankingPlan(NamedTuple):
    """Whom to rank for and what to leave out, made ready by `prepare`; keep it to rank again after the next epoch."""

    queries: "Queries"
    first_pairs: Int[np.ndarray, " chunks"]
    """Where the known pairs of each chunk begin."""
    num_users: int
    num_items: int
    candidates: Int[np.ndarray, " candidates"] | None
    """Ascending; `None`: all items."""
    chunk: "Chunk"


class Queries(NamedTuple):
    """Device arrays of a plan. A row is a user's place in the order that was asked for."""

    users: Int[Array, " rows"]
    """User ids, padded to whole chunks."""
    known_rows: Int[Array, " pairs"]
    """Sorted; padded with a row beyond all others, so that the slice of the last chunk ends inside."""
    known_items: Int[Array, " pairs"]
    """Their places among the candidates."""


class Chunk(NamedTuple):
    """What the compiled program is specialised to."""

    rows: int
    pairs: int
    """The most known pairs that any chunk has."""
    k: int
    score: Score
    num_ranked: int
    """How many items there are to rank; columns beyond are padding."""
    width: int
    """Columns of a block."""


def prepare(
    users: Int[np.ndarray, " users"],
    known: Sequence[Interactions],
    num_items: int,
    k: int,
    *,
    candidates: Int[np.ndarray, " candidates"] | None = None,
    score: Score = "dot",
    max_bytes: int = MAX_SCORE_BYTES,
) -> RankingPlan:
    """Plans the ranking of all items for `users`, without the items that `known` pairs them with.

    Args:
        users: Ids in any order, repeats allowed; the result has their order.
        known: Pairs to leave out, each in any order. Pairs of other users are ignored.
        num_items: Items have the ids 0..num_items-1.
        k: How many items to return for each user.
        candidates: The items to rank, ascending; by default all.
        score: "dot" ranks by the inner product. "sigmoid" ranks by its float32 sigmoid: the same order, except that
            scores from about 16.6 on all become 1 and tie; it is there to replay references that rank so.
        max_bytes: Bound on the score block (float32, users of a chunk × items), of which `IN_FLIGHT` are held together;
            "sigmoid", and a search for more than a quarter of all, hold two at times. A single user's row is never
            divided.

    Raises:
        UserError: `k` is below 1 or above the number of candidates; choose one between.
    """
    num_ranked = num_items if candidates is None else len(candidates)
    if not 1 <= k <= num_ranked:
        raise UserError(f"k is {k}, and there are {num_ranked} items to rank: give 1 to {num_ranked}")
    num_users = len(users)
    num_chunks = -(-num_users // max(1, max_bytes // (4 * num_ranked)))
    chunk_rows = -(-num_users // max(1, num_chunks))  # chunks as equal as can be: the last has the least padding
    num_rows = num_chunks * chunk_rows

    known_rows, known_items = _known_pairs(users, known)
    if candidates is not None:
        ranked = np.isin(known_items, candidates)
        known_rows, known_items = known_rows[ranked], np.searchsorted(candidates, known_items[ranked])
    bounds = np.searchsorted(known_rows, np.arange(num_chunks + 1) * chunk_rows).astype(np.int32)
    chunk_pairs = int(np.diff(bounds).max(initial=0))
    queries = Queries(
        jnp.asarray(np.pad(users, (0, num_rows - num_users)), np.int32),
        jnp.asarray(np.pad(known_rows, (0, chunk_pairs), constant_values=num_rows), np.int32),
        jnp.asarray(np.pad(known_items, (0, chunk_pairs)), np.int32),
    )
    chunk = Chunk(chunk_rows, chunk_pairs, k, score, num_ranked, block_width(num_ranked, k))
    return RankingPlan(queries, bounds[:-1], num_users, num_items, candidates, chunk)


def rank(plan: RankingPlan, embeddings: Embeddings, search: str | None = None) -> Ranking:
    """Ranks all items for the users of `plan` by the inner product of embeddings, in float32.

    Args:
        plan: whom to rank for, and what to leave out.
        embeddings: rows by id.
        search: a name of `SEARCHES`; `None` takes the one for the device that JAX computes on.

    Raises:
        Diverged: Embeddings are NaN, infinite or so large that scores overflow; their order would mean nothing.
        ValueError: The table of items is not the one the plan was made for.
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
    rows, k = plan.chunk.rows, plan.chunk.k
    find = SEARCHES[search or default_search()]
    embeddings = embeddings._replace(
        items=jnp.pad(embeddings.items, ((0, -embeddings.items.shape[0] % plan.chunk.width), (0, 0)))
    )
    items = np.empty((len(plan.first_pairs) * rows, k), np.int32)
    scores = np.empty(items.shape, np.float32)

    rooms = [
        jnp.empty((rows, embeddings.items.shape[0]), jnp.float32) for _ in range(min(IN_FLIGHT, len(plan.first_pairs)))
    ]

    def rank_chunk(index: int) -> None:
        first_row, first_pair = np.int32(index * rows), plan.first_pairs[index]
        here = slice(first_row, first_row + rows)
        scored = _scored(rooms.pop(), embeddings, plan.queries, first_row, first_pair, plan.chunk)
        items[here], scores[here] = find(scored, k)
        rooms.append(scored.scores)

    chunks = iter(range(len(plan.first_pairs)))
    for first in itertools.islice(chunks, 1):  # alone, so that two threads do not compile the same program
        rank_chunk(first)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(rank_chunk, chunks))  # a list, so that what goes wrong in a thread is raised here
    if plan.candidates is not None:
        items = np.where(items < 0, -1, plan.candidates[items]).astype(np.int32)
    return Ranking(items[: plan.num_users], scores[: plan.num_users])


@partial(jax.jit, static_argnames="chunk", donate_argnames="room", keep_unused=True)
def _scored(
    room: Float[Array, "rows columns"],
    embeddings: Embeddings,
    queries: Queries,
    first_row: Int[Array, ""],
    first_pair: Int[Array, ""],
    chunk: Chunk,
) -> Scored:
    """Scores of a chunk's users, -inf where an item is known, and in columns that only fill a block.

    They lie in the room that is given: memory that the system has to supply again costs as much as the product.
    """
    users = jax.lax.dynamic_slice_in_dim(queries.users, first_row, chunk.rows)
    rows = jax.lax.dynamic_slice_in_dim(queries.known_rows, first_pair, chunk.pairs) - first_row
    items = jax.lax.dynamic_slice_in_dim(queries.known_items, first_pair, chunk.pairs)
    scores = _scores(embeddings, users)
    if chunk.score == "sigmoid":
        scores = jax.nn.sigmoid(scores)
    # A slice may reach into the pairs of later chunks; their rows lie beyond this block and are dropped.
    # In one scatter with the columns that only fill a block, since a second one would copy the scores.
    filling = jnp.indices((chunk.rows, scores.shape[1] - chunk.num_ranked), jnp.int32).reshape(2, -1)
    rows, items = jnp.concatenate([rows, filling[0]]), jnp.concatenate([items, filling[1] + chunk.num_ranked])
    scores = scores.at[rows, items].set(-jnp.inf, mode="drop")
    return Scored(scores, jnp.max(scores.reshape(chunk.rows, -1, chunk.width), axis=2))


def _scores(embeddings: Embeddings, users: Int[Array, " rows"]) -> Float[Array, "rows items"]:
    # Full precision: by default, accelerators round the factors, and near items would change places.
    return jnp.matmul(
        embeddings.users[users],
        embeddings.items.T,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


@jax.jit
def _largest_score(embeddings: Embeddings) -> Scalar:
    """An upper bound on |score|: finite only if every embedding and every score is, and far cheaper than all scores."""
    largest = [jnp.abs(table.astype(jnp.float32)).max() for table in embeddings]
    return embeddings.items.shape[1] * largest[0] * largest[1]


def _known_pairs(
    users: Int[np.ndarray, " users"], known: Sequence[Interactions]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """The known items of each of `users` in turn, as (row, item) sorted by row."""
    nothing = np.empty(0, np.int32)
    owners = np.concatenate([nothing, *(pairs.users for pairs in known)])
    items = np.concatenate([nothing, *(pairs.items for pairs in known)])
    order = np.argsort(owners, kind="stable")
    owners, items = owners[order], items[order]
    first = np.searchsorted(owners, users, "left")
    counts = np.searchsorted(owners, users, "right") - first
    rows = np.repeat(np.arange(len(users)), counts)
    return rows, items[first[rows] + places_in_rows(counts)]
