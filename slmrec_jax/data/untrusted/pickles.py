"""Reader for pickled SciPy sparse matrices, without the pickle module: nothing in the file is imported or executed.

`pickle_machine.decode` turns the file into inert records of its calls. Every length, dtype and index in them is checked
here before use.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from slmrec_jax.data.inspect.checks import MAX_COUNT
from slmrec_jax.data.readers.opening import reading_untrusted
from slmrec_jax.data.readers.refusals import Malformed
from slmrec_jax.data.untrusted.pickle_machine import Call, PickleKind, decode
from slmrec_jax.data.untrusted.pickled_arrays import ARRAY_NAMES, as_array, as_integer, describe_value, short_number

_MAX_DIMENSION, _MAX_EMPTINESS = 1_000_000, 1_000
"""A dimension is limited to the larger of the first, and the second times the number of entries, since later code
allocates by dimension."""

_SPARSE = {
    (f"scipy.sparse.{module}", f"{layout}_{kind}"): layout
    for layout in ("coo", "csr", "csc")
    for module in (layout, f"_{layout}")
    for kind in ("matrix", "array")
}
_MATRIX_PICKLE = PickleKind("a sparse matrix", {*_SPARSE, *ARRAY_NAMES})


class SparsePattern(NamedTuple):
    """The positions of a sparse matrix's non-zero entries, in file order; they may repeat."""

    shape: tuple[int, int]
    rows: Int[np.ndarray, " entries"]
    """The row indices, int32 like `columns`."""
    columns: Int[np.ndarray, " entries"]


def read_sparse(path: Path) -> SparsePattern:
    """Read a pickled two-dimensional `coo`, `csr` or `csc` matrix or array, from any SciPy and protocol 2 to 5.

    Memory stays within a small multiple of the file's size. A truncated or inconsistent file is rejected.
    """
    with reading_untrusted(path, "a SciPy coo, csr or csc matrix, pickled with protocol 2 to 5"):
        return _pattern(decode(path.read_bytes(), _MATRIX_PICKLE)[0])


def _pattern(value: Any) -> SparsePattern:
    if not isinstance(value, Call) or value.name not in _SPARSE or not isinstance(value.state, dict):
        raise Malformed(f"it holds {describe_value(value)}")
    state, layout = value.state, _SPARSE[value.name]
    shape = _two(state.get("_shape"), "shape")
    num_rows, num_columns = (as_integer(size, "shape") for size in shape)
    data = as_array(state.get("data"), "data")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise Malformed("data has entries that are NaN or infinite")
    for name, size in (("rows", num_rows), ("columns", num_columns)):
        if not 0 <= size <= min(MAX_COUNT, max(_MAX_DIMENSION, _MAX_EMPTINESS * len(data))):
            raise Malformed(f"shape has {short_number(size)} {name} for {len(data)} entries")
    if layout == "coo":
        rows, columns = _two(state["coords"], "coords") if "coords" in state else (state.get("row"), state.get("col"))
        row_ids, column_ids = as_array(rows, "row"), as_array(columns, "col")
    else:
        size = num_rows if layout == "csr" else num_columns
        outer = _expand(as_array(state.get("indptr"), "indptr"), size, len(data))
        inner = as_array(state.get("indices"), "indices")
        row_ids, column_ids = (outer, inner) if layout == "csr" else (inner, outer)
    nonzero = data.view(np.uint8) != 0 if data.dtype == np.bool_ else data != 0
    return SparsePattern(
        (num_rows, num_columns),
        _checked_indices(row_ids, "row", num_rows, len(data))[nonzero],
        _checked_indices(column_ids, "column", num_columns, len(data))[nonzero],
    )


def _expand(offsets: Shaped[np.ndarray, " offsets"], size: int, entries: int) -> Int[np.ndarray, " entries"]:
    """Return the row of each entry of a csr matrix, or the column of each entry of a csc matrix."""
    if offsets.dtype.kind not in "iu" or len(offsets) != size + 1:
        raise Malformed(f"indptr is {len(offsets)} of {offsets.dtype}; expected {short_number(size + 1)} integers")
    # Compare before subtracting, since a difference may overflow.
    if offsets[0] != 0 or offsets[-1] != entries or (offsets[1:] < offsets[:-1]).any():
        raise Malformed(f"indptr does not rise from 0 to the {entries} entries")
    ends = offsets.astype(np.int64)
    return np.repeat(np.arange(size, dtype=np.int32), ends[1:] - ends[:-1])


def _checked_indices(
    ids: Shaped[np.ndarray, " entries"], what: str, size: int, entries: int
) -> Int[np.ndarray, " entries"]:
    if ids.dtype.kind not in "iu" or len(ids) != entries:
        raise Malformed(f"there are {len(ids)} {what} indices of {ids.dtype} for {entries} entries")
    outside = np.flatnonzero((ids < 0) | (ids >= size))
    if len(outside):
        raise Malformed(f"entry {outside[0]} has {what} {ids[outside[0]]}, outside 0..{size - 1}")
    return ids.astype(np.int32)


def _two(value: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise Malformed(f"{what} is {describe_value(value)}; expected two dimensions")
    return value
