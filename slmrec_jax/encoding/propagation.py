"""LightGCN propagation: the definition, and an equivalent computation with fewer products.

P = [[0, R̂], [R̂ᵀ, 0]] acts on users stacked on items; the read-out is M_L x = (1 / (L + 1)) Σ_{l=0..L} P^l x.

M_L is linear, so M_L [E_u; X] = M_L [E_u; 0] + M_L [0; X]: a *user chain* shared by all modalities, and a separate
*item chain* per modality. Each layer of a chain is one half product, R̂ x or R̂ᵀ x. If X = F W + p bᵀ with frozen F,
the item chain is (M_L [0; F]) W + (M_L [0; p]) bᵀ, whose left factors are computed only once.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
from jaxtyping import Array, Float

from slmrec_jax.devices import on_cpu
from slmrec_jax.encoding import vectors
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.rows import product_rows, rows_of, sum_of
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.meshes import num_column_shares
from slmrec_jax.types import ALL, DenseFeature, FrozenRows, Rows, Spec

MAX_CACHE_BYTES = 4 * 2**30
"""The maximum size, per device, of a frozen modality's propagated features. A larger modality is projected first
instead."""

CACHE_COLUMNS = 256
"""The number of feature columns that each device propagates at a time in `frozen_chain`."""


class Halves(NamedTuple):
    """The rows of all users and the rows of all items."""

    users: Float[Array, "users ..."]
    items: Float[Array, "items ..."]


class Channel(NamedTuple):
    """The read-out of one modality. Only requested rows are summed over the layers."""

    users: Rows
    items: Rows


def aggregate(graph: Graph, x: Float[Array, "nodes dim"]) -> Float[Array, "nodes dim"]:
    """Compute P x by definition: each node sums its neighbours' rows, weighted by R̂."""
    edges = stacked_graph(graph)
    summed: Array = jraph.segment_sum(edges.edges[:, None] * x[edges.senders], edges.receivers, x.shape[0])
    return summed


def stacked_graph(graph: Graph) -> jraph.GraphsTuple:
    """Build the graph for `aggregate`: users stacked on items, with one edge per interaction in each direction.

    Edges from items to users come first; both parts are sorted by user, then item. Edge weights are the entries of R̂.
    """
    users, items = graph.interactions
    items = items + graph.num_users
    return jraph.GraphsTuple(
        nodes=None,
        edges=jnp.tile(graph.adjacency.matrix.weights, 2),
        senders=jnp.concatenate([items, users]),
        receivers=jnp.concatenate([users, items]),
        globals=None,
        n_node=jnp.array([graph.num_users + graph.num_items], jnp.int32),
        n_edge=jnp.array([2 * graph.num_interactions], jnp.int32),
    )


def to_users(graph: Graph, items: Float[Array, "items dim"]) -> Float[Array, "users dim"]:
    """Compute R̂ x, the half product from items to users."""
    return matmul(graph.adjacency, items)


def to_items(graph: Graph, users: Float[Array, "users dim"]) -> Float[Array, "items dim"]:
    """Compute R̂ᵀ x, the half product from users to items."""
    return matmul(graph.adjacency.T, users)


def hop(graph: Graph, x: Halves) -> Halves:
    """Compute P x in two half products."""
    return Halves(to_users(graph, x.items), to_items(graph, x.users))


def hop_by_definition(graph: Graph, x: Halves) -> Halves:
    """Compute P x with `aggregate`, for comparison; on GPUs and TPUs, where segment sums are slow, with `hop`."""
    if not on_cpu():
        return hop(graph, x)
    return split(graph, aggregate(graph, jnp.concatenate(x)))


def split(graph: Graph, nodes: Float[Array, "nodes dim"]) -> Halves:
    """Split rows of users stacked on items into user rows and item rows."""
    return Halves(nodes[: graph.num_users], nodes[graph.num_users :])


def neighbour_mean(
    graph: Graph, x: Float[Array, "nodes dim"], hop: Callable[[Graph, Halves], Halves] = hop
) -> Float[Array, "nodes dim"]:
    """Compute D^-1 A x = D^-1/2 P D^1/2 x: the plain mean over each node's neighbours; 0 if there are none."""
    degrees = jnp.concatenate([jnp.diff(side.offsets) for side in graph.adjacency]).astype(x.dtype)[:, None]
    root = jnp.sqrt(degrees)
    return jnp.concatenate(hop(graph, split(graph, root * x))) / jnp.maximum(root, 1.0)


