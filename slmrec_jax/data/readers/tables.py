"""Reader for text and Parquet tables as columns by name; `columns` and `raw_ids` convert the values.

In error messages, rows are counted from 1, including the header but not blank lines, like in Arrow.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Int

from slmrec_jax.data.readers.headers import find_columns
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.parquet_files import read_columns, type_name
from slmrec_jax.data.readers.refusals import Malformed, listed, short_name, shown_value
from slmrec_jax.data.readers.text_files import first_line, has_line_breaks, open_bytes
from slmrec_jax.errors import UserError, one_line

_BLOCK = 2**24
"""The bytes of text that are parsed together. A row must fit into them."""


class Table(NamedTuple):
    """Columns of one file, by name, as Arrow arrays. Columns of text files are strings."""

    file: Path
    columns: dict[str, Any]
    first: int
    """The number of the first row in error messages: 2 below a header, 1 without a header, 0 in memory."""
    rows: Int[np.ndarray, " entries"] | None = None
    """The row of the file, not counting the header, that each value comes from. By default the values are in file
    order."""

    @property
    def in_memory(self) -> bool:
        """Whether the columns were given in memory; `file` is then the caller's name for them."""
        return self.first == 0

    def row(self, index: int) -> str:
        """Describe the place of the value at an index, for error messages."""
        number = index if self.rows is None else int(self.rows[index])
        return f"{self.file}: row {number + self.first}"

    def value(self, name: str, index: int) -> str:
        """Format a value for error messages."""
        stored = self.columns[name][index]
        try:
            found = stored.as_py()
        except (pa.ArrowException, ValueError, OverflowError, KeyError):  # a time that Python cannot represent
            return f"a {type_name(stored.type)} that cannot be shown on this machine"
        return shown_value(found)

    def refusal(self, name: str, index: int, expected: str) -> UserError:
        """Make the error for an unexpected value."""
        return UserError(f"{self.row(index)}: {short_name(name)} is {self.value(name, index)}; expected {expected}")

    def wrong_type(self, name: str, expected: str) -> UserError:
        """Make the error for a column of an unexpected type."""
        found = type_name(self.columns[name].type)
        return UserError(f"{self.file}: {short_name(name)} is a column of {found}; expected {expected}")


def read_text(
    file: Path,
    separator: str,
    wanted: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    quotes: bool = False,
    blank_lines: bool = False,
) -> Table:
    """Read columns of a text table. Other columns may hold anything.

    Args:
        file: The file: UTF-8, or UTF-16 with a byte-order mark; line ends of any system; compressed or not.
        separator: The usual separator. A different one is used if the first row shows it.
        wanted: The required columns.
        names: The column names in order, if the first row does not have them. The file may have fewer columns.
        optional: The columns to read if they exist.
        quotes: Whether `"` encloses a cell.
        blank_lines: Whether a blank line is an empty cell in a table of one column.
    """
    blocks, first = text_blocks(
        file, separator, wanted, names=names, optional=optional, quotes=quotes, blank_lines=blank_lines
    )
    table = pa.Table.from_batches(blocks)
    return Table(file, dict(zip(table.column_names, table.columns, strict=True)), first)


def text_blocks(
    file: Path,
    separator: str,
    wanted: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    quotes: bool = False,
    blank_lines: bool = False,
) -> tuple[Iterator[Any], int]:
    """Return columns of a text table as at least one Arrow record batch, and the number of the first row.

    For the arguments, see `read_text`.
    """
    with _refusing_bad_compression(file):
        check_file(file, "a table")
        line = first_line(file)
        separator, given = find_columns(file, line, separator, wanted, names, quotes)
        chosen = choose_names(file, given, wanted, optional)
    blank_lines = blank_lines and len(given) == 1
    places = {str(given.index(name)): name for name in chosen}
    blocks = _parse_text(file, separator, line.encoding, len(given), list(places), quotes, blank_lines)
    named = (block.rename_columns(list(places.values())) for block in blocks)
    return (named if names is not None else _below_names(named, blank_lines)), 1 + (names is None)


def _below_names(blocks: Iterator[Any], blank_lines: bool) -> Iterator[Any]:
    """Drop the header and the blank lines before it."""
    seen = False
    for block in blocks:
        if seen:
            yield block
            continue
        first = pc.index(pc.equal(block.column(0), ""), False).as_py() if blank_lines else 0
        seen = first >= 0 and len(block) > 0
        yield block.slice(first + 1 if seen else len(block))


@contextmanager
def _refusing_bad_compression(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"{file}: damaged ({one_line(error)}); write it again") from error


def read_parquet(file: Path, wanted: Sequence[str], *, optional: Sequence[str] = ()) -> Table:
    """Read columns of a Parquet file."""
    check_file(file, "a table")
    try:
        # Opened by Python, since Arrow accepts only UTF-8 paths.
        with file.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as opened:
            chosen = choose_names(file, opened.schema_arrow.names, wanted, optional)
            columns = read_columns(file, opened, chosen)
    except (pa.ArrowException, OSError, UnicodeDecodeError, Malformed) as error:  # OSError: damaged pages
        raise UserError(f"{file}: not a readable Parquet file ({one_line(error)}); write it again") from error
    return Table(file, columns, first=1)


def choose_names(file: Path, given: Sequence[str], wanted: Sequence[str], optional: Sequence[str] = ()) -> list[str]:
    """Return the columns to read: the wanted ones, which must exist, and the optional ones that exist."""
    counts = Counter(given)
    for name in wanted:
        if name not in counts:
            raise UserError(f"{file}: there is no column {name!r}; it has {listed(given)}")
    chosen = [*wanted, *(name for name in optional if name in counts)]
    for name in chosen:
        if counts[name] > 1:
            raise UserError(f"{file}: there is more than one column {name!r}; keep one")
    return chosen


def _parse_text(
    file: Path, separator: str, encoding: str, width: int, places: list[str], quotes: bool, blank_lines: bool
) -> Iterator[Any]:
    """Yield some columns as strings. The header is included as a row."""
    reading = pyarrow.csv.ReadOptions(
        use_threads=False,  # with one thread, errors name the row
        block_size=_BLOCK,
        column_names=[str(place) for place in range(width)],
        encoding=encoding,
    )
    parsing = pyarrow.csv.ParseOptions(
        delimiter=separator,
        quote_char='"' if quotes else False,
        newlines_in_values=quotes and has_line_breaks(file, separator, encoding),
        ignore_empty_lines=not blank_lines,
    )
    converting = pyarrow.csv.ConvertOptions(
        include_columns=places, column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
    )
    try:
        with _refusing_bad_compression(file), open_bytes(file) as opened:
            yield from pyarrow.csv.open_csv(opened, reading, parsing, converting)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            fix = "save the table as UTF-8"
        else:
            fix = f"expected the same columns in every row, separated by {separator!r}"
        raise UserError(f"{file}: {one_line(error)}; {fix}") from error
