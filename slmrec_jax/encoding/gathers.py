"""Gathers of table rows by id, whose first derivative adds in a fixed order on every platform.

The derivative of `table[ids]` adds up the cotangents of equal ids. On accelerators, the additions of a scatter are
atomic, in no fixed order, and slow to compile. There, ids are sorted and equal ids summed as segments; each sum is then
written to a separate row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from slmrec_jax.devices import on_cpu
from slmrec_jax.encoding.chunks import largest_sizes, make_chunks, segment_sums, slots_at_a_time
from slmrec_jax.meshes import num_shares, on_own_columns
from slmrec_jax.types import Distinct


def take(table: Shaped[Array, "nodes ..."], ids: Int[Array, "..."] | Distinct | slice) -> Shaped[Array, "..."]:
    """Return `table[ids]`. Except on a single CPU device, it can only be differentiated in reverse mode.

    Args:
        table: One row per node.
        ids: An array of integers of any shape, from 0 to the number of nodes - 1, or a slice, or the distinct ids of a
            batch, whose padding gets no gradient.

    Raises:
        TypeError: The ids are not integers.
    """
    if isinstance(ids, slice):
        return table[ids]
    simple = on_cpu() and num_shares() == 1
    if isinstance(ids, Distinct):
        return without_padding(table[ids.ids], ids) if simple else _take_distinct(table, *ids)
    ids = jnp.asarray(ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"ids are {ids.dtype}: give integers")
    if simple or not ids.size:
        return table[ids]
    rows: Array = _take(table, ids.reshape(-1))
    return rows.reshape(*ids.shape, *table.shape[1:])


def first_places(ids: Int[Array, " rows"], num_nodes: int) -> Int[Array, " nodes"]:
    """Return each node's first index among the ids, or the number of ids if the node is absent."""
    return jnp.full(num_nodes, ids.shape[0]).at[ids].min(jnp.arange(ids.shape[0]))


def without_padding(rows: Shaped[Array, "batch ..."], of: Distinct) -> Shaped[Array, "batch ..."]:
    """Return the rows unchanged, but with a derivative of 0 for padding."""
    real = (of.counts > 0).reshape(-1, *(1,) * (rows.ndim - 1))
    return jnp.where(real, rows, jax.lax.stop_gradient(rows))


def _rows(table: Array, ids: Array) -> Array:
    return on_own_columns(lambda ids, table: table[ids], table)(ids, table)


@jax.custom_vjp
def _take(table: Array, ids: Array) -> Array:
    return _rows(table, ids)


def _take_forward(table: Array, ids: Array) -> tuple[Array, tuple[Array, int]]:
    return _rows(table, ids), (ids, table.shape[0])


def _take_backward(residuals: tuple[Array, int], cotangent: Array) -> tuple[Array, None]:
    ids, num_nodes = residuals
    return on_own_columns(lambda ids, rows: _summed_by_id(ids, rows, num_nodes), cotangent)(ids, cotangent), None


_take.defvjp(_take_forward, _take_backward)


def _summed_by_id(ids: Array, cotangent: Array, num_nodes: int) -> Array:
    """Sum the rows of each id into a table."""
    count = ids.shape[0]
    order = jnp.argsort(ids)
    ordered = ids[order]
    begins = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    # Runs of equal ids, then empty runs.
    offsets = jnp.sort(jnp.append(jnp.where(begins, jnp.arange(count), count), count)).astype(jnp.int32)
    chunks = make_chunks(offsets, largest_sizes(count))
    flat = cotangent.reshape(count, -1)
    sums = segment_sums(offsets, chunks, lambda entries: flat[order[entries]], slots_at_a_time())
    first = offsets[:-1]
    targets = jnp.where(first < count, ordered[jnp.minimum(first, count - 1)], num_nodes + jnp.arange(count))
    return _scattered(sums.reshape(cotangent.shape), targets, num_nodes)


@jax.custom_vjp
def _take_distinct(table: Array, ids: Array, counts: Array, places: Array) -> Array:
    return _rows(table, ids)


def _take_distinct_forward(
    table: Array, ids: Array, counts: Array, places: Array
) -> tuple[Array, tuple[Array, Array, int]]:
    return _rows(table, ids), (ids, counts, table.shape[0])


def _take_distinct_backward(residuals: tuple[Array, Array, int], cotangent: Array) -> tuple[Array, None, Array, None]:
    ids, counts, num_nodes = residuals
    # Padding repeats an id.
    targets = jnp.where(counts > 0, ids, num_nodes + jnp.arange(ids.shape[0]))
    scatter = on_own_columns(lambda targets, rows: _scattered(rows, targets, num_nodes), cotangent)
    return scatter(targets, cotangent), None, jnp.zeros_like(counts), None


_take_distinct.defvjp(_take_distinct_forward, _take_distinct_backward)


def _scattered(rows: Float[Array, "rows ..."], ids: Int[Array, " rows"], num_nodes: int) -> Float[Array, "nodes ..."]:
    """Write rows into a table of zeros. The ids are distinct; those beyond the table are dropped."""
    table = jnp.zeros((num_nodes, *rows.shape[1:]), rows.dtype)
    return table.at[ids].add(rows, mode="drop", unique_indices=True)
