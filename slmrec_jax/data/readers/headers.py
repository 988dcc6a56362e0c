"""Detection of the separator and the column names of a text table from its first row."""

import csv
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.text_files import FirstLine, first_line, uncompressed
from slmrec_jax.errors import UserError, one_line

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""The usual separator by suffix; the first row may show a different one of `_CANDIDATES`."""
TABLE_SUFFIXES = (*SEPARATORS, ".parquet")

_CANDIDATES = (",", ";", "\t", "|")
_MAX_COLUMNS = 10_000
"""The maximum number of columns, since Arrow takes about 8 KB per column, however short it is."""

Fits = Callable[[Sequence[str]], bool]


def column_names(file: Path) -> list[str]:
    """Return the column names of a table. The suffix determines whether it is Parquet or text."""
    check_file(file, "a table")
    suffix = uncompressed(file).suffix
    try:
        if suffix == ".parquet":
            with file.open("rb") as raw:
                return list(pyarrow.parquet.read_schema(raw).names)
        text, usual = first_line(file).text, SEPARATORS.get(suffix, "\t")
        names = _split_by_names(text, usual, lambda _: False, suffix in SEPARATORS)[1]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable table ({one_line(error)}); write it again") from error
    _check_width(file, names)
    return names


def first_row(file: Path, separator: str, fits: Fits, *, quotes: bool = False) -> list[str]:
    """Split the first row at the first separator that fits, or otherwise at the one that gives the most columns.

    The list is empty if the path is not a file or not text, since it may then belong to another format.
    """
    if not file.is_file():
        return []
    try:
        line = first_line(file).text
    except (UserError, pa.ArrowException, OSError):
        return []
    return _split_by_names(line, separator, fits, quotes)[1] if line else []


def is_parquet(file: Path) -> bool:
    """Return whether the file begins like a Parquet file."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(4) == b"PAR1"


def find_columns(
    file: Path, line: FirstLine, separator: str, wanted: Sequence[str], names: Sequence[str] | None, quotes: bool
) -> tuple[str, list[str]]:
    """Return the separator and the column names of a text table; see `tables.read_text`."""
    if not line.text:
        raise UserError(f"{file}: it is empty; expected a table with {listed(wanted)}")
    if names is not None:
        separator, cells = _split_by_count(file, line.text, separator, len(wanted), names, quotes)
        found = list(names[: len(cells)])
    elif line.whole:
        separator, found = _split_by_names(line.text, separator, lambda row: set(wanted) <= set(row), quotes)
    else:
        raise UserError(f"{file}: row 1 is too long to hold names; expected a row of names such as {listed(wanted)}")
    _check_width(file, found)
    return separator, found


def _check_width(file: Path, names: Sequence[str]) -> None:
    if len(names) > _MAX_COLUMNS:
        raise UserError(f"{file}: row 1 has more than {_MAX_COLUMNS} columns; expected at most that many")


def _split_by_names(line: str, separator: str, fits: Fits, quotes: bool) -> tuple[str, list[str]]:
    """Return the first separator with which the row fits, or else the one with the most columns, and the cells."""
    rows = _all_splits(line, separator, quotes)
    fitting = [each for each, names in rows.items() if fits(names)]
    chosen = fitting[0] if fitting else max(rows, key=lambda each: len(rows[each]))
    return chosen, rows[chosen]


def _split_by_count(
    file: Path, line: str, separator: str, least: int, names: Sequence[str], quotes: bool
) -> tuple[str, list[str]]:
    """Return the separator that splits a row without names into an allowed number of columns, and the cells."""
    rows = _all_splits(line, separator, quotes)
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
            f"{file}: row 1 can be split at {listed(list(fitting))}; separate its columns by {separator!r} and do not "
            f"use the others"
        )
    return best[0], rows[best[0]]


def _all_splits(line: str, separator: str, quotes: bool) -> dict[str, list[str]]:
    """Return the cells by separator, the given one first, up to one cell more than allowed."""
    splits = {}
    for each in dict.fromkeys((separator, *_CANDIDATES)):
        splits[each] = line.split(each, _MAX_COLUMNS + 1)[: _MAX_COLUMNS + 1]
        if quotes and len(splits[each]) <= _MAX_COLUMNS:
            with suppress(csv.Error):  # a cell of more than 128 KB is not a name; Arrow reads the row as it is
                splits[each] = next(csv.reader([line], delimiter=each))
    return splits
