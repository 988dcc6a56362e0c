"""Sparse × dense products behind one signature, with their derivative.

`matmul(operator, x)` is the only sparse product of the package. `PRODUCTS` holds its implementations: `segment_sum` is
the definition, `csr` the compiled CSR product of jaxlib (threaded on CPU), `scan` a segmented scan for accelerators,
which always adds in the same order, unlike the atomic additions of a scatter.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCSR
from jaxtyping import Array, Float, Int

from slmrec_jax.devices import on_cpu

FEW = 8
"""Rows are few if at most one row in this many is wanted."""


class Csr(NamedTuple):
    """A matrix in compressed rows: row r has `columns[offsets[r]:offsets[r + 1]]`, ascending, and their `values`."""

    values: Float[Array, " entries"]
    columns: Int[Array, " entries"]
    offsets: Int[Array, " rows_plus_one"]

    @property
    def num_rows(self) -> int:
        """The number of rows, static."""
        return self.offsets.shape[0] - 1


class Operator(NamedTuple):
    """A matrix and its transpose, so that a product and its derivative are both products of compressed rows.

    Each copy has its own `values`, and a derivative goes to the copy that the product reads: R x to `matrix`, Rᵀ g to
    `transposed`. A function that makes both copies from one array of values therefore has the right derivative with
    respect to that array, of first and higher order. Never change one copy without the other.
    """

    matrix: Csr
    transposed: Csr

    @property
    def T(self) -> "Operator":
        """The transpose; nothing is copied."""
        return Operator(self.transposed, self.matrix)


def operator(matrix: "scipy.sparse.spmatrix | scipy.sparse.sparray") -> Operator:
    """Put a host matrix and its transpose on the device. Repeated entries are summed."""
    return Operator(_to_device(matrix.tocsr()), _to_device(matrix.T.tocsr()))


def operator_shapes(num_rows: int, num_columns: int, num_entries: int) -> Operator:
    """Return the shapes of the operator that `operator` makes of this many distinct entries."""

    def side(rows: int) -> Csr:
        entries = (num_entries,)
        return Csr(jnp.zeros(entries), jnp.zeros(entries, jnp.int32), jnp.zeros(rows + 1, jnp.int32))

    shapes: Operator = jax.eval_shape(lambda: Operator(side(num_rows), side(num_columns)))
    return shapes


def matmul(operator: Operator, x: Float[Array, "columns dim"], product: str | None = None) -> Float[Array, "rows dim"]:
    """Multiply the matrix with dense rows x.

    The derivative is written by hand. With respect to x, the vector-Jacobian product is g -> Rᵀ g, again a product of
    compressed rows, where autodiff of a CSR product would scatter. With respect to the value of an entry (r, c) it is
    g_r · x_c. The compiler drops the one that is not needed: a training step reads the matrix as a constant.

    `product` is a name of `PRODUCTS`; by default `csr` on CPU and `scan` elsewhere.
    """
    rows: Array = _traced_once(product or ("csr" if on_cpu() else "scan"), *operator, x)
    return rows


def rows_of_product(
    operator: Operator, x: Float[Array, "columns dim"], table: Float[Array, "rows dim"], ids: Int[Array, " wanted"]
) -> Float[Array, "wanted dim"]:
    """Return rows of `table`, which is `matmul(operator, x)`, with a derivative that skips the table.

    On CPU, for few rows, the derivative Rᵀ g is computed from the wanted rows of g alone: they are adjacent in the
    cache, and one row of zeros represents all others. Differentiating that again is slow.
    """
    if not on_cpu() or FEW * ids.shape[0] > operator.matrix.num_rows:
        return table[ids]
    rows: Array = _few_rows(*operator, x, jax.lax.stop_gradient(table), ids)
    return rows


def segment_sum(matrix: Csr, num_columns: int, x: Float[Array, "columns dim"]) -> Float[Array, "rows dim"]:
    """Compute the definition: y_r = Σ over the entries (r, c) of value · x_c."""
    messages = matrix.values[:, None] * x[matrix.columns]
    return jax.ops.segment_sum(messages, _row_ids(matrix), matrix.num_rows, indices_are_sorted=True)


def scan(matrix: Csr, num_columns: int, x: Float[Array, "columns dim"]) -> Float[Array, "rows dim"]:
    """Compute running sums that restart with each row, and take the last of each: no scatter, a fixed order."""
    if matrix.columns.shape[0] == 0:  # no row has a last sum
        return jnp.zeros((matrix.num_rows, x.shape[1]), x.dtype)
    rows = _row_ids(matrix)
    begins = jnp.concatenate([jnp.ones(1, bool), rows[1:] != rows[:-1]])[:, None]

    def join(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        (left_begins, left_sum), (right_begins, right_sum) = left, right
        return left_begins | right_begins, right_sum + jnp.where(right_begins, 0.0, left_sum)

    _, sums = jax.lax.associative_scan(join, (begins, matrix.values[:, None] * x[matrix.columns]))
    ends = matrix.offsets[1:]
    return jnp.where((ends > matrix.offsets[:-1])[:, None], sums[jnp.maximum(ends, 1) - 1], 0.0)


def csr(matrix: Csr, num_columns: int, x: Float[Array, "columns dim"]) -> Float[Array, "rows dim"]:
    """Call the CSR product of jaxlib."""
    product: Array = BCSR(matrix, shape=(matrix.num_rows, num_columns)) @ x
    return product


PRODUCTS: dict[str, Callable[[Csr, int, Array], Array]] = {"segment_sum": segment_sum, "csr": csr, "scan": scan}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(product: str, matrix: Csr, transposed: Csr, x: Array) -> Array:
    return PRODUCTS[product](matrix, transposed.num_rows, x)


def _multiply_forward(product: str, matrix: Csr, transposed: Csr, x: Array) -> tuple[Array, tuple[Csr, Csr, Array]]:
    return _multiply(product, matrix, transposed, x), (matrix, transposed, x)


def _multiply_backward(product: str, residuals: tuple[Csr, Csr, Array], cotangent: Array) -> tuple[Csr, None, Array]:
    matrix, transposed, x = residuals
    by_values = _by_values(matrix, cotangent[_row_ids(matrix)], x)
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
    places = jnp.full(matrix.num_rows, count).at[ids].min(jnp.arange(count))
    few = jnp.zeros((count + 1, cotangent.shape[1]), cotangent.dtype).at[places[ids]].add(cotangent)
    by_values = _by_values(matrix, few[places[_row_ids(matrix)]], x)
    return by_values, None, csr(transposed._replace(columns=places[transposed.columns]), count + 1, few), None, None


_few_rows.defvjp(_few_rows_forward, _few_rows_backward)


def _by_values(matrix: Csr, cotangents: Float[Array, "entries dim"], x: Float[Array, "columns dim"]) -> Csr:
    """Return the cotangent of the matrix: g_r · x_c for each entry (r, c), given the row g_r of each.

    Integers have no derivative, so their fields are `None`.
    """
    values = jnp.sum(cotangents * x[matrix.columns], axis=1)
    return Csr(values.astype(matrix.values.dtype), None, None)  # type: ignore[arg-type]


def _row_ids(matrix: Csr) -> Int[Array, " entries"]:
    """Return the row of each entry."""
    counts = jnp.diff(matrix.offsets)
    return jnp.repeat(jnp.arange(matrix.num_rows), counts, total_repeat_length=matrix.columns.shape[0])


def _to_device(matrix: "scipy.sparse.csr_matrix | scipy.sparse.csr_array") -> Csr:
    matrix.sum_duplicates()
    return Csr(
        jnp.asarray(matrix.data, np.float32),
        jnp.asarray(matrix.indices, np.int32),
        jnp.asarray(matrix.indptr, np.int32),
    )
