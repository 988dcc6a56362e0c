"""Tables of which only the requested rows are computed, once for each array of ids."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Bool, Float, Int

from slmrec_jax.devices import on_cpu
from slmrec_jax.encoding import layers, vectors
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.sparse import rows_of_product
from slmrec_jax.meshes import divide_rows, on_own_columns
from slmrec_jax.types import ALL, DenseFeature, Distinct, Ids, Rows

TABLE_BLOCK_ROWS = 8192
"""The largest number of rows of a whole table that are computed at a time."""


def rows_of(table: Float[Array, "nodes ..."]) -> Rows:
    """Return the rows of a table that has already been computed.

    Args:
        table: An array, of which the rows of any ids are requested.
    """
    return memoized(lambda ids: table if ids is ALL else take(table, ids))


def memoized(rows: Rows) -> Rows:
    """Compute the rows of an array of ids once, however many views and losses ask for them.

    The compiler would merge the repeated gathers, but not their derivatives: scatters that each fill a whole table.
    """
    known: list[tuple[Ids, object, Array]] = []

    def lookup(ids: Ids) -> Array:
        # A value computed inside a branch or a loop cannot be used outside of it.
        trace = get_opaque_trace_state()  # type: ignore[no-untyped-call]
        for seen, where, value in known:
            if seen is ids and where == trace:
                return value
        known.append((ids, trace, rows(ids)))
        return known[-1][2]

    return lookup


def product_rows(operator: Operator, x: Float[Array, "columns dim"], table: Float[Array, "rows dim"]) -> Rows:
    """Return the rows of `table`, which is the operator times x; see `sparse.rows_of_product`."""
    whole = rows_of(table)
    return memoized(lambda ids: whole(ids) if isinstance(ids, slice) else rows_of_product(operator, x, table, ids))


def sum_of(tables: Sequence[Rows], scale: float) -> Rows:
    """Return scale · Σ tables. The gathers share one scatter as their derivative."""

    def rows(ids: Ids) -> Array:
        total = scale * sum((table(ids) for table in tables[1:]), tables[0](ids))
        return total if isinstance(ids, slice) else divide_rows(total)

    return memoized(rows)


def projected(feature: DenseFeature, projection: layers.Linear) -> Rows:
    """Return F W + present bᵀ: a row without the feature has no bias either. Values may have half precision.

    Args:
        feature: F, and which rows are present.
        projection: W and b.
    """
    kernel, bias = projection["kernel"], projection["bias"][None, :]

    def product(taken: Array, kernel: Array) -> Array:
        return taken.astype(kernel.dtype) @ kernel

    def rows(ids: Ids) -> Array:
        # Of a whole table, each device of a mesh computes its own columns. The rows of a batch are divided later.
        if ids is ALL and vectors.is_converted_by_blocks(feature.values):
            x: Array = on_own_columns(vectors.product_by_blocks, kernel)(feature, kernel)
        else:
            x = (on_own_columns(product, kernel) if ids is ALL else product)(vectors.rows(feature, ids), kernel)
        return x + take(feature.present, ids)[:, None] * bias

    return memoized(rows)


def feature_rows(feature: DenseFeature) -> Rows:
    """Return the rows of a feature as float32."""
    return memoized(lambda ids: vectors.rows(feature, ids))


def concatenated(tables: Sequence[Rows]) -> Rows:
    """Return the tables side by side."""
    return memoized(lambda ids: jnp.concatenate([table(ids) for table in tables], axis=1))


def with_biases(users: Rows, items: Rows, item_biases: Rows) -> tuple[Rows, Rows]:
    """Return tables whose inner product is that of the given ones plus the item's bias (a one-dimensional table)."""
    return (
        concatenated([users, lambda ids: jnp.ones_like(users(ids)[:, :1])]),
        concatenated([items, lambda ids: item_biases(ids)[:, None]]),
    )


def all_rows(rows: Rows, count: int) -> Float[Array, "count dim"]:
    """Compute all `count` rows, a block at a time: intermediate results are often several times as wide.

    Computing a few rows must not compute a whole table.
    """
    num_blocks = -(-count // TABLE_BLOCK_ROWS)
    if num_blocks <= 1:
        return rows(ALL)
    block_rows = -(-count // num_blocks)  # equal blocks need the least padding
    ids = jnp.minimum(jnp.arange(num_blocks * block_rows), count - 1)
    blocks: Array = jax.lax.map(rows, ids.reshape(num_blocks, block_rows))
    return blocks.reshape(-1, blocks.shape[-1])[:count]


def distinct_ids(ids: Int[Array, " batch"], real: Bool[Array, " batch"], num_nodes: int) -> Distinct:
    """Find the distinct ids, all below `num_nodes`, of real rows; the ids of other rows are ignored."""
    rows = jnp.arange(ids.shape[0])
    ids = jnp.where(real, ids, ids[jnp.argmax(real)])
    # Each id is represented by the first row that has it.
    if on_cpu():
        first = jnp.full(num_nodes, ids.shape[0]).at[ids].min(rows)[ids]
    else:  # comparisons of all pairs are one kernel without memory, and no scatter, whose order is not fixed
        first = jnp.min(jnp.where(ids[:, None] == ids[None, :], rows[None, :], ids.shape[0]), axis=1)
    place = jnp.cumsum(first == rows) - 1
    places = place[first]
    if on_cpu():
        at_places = jnp.full_like(ids, ids[0]).at[places].set(ids)
        counts = jnp.zeros(ids.shape).at[places].add(jnp.where(real, 1.0, 0.0))
    else:
        own = rows[:, None] == places[None, :]
        found = jnp.max(jnp.where(own, ids[None, :], -1), axis=1)
        at_places = jnp.where(found < 0, ids[0], found)
        counts = jnp.sum(jnp.where(own & real[None, :], 1.0, 0.0), axis=1)
    return Distinct(at_places, counts, places)
