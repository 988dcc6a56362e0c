"""Tables of vectors on the host: the dtypes they are stored in, blocks of rows, and memory-mapped tables."""

import mmap
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float, Shaped

HELD_TYPES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32))
"""The dtypes in which vectors are kept. All others become float32."""

_VALUES_PER_BLOCK = 2**23


def is_real(kind: "np.dtype[Any]") -> bool:
    """Return whether vectors may have a dtype: NumPy's floats, bfloat16, integers and bools."""
    return kind.kind in "fiub" or kind in HELD_TYPES


def held_type(kind: "np.dtype[Any]") -> "np.dtype[Any]":
    """Return the dtype in which vectors of a given dtype are kept, in native byte order."""
    kind = kind.newbyteorder("=")
    return kind if kind in HELD_TYPES else np.dtype(np.float32)


def as_held(values: Shaped[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Convert numbers to the dtype they are kept in, without a copy if they already have it.

    Values beyond the range of float32 become infinite and are rejected later.
    """
    with np.errstate(over="ignore"):
        return np.asarray(values, held_type(values.dtype))


def is_fixed(values: Shaped[np.ndarray, "..."]) -> bool:
    """Return whether an array is read-only, including all arrays that it is a view of."""
    owner, fixed = _owner(values)
    return fixed and isinstance(owner, (mmap.mmap, bytes, type(None)))


def is_mapped(values: Shaped[np.ndarray, "..."]) -> bool:
    """Return whether an array is a read-only view of a memory-mapped file."""
    owner, fixed = _owner(values)
    return fixed and isinstance(owner, mmap.mmap)


def own_or_mapped(values: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return numbers in row-major order and in the dtype they are kept in, copied unless already so in a mapped file.

    Arrays in memory are copied because their owner may change them.
    """
    if is_mapped(values) and values.flags.c_contiguous and values.dtype == held_type(values.dtype):
        return values
    with np.errstate(over="ignore"):
        return np.array(values, held_type(values.dtype), order="C")


def row_blocks(values: Shaped[np.ndarray, "rows columns"]) -> Iterator[slice]:
    """Yield slices of a table's rows, in order, each small compared with a large table."""
    at_a_time = max(1, _VALUES_PER_BLOCK // max(1, values.shape[1]))
    return (slice(start, start + at_a_time) for start in range(0, len(values), at_a_time))


def has_content(values: Float[np.ndarray, "rows columns"], among: Bool[np.ndarray, " rows"]) -> bool:
    """Return whether any of the given rows has a non-zero bit."""
    return any(_bits(values[rows][among[rows]]).any() for rows in row_blocks(values) if among[rows].any())


def as_float16_if_lossless(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Convert a float32 table to float16 if all values are preserved bitwise; otherwise return it unchanged."""
    halves = np.empty(values.shape, np.float16)
    for rows in row_blocks(values):
        with np.errstate(over="ignore"):
            halves[rows] = values[rows]
        if not np.array_equal(_bits(halves[rows].astype(np.float32)), _bits(values[rows])):
            return values
    return halves


def mean_row(values: Float[np.ndarray, "rows columns"], among: Bool[np.ndarray, " rows"]) -> Float[np.ndarray, " _"]:
    """Compute the mean, in float64, of the given rows, of which there must be at least one."""
    total = sum(values[rows][among[rows]].sum(axis=0, dtype=np.float64) for rows in row_blocks(values))
    return np.asarray(total / np.count_nonzero(among))


def _owner(values: Shaped[np.ndarray, "..."]) -> tuple[Any, bool]:
    """Return the owner of an array's memory (`None` for NumPy), and whether all views down to it are read-only."""
    owner: Any = values
    fixed = True
    while True:
        if isinstance(owner, np.ndarray):
            fixed, owner = fixed and not owner.flags.writeable, owner.base
        elif isinstance(owner, memoryview):
            fixed, owner = fixed and owner.readonly, owner.obj
        else:
            break
    if isinstance(owner, mmap.mmap):
        fixed = fixed and memoryview(owner).readonly
    return owner, fixed


def _bits(values: Float[np.ndarray, "rows columns"]) -> Shaped[np.ndarray, "rows columns"]:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
