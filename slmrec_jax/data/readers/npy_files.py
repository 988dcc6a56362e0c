"""Reader for NumPy's `.npy` files: NumPy parses the header, and the numbers are a view of the file.

`numpy.load` is not used because it may unpickle objects, does not notice bytes beyond the array, and returns empty
arrays whose other dimensions are absurdly large.
"""

import io
import math
import mmap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from numpy.lib import format as npy_format

from slmrec_jax.data.readers.opening import reading
from slmrec_jax.data.readers.refusals import Malformed, quoted
from slmrec_jax.errors import UserError, one_line

MAX_DIMENSIONS = 8
"""The maximum number of dimensions of an array or tensor, in files of any kind."""
_MAX_HEADER = 10_000
"""The maximum bytes before the numbers. NumPy parses a header as a Python literal, which is safe for text of this
length."""
_HEADER_READERS = {
    b"\x01\x00": npy_format.read_array_header_1_0,
    b"\x02\x00": npy_format.read_array_header_2_0,
    b"\x03\x00": npy_format.read_array_header_2_0,  # differs only in field names, which are rejected
}


class NpyHeader(NamedTuple):
    """The dtype and shape of an array, and the position of its numbers."""

    dtype: "np.dtype[Any]"
    fortran_order: bool
    shape: tuple[int, ...]
    start: int
    """The position of the first byte after the header."""


def read_header(data: bytes | mmap.mmap) -> NpyHeader:
    """Read the header at the start of a file. A damaged or impossible header raises `Malformed`."""
    if data[:6] != npy_format.MAGIC_PREFIX:
        raise Malformed("it does not start as a .npy file")
    version = bytes(data[6:8])
    if version not in _HEADER_READERS:
        raise Malformed(f"its version {quoted(repr(version))} is not known")
    file = io.BytesIO(data[:_MAX_HEADER])
    file.seek(npy_format.MAGIC_LEN)
    try:
        with warnings.catch_warnings(action="ignore"):  # about Python 2's `2L`, and escapes in text
            shape, fortran_order, dtype = _HEADER_READERS[version](file)
    except Exception as error:  # the parsers of literals and dtypes raise many kinds of errors
        raise Malformed(f"its header is damaged: {one_line(error)}") from None
    if not all(0 <= size < 2**62 for size in shape):
        raise Malformed("its shape has a size outside 0..2⁶²")
    if len(shape) > MAX_DIMENSIONS or math.prod(size or 1 for size in shape) >= 2**62:
        raise Malformed(f"its shape is {quoted(str(shape))}")
    return NpyHeader(dtype, fortran_order, tuple(map(int, shape)), file.tell())


def read_numbers(path: Path, expected: str) -> Shaped[np.ndarray, "..."]:
    """Read an array of numbers of any dtype and shape, as a view of the file."""
    with reading(path, expected):
        try:
            return _map_numbers(path)
        except Malformed as fault:
            raise UserError(
                f"{path}: not a readable .npy table ({fault}); expected {expected}: write it again with numpy.save"
            ) from None


def read_table(path: Path) -> Float[np.ndarray, "rows columns"]:
    """Read a float16, float32 or float64 table as a view of the file, which must not change while in use."""
    stored = read_numbers(path, "a table of floating point")
    if stored.ndim != 2 or stored.dtype.kind != "f" or stored.dtype.itemsize > 8:
        raise UserError(
            f"{path}: an array of {stored.dtype} of shape {stored.shape}; expected a table of float16, float32 or "
            f"float64, one row per item"
        )
    return stored


def is_hollow(shape: Sequence[int], file_size: int) -> bool:
    """Return whether an empty array claims a size that is too large for a file of `file_size` bytes.

    If one dimension is 0, the others can have any size: `(10**18, 0)` takes no bytes, but one flag per row would take
    an exabyte.
    """
    return 0 in shape and max(shape) > file_size


def _map_numbers(path: Path) -> Shaped[np.ndarray, "..."]:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise Malformed("it is empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[:2] == b"PK":
        raise Malformed("it is an archive, as numpy.savez writes; save the one table by itself")
    dtype, fortran_order, shape, start = read_header(data)
    if dtype.kind not in "biufc":
        raise Malformed(f"it holds {'objects' if dtype.hasobject else quoted(str(dtype))}, not numbers")
    count = math.prod(shape)
    if count * dtype.itemsize != len(data) - start:
        raise Malformed(f"it has {len(data) - start} bytes for {count} values of {dtype}; its shape is {shape}")
    if is_hollow(shape, len(data)):
        raise Malformed(f"its shape is {shape}, but it holds no values")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran_order else "C")
