"""Reads pickled SciPy sparse matrices without the pickle module: nothing in the file is imported, called or run.

`pickle_machine.decode` turns the file into inert records of the calls it asks for. Here they are read as what they
claim to be, with every length, type and index checked before use.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from slmrec_jax.data.checks import MAX_COUNT
from slmrec_jax.data.pickle_machine import Call, Malformed, decode, quoted
from slmrec_jax.errors import UserError

_MAX_DIMENSION, _MAX_EMPTINESS = 1_000_000, 1_000
"""A dimension beyond the first may exceed the number of entries so many times: later code allocates by dimension."""

_SPARSE = {
    (f"scipy.sparse.{module}", f"{layout}_{kind}"): layout
    for layout in ("coo", "csr", "csc")
    for module in (layout, f"_{layout}")
    for kind in ("matrix", "array")
}
_NDARRAY, _DTYPE = ("numpy", "ndarray"), ("numpy", "dtype")
_RECONSTRUCT, _SCALAR, _FROMBUFFER = (
    tuple((f"{core}.{module}", name) for core in ("numpy.core", "numpy._core"))
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
)
# Protocol 2 has no opcode for bytes: it spells them as encoded text, and empty ones as a call of the type.
_ENCODE, _EMPTY_BYTES = ("_codecs", "encode"), ("__builtin__", "bytes")
_NAMES = {*_SPARSE, _NDARRAY, _DTYPE, *_RECONSTRUCT, *_SCALAR, *_FROMBUFFER, _ENCODE, _EMPTY_BYTES}

_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class SparsePattern(NamedTuple):
    """Where a sparse matrix is not zero, in the file's order; an entry may stand there twice."""

    shape: tuple[int, int]
    rows: Int[np.ndarray, " entries"]
    """int32, as are `columns`."""
    columns: Int[np.ndarray, " entries"]


def read_sparse(path: Path) -> SparsePattern:
    """Reads a pickled `coo`, `csr` or `csc` matrix or array of two dimensions, of any SciPy and protocol 2 to 5.

    Memory stays within a small multiple of the file's size.

    Raises:
        UserError: It cannot be read, is truncated or inconsistent, or asks for anything but a sparse matrix.
    """
    if not path.is_file():  # a pipe would wait for ever
        raise UserError(f"{path}: not a regular file; expected a pickled SciPy sparse matrix")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    try:
        return _sparse(decode(data, _NAMES))
    except Malformed as fault:
        raise UserError(
            f"{path}: {fault}; nothing in it was run; expected a SciPy coo, csr or csc matrix, pickled with protocol 2 "
            f"to 5: save it again from a source you trust"
        ) from None


def _sparse(value: Any) -> SparsePattern:
    if not isinstance(value, Call) or value.name not in _SPARSE or not isinstance(value.state, dict):
        raise Malformed(f"it holds {_kind(value)}")
    state, layout = value.state, _SPARSE[value.name]
    shape = _pair(state.get("_shape"), "shape")
    num_rows, num_columns = (_integer(size, "shape") for size in shape)
    data = _array(state.get("data"), "data")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise Malformed("data has entries that are NaN or infinite")
    for name, size in (("rows", num_rows), ("columns", num_columns)):
        if not 0 <= size <= min(MAX_COUNT, max(_MAX_DIMENSION, _MAX_EMPTINESS * len(data))):
            raise Malformed(f"shape has {_short(size)} {name} for {len(data)} entries")
    if layout == "coo":
        rows, columns = _pair(state["coords"], "coords") if "coords" in state else (state.get("row"), state.get("col"))
        row_ids, column_ids = _array(rows, "row"), _array(columns, "col")
    else:
        size = num_rows if layout == "csr" else num_columns
        outer = _expand(_array(state.get("indptr"), "indptr"), size, len(data))
        inner = _array(state.get("indices"), "indices")
        row_ids, column_ids = (outer, inner) if layout == "csr" else (inner, outer)
    nonzero = data.view(np.uint8) != 0 if data.dtype == np.bool_ else data != 0
    return SparsePattern(
        (num_rows, num_columns),
        _ids(row_ids, "row", num_rows, len(data))[nonzero],
        _ids(column_ids, "column", num_columns, len(data))[nonzero],
    )


