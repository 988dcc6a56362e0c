"""Half-precision vectors read as float32: a few rows, some columns, or a product with the whole table.

A large half-precision table is never converted as a whole. Rows are normalised by separate factors (`row_scales`), so
that normalisation needs no float32 table either.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from slmrec_jax.encoding import layers
from slmrec_jax.encoding.gathers import take
from slmrec_jax.types import DenseFeature, Ids

WHOLE_BYTES = 2**26
"""The float32 size up to which a product converts a half-precision table as a whole."""

_BLOCK_VALUES = 2**22
"""The number of values that are converted at a time."""

_MOST_BLOCKS = 64
"""The maximum number of blocks, since `row_scales` is traced once per block."""


def is_half(values: Float[Array, "..."]) -> bool:
    """Return whether values are in half precision."""
    return values.dtype.itemsize < 4


def rows(feature: DenseFeature, ids: Ids) -> Float[Array, "_ columns"]:
    """Return rows of a feature as float32 (wider dtypes stay unchanged)."""
    values = feature.values
    if not is_half(values):
        return take(values, ids)
    # Gather integers: CPUs cannot gather half precision, and XLA would convert the whole table in each step.
    bits = take(jax.lax.bitcast_convert_type(values, jnp.uint16), ids)
    taken = jax.lax.bitcast_convert_type(bits, values.dtype).astype(jnp.float32)
    for scale in feature.scales:
        taken = taken * take(scale, ids)[:, None]
    # If XLA fused this into sums, their order, and so their bits, would differ from those of a float32 table.
    float32: Array = jax.lax.optimization_barrier(taken)  # type: ignore[no-untyped-call]
    return float32


def columns(feature: DenseFeature, start: int, stop: int) -> Float[Array, "items _"]:
    """Return the columns from `start` up to `stop` of a feature as float32 (wider dtypes stay unchanged)."""
    part = feature._replace(values=feature.values[:, start:stop])
    return scaled(part) if is_half(part.values) else part.values


@jax.jit
def scaled(feature: DenseFeature) -> Float[Array, "items columns"]:
    """Return a whole table as float32, with its row factors applied."""
    taken = feature.values.astype(jnp.float32)
    for scale in feature.scales:
        taken = taken * scale[:, None]
    return taken


def row_scales(values: Float[Array, "items columns"]) -> tuple[Float[Array, " items"], ...]:
    """Return the factors by which `layers.normalize` multiplies each row, in the order in which it applies them.

    They are bitwise identical for half-precision values and for the same values as float32. On a CPU, the order in
    which XLA adds depends on the size of the table and on the rest of the program, so both pass the same blocks through
    the same program. Squares of float16 always fit in float32; other rows may need a power of two first.
    """
    count, width = values.shape
    at_a_time = max(1, _BLOCK_VALUES // width, -(-count // _MOST_BLOCKS))
    blocks = [_block_scales(values[start : start + at_a_time]) for start in range(0, count, at_a_time)]
    return tuple(jnp.concatenate(each) for each in zip(*blocks, strict=True)) if len(blocks) > 1 else blocks[0]


def is_converted_by_blocks(values: Float[Array, "items columns"]) -> bool:
    """Return whether a whole-table product needs `product_by_blocks` to avoid a large float32 copy."""
    return is_half(values) and 4 * values.size > WHOLE_BYTES


def product_by_blocks(feature: DenseFeature, kernel: Float[Array, "columns dim"]) -> Float[Array, "items dim"]:
    """Compute F W, and its derivative with respect to W, one block of rows at a time."""
    count, width = feature.values.shape
    num_blocks = -(-count // max(1, _BLOCK_VALUES // width))
    block_rows = -(-count // num_blocks)

    @jax.checkpoint
    def product(ids: Array, kernel: Array) -> Array:
        # The barrier prevents the integers or floats of the whole table from being computed before the loop.
        held, ids = jax.lax.optimization_barrier((feature, ids))  # type: ignore[no-untyped-call]
        return _rows_in_loop(held, ids).astype(kernel.dtype) @ kernel

    ids = jnp.minimum(jnp.arange(num_blocks * block_rows), count - 1).reshape(num_blocks, block_rows)
    blocks: Array = jax.lax.map(lambda ids: product(ids, kernel), ids)
    return blocks.reshape(-1, kernel.shape[1])[:count]


def _rows_in_loop(feature: DenseFeature, ids: Int[Array, " rows"]) -> Float[Array, "rows columns"]:
    """Return rows by plain indexing, since each device of a mesh has the whole table here."""
    bits = jax.lax.bitcast_convert_type(feature.values, jnp.uint16)[ids]
    taken = jax.lax.bitcast_convert_type(bits, feature.values.dtype).astype(jnp.float32)
    for scale in feature.scales:
        taken = taken * scale[ids][:, None]
    return taken


@jax.jit
def _block_scales(values: Array) -> tuple[Array, ...]:
    taken = values.astype(jnp.float32)
    if values.dtype == jnp.float16:
        return (layers.inverse_norms(taken)[:, 0],)
    powers = layers.moderating_powers(taken)
    return powers[:, 0], layers.inverse_norms(taken * powers)[:, 0]
