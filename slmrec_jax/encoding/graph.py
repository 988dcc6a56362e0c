"""The bipartite user-item graph: its normalised adjacency, and look-ups of single edges."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int, PyTree

from slmrec_jax.encoding.gathers import first_places
from slmrec_jax.encoding.matrices import Csr, Operator, Scales, operator, operator_shapes, reordered, with_values
from slmrec_jax.types import Interactions


class _GraphFields(NamedTuple):
    adjacency: Operator
    """R̂ (users × items) and its transpose."""
    weights: Float[Array, " interactions"] | None = None
    """The weight of each interaction that `weighted_interactions` has put into `adjacency`; `None` is 1."""
    derived: Mapping[str, PyTree] = {}
    """Data that a model computed from this graph in advance, under names of its choice (`Model.prepare`)."""


class Graph(_GraphFields):
    """The graph R̂ = D_u^-1/2 R D_i^-1/2, where R has a 1 for each training interaction.

    A node without interactions has an empty row: its inverse square root is 0, as in LightGCN.

    `derived` belongs to the graph that it was computed from: `build_graph` makes graphs without it, and `_replace`
    drops it. This is decided at trace time and costs nothing at run time. Without it, models compute the same data in
    each step, or raise an error. To differentiate with respect to the values of a graph, replace them with `_replace`;
    otherwise `derived` would be treated as constant.
    """

    __slots__ = ()

    def _replace(self, **changes: Any) -> "Graph":
        return super()._replace(**({"derived": {}} | changes))

    @property
    def num_users(self) -> int:
        """The number of users (static)."""
        return self.adjacency.matrix.num_rows

    @property
    def num_items(self) -> int:
        """The number of items (static)."""
        return self.adjacency.transposed.num_rows

    @property
    def num_interactions(self) -> int:
        """The number of training interactions (static)."""
        return self.adjacency.matrix.num_entries

    @property
    def interactions(self) -> tuple[Int[Array, " interactions"], Int[Array, " interactions"]]:
        """The users and items of the training interactions, sorted by user, then item; users are computed on access."""
        return self.adjacency.matrix.row_ids, self.adjacency.matrix.columns

    def users_of(self, entries: Int[Array, "..."]) -> Int[Array, "..."]:
        """Return the users of interactions, given their indices among all interactions."""
        offsets = self.adjacency.matrix.offsets
        found: Array = jnp.searchsorted(offsets, entries, side="right", method="scan_unrolled")
        return found.astype(jnp.int32) - 1

    def item_degrees(self, items: Int[Array, "..."]) -> Int[Array, "..."]:
        """Return the number of training interactions of each item."""
        offsets = self.adjacency.transposed.offsets
        return offsets[items + 1] - offsets[items]

    def items_of(self, entries: Int[Array, "..."]) -> Int[Array, "..."]:
        """Return the items of interactions, given their indices among all interactions."""
        return self.adjacency.matrix.columns[entries]


def build_graph(train: Interactions, num_users: int, num_items: int) -> Graph:
    """Build the graph of the training interactions. Repeated interactions count once."""
    ones = np.ones(len(train.users), np.int8)
    entries = scipy.sparse.csr_array((ones, (train.users, train.items)), shape=(num_users, num_items))
    entries.sum_duplicates()
    both = np.diff(entries.indptr), np.bincount(entries.indices, minlength=num_items)
    scales = (np.divide(1.0, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0) for degrees in both)
    return Graph(operator(entries, Scales(*scales)))


def graph_shapes(user_degrees: Int[np.ndarray, " users"], item_degrees: Int[np.ndarray, " items"]) -> Graph:
    """Return the shapes of the graph that `build_graph` makes from distinct interactions with these node degrees."""
    return Graph(operator_shapes(user_degrees, item_degrees, scaled=True))


def kept_interactions(
    graph: Graph,
    keep: Callable[[Int[Array, " interactions"], Int[Array, " interactions"]], Bool[Array, " interactions"]],
) -> Graph:
    """Return the graph of the interactions that are kept, normalised by the remaining degrees.

    The function can be traced: all interactions stay in the arrays, and dropped interactions get value 0. Its products
    are those of the smaller graph; its offsets, interactions and degrees are still those of the whole graph.

    Args:
        graph: The graph.
        keep: `(users, items) -> kept`, where each result depends only on its own pair. It is called with the
            interactions in two orders. Weights of interactions stay.
    """

    def kept_entries(matrix: Csr, kept: Array, weights: Array | None) -> tuple[Array, Array]:
        """Return the values of the entries and the scale of each row."""
        values = kept.astype(jnp.float32)
        values = values if weights is None else values * weights
        before = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(kept, dtype=jnp.int32)])
        degrees = before[matrix.offsets[1:]] - before[matrix.offsets[:-1]]
        return values, jnp.where(degrees > 0, jax.lax.rsqrt(jnp.maximum(degrees, 1).astype(jnp.float32)), 0.0)

    matrix, transposed = graph.adjacency
    weights = graph.weights
    by_item = None if weights is None else _by_item(graph, weights)
    values, of_users = kept_entries(matrix, keep(*graph.interactions), weights)
    swapped, of_items = kept_entries(transposed, keep(transposed.columns, transposed.row_ids), by_item)
    return Graph(
        Operator(
            with_values(matrix._replace(values=values, row_scale=of_users, column_scale=of_items)),
            with_values(transposed._replace(values=swapped, row_scale=of_items, column_scale=of_users)),
        ),
        weights,
    )


def weighted_interactions(graph: Graph, weights: Float[Array, " interactions"]) -> Graph:
    """Return the graph whose entries are those of `graph`, each times a weight that may be a parameter.

    The degrees that normalise the graph stay as they are. Propagation over the result is differentiable with respect to
    the weights. Each call sorts the interactions by item, 0.1 s for a million on a CPU.

    Args:
        graph: The graph.
        weights: One for each of `graph.interactions`, in their order. Augmented views and pruned graphs keep them.

    Raises:
        ValueError: There is another number of weights than of interactions.
    """
    if weights.shape != (graph.num_interactions,):
        raise ValueError(
            f"weights of shape {weights.shape} for {graph.num_interactions} interactions: give one for each of "
            "graph.interactions"
        )
    matrix, transposed = graph.adjacency

    def weighted(matrix: Csr, weights: Array) -> Csr:
        return with_values(matrix._replace(values=weights if matrix.values is None else weights * matrix.values))

    adjacency = Operator(weighted(matrix, weights), weighted(transposed, _by_item(graph, weights)))
    return Graph(adjacency, weights if graph.weights is None else graph.weights * weights)


def _by_item(graph: Graph, weights: Float[Array, " interactions"]) -> Float[Array, " interactions"]:
    """Reorder weights from the order of `graph.interactions` to that of the transposed adjacency."""
    return reordered(weights, jnp.argsort(graph.adjacency.matrix.columns, stable=True))


def interactions_among(
    graph: Graph, users: Int[Array, " rows"], items: Int[Array, " columns"]
) -> Bool[Array, "rows columns"]:
    """Mark which pairs of the given users and items are training interactions. Ids may repeat.

    One pass over the interactions looks up their users and items among the given ids. Searching for each of rows ×
    columns pairs would be far more work.
    """
    interacting_users, interacting_items = graph.interactions

    # Several micro-batches are processed one after another.
    @jax.custom_batching.sequential_vmap  # type: ignore[untyped-decorator]
    def among(users: Array, items: Array) -> Array:
        rows, columns = first_places(users, graph.num_users), first_places(items, graph.num_items)
        found = jnp.zeros((users.shape[0], items.shape[0]), bool)
        places_found = rows[interacting_users], columns[interacting_items]
        # Interactions are distinct, and so are their places. Places beyond the array are dropped.
        found = found.at[places_found].set(True, mode="drop", unique_indices=True)
        return found[rows[users]][:, columns[items]]

    marked: Array = among(users, items)
    return marked


def first_in_row(
    graph: Graph,
    users: Int[Array, "users 1"],
    target: Int[Array, "users targets"],
    value: Callable[[Array], Array],
) -> Int[Array, "users targets"]:
    """Find, by bisection, the first of each user's interactions whose value is at least the target.

    `value` maps an entry, an index among all interactions, to a number that ascends within a user's row. The result is
    an entry of the row, or the end of the row if no value is large enough.
    """
    offsets, users = graph.adjacency.matrix.offsets, jnp.broadcast_to(users, target.shape)
    last = graph.num_interactions - 1

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        below = (low < high) & (value(jnp.minimum(middle, last)) < target)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, jnp.minimum(middle, high))

    # A compiled loop: unrolled, XLA fuses each step into the next, which takes exponential time.
    low: Array
    low, _ = jax.lax.fori_loop(0, graph.num_items.bit_length(), halve, (offsets[users], offsets[users + 1]))
    return low
