"""LightGCN propagation: the definition, and the exact algebra that needs less of it.

P = [[0, R̂], [R̂ᵀ, 0]] on users stacked on items; the read-out is M_L x = (1 / (L + 1)) Σ_{l=0..L} P^l x.

M_L is linear, so M_L [E_u; X] = M_L [E_u; 0] + M_L [0; X]: a *user chain* that every modality shares and an *item
chain* of its own. Each layer of a chain is one half product, R̂ x or R̂ᵀ x. Where X = F W + p bᵀ with frozen F, the
item chain is (M_L [0; F]) W + (M_L [0; p]) bᵀ, whose left factors are computed once.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
from jaxtyping import Array, Float

from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.rows import rows_of, rows_of_product, sum_of
from slmrec_jax.encoding.sparse import Operator, matmul
from slmrec_jax.types import ALL, DenseFeature, FrozenRows, Rows

MAX_CACHE_BYTES = 4 * 2**30
"""What the propagated rows of one frozen modality may take before it is projected first instead."""

CACHE_COLUMNS = 256
"""How many feature columns go through the graph at a time when they are propagated beforehand."""


class Halves(NamedTuple):
    """Rows of all users and rows of all items."""

    users: Float[Array, "users ..."]
    items: Float[Array, "items ..."]


class Layers(NamedTuple):
    """The tables whose sum, divided by L + 1, is read out. Who wants a few rows sums these rows alone."""

    users: tuple[Rows, ...]
    items: tuple[Rows, ...]


def aggregate(graph: Graph, x: Float[Array, "nodes ..."]) -> Float[Array, "nodes ..."]:
    """P x by the definition: each node sums its neighbours' rows, weighted by R̂."""
    edges = graph.nodes
    weights = edges.edges.reshape(-1, *[1] * (x.ndim - 1))
    summed: Array = jraph.segment_sum(weights * x[edges.senders], edges.receivers, x.shape[0])
    return summed


def aggregate_by_halves(graph: Graph, x: Float[Array, "nodes ..."]) -> Float[Array, "nodes ..."]:
    """P x as one wide half product to the users and one to the items; equal to `aggregate`."""
    flat = x.reshape(x.shape[0], -1)
    users, items = flat[: graph.num_users], flat[graph.num_users :]
    halves = matmul(graph.adjacency, items), matmul(graph.adjacency.T, users)
    return jnp.concatenate(halves).reshape(x.shape)


def neighbour_mean(
    graph: Graph,
    x: Float[Array, "nodes dim"],
    aggregate: Callable[[Graph, Array], Array] = aggregate_by_halves,
) -> Float[Array, "nodes dim"]:
    """D^-1 A x: the plain mean over a node's neighbours, 0 where it has none. As D^-1/2 P D^1/2 x."""
    sides = graph.adjacency.matrix, graph.adjacency.transposed
    degrees = jnp.concatenate([jnp.diff(side.offsets) for side in sides]).astype(x.dtype)[:, None]
    root = jnp.sqrt(degrees)
    return aggregate(graph, root * x) / jnp.maximum(root, 1.0)


def to_users(graph: Graph, items: Float[Array, "items dim"]) -> Float[Array, "users dim"]:
    """R̂ x: the half product from items to users."""
    return matmul(graph.adjacency, items)


def to_items(graph: Graph, users: Float[Array, "users dim"]) -> Float[Array, "items dim"]:
    """R̂ᵀ x: the half product from users to items."""
    return matmul(graph.adjacency.T, users)


def hop(graph: Graph, x: Halves) -> Halves:
    """P x in two half products."""
    return Halves(to_users(graph, x.items), to_items(graph, x.users))


def hop_by_definition(graph: Graph, x: Halves) -> Halves:
    """P x by `aggregate`, for comparison."""
    nodes = aggregate(graph, jnp.concatenate(x))
    return Halves(nodes[: graph.num_users], nodes[graph.num_users :])


def propagate(
    graph: Graph,
    x: Float[Array, "nodes ..."],
    num_layers: int,
    *,
    aggregate: Callable[[Graph, Array], Array] = aggregate,
) -> Float[Array, "nodes ..."]:
    """M_L x by the definition: users stacked on items, layer by layer.

    Args:
        graph: the graph.
        x: layer 0.
        num_layers: L.
        aggregate: what computes P x.
    """
    total = x
    for _ in range(num_layers):
        x = aggregate(graph, x)
        total = total + x
    return total / (num_layers + 1)


