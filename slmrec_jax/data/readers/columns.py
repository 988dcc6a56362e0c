"""Conversion of table columns to arrays of numbers and vectors. Each error names its row."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from slmrec_jax.data.readers.refusals import MAX_SHOWN, short_name
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.errors import UserError

MISSING = ("", "nan", "na", "n/a", "null", "none")
"""Texts that stand for a missing number, in upper or lower case."""

_SMALL_TABLE, _MAX_EMPTY = 2**30, 1000
"""Limits on vectors, including missing ones: this many bytes, or this multiple of the file's size."""


def as_numbers_or_nan(table: Table, name: str) -> Float[np.ndarray, " entries"]:
    """Convert a column of numbers to float64, with NaN for missing values."""
    column = table.columns[name]
    if not is_text(column.type):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(pc.is_in(pc.utf8_lower(text), pa.array(MISSING)), None, text)
    return np.asarray(cast_column(table, name, text, pa.float64(), "a number").to_numpy(), np.float64)


def as_vectors(table: Table, name: str) -> tuple[Float[np.ndarray, "entries columns"], Bool[np.ndarray, " entries"]]:
    """Convert a column of vectors of equal length; also return a mask of those that are not missing or empty.

    The column holds lists of numbers, or text with numbers separated by spaces. float16 stays float16.
    """
    column = table.columns[name]
    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if is_text(column.type):
        text = pc.ascii_trim_whitespace(column.cast(pa.string()))
        column = pc.ascii_split_whitespace(pc.if_else(pc.equal(text, ""), None, text))
    elif not any(check(column.type) for check in is_list):
        raise table.wrong_type(name, "lists of numbers")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), np.int64)
    filled = lengths > 0
    if not filled.any():
        raise UserError(f"{table.file}: no row of {short_name(name)} has a number; fill it, or remove it")
    width = int(lengths[filled.argmax()])
    wrong = np.flatnonzero(filled & (lengths != width))
    if len(wrong):
        found = f"{lengths[wrong[0]]} numbers in {short_name(name)}"
        raise UserError(f"{table.row(int(wrong[0]))}: {found}; expected {width}, as in the first row with numbers")
    numbers = pc.list_flatten(column)
    held = pa.float16() if pa.types.is_float16(numbers.type) else pa.float32()
    try:
        flat = numbers.cast(held, safe=False)
    except pa.ArrowInvalid:
        entry = _first_that_fails(numbers, pa.float32())
        row = int(np.flatnonzero(filled)[entry // width])
        found = repr(str(numbers[entry].as_py())[:MAX_SHOWN])
        raise UserError(
            f"{table.row(row)}: {found} in {short_name(name)}; expected numbers separated by blanks, without "
            f"brackets or commas"
        ) from None
    except pa.ArrowNotImplementedError:
        raise table.wrong_type(name, "lists of numbers") from None
    check_vectors_fit(table.file, len(filled), width)
    values = np.zeros((len(filled), width), held.to_pandas_dtype())
    values[filled] = flat.to_numpy().reshape(-1, width)
    return values, filled


def check_vectors_fit(file: Path, rows: int, columns: int) -> None:
    """Reject vectors that are so few and so long that a table with one row per item would be vast."""
    size = 4 * rows * columns
    parts = file.rglob("*") if file.is_dir() else [file]
    if size > _SMALL_TABLE and size > _MAX_EMPTY * sum(part.stat().st_size for part in parts):
        raise UserError(
            f"{file}: {rows} rows of {columns} numbers take {size >> 20} MiB, but most rows have none; expected at "
            f"most {_SMALL_TABLE >> 20} MiB or {_MAX_EMPTY} times the file's size: make the vectors shorter"
        )


def complete_column(table: Table, name: str, expected: str) -> Any:
    """Return a column that has a value in every row. A missing value or NaN raises `UserError`."""
    column = table.columns[name]
    missing = pc.index(pc.is_null(column, nan_is_null=True), True).as_py()
    if missing >= 0:
        raise UserError(f"{table.row(missing)}: {short_name(name)} is missing; expected {expected}")
    return column


def cast_column(table: Table, name: str, column: Any, kind: Any, expected: str) -> Any:
    """Convert a column, or a column derived from it, to an Arrow type. A value that does not fit raises `UserError`."""
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        raise table.refusal(name, _first_that_fails(column, kind), expected) from None
    except pa.ArrowNotImplementedError:
        raise table.wrong_type(name, expected) from None


def without_fraction(column: Any) -> Any:
    """Remove the `.0` that some programs write after integers from a text column."""
    return pc.replace_substring_regex(column, r"\.0*$", "") if is_text(column.type) else column


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is a text type."""
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def all_match(column: Any, pattern: str) -> bool:
    """Return whether the pattern is found in all values."""
    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())


def any_match(column: Any, pattern: str) -> bool:
    """Return whether the pattern is found in any value."""
    return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())


def _first_that_fails(column: Any, kind: Any) -> int:
    """Find the first value that cannot be converted, if there is one, since Arrow does not report which."""
    start, stop = 0, len(column)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            column.slice(start, middle - start).cast(kind)
        except pa.ArrowInvalid:
            stop = middle
        else:
            start = middle
    return start