def user_chain(
    graphs: Sequence[Graph],
    users: Float[Array, "users dim"],
    num_layers: int,
    first: Float[Array, "items dim"] | None = None,
) -> Channel:
    """Compute M_L [users; 0] with L half products, or L - 1 if the first one is given.

    `graphs` has one graph per layer, or one for all layers.
    """
    own, other = _read_out_of_chain([graph.adjacency.T for graph in graphs], users, num_layers, first)
    return Channel(own, other)


def item_chain(
    graphs: Sequence[Graph],
    items: Float[Array, "items dim"],
    num_layers: int,
    first: Float[Array, "users dim"] | None = None,
) -> Channel:
    """Compute M_L [0; items] with L half products, or L - 1 if the first one is given.

    `graphs` has one graph per layer, or one for all layers.
    """
    own, other = _read_out_of_chain([graph.adjacency for graph in graphs], items, num_layers, first)
    return Channel(other, own)


class FrozenChain(NamedTuple):
    """The item chain of a frozen modality, before the learned projection."""

    values: Halves
    """M_L [0; F], with the columns of the features."""
    present: Halves
    """M_L [0; p], the factor of the projection's bias. It is not constant 1, since every hop adds to it."""


def frozen_chain(graph: Graph, feature: DenseFeature, num_layers: int, held_as: FrozenRows = "float32") -> FrozenChain:
    """Propagate a frozen modality's features in float32, a block of columns at a time to bound memory.

    `held_as` is the dtype in which `FrozenChain.values` are stored.
    """

    @partial(jax.jit, static_argnames="dtype")
    def propagate_block(graph: Graph, items: Array, dtype: str) -> Halves:
        return Halves(*(side(ALL).astype(dtype) for side in item_chain([graph], items, num_layers)))

    at_a_time = CACHE_COLUMNS * num_column_shares()
    blocks = [
        propagate_block(graph, vectors.columns(feature, start, start + at_a_time), held_as)
        for start in range(0, feature.values.shape[1], at_a_time)
    ]
    present = propagate_block(graph, feature.present[:, None], "float32")
    return FrozenChain(
        Halves(*(jnp.concatenate(half, axis=1) for half in zip(*blocks, strict=True))),
        Halves(*(half[:, 0] for half in present)),
    )


def choose_chain(
    spec: Spec, columns: int, *, num_layers: int, batch_size: int, held_as: FrozenRows = "float32"
) -> tuple[bool, str]:
    """Decide whether to propagate a frozen modality's features once, or to project and propagate them in each step.

    The rule compares the multiply-adds of one step's forward pass. With propagated features, only the batch's users and
    items are projected. The second result is the reason.
    """
    size = jnp.dtype(held_as).itemsize * (spec.num_users + spec.num_items) * columns / spec.column_shares
    if size > MAX_CACHE_BYTES:
        limit = MAX_CACHE_BYTES / 2**30
        return False, f"propagated features would take {size / 2**30:.1f} GiB > {limit:.0f}"
    cached = 2 * batch_size * columns * spec.dim
    projected = spec.num_items * columns * spec.dim + num_layers * spec.num_interactions * spec.dim
    better, worse = min(cached, projected), max(cached, projected)
    return cached <= projected, f"{better / 1e6:.0f} against {worse / 1e6:.0f} million multiply-adds a step"


def _read_out_of_chain(hops: Sequence[Operator], x: Array, num_layers: int, first: Array | None) -> tuple[Rows, Rows]:
    """Return the read-out on the side of x, and on the other side, whose layer 0 is zero.

    `hops` lead from the side of x to the other side: one per layer, or one for all layers.
    """
    sides: tuple[list[Rows], list[Rows]] = [rows_of(x)], []
    for layer in range(1, num_layers + 1):
        hop = hops[(layer - 1) % len(hops)]
        hop = hop if layer % 2 else hop.T
        after = first if layer == 1 and first is not None else matmul(hop, x)
        # No product follows the last layer, so its cotangent is zero except for the rows that are read out.
        sides[layer % 2].append(rows_of(after) if layer < num_layers else product_rows(hop, x, after))
        x = after
    if not sides[1]:
        sides[1].append(rows_of(jnp.zeros((hops[0].matrix.num_rows, x.shape[1]), x.dtype)))
    return sum_of(sides[0], 1.0 / (num_layers + 1)), sum_of(sides[1], 1.0 / (num_layers + 1))