def user_chain(
    graph: Graph, users: Float[Array, "users dim"], num_layers: int, first: Float[Array, "items dim"] | None = None
) -> Layers:
    """M_L [users; 0] in L half products; the first is taken as given where it is known already."""
    own, other = _chain(graph.adjacency.T, users, num_layers, first)
    return Layers(own, other)


def item_chain(
    graph: Graph, items: Float[Array, "items dim"], num_layers: int, first: Float[Array, "users dim"] | None = None
) -> Layers:
    """M_L [0; items], likewise."""
    own, other = _chain(graph.adjacency, items, num_layers, first)
    return Layers(other, own)


def read_out(layers: Layers, num_layers: int) -> Halves:
    """All rows."""
    return Halves(*(sum_of(tables, 1.0 / (num_layers + 1))(ALL) for tables in layers))


class FrozenChain(NamedTuple):
    """The item chain of a frozen modality, up to the projection that training learns."""

    values: Halves
    """M_L [0; F], by feature column."""
    present: Halves
    """M_L [0; p]: what the projection's bias is multiplied with. Not constant 1; every hop adds to it."""


def frozen_chain(graph: Graph, feature: DenseFeature, num_layers: int, held_as: FrozenRows = "float32") -> FrozenChain:
    """Propagates a frozen modality's features, a block of columns at a time to bound what the layers hold.

    Args:
        graph: the graph.
        feature: the modality.
        num_layers: L.
        held_as: the type of `FrozenChain.values`; what is computed, is in float32.
    """

    @partial(jax.jit, static_argnames="dtype")
    def propagate_block(graph: Graph, items: Array, dtype: str) -> Halves:
        rows = read_out(item_chain(graph, items, num_layers), num_layers)
        return Halves(*(half.astype(dtype) for half in rows))

    width = feature.values.shape[1]
    blocks = [
        propagate_block(graph, feature.values[:, start : start + CACHE_COLUMNS], held_as)
        for start in range(0, width, CACHE_COLUMNS)
    ]
    present = propagate_block(graph, feature.present[:, None], "float32")
    return FrozenChain(
        Halves(*(jnp.concatenate(half, axis=1) for half in zip(*blocks, strict=True))),
        Halves(*(half[:, 0] for half in present)),
    )


class Choice(NamedTuple):
    """How a frozen modality is propagated, and why."""

    cached: bool
    reason: str


def choose_chain(
    *,
    num_nodes: int,
    num_items: int,
    num_interactions: int,
    columns: int,
    dim: int,
    num_layers: int,
    batch_size: int,
    held_as: FrozenRows = "float32",
) -> Choice:
    """The cost rule: propagate a frozen modality's features once, or project them in each step and propagate that.

    Counted in multiply-adds of one step's forward pass; a cached modality projects the batch's users and items alone.
    """
    size = jnp.dtype(held_as).itemsize * num_nodes * columns
    if size > MAX_CACHE_BYTES:
        return Choice(False, f"propagated features would take {size / 2**30:.1f} GiB > {MAX_CACHE_BYTES / 2**30:.0f}")
    cached = 2 * batch_size * columns * dim
    projected = num_items * columns * dim + num_layers * num_interactions * dim
    better, worse = min(cached, projected), max(cached, projected)
    return Choice(cached <= projected, f"{better / 1e6:.0f} against {worse / 1e6:.0f} million multiply-adds a step")


def _chain(hop: Operator, x: Array, num_layers: int, first: Array | None) -> tuple[tuple[Rows, ...], tuple[Rows, ...]]:
    """The layers on the side that x lies on and on the other side, for a layer 0 that is zero on the other side."""
    sides: tuple[list[Rows], list[Rows]] = [rows_of(x)], []
    for layer in range(1, num_layers + 1):
        after = first if layer == 1 and first is not None else matmul(hop, x)
        # No product follows the last layer: what its derivative holds are the rows that are read out, and zeros.
        sides[layer % 2].append(rows_of(after) if layer < num_layers else rows_of_product(hop, x, after))
        x, hop = after, hop.T
    if not sides[1]:
        sides[1].append(rows_of(jnp.zeros((hop.matrix.num_rows, x.shape[1]), x.dtype)))
    return tuple(sides[0]), tuple(sides[1])
