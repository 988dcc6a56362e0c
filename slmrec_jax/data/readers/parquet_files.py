"""Reads columns of Parquet files within a bound on what they unpack to.

Runs of equal values take next to no room in a Parquet file: 590 KB can hold 64 million rows. So the bound is checked
before anything is decoded, on what the headers of the pages say, and then on what the text adds up to.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from slmrec_jax.data.readers.parquet_pages import Chunk, read_footer, read_pages
from slmrec_jax.data.untrusted.pickle_machine import Malformed
from slmrec_jax.errors import UserError

SMALL = 2**27
"""Bytes that any file may unpack to."""
FACTOR = 100
"""How many times its own size a larger file may unpack to. Tables of interactions, sorted by user, reach 50."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 8}
"""Bytes of a value; of text, what it takes beside its letters."""
_WIDEST = 16
"""Bytes of a value of any other type that is not longer itself."""
_PLACE = 8
"""Bytes of a value's place in a list, or of a text's place among the letters."""
_SHORT = 2**31
"""Letters of a column from which on Arrow's short type of text may be too short."""
_INDEXED, _PREFIXED = {2, 8}, {7}
"""Encodings of text that store what repeats once: whole values, and what a value starts with as the one before."""
_DELTAS = {6, 7}
"""Encodings of text that Arrow does not read as places in a dictionary."""


class _Column(NamedTuple):
    """What the pages of a column say together."""

    unpacked: int
    """Bytes, as far as the headers tell: of text that is stored once, those of the one."""
    longest: int
    """No text takes more bytes."""
    encodings: frozenset[int]
    """Those of data pages."""


def read_columns(file: Path, opened: Any, names: Sequence[str]) -> dict[str, Any]:
    """Read columns as chunked arrays; text that is stored once for many rows is written out.

    Args:
        file: The file.
        opened: The same as a `pyarrow.parquet.ParquetFile`.
        names: Columns that are there, each once.

    Raises:
        UserError: They unpack to more than `SMALL` bytes and `FACTOR` times the file's size, or a column holds other
            than numbers, text, times or lists of numbers.
        Malformed: The headers of the pages are damaged, or contradict the footer.
        pyarrow.ArrowException, OSError: Arrow finds other damage.
    """
    schema = opened.schema_arrow  # made from scratch each time
    kinds = {name: schema.field(name).type for name in names}
    columns = _columns(file, opened, kinds)
    total = sum(column.unpacked for column in columns.values())
    _check(file, total)
    texts = {name: columns[name].encodings for name in names if _is_text_or_bytes(kinds[name])}
    repeated = [name for name, encodings in texts.items() if encodings & (_INDEXED | _PREFIXED)]
    stepwise = {name for name in repeated if texts[name] & _DELTAS}
    by_index = [name for name in repeated if name not in stepwise]
    read = {}
    with file.open("rb") as raw, pyarrow.parquet.ParquetFile(raw, read_dictionary=by_index) as again:
        if others := [name for name in names if name not in stepwise]:
            table = again.read(columns=others)
            table.validate(full=True)  # Arrow would take text that is no UTF-8, or offsets that point anywhere
            read = {name: table.column(name) for name in others}
        for name in read:
            if pa.types.is_dictionary(read[name].type):
                size = _size_of_text(read[name])
                total += size
                _check(file, total)
                kind = read[name].type.value_type
                read[name] = read[name].cast(pa.large_string() if size >= _SHORT and pa.types.is_string(kind) else kind)
        for name in stepwise:
            chunks = []
            for batch in again.iter_batches(max(1, SMALL // columns[name].longest), columns=[name]):
                batch.validate(full=True)
                total += batch.nbytes
                _check(file, total)
                chunks.append(batch.column(0))
            read[name] = pa.chunked_array(chunks, kinds[name])
    return {name: read[name] for name in names}


def type_name(kind: Any) -> str:
    """The name of a type of Arrow, fit for an error line: time zones and names of parts are a file's own words."""
    text = str(kind)[:80]
    return text if text.isprintable() else ascii(text)


def limit(file: Path) -> int:
    """How many bytes a file may unpack to."""
    return max(SMALL, FACTOR * file.stat().st_size)


def _check(file: Path, size: int) -> None:
    if size > limit(file):
        raise UserError(
            f"{file}: unpacks to {size >> 20} MiB or more; expected at most {SMALL >> 20} MiB or {FACTOR} times the "
            f"file's size: if you trust it, write it again without compression and dictionaries"
        )


def _columns(file: Path, opened: Any, kinds: dict[str, Any]) -> dict[str, _Column]:
    """Add up what the headers of each column's pages say."""
    for name, kind in kinds.items():
        if pa.types.is_nested(kind) and not _is_list_of_numbers(kind):
            _refuse(file, name, type_name(kind))
    with file.open("rb") as raw:
        data = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    columns = {name: _Column(0, 1, frozenset()) for name in kinds}
    groups = read_footer(data)
    if any(len(group.chunks) != len(opened.schema) for group in groups):
        raise Malformed(f"a row group has other than the {len(opened.schema)} columns of the file")
    for place in range(len(opened.schema)):
        column = opened.schema.column(place)
        chunks = [(group.num_rows, group.chunks[place]) for group in groups]
        parts = column.path.split(".")
        for end in range(1, len(parts) + 1):  # a list's numbers are a part of it: `v.list.element`
            if (name := ".".join(parts[:end])) in kinds:
                columns[name] = _measure(file, data, column, chunks, kinds[name], columns[name])
    return columns


def _measure(
    file: Path, data: mmap.mmap, column: Any, chunks: Sequence[tuple[int, Chunk]], kind: Any, before: _Column
) -> _Column:
    """Add the pages of one of Parquet's columns, given as the rows and the place of each chunk, to those before."""
    if column.physical_type == "BYTE_ARRAY" and not _is_text_or_bytes(kind):
        _refuse(file, column.path, f"{type_name(kind)} of any length")
    unpacked, longest, encodings = before.unpacked, before.longest, set(before.encodings)
    width = _WIDTHS.get(column.physical_type, max(column.length, _WIDEST))
    if pa.types.is_nested(kind):
        width += _PLACE
    for num_rows, chunk in chunks:
        values = 0
        for page in read_pages(data, chunk):
            longest = max(longest, page.unpacked)
            unpacked += page.unpacked if page.is_dictionary else max(page.unpacked, page.values * width)
            if not page.is_dictionary:
                values += page.values
                encodings.add(page.encoding)
        if values < num_rows:
            raise Malformed(f"its footer says {num_rows} rows, its pages {values} values of {column.path!a}")
        if pa.types.is_fixed_size_list(kind):  # a missing list takes no room in the file, and that of all in memory
            unpacked += num_rows * kind.list_size * width
    return _Column(unpacked, longest, frozenset(encodings))


def _size_of_text(column: Any) -> int:
    """The bytes that text takes once each row has its own."""
    total = 0
    for chunk in column.chunks:
        lengths = pc.add(pc.cast(pc.binary_length(chunk.dictionary), pa.int64()), _PLACE)
        total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _is_text_or_bytes(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    return any(
        is_so(kind)
        for is_so in (
            *(types.is_string, types.is_large_string, types.is_string_view),
            *(types.is_binary, types.is_large_binary, types.is_binary_view),
        )
    )


def _is_list_of_numbers(kind: Any) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_primitive(kind.value_type))


def _refuse(file: Path, name: str, kind: str) -> NoReturn:
    raise UserError(f"{file}: {name[:40]!a} is a column of {kind}; expected numbers, text or lists of numbers")
