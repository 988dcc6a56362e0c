"""When and from what MMSSL makes its modality graphs again: as its paper means it, or as its published code does it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from slmrec_jax.encoding.graph import Graph
from slmrec_jax.methods.mmssl.graphs import Bipartite, Edges, bipartite, nearest_items
from slmrec_jax.methods.mmssl.recommender import Encoded, compared
from slmrec_jax.types import Batch, Spec

Graphs = Mapping[str, Bipartite]
Similarity: TypeAlias = Literal["cosine", "dot"]


class GraphUpdates(NamedTuple):
    """What becomes of the modality graphs at the end of a step."""

    capacity: int
    """How many edges each graph has room for; those of the training interactions fit."""
    init: Callable[[], Any]
    """What is kept between steps besides the graphs."""
    update: Callable[[Int[Array, ""], Graphs, Any, Graph, Batch, Encoded, Callable[[], Encoded]], tuple[Graphs, Any]]
    """`(step, graphs, collected, interactions, batch, encoded, fresh)`: the pass that the step descended, and one of
    the new parameters without dropout, which costs only where it is called."""
    note: str


def all_users(spec: Spec, k: int, every: int, *, similarity: Similarity, mask_training: bool) -> GraphUpdates:
    """Every so many steps each user is joined with their k nearest items by the modality's rows.

    Args:
        spec: sizes.
        k: at least 1.
        every: steps between two graphs.
        similarity: by which items are near.
        mask_training: leaves scores of training items at 0.
    """
    capacity = max(spec.num_interactions, spec.num_users * k)

    def refreshed(interactions: Graph, encoded: Encoded) -> Graphs:
        ids = jnp.arange(spec.num_users, dtype=jnp.int32)

        def of(name: str) -> Bipartite:
            rows = encoded.user_features[name], compared(encoded.item_features[name], similarity)
            items = nearest_items(interactions, *rows, ids, k, mask_training=mask_training)
            users = jnp.broadcast_to(ids[:, None], items.shape)
            return bipartite(
                _filled(Edges(users, items, jnp.ones(items.shape)), capacity), spec.num_users, spec.num_items
            )

        return {name: of(name) for name in spec.modalities}

    def update(
        step: Int[Array, ""],
        graphs: Graphs,
        collected: Any,
        interactions: Graph,
        batch: Batch,
        encoded: Encoded,
        fresh: Callable[[], Encoded],
    ) -> tuple[Graphs, Any]:
        due = (step + 1) % every == 0
        return jax.lax.cond(due, lambda: refreshed(interactions, fresh()), lambda: graphs), collected

    return GraphUpdates(
        capacity, lambda: (), update, f"modality graphs: {k} items for every user, again every {every} steps"
    )


class Collected(NamedTuple):
    """Edges of the batches since the last graph."""

    edges: Mapping[str, Edges]
    """Shape (batches, edges of a batch)."""
    num_batches: Int[Array, ""]


def last_batches(
    spec: Spec, k: int, every: int, steps: int, batch_size: int, *, similarity: Similarity, mask_training: bool
) -> GraphUpdates:
    """The published code: a step of an epoch either collects edges of its batch's users, or makes the graph of them.

    Step n > 0 with n mod `every` = 0 makes the graph from what was collected, and forgets it; every other step
    collects. With `every` = 1 only the first step of an epoch collects: its graph serves the third step alone, and
    all others work without edges, evaluation too. k may be 0, and then there are none at all from the third step of
    training on. Users are repeated as a list, items listed user by user, so that with k > 1 edges join wrong pairs.

    Args:
        spec: sizes.
        k: nearest items by user.
        every: the period.
        steps: of an epoch.
        batch_size: rows of a batch.
        similarity: by which items are near.
        mask_training: leaves scores of training items at 0.
    """
    slots = 2 * every - 1  # what an epoch leaves uncollected, and what the next collects until the first graph
    edges_of_batch = batch_size * k
    capacity = max(spec.num_interactions, slots * edges_of_batch)

    def init() -> Collected:
        # Checkpoints take no arrays without entries.
        shape = (slots, max(1, edges_of_batch))
        none = jnp.zeros(shape, jnp.int32)
        edges = {name: Edges(none, none, jnp.zeros(shape)) for name in spec.modalities}
        return Collected(edges, jnp.zeros((), jnp.int32))

    def made(collected: Collected) -> tuple[Graphs, Collected]:
        graphs = {
            name: bipartite(_filled(edges, capacity), spec.num_users, spec.num_items)
            for name, edges in collected.edges.items()
        }
        return graphs, init()

    def with_batch(collected: Collected, interactions: Graph, batch: Batch, encoded: Encoded) -> Collected:
        def of(name: str) -> Edges:
            rows = encoded.user_features[name], compared(encoded.item_features[name], similarity)
            items = nearest_items(interactions, *rows, batch.users, k, mask_training=mask_training)
            users, items = mispaired(batch.users, items)
            # A padded row has no edges.
            real = jnp.tile(batch.mask, k) & jnp.repeat(batch.mask, k)
            new = Edges(users, items, real.astype(jnp.float32))
            return Edges(*(x.at[collected.num_batches].set(y) for x, y in zip(collected.edges[name], new, strict=True)))

        return Collected({name: of(name) for name in collected.edges}, collected.num_batches + 1)

    def update(
        step: Int[Array, ""],
        graphs: Graphs,
        collected: Collected,
        interactions: Graph,
        batch: Batch,
        encoded: Encoded,
        fresh: Callable[[], Encoded],
    ) -> tuple[Graphs, Collected]:
        place = step % steps
        due = (place > 0) & (place % every == 0)

        def collect() -> tuple[Graphs, Collected]:
            return graphs, with_batch(collected, interactions, batch, encoded) if k else collected

        return jax.lax.cond(due, lambda: made(collected), collect)  # type: ignore[no-any-return]

    note = f"modality graphs: {k} items for each user of a batch, as the published code collects them"
    return GraphUpdates(capacity, init, update, note)


def mispaired(
    users: Int[Array, " batch"], items: Int[Array, "batch k"]
) -> tuple[Int[Array, " edges"], Int[Array, " edges"]]:
    """The published code's edges: the list of users k times, against the items of the first user, of the second, .."""
    return jnp.tile(users, items.shape[1]), items.reshape(-1)


def _filled(edges: Edges, capacity: int) -> Edges:
    """With edges of weight 0 up to the capacity."""
    flat = (x.reshape(-1) for x in edges)
    return Edges(*(jnp.concatenate([x, jnp.zeros(capacity - x.shape[0], x.dtype)]) for x in flat))
