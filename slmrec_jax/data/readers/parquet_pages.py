"""Reads where a Parquet file's pages are and what their headers say: how many values each holds, and its size unpacked.

The footer and the headers are structs in Thrift's compact protocol: for each field a byte with the distance to the
field's number and the field's type, then the value. A decoder allocates by the headers of the pages, so they bound its
memory where the footer may say anything. They are read here because pyarrow does not give page headers, and ends the
process where it is asked for the columns of some damaged footers.
"""

import mmap
from collections.abc import Iterator
from typing import NamedTuple

from slmrec_jax.data.untrusted.pickle_machine import Malformed

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_MAX_DEPTH = 8
_MAX_BYTES = 10
"""The bytes of a 64-bit integer in groups of seven bits."""
_TAIL = 8
"""Bytes after the footer: its length and a mark."""

_ROW_GROUPS = 4
"""A field of the footer."""
_COLUMNS, _NUM_ROWS = 1, 3
"""Fields of a row group."""
_META = 3
"""A field of a column chunk."""
_NUM_VALUES, _DATA_PAGE, _DICTIONARY_PAGE = 5, 9, 11
"""Fields of that: the number of values, and where the first page of data and that of the dictionary are."""
_TYPE, _UNPACKED_SIZE, _PACKED_SIZE = 1, 2, 3
"""Fields of a page header."""
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
"""Types of page; other types are skipped by decoders."""
_PARTS = {_DATA: (5, 1, 2), _DICTIONARY: (7, 1, 2), _DATA_V2: (8, 1, 4)}
"""By type of page: the field on it, and in that field those of the number of values and of the encoding."""


class Chunk(NamedTuple):
    """What the footer says of a column in one row group."""

    start: int
    """The first byte of the first page."""
    num_values: int


class RowGroup(NamedTuple):
    """What the footer says of a row group."""

    num_rows: int
    chunks: tuple[Chunk, ...]
    """One for each of Parquet's columns, in order."""


class Page(NamedTuple):
    """What the header of one page says."""

    is_dictionary: bool
    values: int
    unpacked: int
    """Bytes once decompressed."""
    encoding: int
    """Parquet's number of the encoding."""


def read_footer(data: mmap.mmap) -> list[RowGroup]:
    """Read the row groups that a file's footer lists.

    Raises:
        Malformed: It is damaged.
    """
    start = len(data) - _TAIL - int.from_bytes(data[len(data) - _TAIL : len(data) - _TAIL // 2], "little")
    footer, _ = _struct(data, start, 0)
    return [
        RowGroup(group.longs.get(_NUM_ROWS, 0), tuple(map(_chunk, group.lists.get(_COLUMNS, []))))
        for group in footer.lists.get(_ROW_GROUPS, [])
    ]


def _chunk(column: "_Struct") -> Chunk:
    if _META not in column.parts:
        raise Malformed("a column of its footer has no description")
    longs = column.parts[_META].longs
    start, dictionary = longs.get(_DATA_PAGE, 0), longs.get(_DICTIONARY_PAGE, 0)
    return Chunk(dictionary if 0 < dictionary < start else start, longs.get(_NUM_VALUES, 0))


def read_pages(data: mmap.mmap, chunk: Chunk) -> Iterator[Page]:
    """Walk the pages of one column chunk, as a decoder does: until there are as many values as the footer says.

    Raises:
        Malformed: A header is damaged, or the file ends first.
    """
    place, num_values = chunk
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
    """Fields of a struct by their numbers: integers of 32 and of 64 bits, structs, and lists of structs."""

    numbers: dict[int, int]
    longs: dict[int, int]
    parts: dict[int, "_Struct"]
    lists: dict[int, "list[_Struct]"]


def _struct(data: mmap.mmap, place: int, depth: int) -> tuple[_Struct, int]:
    """A struct, and the byte after it."""
    if depth > _MAX_DEPTH:
        raise Malformed(f"byte {place}: a header nested too deeply")
    fields = _Struct({}, {}, {}, {})
    seen: set[int] = set()
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
        if number in seen:
            raise Malformed(f"byte {place}: a header with a field twice")
        seen.add(number)
        if kind == _I32:
            fields.numbers[number], place = _integer(data, place)
        elif kind == _I64:
            fields.longs[number], place = _integer(data, place)
        elif kind == _STRUCT:
            fields.parts[number], place = _struct(data, place, depth + 1)
        elif kind in (_LIST, _SET):
            fields.lists[number], place = _list(data, place, depth + 1)
        elif kind not in (_TRUE, _FALSE):  # whose value is their type
            place = _skip(data, place, kind)


def _list(data: mmap.mmap, place: int, depth: int) -> tuple[list[_Struct], int]:
    """The structs of a list, or nothing of a list of other things; and the byte after it."""
    head = _byte(data, place)
    kind, length = head & 15, head >> 4
    place += 1
    if length == 15:
        length, place = _varint(data, place)
    structs = []
    for _ in range(length):
        if kind == _STRUCT:
            made, place = _struct(data, place, depth)
            structs.append(made)
        else:
            place = _skip(data, place, kind)
            _byte(data, place)  # a list may claim any length
    return structs, place


def _skip(data: mmap.mmap, place: int, kind: int) -> int:
    """The byte after a plain value."""
    if kind in (_I16, _I32, _I64):
        return _varint(data, place)[1]
    if kind == _BINARY:
        length, place = _varint(data, place)
        return place + length
    if kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):
        return place + (8 if kind == _DOUBLE else 1)
    raise Malformed(f"byte {place}: a header with a field of type {kind}")  # no header has lists of lists, or maps


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
    raise Malformed(f"byte {place}: a number in a header that does not end")


def _byte(data: mmap.mmap, place: int) -> int:
    if not 0 <= place < len(data):
        raise Malformed(f"byte {place}: a header outside the file")
    return data[place]
