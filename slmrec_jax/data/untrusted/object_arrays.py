"""Reader for lists of ids in `.npy` object files, without the pickle module: nothing in the file is executed.

Such a file is a `.npy` header followed by a pickle. If all lists have the same length, NumPy may have written a plain
table instead, which is also accepted.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from slmrec_jax.data.readers.npy_files import NpyHeader, read_header, read_numbers
from slmrec_jax.data.readers.opening import reading_untrusted
from slmrec_jax.data.readers.refusals import Malformed
from slmrec_jax.data.untrusted.pickle_machine import LIST_OPCODES, Call, PickleKind, decode
from slmrec_jax.data.untrusted.pickled_arrays import ARRAY_NAMES, RECONSTRUCT, as_integer, describe_value, short_number

_LISTS_PICKLE = PickleKind("an array of lists", ARRAY_NAMES, LIST_OPCODES, max_opcodes=None)
_ARRAY_OF_LISTS = "a .npy array of lists of ids"


class IdLists(NamedTuple):
    """Concatenated lists of ids: list n is `ids[offsets[n] : offsets[n + 1]]`."""

    ids: Int[np.ndarray, " ids"]
    """The ids, int64 like `offsets`."""
    offsets: Int[np.ndarray, " lists+1"]


def read_lists(path: Path) -> IdLists:
    """Read an array of lists of integers from 0 to 2⁶³ - 1, pickled with protocol 2 to 5, or a plain table.

    A plain table has one list per row. Time is linear in the file's size, and memory is at most 160 times the file's
    size (`pickle_machine.decode`).
    """
    with reading_untrusted(path, _ARRAY_OF_LISTS):
        data = path.read_bytes()
        header = read_header(data)
        return _from_pickle(data, header) if header.dtype == object else _from_table(path)


def _from_table(path: Path) -> IdLists:
    table = read_numbers(path, _ARRAY_OF_LISTS)
    if table.ndim != 2 or table.dtype.kind not in "iu":
        raise Malformed(f"it is an array of {table.dtype} of shape {table.shape}")
    if table.size and not 0 <= int(table.min()) <= int(table.max()) < 2**63:
        raise Malformed(f"its ids are {table.min()} to {table.max()}")
    ids = table.astype(np.int64).reshape(-1)
    return IdLists(ids, np.arange(len(table) + 1, dtype=np.int64) * table.shape[1])


def _from_pickle(data: bytes, header: NpyHeader) -> IdLists:
    value, end = decode(data, _LISTS_PICKLE, header.start)
    if end != len(data):
        raise Malformed(f"byte {end}: {len(data) - end} bytes follow the end of the pickle")
    rows = _elements(value, header)
    lengths = np.array([len(row) for row in rows], np.int64)
    total = int(lengths.sum())
    if total > len(data):  # a repeated list takes space in the file only once
        raise Malformed(f"its lists have {total} ids in {len(data)} bytes")
    ids = np.fromiter((each for number, row in enumerate(rows) for each in _list_of_ids(number, row)), np.int64, total)
    return IdLists(ids, np.concatenate([[0], np.cumsum(lengths)]))


def _elements(value: Any, header: NpyHeader) -> list[list[Any]]:
    """Check that the header and the pickle agree, and return the lists of the array."""
    if not isinstance(value, Call) or value.name not in RECONSTRUCT:
        raise Malformed(f"it holds {describe_value(value)}")
    if not isinstance(value.state, tuple) or len(value.state) != 5:
        raise Malformed("its array is in a form that NumPy does not write")
    elements, shape = value.state[4], header.shape
    if not isinstance(elements, list) or len(elements) != math.prod(shape):
        found = f"{len(elements)} elements" if isinstance(elements, list) else describe_value(elements)
        raise Malformed(f"its array has {found} for a shape of {shape}")
    if len(shape) == 2 and shape[1] > 0 and not header.fortran_order:  # lists of equal length
        return [elements[start : start + shape[1]] for start in range(0, len(elements), shape[1])]
    if len(shape) != 1:
        raise Malformed(f"it is an array of shape {shape}; expected one dimension of lists")
    for number, element in enumerate(elements):
        if not isinstance(element, list):
            raise Malformed(f"element {number} is {describe_value(element)}; expected a list of ids")
    return elements


def _list_of_ids(number: int, row: list[Any]) -> list[int]:
    ids = [as_integer(each, f"list {number}") for each in row]
    for each in ids:
        if not 0 <= each < 2**63:
            raise Malformed(f"list {number} has the id {short_number(each)}")
    return ids
