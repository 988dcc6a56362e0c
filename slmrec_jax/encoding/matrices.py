"""Sparse matrices on the device, stored as compressed rows (CSR) of the matrix and of its transpose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int

from slmrec_jax.devices import on_cpu
from slmrec_jax.encoding.chunks import Chunks, chunk_sizes, largest_sizes, make_chunks

MOST_VALUES = 2**24
"""The number of entries up to which a CPU stores values in addition to the column indices. Both directions together
take 8 bytes per entry."""


class Csr(NamedTuple):
    """A matrix in compressed sparse rows: row r has the columns `columns[offsets[r]:offsets[r + 1]]`, ascending.

    An entry is its value times the scales of its row and column; `None` stands for 1. A normalised adjacency thus
    consists of two scales and entries of 1, which need no memory.
    """

    values: Float[Array, " entries"] | None
    columns: Int[Array, " entries"]
    offsets: Int[Array, " rows_plus_one"]
    row_scale: Float[Array, " rows"] | None = None
    """Scales are constants, like the column indices: products are not differentiated with respect to them."""
    column_scale: Float[Array, " columns"] | None = None
    chunks: Chunks | None = None
    """The chunks of long rows, for the product on accelerators. If it is `None`, each product computes them."""

    @property
    def num_rows(self) -> int:
        """The number of rows (static)."""
        return self.offsets.shape[0] - 1

    @property
    def num_entries(self) -> int:
        """The number of entries (static)."""
        return self.columns.shape[0]

    @property
    def row_ids(self) -> Int[Array, " entries"]:
        """The row of each entry."""
        counts = jnp.diff(self.offsets)
        return jnp.repeat(jnp.arange(self.num_rows), counts, total_repeat_length=self.num_entries)

    @property
    def scales(self) -> Float[Array, " entries"] | None:
        """The product of the row and column scales of each entry; `None` if all are 1."""
        of_rows = None if self.row_scale is None else self.row_scale[self.row_ids]
        if self.column_scale is None:
            return of_rows
        of_columns = self.column_scale[self.columns]
        return of_columns if of_rows is None else of_rows * of_columns

    @property
    def weights(self) -> Float[Array, " entries"]:
        """The entries: values times scales."""
        values, scales = jnp.ones(self.num_entries) if self.values is None else self.values, self.scales
        return values if scales is None else values * scales


class Operator(NamedTuple):
    """A matrix and its transpose, so that a product and its derivative are both CSR products.

    Each copy has its own `values`, and a derivative goes to the copy that the product reads: for R x to `matrix`, for
    Rᵀ g to `transposed`. A function that makes both copies from one array of values therefore has correct derivatives
    with respect to that array, of first and higher order. Never change one copy without the other.
    """

    matrix: Csr
    transposed: Csr

    @property
    def T(self) -> "Operator":
        """The transpose, without copying."""
        return Operator(self.transposed, self.matrix)


class Scales(NamedTuple):
    """Scale factors of rows and columns, on the host."""

    rows: Float[np.ndarray, " rows"]
    columns: Float[np.ndarray, " columns"]


def operator(matrix: "scipy.sparse.spmatrix | scipy.sparse.sparray", scales: Scales | None = None) -> Operator:
    """Put a host matrix and its transpose on the device.

    Args:
        matrix: Repeated entries are summed.
        scales: If given, each entry of `matrix` counts as 1. Small matrices (`holds_values`) then store the products of
            the scales as values.
    """
    matrix = scipy.sparse.csr_array(matrix, copy=True)
    matrix.sum_duplicates()
    if scales is not None and holds_values(matrix.nnz):
        entries = matrix.tocoo()
        values = (scales.rows[entries.row] * scales.columns[entries.col]).astype(np.float32)
        return operator(scipy.sparse.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape))
    return Operator(_to_device(matrix, scales), _to_device(matrix.T.tocsr(), scales and Scales(*reversed(scales))))


def holds_values(num_entries: int) -> bool:
    """Return whether a matrix of ones with scales is stored as values.

    The CPU's product reads one value per entry. Above `MOST_VALUES` entries, each product computes them.
    """
    return on_cpu() and num_entries <= MOST_VALUES


def operator_shapes(
    row_lengths: Int[np.ndarray, " rows"], column_lengths: Int[np.ndarray, " columns"], *, scaled: bool = False
) -> Operator:
    """Return the shapes of the operator that `operator` makes from a matrix with these row and column lengths.

    `scaled` says whether `operator` is given scales.
    """

    def side(rows: np.ndarray, columns: np.ndarray) -> Csr:
        entries, offsets = int(rows.sum()), jnp.zeros(len(rows) + 1, jnp.int32)
        ids, chunks = jnp.zeros(entries, jnp.int32), _chunks(offsets, rows)
        if scaled and not holds_values(entries):
            return Csr(None, ids, offsets, jnp.zeros(len(rows)), jnp.zeros(len(columns)), chunks)
        return Csr(jnp.zeros(entries), ids, offsets, chunks=chunks)

    shapes: Operator = jax.eval_shape(
        lambda: Operator(side(row_lengths, column_lengths), side(column_lengths, row_lengths))
    )
    return shapes


def compressed(
    rows: Int[Array, " entries"], columns: Int[Array, " entries"], values: Float[Array, " entries"], num_rows: int
) -> Csr:
    """Build compressed rows on the device. It can be traced: shapes depend only on the number of entries."""
    order = jnp.argsort(rows, stable=True)
    offsets = jnp.searchsorted(rows[order], jnp.arange(num_rows + 1, dtype=rows.dtype)).astype(jnp.int32)
    return with_chunks(Csr(reordered(values, order), columns[order], offsets))


def reordered(values: Float[Array, " entries"], order: Int[Array, " entries"]) -> Float[Array, " entries"]:
    """Return `values[order]` for a permutation. Its derivative adds nothing up and so is deterministic everywhere."""
    taken: Array = values.at[order].get(unique_indices=True)
    return taken


def with_chunks(matrix: Csr) -> Csr:
    """Add chunks for rows of any lengths to a matrix, if the platform uses chunks."""
    if on_cpu():
        return matrix._replace(chunks=None)
    return matrix._replace(chunks=make_chunks(matrix.offsets, largest_sizes(matrix.num_entries)))


def with_values(matrix: Csr) -> Csr:
    """Fold a matrix's scales into its values, if the platform stores values (`holds_values`)."""
    if not holds_values(matrix.num_entries):
        return matrix
    return matrix._replace(values=matrix.weights, row_scale=None, column_scale=None)


def _to_device(matrix: "scipy.sparse.csr_array", scales: Scales | None) -> Csr:
    columns, offsets = (jnp.asarray(of, jnp.int32) for of in (matrix.indices, matrix.indptr))
    chunks = _chunks(offsets, np.diff(matrix.indptr))
    if scales is None:
        return Csr(jnp.asarray(matrix.data, jnp.float32), columns, offsets, chunks=chunks)
    of_rows, of_columns = (jnp.asarray(scale, jnp.float32) for scale in scales)
    return Csr(None, columns, offsets, of_rows, of_columns, chunks)


def _chunks(offsets: Int[Array, " rows_plus_one"], lengths: Int[np.ndarray, " rows"]) -> Chunks | None:
    if on_cpu() or not len(lengths):
        return None
    return make_chunks(offsets, chunk_sizes(lengths) or [(1, 1)])  # without long rows, an empty chunk records that
