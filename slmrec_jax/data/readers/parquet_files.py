"""Reads columns of Parquet files within a bound on what they unpack to.

Runs of equal values take almost no room in a Parquet file: 590 KB can hold 64 million rows. So the bound is checked
before anything is decoded, on what the headers of the pages say, and then on what the text adds up to.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from slmrec_jax.data.readers.parquet_pages import ColumnChunk, read_footer, read_pages
from slmrec_jax.data.readers.refusals import MAX_SHOWN, Malformed
from slmrec_jax.errors import UserError

SMALL = 2**27
"""Bytes that any file may unpack to."""
FACTOR = 100
"""How many times its own size a larger file may unpack to. Tables of interactions, sorted by user, reach 50."""

_VALUE_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 8}
"""Bytes of a value; for text, what it takes beside its characters."""
_WIDEST = 16
"""Bytes of a value of any other type that is not longer itself."""
_OFFSET = 8
"""Bytes of the offset of a list's value or of a text's characters."""
_SHORT_OFFSETS = 2**31
"""Bytes of text that may not fit into an Arrow column with 32-bit offsets."""
_INDEXED, _PREFIXED = {2, 8}, {7}
"""Encodings of text that store once what repeats: whole values, and the prefix that a value shares with the last."""
_DELTAS = {6, 7}
"""Encodings of text that Arrow does not read as indices into a dictionary."""


@dataclass
class _Measure:
    """What the pages of a column add up to."""

    unpacked: int = 0
    """Bytes, as far as the headers tell: text that is stored once counts once."""
    longest: int = 1
    """No text takes more bytes."""
    encodings: set[int] = field(default_factory=set)
    """The encodings of data pages."""


class _Budget:
    """The bytes that a file unpacks to so far, within `limit`."""

    def __init__(self, file: Path) -> None:
        self._file, self._spent = file, 0

    def spend(self, size: int) -> None:
        self._spent += size
        if self._spent > limit(self._file):
            raise UserError(
                f"{self._file}: unpacks to {self._spent >> 20} MiB or more; expected at most {SMALL >> 20} MiB or "
                f"{FACTOR} times the file's size: if you trust it, write it again without compression and dictionaries"
            )


def read_columns(file: Path, opened: Any, names: Sequence[str]) -> dict[str, Any]:
    """Read columns as chunked arrays; text that is stored once for many rows is written out.

    `opened` is the same file as a `pyarrow.parquet.ParquetFile`, and `names` are columns that it has, each once.

    Raises:
        UserError: They unpack to more than `SMALL` bytes and `FACTOR` times the file's size, or a column holds
            something other than numbers, text, times or lists of numbers.
        Malformed: The headers of the pages are damaged, or contradict the footer.
        pyarrow.ArrowException, OSError: Arrow finds other damage.
    """
    schema = opened.schema_arrow  # made from scratch each time
    kinds = {name: schema.field(name).type for name in names}
    measures = _measure_columns(file, opened, kinds)
    budget = _Budget(file)
    budget.spend(sum(measure.unpacked for measure in measures.values()))
    texts = {name: measures[name].encodings for name in names if _is_text_or_bytes(kinds[name])}
    repeated = [name for name, encodings in texts.items() if encodings & (_INDEXED | _PREFIXED)]
    stepwise = [name for name in repeated if texts[name] & _DELTAS]
    at_once = [name for name in names if name not in stepwise]
    by_index = [name for name in repeated if name not in stepwise]
    read = {}
    with file.open("rb") as raw, pyarrow.parquet.ParquetFile(raw, read_dictionary=by_index) as again:
        if at_once:
            table = again.read(columns=at_once)
            table.validate(full=True)  # Arrow would take text that is not UTF-8, or offsets that point anywhere
            read = {name: _written_out(table.column(name), budget) for name in at_once}
        for name in stepwise:
            read[name] = _read_in_steps(again, name, kinds[name], SMALL // measures[name].longest, budget)
    return {name: read[name] for name in names}


def type_name(kind: Any) -> str:
    """Return the name of an Arrow type for an error line: time zones and names of fields are a file's own words."""
    text = str(kind)[:80]
    return text if text.isprintable() else ascii(text)


