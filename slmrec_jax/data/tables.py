"""Reads tables of text into checked columns: ids that are rows, raw ids.

Rows are counted from 1 in error lines, the header among them and blank lines left out, as Arrow counts them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from jaxtyping import Int, Shaped

from slmrec_jax.errors import UserError

MAX_RAW_ID = 256
"""Characters of a raw id: one far longer would make all of them take its room."""

_BLOCK = 2**24
"""Bytes that are parsed together; a row must fit into them."""
_SPARE_IDS = 1_000_000
_MAX_GAP = 100
_COLUMNS_SHOWN = 12
_SHOWN = 40
"""Characters of a wrong value that an error line repeats."""


class Table(NamedTuple):
    """Columns of one file, by name, as Arrow strings."""

    file: Path
    columns: dict[str, Any]
    header: bool
    """Whether the first row holds the names."""

    def row(self, index: int) -> str:
        """Where the value with that index stands, for error lines."""
        return f"{self.file}: row {index + 1 + self.header}"


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
    if not file.is_file():  # a pipe would wait for ever
        raise UserError(f"{file}: not a regular file; expected a table of text")
    reading = {"use_threads": False, "block_size": _BLOCK}  # one thread names the row of an error
    parse = pyarrow.csv.ParseOptions(delimiter=separator, quote_char='"' if quotes else False)
    try:
        bare = pyarrow.csv.ReadOptions(**reading, autogenerate_column_names=names is not None)
        with pyarrow.csv.open_csv(file, bare, parse) as reader:
            found = reader.schema.names
        given = found if names is None else names[: len(found)]
        for name in wanted:
            if name not in given and names is None:
                raise UserError(f"{file}: there is no column {name!r}; row 1 holds {_list(found)}")
        if names is not None and not len(wanted) <= len(found) <= len(names):
            raise UserError(
                f"{file}: row 1 has {len(found)} columns separated by {separator!r}; expected {len(wanted)} to "
                f"{len(names)}: {_list(names)}"
            )
        there = [*wanted, *(name for name in optional if name in given)]
        for name in there:
            if list(given).count(name) > 1:
                raise UserError(f"{file}: row 1 names the column {name!r} more than once; keep one")
        table = pyarrow.csv.read_csv(
            file,
            pyarrow.csv.ReadOptions(**reading, column_names=None if names is None else given),
            parse,
            pyarrow.csv.ConvertOptions(
                include_columns=there, column_types=dict.fromkeys(there, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{file}: {printable(error)}; expected the same columns in every row, separated by {separator!r}"
        ) from error
    return Table(file, {name: table.column(name) for name in there}, header=names is None)


def as_rows(table: Table, name: str) -> Int[np.ndarray, " entries"]:
    """A column of ids that are rows of something, counted from 0 or 1.

    Raises:
        UserError: A value that is no such number.
    """
    column = table.columns[name]
    bad = pc.index(pc.match_substring_regex(column, r"^[0-9]{1,18}$"), False).as_py()
    if bad >= 0:
        raise UserError(f"{table.row(bad)}: {name} is {column[bad].as_py()[:_SHOWN]!r}; expected a whole number")
    return np.asarray(column.cast(pa.int64()).to_numpy())


def as_raw_ids(table: Table, name: str) -> Shaped[np.ndarray, " entries"]:
    """A column of raw ids: integers where all are written as such (`7`, not `007`), else strings.

    Raises:
        UserError: A value that is empty, or longer than an id is.
    """
    column = table.columns[name]
    length = pc.utf8_length(column)
    bad = pc.index(pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_RAW_ID)), False).as_py()
    if bad >= 0:
        shown = column[bad].as_py()[:_SHOWN]
        raise UserError(f"{table.row(bad)}: {name} is {shown!r}; expected an id of 1 to {MAX_RAW_ID} characters")
    if pc.all(pc.match_substring_regex(column, r"^(0|-?[1-9][0-9]{0,17})$")).as_py():
        return np.asarray(column.cast(pa.int64()).to_numpy())
    return np.array(column.to_pylist(), np.str_)


def count_rows(where: str, what: str, ids: Sequence[Int[np.ndarray, "..."]]) -> int:
    """How many rows there are where ids are rows: one more than the largest id.

    Raises:
        UserError: Most ids up to the largest do not occur, so that these are not row numbers.
    """
    count = max((int(each.max()) + 1 for each in ids if len(each)), default=0)
    if count > _SPARE_IDS:
        distinct = len(np.unique(np.concatenate(ids)))
        if count > _SPARE_IDS + _MAX_GAP * distinct:
            raise UserError(
                f"{where}: the largest {what} id is {count - 1}, but only {distinct} ids occur; expected row numbers: "
                f"number the {what}s without gaps, or write a plain table, which takes any ids"
            )
    return count


def printable(error: Exception) -> str:
    """What an error of a library says, as part of a line for the person: a file's characters stand in it."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(text.split())[:200]


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:_SHOWN]) for name in names[:_COLUMNS_SHOWN]) + (
        ", …" if len(names) > _COLUMNS_SHOWN else ""
    )
