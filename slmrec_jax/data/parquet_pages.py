"""Reads the headers of a Parquet file's pages: how many values each holds, and what it unpacks to.

A page header is a struct in Thrift's compact protocol: for each field a byte with the distance to the field's number
and the field's type, then the value. The decoder allocates by these headers, so they bound its memory where the footer
of the file may say anything.
"""

import mmap
from collections.abc import Iterator
from typing import NamedTuple

from slmrec_jax.data.pickle_machine import Malformed

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12
_MAX_DEPTH = 4
_MAX_BYTES = 10
"""The bytes of a 64-bit integer in groups of seven bits."""

_TYPE, _UNPACKED_SIZE, _PACKED_SIZE = 1, 2, 3
"""Fields of a page header."""
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
"""Types of page; other types are skipped by decoders."""
_PARTS = {_DATA: (5, 1, 2), _DICTIONARY: (7, 1, 2), _DATA_V2: (8, 1, 4)}
"""By type of page: the field on it, and in that field those of the number of values and of the encoding."""


class Page(NamedTuple):
    """What the header of one page says."""

    is_dictionary: bool
    values: int
    unpacked: int
    """Bytes once decompressed."""
    encoding: int
    """Parquet's number of the encoding."""


def read_pages(data: mmap.mmap, start: int, num_values: int) -> Iterator[Page]:
    """Walk the pages of one column chunk, as a decoder does: until there are as many values as the footer says.

    Raises:
        Malformed: A header is damaged, or the file ends first.
    """
    place = start
    while num_values > 0:
        header, after = _struct(data, place, 0)
        unpacked, packed = (header.numbers.get(field, -1) for field in (_UNPACKED_SIZE, _PACKED_SIZE))
        if min(unpacked, packed) < 0 or packed > len(data) - after:
            raise Malformed(f"byte {place}: a page of {packed} bytes where {len(data) - after} are left")
        kind = header.numbers.get(_TYPE, -1)
        if kind in _PARTS:
            part, *fields = _PARTS[kind]
            numbers = header.parts[part].numbers if part in header.parts else {}
            values, encoding = (numbers.get(field, -1) for field in fields)
            if values < 0:
                raise Malformed(f"byte {place}: a page without a number of values")
            yield Page(kind == _DICTIONARY, values, unpacked, encoding)
            num_values -= values if kind != _DICTIONARY else 0
        place = after + packed


class _Struct(NamedTuple):
    """The fields of a struct by their numbers: those that are integers of 32 bits, and those that are structs."""

    numbers: dict[int, int]
    parts: dict[int, "_Struct"]


def _struct(data: mmap.mmap, place: int, depth: int) -> tuple[_Struct, int]:
    """A struct, and the byte after it."""
    if depth > _MAX_DEPTH:
        raise Malformed(f"byte {place}: a page header nested too deeply")
    fields = _Struct({}, {})
    number = 0
    while True:
        head = _byte(data, place)
        place += 1
        if head == 0:
            return fields, place
        kind, step = head & 15, head >> 4
        if step:
            number += step
        else:
            number, place = _integer(data, place)
        if number in fields.numbers or number in fields.parts:
            raise Malformed(f"byte {place}: a page header with a field twice")
        if kind == _I32:
            fields.numbers[number], place = _integer(data, place)
        elif kind == _STRUCT:
            fields.parts[number], place = _struct(data, place, depth + 1)
        elif kind in (_I16, _I64):
            _, place = _integer(data, place)
        elif kind == _BINARY:
            length, place = _varint(data, place)
            place += length
        elif kind in (_BYTE, _DOUBLE):
            place += 1 if kind == _BYTE else 8
        elif kind not in (_TRUE, _FALSE):  # lists, sets and maps: no page header has them
            raise Malformed(f"byte {place}: a page header with a field of type {kind}")


def _integer(data: mmap.mmap, place: int) -> tuple[int, int]:
    """A signed integer, whose lowest bit is its sign."""
    number, place = _varint(data, place)
    return (number >> 1) ^ -(number & 1), place


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    number = 0
    for group in range(_MAX_BYTES):
        byte = _byte(data, place + group)
        number |= (byte & 127) << (7 * group)
        if byte < 128:
            return number, place + group + 1
    raise Malformed(f"byte {place}: a number in a page header that does not end")


def _byte(data: mmap.mmap, place: int) -> int:
    if not 0 <= place < len(data):
        raise Malformed(f"byte {place}: a page header outside the file")
    return data[place]
