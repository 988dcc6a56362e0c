"""User-item graphs that MMSSL builds on the device during training, one per modality."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from slmrec_jax.encoding.gathers import first_places
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.matrices import Csr, Operator, compressed, with_chunks
from slmrec_jax.encoding.sparse import matmul

MAX_SCORE_BYTES = 16 * 2**20
"""The maximum size of the scores that `top_items` holds at a time."""


class Edges(NamedTuple):
    """User-item pairs of weight 1. Their number is static; unused edges have weight 0."""

    users: Int[Array, "*edges"]
    items: Int[Array, "*edges"]
    weights: Float[Array, "*edges"]


class Bipartite(NamedTuple):
    """A graph G with its two normalisations: D_u^-1/2 G for users, D_i^-1/2 Gᵀ for items.

    Each side is scaled only by the degree of the receiving node, as in MMSSL (Figure 2 and published code). A node
    without edges receives 0.
    """

    entries: Operator
    user_scale: Float[Array, " users"]
    item_scale: Float[Array, " items"]


ModalityGraphs: TypeAlias = Mapping[str, Bipartite]
"""The graphs by modality."""


def aggregate_items(graph: Bipartite, items: Float[Array, "items dim"]) -> Float[Array, "users dim"]:
    """Compute D_u^-1/2 G x."""
    return graph.user_scale[:, None] * matmul(graph.entries, items)


def aggregate_users(graph: Bipartite, users: Float[Array, "users dim"]) -> Float[Array, "items dim"]:
    """Compute D_i^-1/2 Gᵀ x."""
    return graph.item_scale[:, None] * matmul(graph.entries.T, users)


def bipartite(edges: Edges, num_users: int, num_items: int, capacity: int = 0) -> Bipartite:
    """Build the graph of the given edges, in any order. A repeated edge counts as often as it occurs.

    If there are fewer than `capacity` edges, the graph is padded to `capacity` with edges of weight 0.
    """
    users, items, weights = (_pad(x.reshape(-1), max(capacity, x.size)) for x in edges)
    entries = Operator(compressed(users, items, weights, num_users), compressed(items, users, weights, num_items))
    degrees = (matmul(side, jnp.ones((side.transposed.num_rows, 1)))[:, 0] for side in (entries, entries.T))
    return Bipartite(entries, *(jnp.where(of > 0, jax.lax.rsqrt(jnp.maximum(of, 1.0)), 0.0) for of in degrees))


def interaction_graph(graph: Graph) -> Bipartite:
    """Build the graph of the training interactions with MMSSL's normalisation."""
    users, items = graph.interactions
    return bipartite(Edges(users, items, jnp.ones(users.shape)), graph.num_users, graph.num_items)


def empty_graph(num_users: int, num_items: int, capacity: int) -> Bipartite:
    """Build a graph without edges, with room for `capacity` edges."""
    none = jnp.zeros(0, jnp.int32)
    return bipartite(Edges(none, none, jnp.zeros(0)), num_users, num_items, capacity)


def pad_graph(graph: Bipartite, capacity: int) -> Bipartite:
    """Pad a graph to `capacity` edges: the new entries, of weight 0, extend the last row."""

    def side(matrix: Csr) -> Csr:
        values, columns = (_pad(x, capacity) for x in (matrix.weights, matrix.columns))
        return with_chunks(Csr(values, columns, matrix.offsets.at[-1].set(capacity)))

    entries = graph.entries
    return graph._replace(entries=Operator(side(entries.matrix), side(entries.transposed)))


def interaction_rows(graph: Graph, users: Int[Array, " batch"]) -> Float[Array, "batch items"]:
    """Return R[u, :] of each user: 1 at the user's training items, otherwise 0. Users may repeat."""
    size = users.shape[0]
    row_of = first_places(users, graph.num_users)
    known_users, known_items = graph.interactions
    places = row_of[known_users], known_items  # distinct, since interactions are
    rows = jnp.zeros((size, graph.num_items)).at[places].set(1.0, mode="drop", unique_indices=True)
    return rows[row_of[users]]


def top_items(
    graph: Graph,
    users: Float[Array, "users dim"],
    items: Float[Array, "items dim"],
    ids: Int[Array, " batch"],
    k: int,
    *,
    mask_training: bool,
) -> Int[Array, "batch k"]:
    """Return the k items with the largest inner products for each of the users `ids`, best first.

    `mask_training` sets the scores of training items to 0, as in the published code; they are therefore still returned
    if fewer than k items have a positive score. Users are processed in chunks, so memory does not grow with users ×
    items.
    """
    count = ids.shape[0]
    chunk = max(1, min(count, MAX_SCORE_BYTES // (4 * graph.num_items)))
    chunks = -(-count // chunk)

    def search_chunk(ids: Int[Array, " chunk"]) -> Int[Array, "chunk k"]:
        scores = users[ids] @ items.T
        if mask_training:
            scores = scores * (1.0 - interaction_rows(graph, ids))
        best: Array = jax.lax.top_k(scores, k)[1]
        return best

    found: Array = jax.lax.map(search_chunk, _pad(ids, chunks * chunk).reshape(chunks, chunk))
    return found.reshape(chunks * chunk, k)[:count]


def _pad(x: Array, length: int) -> Array:
    return jnp.concatenate([x, jnp.zeros(length - x.shape[0], x.dtype)])
