"""Sparse × dense products behind one signature, with custom derivatives.

`matmul(operator, x)` is the only sparse product of the package. `PRODUCTS` holds its implementations. `segment_sum` is
the definition. `csr` is jaxlib's compiled CSR product (threaded on CPU). `chunked` sums chunks of fixed width for GPUs
(`chunks.py`), always in the same order, unlike the atomic additions of a scatter. `blocked` does the same in blocks of
rows, for TPUs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCSR
from jaxtyping import Array, Float, Int

from slmrec_jax.devices import on_cpu, platform
from slmrec_jax.encoding.chunks import TPU_SLOTS, largest_sizes, make_chunks, segment_sums
from slmrec_jax.encoding.gathers import first_places, take, without_padding
from slmrec_jax.encoding.matrices import Csr, Operator
from slmrec_jax.meshes import num_shares, on_own_columns
from slmrec_jax.types import Distinct

FEW = 8
"""Rows are few if at most one in `FEW` rows is wanted."""

MANY = 2**18
"""If at least this many rows are wanted, they are gathered from the whole table. They may be one of several groups in a
step (`methods.micro_batches`): work that depends on a group's rows, such as the derivative for few rows, would be
repeated for each group."""


def are_many(ids: Int[Array, " wanted"] | Distinct) -> bool:
    """Return whether there are so many ids that their rows should be gathered from a whole table."""
    return (ids.ids if isinstance(ids, Distinct) else ids).size >= MANY


def matmul(operator: Operator, x: Float[Array, "columns dim"], product: str | None = None) -> Float[Array, "rows dim"]:
    """Multiply a sparse matrix with dense rows x.

    The derivative is a custom VJP. With respect to x it is g -> Rᵀ g, which is again a CSR product, whereas autodiff of
    a CSR product would use a scatter. With respect to the value of an entry (r, c) it is g_r · x_c. The compiler drops
    the one that is not needed, such as the latter if the matrix is constant in a training step.

    `product` is a name in `PRODUCTS`; by default the platform's.
    """
    rows: Array = _traced_once(product or PRODUCT_OF[platform()], *operator, x)
    return rows


def rows_of_product(
    operator: Operator,
    x: Float[Array, "columns dim"],
    table: Float[Array, "rows dim"],
    ids: Int[Array, " wanted"] | Distinct,
) -> Float[Array, "wanted dim"]:
    """Return rows of `table`, which is `matmul(operator, x)`, with a derivative that bypasses the table.

    On CPU, for few rows, the derivative Rᵀ g is computed from only the wanted rows of g: they are adjacent in cache,
    and a single row of zeros represents all others. Second derivatives are slow.
    """
    wanted = ids.ids if isinstance(ids, Distinct) else ids
    few = FEW * wanted.shape[0] <= operator.matrix.num_rows and not are_many(ids)
    if not on_cpu() or num_shares() > 1 or not few:
        return take(table, ids)
    rows: Array = _few_rows(*operator, x, jax.lax.stop_gradient(table), wanted)
    return without_padding(rows, ids) if isinstance(ids, Distinct) else rows


def segment_sum(matrix: Csr, num_columns: int, x: Float[Array, "columns dim"]) -> Float[Array, "rows dim"]:
    """Compute the product by definition: y_r = Σ over the entries (r, c) of value · x_c."""
    messages = matrix.weights[:, None] * x[matrix.columns]
    return jax.ops.segment_sum(messages, matrix.row_ids, matrix.num_rows, indices_are_sorted=True)


def csr(matrix: Csr, num_columns: int, x: Float[Array, "columns dim"]) -> Float[Array, "rows dim"]:
    """Compute the product with jaxlib's CSR kernel."""
    if matrix.values is None:  # scaling rows is cheaper than scaling entries
        of_rows, of_columns = matrix.row_scale, matrix.column_scale
        ones = matrix._replace(values=jnp.ones(matrix.num_entries, x.dtype), row_scale=None, column_scale=None)
        sums = csr(ones, num_columns, x if of_columns is None else of_columns[:, None] * x)
        return sums if of_rows is None else of_rows[:, None] * sums
    arrays = matrix.weights, matrix.columns, matrix.offsets
    product: Array = BCSR(arrays, shape=(matrix.num_rows, num_columns)) @ x
    return product


