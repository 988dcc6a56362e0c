"""Graphs between users and items that training makes on the device: MMSSL's, one for each modality."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.sparse import Csr, Operator, matmul

MAX_SCORE_BYTES = 16 * 2**20
"""What the scores of one chunk of users may take while their nearest items are looked for."""


class Edges(NamedTuple):
    """Pairs of a user and an item with weight 1; how many is static, and what is not needed has weight 0."""

    users: Int[Array, "*edges"]
    items: Int[Array, "*edges"]
    weights: Float[Array, "*edges"]


class Bipartite(NamedTuple):
    """A graph G with both its normalisations: D_u^-1/2 G for users, D_i^-1/2 Gᵀ for items.

    Each side is scaled by the degree of who sums and by nothing else, as MMSSL does (Figure 2 and published code). A
    node without edges sums to 0.
    """

    entries: Operator
    user_scale: Float[Array, " users"]
    item_scale: Float[Array, " items"]


def to_users(graph: Bipartite, items: Float[Array, "items dim"]) -> Float[Array, "users dim"]:
    """D_u^-1/2 G x."""
    return graph.user_scale[:, None] * matmul(graph.entries, items)


def to_items(graph: Bipartite, users: Float[Array, "users dim"]) -> Float[Array, "items dim"]:
    """D_i^-1/2 Gᵀ x."""
    return graph.item_scale[:, None] * matmul(graph.entries.T, users)


def bipartite(edges: Edges, num_users: int, num_items: int) -> Bipartite:
    """The graph of these edges, in any order; an edge that stands twice counts twice."""
    users, items, weights = (x.reshape(-1) for x in edges)
    entries = Operator(_compressed(users, items, weights, num_users), _compressed(items, users, weights, num_items))
    degrees = (jax.ops.segment_sum(weights, ids, count) for ids, count in ((users, num_users), (items, num_items)))
    return Bipartite(entries, *(jnp.where(of > 0, jax.lax.rsqrt(jnp.maximum(of, 1.0)), 0.0) for of in degrees))


def interactions(graph: Graph) -> Bipartite:
    """The training interactions as such a graph."""
    users, items = graph.interactions
    return bipartite(Edges(users, items, jnp.ones(users.shape)), graph.num_users, graph.num_items)


def padded(graph: Bipartite, capacity: int) -> Bipartite:
    """The same graph with room for `capacity` edges."""
    sides = graph.entries.matrix, graph.entries.transposed
    return graph._replace(entries=Operator(*(_padded(side, capacity) for side in sides)))


def empty(num_users: int, num_items: int, capacity: int) -> Bipartite:
    """A graph without edges, with room for `capacity`."""
    none = jnp.zeros(capacity, jnp.int32)
    return bipartite(Edges(none, none, jnp.zeros(capacity)), num_users, num_items)


def interaction_rows(graph: Graph, users: Int[Array, " batch"]) -> Float[Array, "batch items"]:
    """R[u, :] of each user: 1 at the user's training items, else 0. A user may stand there twice."""
    size = users.shape[0]
    row_of = jnp.full(graph.num_users, size).at[users].set(jnp.arange(size))
    known_users, known_items = graph.interactions
    rows = jnp.zeros((size, graph.num_items)).at[row_of[known_users], known_items].set(1.0, mode="drop")
    return rows[row_of[users]]


def nearest_items(
    graph: Graph,
    users: Float[Array, "users dim"],
    items: Float[Array, "items dim"],
    ids: Int[Array, " batch"],
    k: int,
    *,
    mask_training: bool,
) -> Int[Array, "batch k"]:
    """The k items with the largest inner products, for each of the users `ids`, best first.

    Users go through in chunks, so that what is held does not grow with users × items.

    Args:
        graph: the training interactions.
        users: rows of all users.
        items: rows of all items.
        ids: whose items.
        k: how many, at most all.
        mask_training: sets the scores of training items to 0, as the published code does; they are then taken where
            fewer than k items have a positive score.
    """
    count = ids.shape[0]
    chunk = max(1, min(count, MAX_SCORE_BYTES // (4 * graph.num_items)))
    chunks = -(-count // chunk)
    filled = jnp.concatenate([ids, jnp.zeros(chunks * chunk - count, ids.dtype)])

    def of_chunk(ids: Int[Array, " chunk"]) -> Int[Array, "chunk k"]:
        scores = users[ids] @ items.T
        if mask_training:
            scores = scores * (1.0 - interaction_rows(graph, ids))
        found: Array = jax.lax.top_k(scores, k)[1]
        return found

    found: Array = jax.lax.map(of_chunk, filled.reshape(chunks, chunk))
    return found.reshape(chunks * chunk, k)[:count]


def _compressed(
    rows: Int[Array, " edges"], columns: Int[Array, " edges"], weights: Float[Array, " edges"], num_rows: int
) -> Csr:
    order = jnp.argsort(rows, stable=True)
    offsets = jnp.searchsorted(rows[order], jnp.arange(num_rows + 1, dtype=rows.dtype)).astype(jnp.int32)
    return Csr(weights[order], columns[order], offsets)


def _padded(side: Csr, capacity: int) -> Csr:
    """Entries of weight 0 at the end of the last row."""

    def filled(x: Shaped[Array, " entries"]) -> Shaped[Array, " capacity"]:
        return jnp.concatenate([x, jnp.zeros(capacity - x.shape[0], x.dtype)])

    return Csr(filled(side.values), filled(side.columns), side.offsets.at[-1].set(capacity))
