"""Reads tables of text and of Parquet; what their columns hold is looked at in `columns`.

Rows are counted from 1 in error lines, the header among them and blank lines left out, as Arrow counts them.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from slmrec_jax.data.opening import check_file
from slmrec_jax.data.parquet_files import read_columns, type_name
from slmrec_jax.data.pickle_machine import Malformed
from slmrec_jax.errors import UserError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet")
"""The tables that `read_any` reads."""

_BLOCK = 2**24
"""Bytes of text that are parsed together; a row must fit into them."""
_FIRST = 2**20
"""Bytes that the first line stands in."""
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

    def row(self, index: int) -> str:
        """Where the value with that index stands, for error lines."""
        return f"{self.file}: row {index + 1 + self.header}"

    def value(self, name: str, index: int) -> str:
        """A value as an error line shows it."""
        stored = self.columns[name][index]
        try:
            found = stored.as_py()
        except (pa.ArrowException, ValueError, OverflowError, KeyError):  # a time that Python has no form for
            return f"a {type_name(stored.type)} that this machine cannot show"
        return "missing" if found is None else repr(found[:_SHOWN] if isinstance(found, str) else found)[: 2 * _SHOWN]


def read_any(file: Path, wanted: Sequence[str], *, optional: Sequence[str] = ()) -> Table:
    """Reads columns of a `.csv`, `.tsv` or `.parquet` file; see `read_text` and `read_parquet`."""
    if file.suffix in SEPARATORS:
        return read_text(file, SEPARATORS[file.suffix], wanted, optional=optional, quotes=True)
    return read_parquet(file, wanted, optional=optional)


def read_text(
    file: Path,
    separator: str,
    wanted: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    quotes: bool = False,
) -> Table:
    """Reads columns of a text table; other columns may hold anything.

    Args:
        file: UTF-8, with or without a mark of that; line ends of any system.
        separator: What stands between columns.
        wanted: The columns that must be there.
        names: What the columns are called in order, where the first row does not say; the file may have fewer.
        optional: Columns to read where they are there.
        quotes: Whether `"` encloses a text.

    Raises:
        UserError: The file cannot be read as such a table, or a wanted column is missing.
    """
    check_file(file, "a table")
    threads = {"use_threads": False, "block_size": _BLOCK}  # one thread names the row of an error
    parse = pyarrow.csv.ParseOptions(delimiter=separator, quote_char='"' if quotes else False)
    try:
        found = first_row(file, separator) if names is not None else _header(file, parse)
        if not found:
            raise UserError(f"{file}: it is empty; expected a table with {listed(wanted)}")
        if names is not None and not len(wanted) <= len(found) <= len(names):
            raise UserError(
                f"{file}: row 1 has {len(found)} columns separated by {separator!r}; expected {len(wanted)} to "
                f"{len(names)}: {listed(names)}"
            )
        given = list(found if names is None else names[: len(found)])
        there = _choose(file, given, wanted, optional)
        table = pyarrow.csv.read_csv(
            file,
            pyarrow.csv.ReadOptions(**threads, column_names=None if names is None else given),
            parse,
            pyarrow.csv.ConvertOptions(
                include_columns=there, column_types=dict.fromkeys(there, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:  # the latter for column names
        raise UserError(
            f"{file}: {printable(error)}; expected the same columns in every row, separated by {separator!r}"
        ) from error
    return Table(file, {name: table.column(name) for name in there}, header=names is None)


def read_parquet(file: Path, wanted: Sequence[str], *, optional: Sequence[str] = ()) -> Table:
    """Read columns of a Parquet file.

    Raises:
        UserError: The file cannot be read as Parquet, unpacks to far more than its size (`parquet_files`), or a wanted
            column is missing.
    """
    check_file(file, "a table")
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            there = _choose(file, opened.schema_arrow.names, wanted, optional)
            columns = read_columns(file, opened, there)
    except (pa.ArrowException, OSError, UnicodeDecodeError, Malformed) as error:  # OSError: damaged pages
        raise UserError(f"{file}: not a readable Parquet file ({printable(error)}); write it again") from error
    return Table(file, columns, header=False)


def column_names(file: Path) -> list[str]:
    """The names of a table's columns, by the file's suffix: `.parquet`, `.csv`, else separated by tabs.

    Raises:
        UserError: The file cannot be read as such a table.
    """
    check_file(file, "a table")
    try:
        if file.suffix == ".parquet":
            names = pyarrow.parquet.read_schema(file).names
        else:
            quotes = '"' if file.suffix in SEPARATORS else False
            parse = pyarrow.csv.ParseOptions(delimiter=SEPARATORS.get(file.suffix, "\t"), quote_char=quotes)
            names = _header(file, parse)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable table ({printable(error)}); write it again") from error
    return list(names)


def first_row(file: Path, separator: str) -> list[str]:
    """What stands between separators in the first line of text that is not blank; nothing for what is no file."""
    if not file.is_file():
        return []
    with file.open("rb") as opened:
        lines = [line for line in opened.read(_FIRST).splitlines() if line]
    text = lines[0].decode("utf-8-sig", "replace") if lines else ""
    return [name.strip('"') for name in text.split(separator)] if text else []


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
    named = [file for file in files if file.stem == folder.resolve().name]
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
    return (name if name.isprintable() else ascii(name))[:_SHOWN]


def listed(names: Sequence[str]) -> str:
    """Names as an error line shows them."""
    first = ", ".join(repr(name[:_SHOWN]) for name in names[:_COLUMNS_SHOWN])
    return first + (", …" if len(names) > _COLUMNS_SHOWN else "")


def _header(file: Path, parse: Any) -> list[str]:
    count = len(first_row(file, parse.delimiter))
    if count > _MAX_COLUMNS:
        raise UserError(
            f"{file}: row 1 has {count} columns separated by {parse.delimiter!r}; expected at most {_MAX_COLUMNS}"
        )
    with pyarrow.csv.open_csv(file, pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK), parse) as reader:
        return list(reader.schema.names)


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
