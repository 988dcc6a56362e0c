"""Lazy tables, which compute only requested rows, and only once for each array of ids."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Bool, Float, Int

from slmrec_jax.devices import on_cpu
from slmrec_jax.encoding import layers, vectors
from slmrec_jax.encoding.gathers import first_places, take, without_padding
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.sparse import are_many, rows_of_product
from slmrec_jax.meshes import divide_rows, num_shares, on_own_columns
from slmrec_jax.types import ALL, DenseFeature, Distinct, Ids, Rows

TABLE_BLOCK_ROWS = 8192
"""The maximum number of rows of a whole table that are computed at a time."""

MICRO_BATCHES = "micro_batches"
"""The name of the axis over which losses are vmapped if a step has several batches (`methods.micro_batches`)."""


def rows_of(table: Float[Array, "nodes ..."]) -> Rows:
    """Make the rows of a table that is already computed.

    Args:
        table: An array with one row per node.
    """
    return memoized(lambda ids: table if ids is ALL else take(table, ids))


def memoized(rows: Rows) -> Rows:
    """Compute the rows of an array of ids only once, however many views and losses request them.

    The compiler would merge the repeated gathers, but not their derivatives: scatters that each fill a whole table.
    """
    known: list[tuple[Ids, object, Array]] = []

    def lookup(ids: Ids) -> Array:
        # A value computed inside a traced branch or loop cannot be used outside of it.
        trace = get_opaque_trace_state()  # type: ignore[no-untyped-call]
        for seen, where, value in known:
            if seen is ids and where == trace:
                return value
        known.append((ids, trace, rows(ids)))
        return known[-1][2]

    return lookup


def rows_for_all(rows: Rows, all_ids: Callable[[Ids], Array] | None = None) -> Rows:
    """Gather rows for all micro-batches of a step together, so that the derivative is a single scatter.

    Under vmap, a gather would still be a single gather, but its custom derivative would fill one table per micro-batch.

    Args:
        rows: A table that does not depend on the micro-batch. Outside of micro-batches, its rows are returned
            unchanged.
        all_ids: `ids_of_all`, memoized if several tables are read for the same ids.
    """

    def own(ids: Ids) -> Array:
        num_batches = mapped_micro_batches()
        if isinstance(ids, slice) or num_batches is None:
            return rows(ids)
        gathered = rows((all_ids or ids_of_all)(ids))
        shape = (ids.ids if isinstance(ids, Distinct) else ids).shape
        of_each = gathered.reshape(num_batches, *shape, *gathered.shape[1:])
        taken: Array = _own_part(of_each, jax.lax.axis_index(MICRO_BATCHES))
        return without_padding(taken, ids) if isinstance(ids, Distinct) else taken

    return memoized(own)


def ids_of_all(ids: Ids) -> Int[Array, " rows_of_all"]:
    """Return the concatenated ids of all micro-batches."""
    own: Array = ids.ids if isinstance(ids, Distinct) else ids  # type: ignore[assignment]
    gathered: Array = jax.lax.all_gather(own, MICRO_BATCHES)
    return gathered.reshape(-1)


def mapped_micro_batches() -> int | None:
    """Return the number of micro-batches over which the caller is vmapped; `None` if it is not."""
    try:
        return int(jax.lax.axis_size(MICRO_BATCHES))
    except NameError:
        return None


@jax.custom_batching.custom_vmap
def _own_part(of_each: Array, index: Array) -> Array:
    return of_each[index]


@_own_part.def_vmap
def _own_parts(axis_size: int, mapped: Sequence[bool], of_each: Array, index: Array) -> tuple[Array, bool]:
    """Return all parts unchanged, since each already belongs to its micro-batch. A gather would copy them.

    If a loss maps over something else, or its table depends on the micro-batch, each micro-batch takes its own part.
    """
    if list(mapped) == [False, True]:
        return of_each, True
    axes = [0 if each else None for each in mapped]
    return jax.vmap(lambda parts, index: parts[index], axes, axis_size=axis_size)(of_each, index), True


def product_rows(operator: Operator, x: Float[Array, "columns dim"], table: Float[Array, "rows dim"]) -> Rows:
    """Make the rows of `table`, which is the operator times x; see `sparse.rows_of_product`."""
    whole = rows_of(table)
    return memoized(lambda ids: whole(ids) if isinstance(ids, slice) else rows_of_product(operator, x, table, ids))


def sum_of(tables: Sequence[Rows], scale: float) -> Rows:
    """Make the rows of scale · Σ tables. If many rows are requested, they are gathered from the whole sum."""

    def rows(ids: Ids) -> Array:
        if not isinstance(ids, slice) and are_many(ids):
            return divide_rows(take(lookup(ALL), ids))
        total = scale * sum((table(ids) for table in tables[1:]), tables[0](ids))
        return total if isinstance(ids, slice) else divide_rows(total)

    lookup = memoized(rows)
    return lookup


def whole_for_many(rows: Rows, num_rows: int) -> Rows:
    """Gather rows from the whole table if at least as many are requested as it has.

    Sampled negatives request the same rows many times; the whole table computes each row only once.

    Args:
        rows: A table whose rows cost more than a gather.
        num_rows: The number of rows of the table. On a mesh, rows are always computed as requested.
    """

    def taken(ids: Ids) -> Array:
        if isinstance(ids, slice | Distinct) or ids.size < num_rows or num_shares() > 1:
            return rows(ids)
        return take(rows(ALL), ids)

    return memoized(taken)


def projected(feature: DenseFeature, projection: layers.Linear) -> Rows:
    """Make the rows of F W + present bᵀ: a row without the feature has no bias either. F may have half precision.

    Args:
        feature: F and the indicator `present` of its rows.
        projection: W and b.
    """
    kernel, bias = projection["kernel"], projection["bias"][None, :]

    def product(taken: Array, kernel: Array) -> Array:
        return taken.astype(kernel.dtype) @ kernel

    def rows(ids: Ids) -> Array:
        by_blocks = ids is ALL and vectors.is_converted_by_blocks(feature.values)
        multiply: Callable[..., Array] = vectors.product_by_blocks if by_blocks else product
        factor = feature if by_blocks else vectors.rows(feature, ids)
        if ids is ALL:  # each device of a mesh computes its own columns; the rows of a batch are sharded later
            multiply = on_own_columns(multiply, kernel)
        return multiply(factor, kernel) + take(feature.present, ids)[:, None] * bias

    return memoized(rows)


def feature_rows(feature: DenseFeature) -> Rows:
    """Make the rows of a feature as float32."""
    return memoized(lambda ids: vectors.rows(feature, ids))


def concatenated(tables: Sequence[Rows]) -> Rows:
    """Concatenate tables along their columns."""
    return memoized(lambda ids: jnp.concatenate([table(ids) for table in tables], axis=1))


def with_biases(users: Rows, items: Rows, item_biases: Rows) -> tuple[Rows, Rows]:
    """Extend tables so that inner products include the item's bias, a one-dimensional table."""
    return (
        concatenated([users, lambda ids: jnp.ones_like(users(ids)[:, :1])]),
        concatenated([items, lambda ids: item_biases(ids)[:, None]]),
    )


