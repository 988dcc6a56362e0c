"""Reads tables of text and of Parquet; what their columns hold is looked at in `columns`.

Rows are counted from 1 in error lines, the header among them and blank lines left out, as Arrow counts them.
"""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Bool, Int

from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.parquet_files import read_columns, type_name
from slmrec_jax.data.readers.text_files import first_line, has_line_breaks, open_bytes, uncompressed
from slmrec_jax.data.untrusted.pickle_machine import Malformed
from slmrec_jax.errors import UserError, escaped

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""What stands between columns by the name of the file; the first row may show another of `_SEPARATORS`."""
SUFFIXES = (*SEPARATORS, ".parquet")
"""The tables that `read_any` reads."""

_SEPARATORS = (",", ";", "\t", "|")
_BLOCK = 2**24
"""Bytes of text that are parsed together; a row must fit into them."""
_MAX_COLUMNS = 10_000
"""Arrow takes some 8 KB for each, however short the column."""
_COLUMNS_SHOWN = 12
_SHOWN = 40
"""Characters of a wrong value that an error line repeats."""


class Table(NamedTuple):
    """Columns of one file, by name, as Arrow arrays; from text they are strings."""

    file: Path
    columns: dict[str, Any]
    header: bool
    """Whether the first row holds the names."""
    rows: Int[np.ndarray, " entries"] | None = None
    """The row of the file that each value comes from, header left out; by default each from its own."""

    def row(self, index: int) -> str:
        """Where the value with that index stands, for error lines."""
        number = index if self.rows is None else int(self.rows[index])
        return f"{self.file}: row {number + 1 + self.header}"

    def value(self, name: str, index: int) -> str:
        """A value as an error line shows it."""
        stored = self.columns[name][index]
        try:
            found = stored.as_py()
        except (pa.ArrowException, ValueError, OverflowError, KeyError):  # a time that Python has no form for
            return f"a {type_name(stored.type)} that this machine cannot show"
        return "missing" if found is None else repr(found[:_SHOWN] if isinstance(found, str) else found)[: 2 * _SHOWN]

    def where(self, chosen: Bool[np.ndarray, " entries"]) -> "Table":
        """The rows that are chosen."""
        rows = np.arange(len(chosen)) if self.rows is None else self.rows
        columns = {name: column.filter(pa.array(chosen)) for name, column in self.columns.items()}
        return Table(self.file, columns, self.header, rows[chosen])


def read_any(file: Path, wanted: Sequence[str], *, optional: Sequence[str] = ()) -> Table:
    """Reads columns of a `.csv`, `.tsv` or `.parquet` file; see `read_text` and `read_parquet`."""
    suffix = uncompressed(file).suffix
    if suffix in SEPARATORS:
        return read_text(file, SEPARATORS[suffix], wanted, optional=optional, quotes=True)
    return read_parquet(file, wanted, optional=optional)


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
    """Reads columns of a text table; other columns may hold anything.

    Args:
        file: UTF-8, or UTF-16 with a byte-order mark; line ends of any system; compressed or not.
        separator: What stands between columns by rule. Another one is taken where the first row shows it.
        wanted: The columns that must be there.
        names: What the columns are called in order, where the first row does not say; the file may have fewer.
        optional: Columns to read where they are there.
        quotes: Whether `"` encloses a text.
        blank_lines: Whether a blank line is an empty cell in a table of one column.

    Raises:
        UserError: The file cannot be read as such a table, or a wanted column is missing.
    """
    check_file(file, "a table")
    try:
        line = first_line(file)
        if not line.text:
            raise UserError(f"{file}: it is empty; expected a table with {listed(wanted)}")
        if names is None and not line.whole:
            raise UserError(f"{file}: row 1 is too long to hold names; expected a row of {listed(wanted)} and the like")
        if names is None:
            separator, given = _by_names(line.text, separator, lambda found: set(wanted) <= set(found), quotes)
        else:
            separator, found = _by_count(file, line.text, separator, len(wanted), names, quotes)
            given = list(names[: len(found)])
        _check_width(file, given)
        there = _choose(file, given, wanted, optional)
        places = [str(given.index(name)) for name in there]
        lines = quotes and has_line_breaks(file, separator, line.encoding)
        with open_bytes(file) as opened:
            table = pyarrow.csv.read_csv(
                opened,
                pyarrow.csv.ReadOptions(
                    use_threads=False,  # one thread names the row of an error
                    block_size=_BLOCK,
                    column_names=[str(place) for place in range(len(given))],
                    encoding=line.encoding,
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=separator,
                    quote_char='"' if quotes else False,
                    newlines_in_values=lines,
                    ignore_empty_lines=not blank_lines or len(given) > 1,
                ),
                pyarrow.csv.ConvertOptions(
                    include_columns=places, column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
                ),
            )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        encoded = "UTF8" in str(error) or isinstance(error, UnicodeDecodeError)
        columns = f"expected the same columns in every row, separated by {separator!r}"
        fix = "save the table as UTF-8" if encoded else columns
        raise UserError(f"{file}: {printable(error)}; {fix}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"{file}: damaged ({printable(error)}); write it again") from error
    first = 0 if names is not None else 1
    if first and blank_lines and len(given) == 1:
        first += pc.index(pc.equal(table.column(0), ""), False).as_py()  # blank lines before the names
    return Table(
        file, {name: table.column(place).slice(first) for name, place in zip(there, places, strict=True)}, names is None
    )


def read_parquet(file: Path, wanted: Sequence[str], *, optional: Sequence[str] = ()) -> Table:
    """Read columns of a Parquet file.

    Raises:
        UserError: The file cannot be read as Parquet, unpacks to far more than its size (`parquet_files`), or a wanted
            column is missing.
    """
    check_file(file, "a table")
    try:
        # Opened by Python: Arrow takes no path that is not UTF-8.
        with file.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as opened:
            there = _choose(file, opened.schema_arrow.names, wanted, optional)
            columns = read_columns(file, opened, there)
    except (pa.ArrowException, OSError, UnicodeDecodeError, Malformed) as error:  # OSError: damaged pages
        raise UserError(f"{file}: not a readable Parquet file ({printable(error)}); write it again") from error
    return Table(file, columns, header=False)


def column_names(file: Path) -> list[str]:
    """The names of a table's columns, by the file's suffix: `.parquet`, or text.

    Raises:
        UserError: The file cannot be read as such a table.
    """
    check_file(file, "a table")
    suffix = uncompressed(file).suffix
    try:
        if suffix == ".parquet":
            with file.open("rb") as raw:
                return list(pyarrow.parquet.read_schema(raw).names)
        text, by_rule = first_line(file).text, SEPARATORS.get(suffix, "\t")
        names = _by_names(text, by_rule, lambda _: False, suffix in SEPARATORS)[1]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable table ({printable(error)}); write it again") from error
    _check_width(file, names)
    return names


def first_row(file: Path, separator: str, fits: Callable[[Sequence[str]], bool], *, quotes: bool = False) -> list[str]:
    """What stands in the first row, under the first separator under which it fits, or else has most columns.

    There is nothing in what is no file, or cannot be read as text: it is another format's business.
    """
    if not file.is_file():
        return []
    try:
        line = first_line(file).text
    except (UserError, pa.ArrowException, OSError):
        return []
    return _by_names(line, separator, fits, quotes)[1] if line else []


def is_parquet(file: Path) -> bool:
    """Whether the file begins as one of Parquet."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(4) == b"PAR1"


