"""Reads NumPy's `.npy` files: the header by its grammar, the numbers as a view on the file. Nothing is evaluated.

`numpy.load` evaluates the header as a Python literal, and unpickles what holds objects where it is allowed to.
"""

import math
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from slmrec_jax.data.readers.opening import check_file, unreadable
from slmrec_jax.data.untrusted.pickle_machine import Malformed, quoted
from slmrec_jax.errors import UserError

_MAGIC = b"\x93NUMPY"
_KEYS = ("descr", "fortran_order", "shape")
_MAX_HEADER = 10_000
_MAX_DIMENSIONS = 8
_ENTRY = re.compile(
    r"""\s*(['"])(?P<key>\w+)\1\s*:\s*"""
    r"""(?:(['"])(?P<descr>[^'"]*)\3|(?P<fortran_order>True|False)|\((?P<shape>[\dL,\s]*)\))\s*(?:,|$)""",
    re.ASCII,
)
"""One entry of the header; each key has a form of its own."""
_NUMBER = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|f12|f16|c8|c16|c24|c32)", re.ASCII)
_SIZE = re.compile(r"(\d{1,18})L?", re.ASCII)


class Header(NamedTuple):
    """What the file says of the array in it."""

    code: str
    """NumPy's code of the type, as `<f4`; `|O` for objects."""
    fortran_order: bool
    shape: tuple[int, ...]
    start: int
    """The first byte after the header."""


def read_header(data: bytes | mmap.mmap) -> Header:
    """Reads the header at the start of a file.

    Raises:
        Malformed: It is not one that NumPy writes.
    """
    if data[:6] != _MAGIC:
        raise Malformed("it does not start as a .npy file")
    width = 2 if data[6:7] == b"\x01" else 4
    if data[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise Malformed(f"its version {quoted(repr(bytes(data[6:8])))} is not known")
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if start > min(len(data), _MAX_HEADER):
        raise Malformed(f"its header ends at byte {start}, beyond {min(len(data), _MAX_HEADER)}")
    entries = _entries(bytes(data[8 + width : start]).decode("latin-1"))
    return Header(entries["descr"], entries["fortran_order"] == "True", _shape(entries["shape"]), start)


def _entries(text: str) -> dict[str, str]:
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        raise Malformed(f"its header is {quoted(inner)}")
    inner, position = inner[1:-1].rstrip(), 0
    entries: dict[str, str] = {}
    while position < len(inner):
        found = _ENTRY.match(inner, position)
        if found is None or found["key"] not in _KEYS or found[found["key"]] is None or found["key"] in entries:
            raise Malformed(f"its header has {quoted(inner[position:])}")
        entries[found["key"]] = found[found["key"]]
        position = found.end()
    if len(entries) != len(_KEYS):
        raise Malformed(f"its header lacks {' and '.join(key for key in _KEYS if key not in entries)}")
    return entries


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if parts[-1] == "":
        parts.pop()
    found = [_SIZE.fullmatch(part) for part in parts]
    sizes = tuple(int(size[1]) for size in found if size)
    if len(sizes) != len(parts) or len(sizes) > _MAX_DIMENSIONS or math.prod(size or 1 for size in sizes) >= 2**62:
        raise Malformed(f"its shape is {quoted(text)}")
    return sizes


def read_numbers(path: Path, expected: str) -> Shaped[np.ndarray, "..."]:
    """Read an array of numbers of any type and shape, as a view on the file.

    Args:
        path: The file.
        expected: What it should hold, for error lines.

    Raises:
        UserError: It cannot be read, holds other than numbers, or has another size than its header says.
    """
    check_file(path, expected)
    try:
        return _numbers(path)
    except Malformed as fault:
        raise UserError(
            f"{path}: not a readable .npy table ({fault}); expected {expected}: write it again with numpy.save"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error


def _numbers(path: Path) -> Shaped[np.ndarray, "..."]:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise Malformed("it is empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[:2] == b"PK":
        raise Malformed("it is an archive, as numpy.savez writes; save the one table by itself")
    header = read_header(data)
    if not _NUMBER.fullmatch(header.code):
        raise Malformed(f"it holds {'objects' if 'O' in header.code else quoted(header.code)}, not numbers")
    try:
        dtype = np.dtype(header.code)
    except TypeError:  # the longer ones differ between machines
        raise Malformed(f"this machine has no {quoted(header.code)}") from None
    count = math.prod(header.shape)
    if count * dtype.itemsize != len(data) - header.start:
        raise Malformed(
            f"it has {len(data) - header.start} bytes for {count} values of {dtype}; its shape is {header.shape}"
        )
    if is_hollow(header.shape, len(data)):
        raise Malformed(f"its shape is {header.shape}, but it holds no values")
    values = np.frombuffer(data, dtype, count, header.start)
    return values.reshape(header.shape, order="F" if header.fortran_order else "C")


def is_hollow(shape: Sequence[int], file_size: int) -> bool:
    """Whether an array without values claims a size that no file of so many bytes needs.

    One size of 0 makes the others free: `(10**18, 0)` takes no bytes, yet a flag for each row takes an exabyte.
    """
    return 0 in shape and max(shape) > file_size


def read_table(path: Path) -> Float[np.ndarray, "rows columns"]:
    """Read a table of float16, float32 or float64, as a view on the file; `make_dataset` makes it float32.

    Raises:
        UserError: It cannot be read, is not of two dimensions, or is not of floating point.
    """
    stored = read_numbers(path, "a table of floating point")
    if stored.ndim != 2 or stored.dtype.kind != "f" or stored.dtype.itemsize > 8:
        raise UserError(
            f"{path}: an array of {stored.dtype} of shape {stored.shape}; expected a table of float16, float32 or "
            f"float64, one row an item"
        )
    return stored
