"""Reader for columns of Parquet files, with a limit on their unpacked size.

Runs of equal values take almost no space in a Parquet file: 590 KB can hold 64 million rows. The limit is therefore
checked before anything is decoded, using the page headers, and then again with the actual size of the text.
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
"""The bytes to which any file may unpack."""
FACTOR = 100
"""The multiple of its own size to which a larger file may unpack. Interaction tables sorted by user reach 50."""

_VALUE_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 8}
"""The bytes of a value by type; for text, the bytes besides its characters."""
_WIDEST = 16
"""The bytes of a value of any other type, unless the type is longer."""
_OFFSET = 8
"""The bytes of an offset of a list's values or a text's characters."""
_SHORT_OFFSETS = 2**31
"""The bytes of text from which an Arrow column with 32-bit offsets may be too small."""
_INDEXED, _PREFIXED = {2, 8}, {7}
"""Text encodings that store repetitions once: whole values, and the prefix that a value shares with the previous
one."""
_DELTAS = {6, 7}
"""Text encodings that Arrow does not read as indices into a dictionary."""


@dataclass
class _Measure:
    """The totals over the pages of a column."""

    unpacked: int = 0
    """The unpacked bytes according to the headers; text that is stored once counts once."""
    longest: int = 1
    """An upper bound on the bytes of a single text."""
    encodings: set[int] = field(default_factory=set)
    """The encodings of data pages."""


class _Budget:
    """A counter of the bytes that a file unpacks to, which enforces `limit`."""

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
    """Read columns as chunked arrays, expanding text that is stored once for many rows.

    `opened` is the same file as a `pyarrow.parquet.ParquetFile`. `names` are existing columns without repeats.

    Raises:
        UserError: The columns unpack to more than both `SMALL` bytes and `FACTOR` times the file's size, or a column
            holds something other than numbers, text, times or lists of numbers.
        Malformed: The page headers are damaged or contradict the footer.
        pyarrow.ArrowException, OSError: Arrow finds other damage.
    """
    schema = opened.schema_arrow  # rebuilt on each access
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
            table.validate(full=True)  # Arrow would accept text that is not UTF-8, and arbitrary offsets
            read = {name: _written_out(table.column(name), budget) for name in at_once}
        for name in stepwise:
            read[name] = _read_in_steps(again, name, kinds[name], SMALL // measures[name].longest, budget)
    return {name: read[name] for name in names}


def type_name(kind: Any) -> str:
    """Return the name of an Arrow type for error messages, without untrusted time zones and field names."""
    text = str(kind)[:80]
    return text if text.isprintable() else ascii(text)


def wrong_kind(file: Path, name: str, kind: str) -> UserError:
    """Make the error for a column of a type that no reader supports."""
    return UserError(f"{file}: {name[:MAX_SHOWN]!a} is a column of {kind}; expected numbers, text or lists of numbers")


def limit(file: Path) -> int:
    """Return the bytes to which a file may unpack."""
    return max(SMALL, FACTOR * file.stat().st_size)


def _written_out(column: Any, budget: _Budget) -> Any:
    """Expand a column, so that each row has its own value."""
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
    """Sum up the page headers of each column."""
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
        for end in range(1, len(parts) + 1):  # a list's numbers are nested in it: `v.list.element`
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
        if pa.types.is_fixed_size_list(kind):  # a missing list takes no space in the file, but full space in memory
            measure.unpacked += chunk.num_rows * kind.list_size * width


def _is_text_or_bytes(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
    )