def choose_file(folder: Path, files: Sequence[Path], what: str) -> Path:
    """The only file; of several, the one that is called as the folder is.

    Raises:
        UserError: There is none, more than one and none is called so, or its name cannot be printed.
    """
    if not files:
        raise UserError(f"{folder}: there is no {what}")
    named = [file for file in files if uncompressed(file).stem == folder.resolve().name]
    if len(files) > 1 and len(named) != 1:
        raise UserError(f"{folder}: {listed([file.name for file in files])} are all {what}; keep one")
    file = files[0] if len(files) == 1 else named[0]
    if not file.name.isprintable():  # error lines name it
        raise UserError(f"{folder}: the file {file.name!a} has control characters in its name; rename it")
    return file


def printable(error: Exception) -> str:
    """What an error of a library says, as part of a line for the person: a file's characters stand in it."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(text.split())[:200]


def shown(name: str) -> str:
    """The name of a column as an error line shows it."""
    return escaped(name)[:_SHOWN]


def listed(names: Sequence[str]) -> str:
    """Names as an error line shows them."""
    first = ", ".join(repr(name[:_SHOWN]) for name in names[:_COLUMNS_SHOWN])
    return first + (", …" if len(names) > _COLUMNS_SHOWN else "")


def _check_width(file: Path, names: Sequence[str]) -> None:
    if len(names) > _MAX_COLUMNS:
        raise UserError(f"{file}: row 1 has more than {_MAX_COLUMNS} columns; expected at most so many")


def _by_names(line: str, separator: str, fits: Callable[[Sequence[str]], bool], quotes: bool) -> tuple[str, list[str]]:
    """The first separator under which the row fits, or else the one that makes most columns; and these."""
    rows = {each: _cells(line, each, quotes) for each in dict.fromkeys((separator, *_SEPARATORS))}
    fitting = [each for each, names in rows.items() if fits(names)]
    chosen = fitting[0] if fitting else max(rows, key=lambda each: len(rows[each]))
    return chosen, rows[chosen]


def _by_count(
    file: Path, line: str, separator: str, least: int, names: Sequence[str], quotes: bool
) -> tuple[str, list[str]]:
    """The separator that divides a row without names into as many columns as there may be; and these."""
    rows = {each: _cells(line, each, quotes) for each in dict.fromkeys((separator, *_SEPARATORS))}
    fitting = {each: cells for each, cells in rows.items() if least <= len(cells) <= len(names)}
    if not fitting:
        raise UserError(
            f"{file}: row 1 has {len(rows[separator])} columns separated by {separator!r}; expected {least} to "
            f"{len(names)}: {listed(names)}"
        )
    most = max(map(len, fitting.values()))
    best = [each for each, cells in fitting.items() if len(cells) == most]
    if separator in best:
        return separator, rows[separator]
    if separator in fitting or len(best) > 1:
        raise UserError(
            f"{file}: row 1 can be divided by {listed(list(fitting))}; separate its columns by {separator!r} and use "
            f"the others nowhere"
        )
    return best[0], rows[best[0]]


def _cells(line: str, separator: str, quotes: bool) -> list[str]:
    """The cells of a row, of which one more than there may be is enough."""
    plain = line.split(separator, _MAX_COLUMNS + 1)[: _MAX_COLUMNS + 1]
    if not quotes or len(plain) > _MAX_COLUMNS:
        return plain
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:  # a cell of more than 128 KB: no name, and Arrow reads the row as it is
        return plain


def _choose(file: Path, given: Sequence[str], wanted: Sequence[str], optional: Sequence[str]) -> list[str]:
    counts = Counter(given)
    for name in wanted:
        if name not in counts:
            raise UserError(f"{file}: there is no column {name!r}; it has {listed(given)}")
    there = [*wanted, *(name for name in optional if name in counts)]
    for name in there:
        if counts[name] > 1:
            raise UserError(f"{file}: there is more than one column {name!r}; keep one")
    return there