def wrong_kind(file: Path, name: str, kind: str) -> UserError:
    """Return the error for a column of a type that no reader knows."""
    return UserError(f"{file}: {name[:MAX_SHOWN]!a} is a column of {kind}; expected numbers, text or lists of numbers")


def limit(file: Path) -> int:
    """Return how many bytes a file may unpack to."""
    return max(SMALL, FACTOR * file.stat().st_size)


def _written_out(column: Any, budget: _Budget) -> Any:
    """Return the column with a value of its own in each row."""
    if not pa.types.is_dictionary(column.type):
        return column
    size = 0
    for chunk in column.chunks:
        lengths = pc.add(pc.cast(pc.binary_length(chunk.dictionary), pa.int64()), _OFFSET)
        size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    budget.spend(size)
    kind = column.type.value_type
    return column.cast(pa.large_string() if size >= _SHORT_OFFSETS and pa.types.is_string(kind) else kind)


def _read_in_steps(opened: Any, name: str, kind: Any, rows: int, budget: _Budget) -> Any:
    chunks = []
    for batch in opened.iter_batches(max(1, rows), columns=[name]):
        batch.validate(full=True)
        budget.spend(batch.nbytes)
        chunks.append(batch.column(0))
    return pa.chunked_array(chunks, kind)


def _measure_columns(file: Path, opened: Any, kinds: dict[str, Any]) -> dict[str, _Measure]:
    """Add up what the headers of each column's pages say."""
    for name, kind in kinds.items():
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if pa.types.is_nested(kind) and not (is_list and pa.types.is_primitive(kind.value_type)):
            raise wrong_kind(file, name, type_name(kind))
    with file.open("rb") as raw:
        data = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    measures = {name: _Measure() for name in kinds}
    groups = read_footer(data)
    if any(len(chunks) != len(opened.schema) for chunks in groups):
        raise Malformed(f"a row group does not have the {len(opened.schema)} columns of the file")
    for place in range(len(opened.schema)):
        column = opened.schema.column(place)
        chunks = [group[place] for group in groups]
        parts = column.path.split(".")
        for end in range(1, len(parts) + 1):  # a list's numbers are a part of it: `v.list.element`
            if (name := ".".join(parts[:end])) in kinds:
                _add_pages(measures[name], file, data, column, chunks, kinds[name])
    return measures


def _add_pages(
    measure: _Measure, file: Path, data: mmap.mmap, column: Any, chunks: Sequence[ColumnChunk], kind: Any
) -> None:
    """Add the pages of one of Parquet's columns to a measure."""
    if column.physical_type == "BYTE_ARRAY" and not _is_text_or_bytes(kind):
        raise wrong_kind(file, column.path, f"{type_name(kind)} of any length")
    width = _VALUE_WIDTHS.get(column.physical_type, max(column.length, _WIDEST))
    if pa.types.is_nested(kind):
        width += _OFFSET
    for chunk in chunks:
        values = 0
        for page in read_pages(data, chunk):
            measure.longest = max(measure.longest, page.unpacked)
            measure.unpacked += page.unpacked if page.is_dictionary else max(page.unpacked, page.values * width)
            if not page.is_dictionary:
                values += page.values
                measure.encodings.add(page.encoding)
        if values < chunk.num_rows:
            raise Malformed(f"its footer says {chunk.num_rows} rows, its pages {values} values of {column.path!a}")
        if pa.types.is_fixed_size_list(kind):  # a missing list takes no room in the file, but all of it in memory
            measure.unpacked += chunk.num_rows * kind.list_size * width


def _is_text_or_bytes(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
    )