def _expand(offsets: Shaped[np.ndarray, " offsets"], size: int, entries: int) -> Int[np.ndarray, " entries"]:
    """The row of each entry of a csr matrix, the column of a csc one."""
    if offsets.dtype.kind not in "iu" or len(offsets) != size + 1:
        raise Malformed(f"indptr is {len(offsets)} of {offsets.dtype}; expected {_short(size + 1)} integers")
    # Compared before they are subtracted: a difference may overflow.
    if offsets[0] != 0 or offsets[-1] != entries or (offsets[1:] < offsets[:-1]).any():
        raise Malformed(f"indptr does not rise from 0 to the {entries} entries")
    ends = offsets.astype(np.int64)
    return np.repeat(np.arange(size, dtype=np.int32), ends[1:] - ends[:-1])


def _ids(ids: Shaped[np.ndarray, " entries"], what: str, size: int, entries: int) -> Int[np.ndarray, " entries"]:
    if ids.dtype.kind not in "iu" or len(ids) != entries:
        raise Malformed(f"there are {len(ids)} {what} indices of {ids.dtype} for {entries} entries")
    outside = np.flatnonzero((ids < 0) | (ids >= size))
    if len(outside):
        raise Malformed(f"entry {outside[0]} has {what} {ids[outside[0]]}, outside 0..{size - 1}")
    return ids.astype(np.int32)


def _array(value: Any, what: str) -> Shaped[np.ndarray, " entries"]:
    """A view of one dimension on the bytes of the file."""
    if not isinstance(value, Call):
        raise Malformed(f"{what} is {_kind(value)}; expected an array")
    if value.name in _FROMBUFFER and len(value.arguments) in (4, 5):
        content, dtype, shape = value.arguments[:3]
    elif value.name in _RECONSTRUCT and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, _, content = value.state
    else:
        raise Malformed(f"{what} is {_kind(value)} of another form than NumPy writes")
    if not isinstance(shape, tuple) or len(shape) != 1:
        raise Malformed(f"{what} is not of one dimension")
    kind, length, raw = _dtype(dtype, what), _integer(shape[0], what), _bytes(content, what)
    if length < 0 or length * kind.itemsize != len(raw):
        raise Malformed(f"{what} has {len(raw)} bytes for {_short(length)} values of {kind}")
    return np.frombuffer(raw, kind)


def _dtype(value: Any, what: str) -> "np.dtype[Any]":
    if isinstance(value, Call) and value.name == _DTYPE and value.arguments:
        code, state = value.arguments[0], value.state
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if isinstance(code, str) and code in _DTYPES and isinstance(order, str) and order in ("<", ">", "|"):
            if order == "|" and code[1] != "1":
                raise Malformed(f"{what} has no byte order")
            return np.dtype(order + code)
        raise Malformed(f"{what} is of type {quoted(code) if isinstance(code, str) else _kind(code)}, not numbers")
    raise Malformed(f"{what} has {_kind(value)} for a type")


def _bytes(value: Any, what: str) -> bytes | bytearray:
    if isinstance(value, Call) and value.name == _EMPTY_BYTES and not value.arguments:
        return b""
    if isinstance(value, Call) and value.name == _ENCODE and len(value.arguments) == 2:
        value = value.arguments[0]
    if isinstance(value, str):  # bytes of Python 2, or encoded text: either way a character is a byte
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            raise Malformed(f"{what} has text where bytes belong") from None
    if not isinstance(value, bytes | bytearray):
        raise Malformed(f"{what} has {_kind(value)} where bytes belong")
    return value


def _pair(value: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise Malformed(f"{what} is {_kind(value)}; expected two dimensions")
    return value


def _integer(value: Any, what: str) -> int:
    if isinstance(value, Call) and value.name in _SCALAR and len(value.arguments) == 2:
        kind, raw = _dtype(value.arguments[0], what), _bytes(value.arguments[1], what)
        if kind.kind in "iu" and len(raw) == kind.itemsize:
            return int(np.frombuffer(raw, kind)[0])
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"{what} has {_kind(value)} where an integer belongs")
    return value


def _kind(value: Any) -> str:
    """What a value is, in bounded space: a value may hold itself many times over."""
    if isinstance(value, Call):
        return ".".join(value.name)
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _short(number: int) -> str:
    return str(number) if abs(number) < 2**64 else "an absurd number of"