def all_rows(rows: Rows, count: int) -> Float[Array, "count dim"]:
    """Compute all `count` rows, a block at a time, since intermediate results are often several times as wide.

    `rows` must be able to compute a few rows without computing a whole table.
    """
    num_blocks = -(-count // TABLE_BLOCK_ROWS)
    if num_blocks <= 1:
        return rows(ALL)
    block_rows = -(-count // num_blocks)  # blocks of equal size need the least padding
    ids = jnp.minimum(jnp.arange(num_blocks * block_rows), count - 1)
    blocks: Array = jax.lax.map(rows, ids.reshape(num_blocks, block_rows))
    return blocks.reshape(-1, blocks.shape[-1])[:count]


def distinct_ids(ids: Int[Array, " batch"], real: Bool[Array, " batch"], num_nodes: int) -> Distinct:
    """Find the distinct ids, all below `num_nodes`, of the real rows. The ids of other rows are ignored."""
    find = partial(_by_table, num_nodes=num_nodes) if on_cpu() else _by_pairs
    return Distinct(*find(jnp.where(real, ids, ids[jnp.argmax(real)]), real))


def _by_table(ids: Array, real: Array, num_nodes: int) -> tuple[Array, Array, Array]:
    """Find the distinct ids with a table of all nodes. Several micro-batches are processed one after another."""

    @jax.custom_batching.sequential_vmap  # type: ignore[untyped-decorator]
    def found(ids: Array, real: Array) -> tuple[Array, Array, Array]:
        rows = jnp.arange(ids.shape[0])
        # Each id is represented by the first row that has it.
        first = first_places(ids, num_nodes)[ids]
        places = (jnp.cumsum(first == rows) - 1)[first]
        at_places = jnp.full_like(ids, ids[0]).at[places].set(ids)
        return at_places, jnp.zeros(ids.shape).at[places].add(jnp.where(real, 1.0, 0.0)), places

    distinct: tuple[Array, Array, Array] = found(ids, real)
    return distinct


def _by_pairs(ids: Array, real: Array) -> tuple[Array, Array, Array]:
    """Find the distinct ids by comparing all pairs: one kernel, without intermediate memory and without a scatter."""
    rows = jnp.arange(ids.shape[0])
    first = jnp.min(jnp.where(ids[:, None] == ids[None, :], rows[None, :], ids.shape[0]), axis=1)
    places = (jnp.cumsum(first == rows) - 1)[first]
    own = rows[:, None] == places[None, :]
    at_places = jnp.max(jnp.where(own, ids[None, :], -1), axis=1)
    counts = jnp.sum(jnp.where(own & real[None, :], 1.0, 0.0), axis=1)
    return jnp.where(at_places < 0, ids[0], at_places), counts, places
