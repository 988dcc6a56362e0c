"""The bipartite graph of users and items: its normalised adjacency, and questions about single edges.

With propagation.py the only module that knows jraph.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int, PyTree

from slmrec_jax.encoding.sparse import Operator, operator, operator_shapes
from slmrec_jax.types import Interactions


class _Graph(NamedTuple):
    nodes: jraph.GraphsTuple
    """The definition: users stacked on items, each interaction as one edge in either direction, items to users first,
    with the entries of R̂ as edge weights; edges in the order of (user, item)."""
    adjacency: Operator
    """The same as R̂ (users × items) and its transpose."""
    derived: Mapping[str, PyTree] = {}
    """What a model computed from this graph beforehand, by names of its own (`Model.prepare`)."""


class Graph(_Graph):
    """R̂ = D_u^-1/2 R D_i^-1/2, where R has a 1 for each training interaction.

    A node without interactions has an empty row: its inverse square root is taken as 0, as in LightGCN.

    What a model computes from the graph beforehand stays with that graph, in `derived`. `build_graph` makes graphs
    without it, and `_replace` drops it, so that what was computed from one graph is never read with another. That is
    decided when a program is traced, and costs nothing when it runs. Where it is missing, models compute it in each
    step, or say that they cannot. To differentiate by the values of a graph, replace them: what is in `derived` would
    count as constant.
    """

    __slots__ = ()

    def _replace(self, **changes: Any) -> "Graph":
        return super()._replace(**({"derived": {}} | changes))

    @property
    def num_users(self) -> int:
        """How many users there are; a static number."""
        return self.adjacency.matrix.num_rows

    @property
    def num_items(self) -> int:
        """How many items there are; a static number."""
        return self.adjacency.transposed.num_rows

    @property
    def num_interactions(self) -> int:
        """How many training interactions there are; a static number."""
        return self.adjacency.matrix.columns.shape[0]

    @property
    def interactions(self) -> tuple[Int[Array, " interactions"], Int[Array, " interactions"]]:
        """Users and items of the training interactions, in the order of (user, item)."""
        items = self.adjacency.matrix.columns
        return self.nodes.receivers[: items.shape[0]], items


def build_graph(train: Interactions, num_users: int, num_items: int) -> Graph:
    """Build the graph of the training interactions; repeated ones count once."""
    ones = np.ones(len(train.users), np.float32)
    counts = scipy.sparse.csr_array((ones, (train.users, train.items)), shape=(num_users, num_items))
    counts.sum_duplicates()
    counts.data[:] = 1.0
    user_scale, item_scale = (_inverse_sqrt(counts.sum(axis)) for axis in (1, 0))
    entries = counts.tocoo()
    weights = (user_scale[entries.row] * item_scale[entries.col]).astype(np.float32)
    adjacency = operator(scipy.sparse.csr_array((weights, counts.indices, counts.indptr), shape=counts.shape))
    users = jnp.asarray(entries.row, np.int32)
    items = jnp.asarray(entries.col, np.int32) + num_users
    nodes = jraph.GraphsTuple(
        nodes=None,
        edges=jnp.tile(adjacency.matrix.values, 2),
        senders=jnp.concatenate([items, users]),
        receivers=jnp.concatenate([users, items]),
        globals=None,
        n_node=jnp.array([num_users + num_items], np.int32),
        n_edge=jnp.array([2 * len(weights)], np.int32),
    )
    return Graph(nodes, adjacency)


def graph_shapes(num_users: int, num_items: int, num_interactions: int) -> Graph:
    """As `build_graph` makes it of so many distinct interactions, without values."""

    def nodes() -> jraph.GraphsTuple:
        ends, one = jnp.zeros(2 * num_interactions, jnp.int32), jnp.zeros(1, jnp.int32)
        return jraph.GraphsTuple(
            nodes=None,
            edges=jnp.zeros(ends.shape),
            senders=ends,
            receivers=ends,
            globals=None,
            n_node=one,
            n_edge=one,
        )

    return Graph(jax.eval_shape(nodes), operator_shapes(num_users, num_items, num_interactions))


def interactions_among(
    graph: Graph, users: Int[Array, " rows"], items: Int[Array, " columns"]
) -> Bool[Array, "rows columns"]:
    """Which of these users and items make a training interaction; both may name the same one more than once.

    One pass over the interactions, whose ends are looked up among those asked for: far fewer than rows × columns
    searches.
    """

    def places(ids: Array, count: int) -> Array:
        """Where each node stands among the ids, if anywhere: of several places, any one."""
        return jnp.full(count, ids.shape[0]).at[ids].set(jnp.arange(ids.shape[0]))

    rows, columns = places(users, graph.num_users), places(items, graph.num_items)
    of_users, of_items = graph.interactions
    found = jnp.zeros((users.shape[0], items.shape[0]), bool)
    found = found.at[rows[of_users], columns[of_items]].set(True, mode="drop")
    return found[rows[users]][:, columns[items]]


def first_in_row(
    graph: Graph, users: Int[Array, "..."], target: Int[Array, "..."], value: Callable[[Array, Array], Array]
) -> Int[Array, "..."]:
    """Binary search among each user's interactions: the place of the first whose value is at least the target.

    Args:
        graph: the graph.
        users: whose rows are searched.
        target: what is looked for in each.
        value: `(place, rank in the row) -> number`, ascending in a row. Places count all interactions.

    Returns:
        A place within the user's row, or the end of the row where no value is large enough.
    """
    matrix = graph.adjacency.matrix
    start, last = matrix.offsets[users], matrix.columns.shape[0] - 1

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        below = (low < high) & (value(jnp.minimum(middle, last), middle - start) < target)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, jnp.minimum(middle, high))

    # A loop of the compiled program: unrolled, XLA fuses each step into the next, which takes it exponentially long.
    low: Array
    low, _ = jax.lax.fori_loop(0, graph.num_items.bit_length(), halve, (start, matrix.offsets[users + 1]))
    return low


def _inverse_sqrt(degrees: Float[np.ndarray, " nodes"]) -> Float[np.ndarray, " nodes"]:
    inverse: np.ndarray = np.divide(1.0, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0)
    return inverse
