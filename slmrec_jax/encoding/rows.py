"""Tables that are computed for the rows asked of them, each array of ids once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Bool, Float, Int

from slmrec_jax.encoding import layers, sparse
from slmrec_jax.encoding.sparse import Operator
from slmrec_jax.types import ALL, Distinct, Ids, Rows

BLOCK_ROWS = 8192
"""Rows of a whole table that are computed at a time."""


def rows_of(table: Float[Array, "nodes ..."]) -> Rows:
    """The rows of a table that is there."""
    return once(lambda ids: table if ids is ALL else table[ids])


def once(rows: Rows) -> Rows:
    """Computes the rows of an array of ids once, however many views and losses ask for them.

    The compiler would merge the repeated gathers, but not the scatters that are their derivatives, each of which
    fills a whole table.
    """
    known: list[tuple[Ids, object, Array]] = []

    def lookup(ids: Ids) -> Array:
        # A value that was computed inside a branch or a loop cannot be used outside of it.
        trace = get_opaque_trace_state()  # type: ignore[no-untyped-call]
        for seen, where, value in known:
            if seen is ids and where == trace:
                return value
        known.append((ids, trace, rows(ids)))
        return known[-1][2]

    return lookup


def rows_of_product(operator: Operator, x: Float[Array, "columns dim"], table: Float[Array, "rows dim"]) -> Rows:
    """The rows of a table that is the operator times x."""

    def rows(ids: Ids) -> Array:
        if isinstance(ids, slice):
            return table if ids == ALL else table[ids]
        return sparse.rows_of_product(operator, x, table, ids)

    return once(rows)


def sum_of(tables: Sequence[Rows], scale: float) -> Rows:
    """Σ tables, times the scale. The derivatives of the gathers are one scatter, which all tables share."""
    return once(lambda ids: scale * sum((table(ids) for table in tables[1:]), tables[0](ids)))


def projected(values: Float[Array, "rows columns"], present: Float[Array, " rows"], projection: layers.Linear) -> Rows:
    """Values W + present bᵀ: a row without the feature has no bias either. Values may be held in half precision."""
    kernel, bias = projection["kernel"], projection["bias"][None, :]
    return once(lambda ids: _in_full(values, ids).astype(kernel.dtype) @ kernel + present[ids, None] * bias)


def _in_full(values: Float[Array, "nodes columns"], ids: Ids) -> Float[Array, "_ columns"]:
    """Rows that are only read, in float32 at the least."""
    if values.dtype.itemsize >= 4:
        return values[ids]
    # As integers: CPUs have no gather of half precision, and XLA would convert the whole table in each step instead.
    bits = jax.lax.bitcast_convert_type(values, jnp.uint16)[ids]
    return jax.lax.bitcast_convert_type(bits, values.dtype).astype(jnp.float32)


def concatenated(tables: Sequence[Rows]) -> Rows:
    """The tables side by side."""
    return once(lambda ids: jnp.concatenate([table(ids) for table in tables], axis=1))


def with_biases(users: Rows, items: Rows, item_biases: Rows) -> tuple[Rows, Rows]:
    """Tables whose inner product is that of the given ones plus the item's bias (a table of one dimension)."""

    def biased(ids: Ids) -> Array:
        return jnp.concatenate([items(ids), item_biases(ids)[:, None]], axis=1)

    def constant(ids: Ids) -> Array:
        rows = users(ids)
        return jnp.concatenate([rows, jnp.ones((rows.shape[0], 1), rows.dtype)], axis=1)

    return once(constant), once(biased)


def whole(rows: Rows, count: int) -> Float[Array, "count dim"]:
    """All rows, a block at a time: what lies between them and the tables they come from is often several times as wide.

    Args:
        rows: the table; what it computes for a few rows must not be a whole table.
        count: how many rows it has.
    """
    num_blocks = -(-count // BLOCK_ROWS)
    if num_blocks <= 1:
        return rows(ALL)
    block_rows = -(-count // num_blocks)  # as equal as can be: the last has the least padding
    ids = jnp.minimum(jnp.arange(num_blocks * block_rows), count - 1)
    blocks: Array = jax.lax.map(rows, ids.reshape(num_blocks, block_rows))
    return blocks.reshape(-1, blocks.shape[-1])[:count]


def distinct(ids: Int[Array, " batch"], real: Bool[Array, " batch"], num_nodes: int) -> Distinct:
    """The different ones among the ids of real rows.

    Args:
        ids: below `num_nodes`.
        real: which rows are; what others hold does not matter.
        num_nodes: of the table that the ids are rows of.
    """
    rows = jnp.arange(ids.shape[0])
    ids = jnp.where(real, ids, ids[jnp.argmax(real)])
    # Without sorting: the first row that has an id stands for it.
    first = jnp.full(num_nodes, ids.shape[0]).at[ids].min(rows)[ids]
    place = jnp.cumsum(first == rows) - 1
    places = place[first]
    return Distinct(
        ids=jnp.full_like(ids, ids[0]).at[places].set(ids),
        counts=jnp.zeros(ids.shape).at[places].add(jnp.where(real, 1.0, 0.0)),
        places=places,
    )
