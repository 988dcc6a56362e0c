"""Updates of MMSSL's modality graphs during training, as its paper describes them, or as its published code does."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from slmrec_jax.encoding.graph import Graph
from slmrec_jax.methods.mmssl.graphs import Bipartite, Edges, ModalityGraphs, bipartite, nearest_items
from slmrec_jax.methods.mmssl.recommender import Encoded, Similarity, comparable_rows
from slmrec_jax.types import Batch, Spec

Collected: TypeAlias = Any
"""The data besides the graphs that updates keep between steps: `()` or `BatchEdges`."""


class GraphUpdates(NamedTuple):
    """The update of the modality graphs after each step: they are rebuilt if it is due, else data are collected."""

    capacity: int
    """The number of edges that each graph has room for; those of the training interactions fit."""
    note: str
    due: Callable[[Int[Array, ""]], Bool[Array, ""]]
    """`(step) -> whether` the graphs are rebuilt; steps are counted from the start of training."""
    rebuild: Callable[[Collected, Graph, Callable[[], Encoded]], tuple[ModalityGraphs, Collected]]
    """`(collected, interactions, fresh) -> (graphs, collected)`; `fresh` makes a pass with the new parameters and
    without dropout, which costs only where it is called."""
    collect: Callable[[Collected, Graph, Batch, Encoded], Collected] = lambda collected, *_: collected
    """`(collected, interactions, batch, encoded) -> collected` in every other step, from the pass that it descended."""
    init: Callable[[], Collected] = lambda: ()


def all_users(spec: Spec, k: int, every: int, *, similarity: Similarity, mask_training: bool) -> GraphUpdates:
    """Return the update that connects each user to their k >= 1 nearest items by the modality's rows.

    The graphs are rebuilt every `every` steps; for `mask_training` see `nearest_items`.
    """
    capacity = max(spec.num_interactions, spec.num_users * k)

    def rebuild(
        collected: Collected, interactions: Graph, fresh: Callable[[], Encoded]
    ) -> tuple[ModalityGraphs, Collected]:
        ids, encoded = jnp.arange(spec.num_users, dtype=jnp.int32), fresh()

        def graph_of(name: str) -> Bipartite:
            rows = comparable_rows(encoded, name, similarity)
            items = nearest_items(interactions, *rows, ids, k, mask_training=mask_training)
            edges = Edges(jnp.broadcast_to(ids[:, None], items.shape), items, jnp.ones(items.shape))
            return bipartite(edges, spec.num_users, spec.num_items, capacity)

        return {name: graph_of(name) for name in spec.modalities}, collected

    note = f"modality graphs: {k} items for every user, rebuilt every {every} steps"
    return GraphUpdates(capacity, note, lambda step: (step + 1) % every == 0, rebuild)


class BatchEdges(NamedTuple):
    """The edges of the batches since the last update."""

    edges: Mapping[str, Edges]
    """Shape (batches, edges of a batch)."""
    num_batches: Int[Array, ""]


def last_batches(
    spec: Spec, k: int, every: int, steps: int, batch_size: int, *, similarity: Similarity, mask_training: bool
) -> GraphUpdates:
    """Return the published code's update: a step either collects edges of its batch's users or builds the graph.

    Step n > 0 of an epoch with n mod `every` = 0 builds the graph from the collected edges and clears them; every other
    step collects. With `every` = 1 only the first step of an epoch collects: its graph serves only the third step, and
    all others, and evaluation, have no edges. k may be 0; then there are no edges from the third step of training on.
    With k > 1 edges join wrong pairs (`mispaired`).

    An epoch has `steps` steps of `batch_size` rows; for `mask_training` see `nearest_items`.
    """
    slots = 2 * every - 1  # what an epoch collects after its last graph, and the next one before its first
    edges_of_batch = batch_size * k
    capacity = max(spec.num_interactions, slots * edges_of_batch)

    def due(step: Int[Array, ""]) -> Bool[Array, ""]:
        place = step % steps
        return (place > 0) & (place % every == 0)

    def init() -> BatchEdges:
        shape = (slots, max(1, edges_of_batch))  # checkpoints cannot hold arrays without entries
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
            items = nearest_items(interactions, *rows, users, k, mask_training=mask_training)
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
    """Return the published code's edges: all users, k times, beside the items of the first user, then of the next, ….

    With k > 1 most of these users and items do not belong together.
    """
    return jnp.tile(users, items.shape[1]), items.reshape(-1)
