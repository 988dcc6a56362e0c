"""Reader for the page headers of a Parquet file: the number of values and the unpacked size of each page.

The footer and the headers are structs in Thrift's compact protocol: for each field, a byte with the field number's
increment and the field's type, then the value. A decoder allocates memory according to the page headers, so they bound
its memory, whereas the footer may contain anything. They are read here because pyarrow does not expose page headers,
and aborts the process when asked for the columns of some damaged footers. Damage raises `Malformed`.
"""

import mmap
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from slmrec_jax.data.readers.refusals import Malformed

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_MAX_DEPTH = 8
_MAX_VARINT_BYTES = 10
"""The maximum bytes of a 64-bit integer in groups of seven bits."""
_TAIL = 8
"""The bytes after the footer: its length in four bytes, and a magic number."""

# Fields as (number, type). A field of another type is skipped, like in decoders.
_ROW_GROUPS = (4, _LIST)  # of the footer
_GROUP_COLUMNS, _GROUP_ROWS = (1, _LIST), (3, _I64)  # of a row group
_CHUNK_META = (3, _STRUCT)  # of a column chunk
_NUM_VALUES, _FIRST_PAGE, _DICTIONARY_PAGE = (5, _I64), (9, _I64), (11, _I64)  # of that
_PAGE_TYPE, _UNPACKED_SIZE, _PACKED_SIZE = (1, _I32), (2, _I32), (3, _I32)  # of a page header

_DICTIONARY = 2
_PAGE_PARTS = {0: ((5, _STRUCT), 2), _DICTIONARY: ((7, _STRUCT), 2), 3: ((8, _STRUCT), 4)}
"""For each page type: the field that describes it, and the number of the encoding within that field. Decoders skip
other types."""
_PAGE_VALUES = (1, _I32)

_Struct: TypeAlias = dict[tuple[int, int], Any]
"""The integers, structs and lists of structs of a struct, by field."""


class ColumnChunk(NamedTuple):
    """The footer's description of a column in one row group."""

    num_rows: int
    start: int
    """The position of the first page."""
    num_values: int


class Page(NamedTuple):
    """The header of one page."""

    is_dictionary: bool
    values: int
    unpacked: int
    """The bytes after decompression."""
    encoding: int
    """Parquet's number of the encoding."""


def read_footer(data: mmap.mmap) -> list[list[ColumnChunk]]:
    """Return the column chunks of each row group in a file's footer, one per Parquet column, in order."""
    start = len(data) - _TAIL - int.from_bytes(data[len(data) - _TAIL : len(data) - _TAIL // 2], "little")
    footer = _Cursor(data, start).struct()
    return [
        [_column_chunk(column, group.get(_GROUP_ROWS, 0)) for column in group.get(_GROUP_COLUMNS, [])]
        for group in footer.get(_ROW_GROUPS, [])
    ]


def read_pages(data: mmap.mmap, chunk: ColumnChunk) -> Iterator[Page]:
    """Walk the pages of a column chunk like a decoder, until the number of values in the footer is reached."""
    _, place, num_values = chunk
    while num_values > 0:
        cursor = _Cursor(data, place)
        header, after = cursor.struct(), cursor.place
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


def _column_chunk(column: _Struct, num_rows: int) -> ColumnChunk:
    if _CHUNK_META not in column:
        raise Malformed("a column of its footer has no description")
    meta = column[_CHUNK_META]
    start, dictionary = meta.get(_FIRST_PAGE, 0), meta.get(_DICTIONARY_PAGE, 0)
    return ColumnChunk(num_rows, dictionary if 0 < dictionary < start else start, meta.get(_NUM_VALUES, 0))


class _Cursor:
    """A reader of consecutive values in Thrift's compact protocol, starting at a byte of the file."""

    def __init__(self, data: mmap.mmap, place: int) -> None:
        self.data, self.place = data, place

    def struct(self, depth: int = 0) -> _Struct:
        if depth > _MAX_DEPTH:
            raise Malformed(f"byte {self.place}: a header nested too deeply")
        fields: _Struct = {}
        seen: set[int] = set()
        number = 0
        while head := self.byte():
            kind, step = head & 15, head >> 4
            number = number + step if step else self.integer()
            if number in seen:
                raise Malformed(f"byte {self.place}: a header with a field twice")
            seen.add(number)
            if kind in (_LIST, _SET):
                fields[number, _LIST] = self.structs(depth + 1)
            elif kind in (_I32, _I64, _STRUCT):
                fields[number, kind] = self.value(kind, depth + 1)
            elif kind not in (_TRUE, _FALSE):  # their value is their type
                self.value(kind, depth + 1)
        return fields

    def structs(self, depth: int) -> list[_Struct]:
        """Read a list and return its structs; empty for a list of other values."""
        head = self.byte()
        kind, length = head & 15, head >> 4
        values = (self.value(kind, depth) for _ in range(self.varint() if length == 15 else length))
        return [value for value in values if kind == _STRUCT]

    def value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self.integer()
        if kind == _STRUCT:
            return self.struct(depth)
        if kind == _BINARY:
            return self.skip(self.varint())
        if kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):
            return self.skip(8 if kind == _DOUBLE else 1)
        raise Malformed(f"byte {self.place}: a header with a field of type {kind}")  # such as a map

    def integer(self) -> int:
        """Read a signed (zigzag) integer, whose lowest bit is the sign."""
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def varint(self) -> int:
        start, number = self.place, 0
        for group in range(_MAX_VARINT_BYTES):
            byte = self.byte()
            number |= (byte & 127) << (7 * group)
            if byte < 128:
                return number
        raise Malformed(f"byte {start}: a number in a header that does not end")

    def byte(self) -> int:
        self.skip(1)
        return self.data[self.place - 1]

    def skip(self, count: int) -> None:
        if not 0 <= self.place <= len(self.data) - count:
            raise Malformed(f"byte {self.place}: a header outside the file")
        self.place += count
