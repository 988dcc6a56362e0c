"""Updates of MMSSL's modality graphs during training, as in its paper or as in its published code."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from slmrec_jax.encoding.graph import Graph
from slmrec_jax.methods.mmssl.graphs import Bipartite, Edges, ModalityGraphs, bipartite, top_items
from slmrec_jax.methods.mmssl.recommender import Encoded, Similarity, comparable_rows
from slmrec_jax.types import Batch, Spec

Collected: TypeAlias = Any
"""The data that updates keep between steps besides the graphs: `()` or `BatchEdges`."""


class GraphUpdates(NamedTuple):
    """The update of the modality graphs after each step: rebuild them if that is due, otherwise collect data."""

    capacity: int
    """The number of edges that each graph has room for, at least the number of training interactions."""
    note: str
    due: Callable[[Int[Array, ""]], Bool[Array, ""]]
    """`(step) -> bool`: whether to rebuild the graphs. Steps are counted from the start of training."""
    rebuild: Callable[[Collected, Graph, Callable[[], Encoded]], tuple[ModalityGraphs, Collected]]
    """`(collected, interactions, fresh) -> (graphs, collected)`. `fresh` runs a pass with the new parameters and
    without dropout; it costs nothing unless called."""
    collect: Callable[[Collected, Graph, Batch, Encoded], Collected] = lambda collected, *_: collected
    """`(collected, interactions, batch, encoded) -> collected`, called in all other steps with the step's own pass."""
    init: Callable[[], Collected] = lambda: ()


def all_users(spec: Spec, k: int, every: int, *, similarity: Similarity, mask_training: bool) -> GraphUpdates:
    """Make the update that connects each user to their k >= 1 nearest items by the modality's rows.

    The graphs are rebuilt every `every` steps. A user whose row is 0, as without interactions, gets no edges. For
    `mask_training`, see `top_items`.
    """
    capacity = max(spec.num_interactions, spec.num_users * k)

    def rebuild(
        collected: Collected, interactions: Graph, fresh: Callable[[], Encoded]
    ) -> tuple[ModalityGraphs, Collected]:
        ids, encoded = jnp.arange(spec.num_users, dtype=jnp.int32), fresh()

        def graph_of(name: str) -> Bipartite:
            rows = comparable_rows(encoded, name, similarity)
            items = top_items(interactions, *rows, ids, k, mask_training=mask_training)
            weights = jnp.any(rows[0] != 0, axis=1, keepdims=True).astype(jnp.float32)
            edges = Edges(*(jnp.broadcast_to(x, items.shape) for x in (ids[:, None], items, weights)))
            return bipartite(edges, spec.num_users, spec.num_items, capacity)

        return {name: graph_of(name) for name in spec.modalities}, collected

    note = f"modality graphs: {k} items for every user, rebuilt every {every} steps"
    return GraphUpdates(capacity, note, lambda step: (step + 1) % every == 0, rebuild)


class BatchEdges(NamedTuple):
    """The edges collected from the batches since the last rebuild."""

    edges: Mapping[str, Edges]
    """Edges by modality, of shape (steps, edges per step)."""
    num_batches: Int[Array, ""]


def last_batches(
    spec: Spec,
    k: int,
    every: int,
    steps_per_pass: int,
    rows_per_step: int,
    *,
    similarity: Similarity,
    mask_training: bool,
) -> GraphUpdates:
    """Make the published code's update: each step either collects edges of its batch's users or builds the graph.

    Step n > 0 of a pass with n mod `every` = 0 builds the graph from the collected edges and clears them; every other
    step collects. With `every` = 1, only the first step of a pass collects: its graph is used only in the third step,
    and all other steps and the evaluation have no edges. k may be 0: then there are no edges from the third step of
    training on. With k > 1, edges join wrong pairs (`mispaired`).

    A pass has `steps_per_pass` steps of `rows_per_step` rows, counting all micro-batches. For `mask_training`, see
    `top_items`.
    """
    slots = 2 * every - 1  # steps collected after a pass's last rebuild and before the next pass's first
    edges_of_step = rows_per_step * k
    capacity = max(spec.num_interactions, slots * edges_of_step)

    def due(step: Int[Array, ""]) -> Bool[Array, ""]:
        place = step % steps_per_pass
        return (place > 0) & (place % every == 0)

    def init() -> BatchEdges:
        shape = (slots, max(1, edges_of_step))  # checkpoints cannot hold empty arrays
        none = jnp.zeros(shape, jnp.int32)
        edges = {name: Edges(none, none, jnp.zeros(shape)) for name in spec.modalities}
        return BatchEdges(edges, jnp.zeros((), jnp.int32))

    def rebuild(
        collected: BatchEdges, interactions: Graph, fresh: Callable[[], Encoded]
    ) -> tuple[ModalityGraphs, BatchEdges]:
        graphs = {
            name: bipartite(edges, spec.num_users, spec.num_items, capacity) for name, edges in collected.edges.items()
        }
        return graphs, init()

    def collect(collected: BatchEdges, interactions: Graph, batch: Batch, encoded: Encoded) -> BatchEdges:
        if k == 0:
            return collected

        def edges_of(name: str) -> Edges:
            rows = comparable_rows(encoded, name, similarity)
            users, mask = batch.users.reshape(-1), batch.mask.reshape(-1)
            items = top_items(interactions, *rows, users, k, mask_training=mask_training)
            # A padded row has no edges.
            real = jnp.tile(mask, k) & jnp.repeat(mask, k)
            new = Edges(*mispaired(users, items), real.astype(jnp.float32))
            return Edges(*(x.at[collected.num_batches].set(y) for x, y in zip(collected.edges[name], new, strict=True)))

        return BatchEdges({name: edges_of(name) for name in collected.edges}, collected.num_batches + 1)

    note = f"modality graphs: {k} items for each user of a batch, as the published code collects them"
    return GraphUpdates(capacity, note, due, rebuild, collect, init)


def mispaired(
    users: Int[Array, " batch"], items: Int[Array, "batch k"]
) -> tuple[Int[Array, " edges"], Int[Array, " edges"]]:
    """Return the published code's edges: the users tiled k times, paired with the flattened items of all users.

    With k > 1, most of these pairs are wrong.
    """
    return jnp.tile(users, items.shape[1]), items.reshape(-1)