def chunked(
    matrix: Csr, num_columns: int, x: Float[Array, "columns dim"], *, slots: int | None = None
) -> Float[Array, "rows dim"]:
    """Sum the entries of each row in chunks of fixed width, in a fixed order (`segment_sums`)."""
    if matrix.num_entries == 0:
        return jnp.zeros((matrix.num_rows, x.shape[1]), x.dtype)
    chunks = matrix.chunks or make_chunks(matrix.offsets, largest_sizes(matrix.num_entries))

    def read(entries: Array) -> Array:
        columns = matrix.columns[entries]
        rows = x[columns]
        # Scale here, since a scaled copy of x would be written to memory and read again.
        if matrix.column_scale is not None:
            rows = matrix.column_scale[columns][..., None] * rows
        return rows if matrix.values is None else matrix.values[entries][..., None] * rows

    sums = segment_sums(matrix.offsets, chunks, read, slots)
    return sums if matrix.row_scale is None else matrix.row_scale[:, None] * sums


PRODUCTS: dict[str, Callable[[Csr, int, Array], Array]] = {
    "segment_sum": segment_sum,
    "csr": csr,
    "chunked": chunked,
    "blocked": partial(chunked, slots=TPU_SLOTS),
}

PRODUCT_OF = {"cpu": "csr", "gpu": "chunked", "tpu": "blocked"}
"""The default product of each platform."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(product: str, matrix: Csr, transposed: Csr, x: Array) -> Array:
    def whole(matrix: Csr, x: Array) -> Array:
        return PRODUCTS[product](matrix, transposed.num_rows, x)

    return on_own_columns(whole, x)(matrix, x)


def _multiply_forward(product: str, matrix: Csr, transposed: Csr, x: Array) -> tuple[Array, tuple[Csr, Csr, Array]]:
    return _multiply(product, matrix, transposed, x), (matrix, transposed, x)


def _multiply_backward(product: str, residuals: tuple[Csr, Csr, Array], cotangent: Array) -> tuple[Csr, None, Array]:
    matrix, transposed, x = residuals
    by_values = _by_values(matrix, cotangent[matrix.row_ids], x)
    return by_values, None, _multiply(product, transposed, matrix, cotangent)


_multiply.defvjp(_multiply_forward, _multiply_backward)
_traced_once = jax.jit(_multiply, static_argnums=0)


@jax.custom_vjp
def _few_rows(matrix: Csr, transposed: Csr, x: Array, table: Array, ids: Array) -> Array:
    return table[ids]


def _few_rows_forward(
    matrix: Csr, transposed: Csr, x: Array, table: Array, ids: Array
) -> tuple[Array, tuple[Csr, Csr, Array, Array]]:
    return _few_rows(matrix, transposed, x, table, ids), (matrix, transposed, x, ids)


def _few_rows_backward(
    residuals: tuple[Csr, Csr, Array, Array], cotangent: Array
) -> tuple[Csr, None, Array, None, None]:
    matrix, transposed, x, ids = residuals
    count = ids.shape[0]
    places = first_places(ids, matrix.num_rows)
    few = jnp.zeros((count + 1, cotangent.shape[1]), cotangent.dtype).at[places[ids]].add(cotangent)
    by_values = _by_values(matrix, few[places[matrix.row_ids]], x)
    if transposed.column_scale is not None:
        scale = jnp.zeros(count + 1, few.dtype).at[places[ids]].set(transposed.column_scale[ids])
        transposed = transposed._replace(column_scale=scale)
    return by_values, None, csr(transposed._replace(columns=places[transposed.columns]), count + 1, few), None, None


_few_rows.defvjp(_few_rows_forward, _few_rows_backward)


def _by_values(matrix: Csr, cotangents: Float[Array, "entries dim"], x: Float[Array, "columns dim"]) -> Csr:
    """Compute the cotangent of the matrix: g_r · x_c for each entry (r, c), given the row g_r of each entry.

    Integer fields and implicit values of 1 have no derivative, so their cotangents are `None`.
    """
    if matrix.values is None:
        return Csr(None, None, None)  # type: ignore[arg-type]
    values = jnp.sum(cotangents * x[matrix.columns], axis=1)
    if matrix.scales is not None:
        values = values * matrix.scales
    return Csr(values.astype(matrix.values.dtype), None, None)  # type: ignore[arg-type]
