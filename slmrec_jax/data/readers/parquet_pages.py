"""Reads the headers of a Parquet file's pages: how many values each page holds, and its size once unpacked.

The footer and the headers are structs in Thrift's compact protocol: for each field a byte with the distance to the
field's number and the field's type, then the value. A decoder allocates by the headers of the pages, so they bound its
memory, while the footer may say anything. They are read here because pyarrow does not expose page headers, and aborts
the process when it is asked for the columns of some damaged footers.
"""

import mmap
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from slmrec_jax.data.readers.refusals import Malformed

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_MAX_DEPTH = 8
_MAX_BYTES = 10
"""Bytes of a 64-bit integer in groups of seven bits."""
_TAIL = 8
"""Bytes after the footer: its length, in four, and a mark."""

# Fields as (number, type): one of another type is passed over, as decoders do.
_ROW_GROUPS = (4, _LIST)  # of the footer
_GROUP_COLUMNS, _GROUP_ROWS = (1, _LIST), (3, _I64)  # of a row group
_CHUNK_META = (3, _STRUCT)  # of a column chunk
_NUM_VALUES, _FIRST_PAGE, _DICTIONARY_PAGE = (5, _I64), (9, _I64), (11, _I64)  # of that
_PAGE_TYPE, _UNPACKED_SIZE, _PACKED_SIZE = (1, _I32), (2, _I32), (3, _I32)  # of a page header

_DICTIONARY = 2
_PAGE_PARTS = {0: ((5, _STRUCT), 2), _DICTIONARY: ((7, _STRUCT), 2), 3: ((8, _STRUCT), 4)}
"""By type of page: the field that describes it, and in that one the number of the encoding. Decoders skip others."""
_PAGE_VALUES = (1, _I32)

_Struct: TypeAlias = dict[tuple[int, int], Any]
"""Integers, structs and lists of structs by field."""


class ColumnChunk(NamedTuple):
    """The footer's description of a column in one row group."""

    start: int
    """The first byte of the first page."""
    num_values: int


class RowGroup(NamedTuple):
    """The footer's description of a row group."""

    num_rows: int
    chunks: tuple[ColumnChunk, ...]
    """One for each of Parquet's columns, in order."""


class Page(NamedTuple):
    """The header of one page."""

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
    footer, _ = _read_struct(data, start, 0)
    return [
        RowGroup(group.get(_GROUP_ROWS, 0), tuple(map(_column_chunk, group.get(_GROUP_COLUMNS, []))))
        for group in footer.get(_ROW_GROUPS, [])
    ]


def _column_chunk(column: _Struct) -> ColumnChunk:
    if _CHUNK_META not in column:
        raise Malformed("a column of its footer has no description")
    meta = column[_CHUNK_META]
    start, dictionary = meta.get(_FIRST_PAGE, 0), meta.get(_DICTIONARY_PAGE, 0)
    return ColumnChunk(dictionary if 0 < dictionary < start else start, meta.get(_NUM_VALUES, 0))


def read_pages(data: mmap.mmap, chunk: ColumnChunk) -> Iterator[Page]:
    """Walk the pages of one column chunk as a decoder does: until there are as many values as the footer says.

    Raises:
        Malformed: A header is damaged, or the file ends first.
    """
    place, num_values = chunk
    while num_values > 0:
        header, after = _read_struct(data, place, 0)
        unpacked, packed = header.get(_UNPACKED_SIZE, -1), header.get(_PACKED_SIZE, -1)
        if min(unpacked, packed) < 0 or packed > len(data) - after:
            raise Malformed(f"byte {place}: a page of {packed} bytes where {len(data) - after} are left")
        kind = header.get(_PAGE_TYPE, -1)
        if kind in _PAGE_PARTS:
            part, encoding = _PAGE_PARTS[kind]
            numbers = header.get(part, {})
            values = numbers.get(_PAGE_VALUES, -1)
            if values < 0:
                raise Malformed(f"byte {place}: a page without a number of values")
            yield Page(kind == _DICTIONARY, values, unpacked, numbers.get((encoding, _I32), -1))
            num_values -= values if kind != _DICTIONARY else 0
        place = after + packed


def _read_struct(data: mmap.mmap, place: int, depth: int) -> tuple[_Struct, int]:
    """Return a struct and the byte after it."""
    if depth > _MAX_DEPTH:
        raise Malformed(f"byte {place}: a header nested too deeply")
    fields: _Struct = {}
    seen: set[int] = set()
    number = 0
    while head := _byte(data, place):
        kind, step = head & 15, head >> 4
        place += 1
        if step:
            number += step
        else:
            number, place = _read_integer(data, place)
        if number in seen:
            raise Malformed(f"byte {place}: a header with a field twice")
        seen.add(number)
        if kind in (_I32, _I64):
            fields[number, kind], place = _read_integer(data, place)
        elif kind == _STRUCT:
            fields[number, kind], place = _read_struct(data, place, depth + 1)
        elif kind in (_LIST, _SET):
            fields[number, _LIST], place = _read_list(data, place, depth + 1)
        elif kind not in (_TRUE, _FALSE):  # whose value is their type
            place = _skip(data, place, kind)
    return fields, place + 1


def _read_list(data: mmap.mmap, place: int, depth: int) -> tuple[list[_Struct], int]:
    """Return the structs of a list, none for a list of other things, and the byte after it."""
    head = _byte(data, place)
    kind, length = head & 15, head >> 4
    place += 1
    if length == 15:
        length, place = _read_varint(data, place)
    structs = []
    for _ in range(length):
        if kind == _STRUCT:
            made, place = _read_struct(data, place, depth)
            structs.append(made)
        else:
            place = _skip(data, place, kind)
            _byte(data, place)  # a list may claim any length
    return structs, place


def _skip(data: mmap.mmap, place: int, kind: int) -> int:
    """Return the byte after a plain value."""
    if kind in (_I16, _I32, _I64):
        return _read_varint(data, place)[1]
    if kind == _BINARY:
        length, place = _read_varint(data, place)
        return place + length
    if kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):
        return place + (8 if kind == _DOUBLE else 1)
    raise Malformed(f"byte {place}: a header with a field of type {kind}")  # no header has lists of lists, or maps


def _read_integer(data: mmap.mmap, place: int) -> tuple[int, int]:
    """Return a signed integer, whose lowest bit is its sign, and the byte after it."""
    number, place = _read_varint(data, place)
    return (number >> 1) ^ -(number & 1), place


def _read_varint(data: mmap.mmap, place: int) -> tuple[int, int]:
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
