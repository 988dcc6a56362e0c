"""Brings columns of tables into arrays: ids that are rows, raw ids, times, vectors; each refusal names its row."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int, Shaped

from slmrec_jax.data.readers.parquet_files import type_name
from slmrec_jax.data.readers.tables import Table, shown
from slmrec_jax.errors import UserError

MAX_RAW_ID = 256
"""Characters of a raw id: one far longer would make all of them take its room."""

_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
_WHOLE = r"^[+-]?[0-9]+$"
_WHOLE_FLOAT = r"^-?(0|[1-9][0-9]*)\.0+$"
_NO_FRACTION = r"\.0*$"
"""What follows a whole number that was written as a floating-point one."""
MISSING = ("", "nan", "na", "n/a", "null", "none")
"""What stands for a number that is not there, in capitals or not."""
_SMALL_TABLE, _MAX_EMPTY = 2**30, 1000
"""Bytes of vectors, those that are missing counted; and how many times the file's size larger ones may take."""
_SPARE_IDS = 1_000_000
_MAX_GAP = 100


class Encoded(NamedTuple):
    """Raw ids and the rows they were given."""

    ids: Shaped[np.ndarray, " distinct"]
    """Integers where all are written as such (`7`, not `007`), else strings."""
    rows: tuple[Int[np.ndarray, " _"], ...]
    """For each table, the place of each of its values in `ids`."""


def encode(tables: Sequence[Table], name: str, *, by_appearance: bool = False) -> Encoded:
    """Numbers the raw ids of a column, of any type that has a text, that tables have in common.

    Args:
        tables: Those with the column.
        name: Of the column.
        by_appearance: Whether ids are numbered as they first appear, table after table; else in their own order, so
            that the order of rows does not matter.

    Raises:
        UserError: An id that is missing, empty or longer than an id is; or no ids.
    """
    columns = [_ids(table, name) for table in tables]
    if len({column.type for column in columns}) > 1:
        columns = [column.cast(pa.string()) for column in columns]
    kind = columns[0].type
    together = pa.chunked_array([chunk for column in columns for chunk in column.chunks], kind)
    if len(together) == 0:
        raise UserError(f"{tables[0].file}: there are no rows in it; expected some")
    chunks = together.dictionary_encode().chunks  # all with the same dictionary
    ids = _as_ids(chunks[-1].dictionary)
    rows = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    if not by_appearance:
        order = np.argsort(ids, kind="stable")
        places = np.empty(len(ids), np.int32)
        places[order] = np.arange(len(ids), dtype=np.int32)
        ids, rows = ids[order], places[rows]
    return Encoded(ids, tuple(np.split(rows, np.cumsum([len(column) for column in columns])[:-1])))


def find(table: Table, name: str, ids: Shaped[np.ndarray, " distinct"]) -> Int[np.ndarray, " entries"]:
    """The place in `ids` of each value of a column of raw ids, -1 for one that is not there; `7` and `"7"` are one id.

    Raises:
        UserError: An id that stands in more than one row, is missing, empty or longer than an id is.
    """
    column = _ids(table, name).cast(pa.string())
    known = pa.array(ids.tolist()).cast(pa.string())
    if len(column.unique()) < len(column):
        first = pc.index_in(column, column.unique()).to_numpy()
        again = int(np.flatnonzero(np.maximum.accumulate(np.r_[-1, first[:-1]]) >= first)[0])
        raise UserError(
            f"{table.row(again)}: {shown(name)} is {table.value(name, again)} for the second time; keep one row"
        )
    return np.asarray(pc.fill_null(pc.index_in(column, known), -1).to_numpy(), np.int64)


def as_rows(table: Table, name: str, *, first: int = 0) -> Int[np.ndarray, " entries"]:
    """A column of ids that are rows of something, as rows counted from 0.

    Args:
        table: With the column.
        name: Of the column.
        first: The id of the first row.

    Raises:
        UserError: A value that is no such number.
    """
    column = _without_fraction(_present(table, name, "a whole number"))
    ids = np.asarray(_cast(table, name, column, pa.int64(), "a whole number").to_numpy(), np.int64)
    if len(ids) and ids.min() < first:
        index = int(ids.argmin())
        raise UserError(f"{table.row(index)}: {shown(name)} is {ids[index]}; expected ids counted from {first}")
    return ids - first


def as_raw_ids(table: Table, name: str) -> Shaped[np.ndarray, " entries"]:
    """A column of raw ids: integers where all are written as such (`7`, not `007`), else strings.

    Raises:
        UserError: An id that is missing, empty or longer than an id is.
    """
    return _as_ids(_ids(table, name))


def raw_ids_by_row(table: Table, raw: str, row: str, count: int | None = None) -> Shaped[np.ndarray, " rows"]:
    """The raw ids of a table that says which row each has, in the order of the rows.

    Args:
        table: With both columns.
        raw: The column of raw ids.
        row: The column of rows.
        count: How many rows there are, which all must be named; what is beyond is left out. By default as many as the
            table has.

    Raises:
        UserError: A row that is not there, or there twice.
    """
    ids, rows = as_raw_ids(table, raw), as_rows(table, row)
    order = np.argsort(rows, kind="stable")
    count = len(rows) if count is None else count
    if count == 0:
        raise UserError(f"{table.file}: there are no ids in it; fill it, or remove it")
    wrong = np.flatnonzero(rows[order][:count] != np.arange(len(rows))[:count])
    if len(wrong):
        index = int(order[wrong[0]])
        raise UserError(
            f"{table.row(index)}: {row} is {rows[index]} where {wrong[0]} comes next; expected each of "
            f"0..{count - 1} once, in any order"
        )
    if len(rows) < count:
        raise UserError(f"{table.file}: {len(rows)} ids, but there are {count} {row}s; expected one for each")
    return ids[order][:count]


def as_labels(table: Table, name: str, labels: Mapping[str, int]) -> Int[np.ndarray, " entries"]:
    """A column of labels, in capitals or not, as the numbers that these have.

    Raises:
        UserError: A value that is none of them.
    """
    expected = f"one of {', '.join(labels)}"
    column = _cast(table, name, _present(table, name, expected), pa.string(), expected)
    places = _places(column, labels)
    if len(places) and places.min() < 0:
        index = int(places.argmin())
        raise UserError(f"{table.row(index)}: {shown(name)} is {table.value(name, index)}; expected {expected}")
    return np.asarray(np.array(list(labels.values()))[places])


def as_flags(table: Table, name: str) -> Bool[np.ndarray, " entries"] | None:
    """A column of 0 and 1, false and true as truth values; `None` where it holds mostly other values.

    Raises:
        UserError: Some values of many are none of these.
    """
    try:
        places = _places(table.columns[name].cast(pa.string()), ("0", "1", "false", "true"))
    except pa.ArrowException:
        return None
    others = places < 0
    if others.any() and others.mean() < 0.5:
        index = int(others.argmax())
        raise UserError(
            f"{table.row(index)}: {shown(name)} is {table.value(name, index)}; expected 0 or 1, as in most rows: "
            f"correct it, or rename the column if it holds something else"
        )
    return None if others.any() else np.asarray(places % 2 == 1)


def as_numbers(table: Table, name: str) -> Float[np.ndarray, " entries"]:
    """Read a column of numbers as float64.

    Raises:
        UserError: A value that is missing or no number.
    """
    numbers = as_numbers_or_nan(table, name)
    if np.isnan(numbers).any():
        index = int(np.isnan(numbers).argmax())
        raise UserError(f"{table.row(index)}: {shown(name)} is {table.value(name, index)}; expected a number")
    return numbers


def as_times(table: Table, name: str) -> Shaped[np.ndarray, " entries"]:
    """A column of times: numbers of any unit, or dates (in their own unit since 1970); int64 or float64.

    Raises:
        UserError: A value that is missing or none of these.
    """
    column = _present(table, name, "a time; fill it in, or leave the column out")
    kind = column.type
    if _is_text(kind):
        column = _without_fraction(pc.utf8_trim_whitespace(column))
        column = pc.replace_substring_regex(column, r"(:[0-9.]+) UTC$", r"\1Z")  # as BigQuery writes it
    if pa.types.is_decimal(kind):  # float64 would merge times of 19 digits
        return np.asarray(_cast(table, name, column, pa.int64(), "a whole number below 2⁶³").to_numpy(), np.int64)
    if pa.types.is_timestamp(kind):
        return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
    if pa.types.is_date(kind):
        return np.asarray(column.cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy(), np.int64)
    if _is_text(kind) and _starts(column, r"^\d{4}-\d\d"):
        zone = "UTC" if _starts(column, r":.*(Z|[+-]\d\d(:?\d\d)?)$") else None
        unit = "ns" if pc.any(pc.match_substring_regex(column, r"\.\d{7}")).as_py() else "us"
        dates = _cast(table, name, column, pa.timestamp(unit, zone), "a date in the form of the first one")
        return np.asarray(dates.cast(pa.int64()).to_numpy(), np.int64)
    if pa.types.is_integer(kind) or (_is_text(kind) and _all_match(column, _WHOLE)):
        if _is_text(kind):
            column = pc.replace_substring_regex(column, r"^\+", "")  # Arrow takes no sign there
        return np.asarray(_cast(table, name, column, pa.int64(), "a time below 2⁶³").to_numpy(), np.int64)
    times = np.asarray(_cast(table, name, column, pa.float64(), "a number or a date").to_numpy(), np.float64)
    if np.isnan(times).any():
        index = int(np.isnan(times).argmax())
        raise UserError(f"{table.row(index)}: {shown(name)} is {table.value(name, index)}; expected a number or a date")
    return times


def as_numbers_or_nan(table: Table, name: str) -> Float[np.ndarray, " entries"]:
    """Read a column of numbers as float64; a value that is missing, or written as such, is NaN.

    Raises:
        UserError: A value that is no number.
    """
    column = table.columns[name]
    if not _is_text(column.type):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(pc.is_in(pc.utf8_lower(text), pa.array(MISSING)), None, text)
    return np.asarray(_cast(table, name, text, pa.float64(), "a number").to_numpy(), np.float64)


def has_lists(table: Table, name: str) -> bool:
    """Whether a column of text has values with blanks inside."""
    return bool(pc.any(pc.match_substring_regex(table.columns[name], r"\S\s+\S")).as_py())


def as_vectors(table: Table, name: str) -> tuple[Float[np.ndarray, "entries columns"], Bool[np.ndarray, " entries"]]:
    """A column of vectors: lists of numbers, or text with spaces between numbers; and which are not missing or empty.

    Raises:
        UserError: Vectors of different lengths, or something in them that is no number.
    """
    column = table.columns[name]
    if _is_text(column.type):
        text = pc.ascii_trim_whitespace(column.cast(pa.string()))
        column = pc.ascii_split_whitespace(pc.if_else(pc.equal(text, ""), None, text))
    elif not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or _is_fixed_list(column.type)):
        _refuse_type(table, name, "lists of numbers")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), np.int64)
    present = lengths > 0
    if not present.any():
        raise UserError(f"{table.file}: no row of {shown(name)} has a number in it; fill it, or remove it")
    width = int(lengths[present.argmax()])
    wrong = np.flatnonzero(present & (lengths != width))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{table.row(row)}: {lengths[row]} numbers in {shown(name)}; expected {width}, as in the first one"
        )
    numbers = pc.list_flatten(column)
    try:
        flat = numbers.cast(pa.float32(), safe=False)
    except pa.ArrowInvalid:
        entry = _first_that_fails(numbers, pa.float32())
        row = int(np.flatnonzero(present)[entry // width])
        raise UserError(
            f"{table.row(row)}: {str(numbers[entry].as_py())[:40]!r} in {shown(name)}; expected numbers with blanks "
            f"between them, without brackets or commas"
        ) from None
    except pa.ArrowNotImplementedError:
        _refuse_type(table, name, "lists of numbers")
    check_room(table.file, len(present), width)
    values = np.zeros((len(present), width), np.float32)
    values[present] = flat.to_numpy().reshape(-1, width)
    return values, present


def check_room(file: Path, rows: int, columns: int) -> None:
    """Reject vectors so few and so long that a table with a row for everything else would be vast.

    Raises:
        UserError: The table takes more than a GiB and a thousand times the file's size.
    """
    size = 4 * rows * columns
    if size > max(_SMALL_TABLE, _MAX_EMPTY * file.stat().st_size):
        raise UserError(
            f"{file}: {rows} rows of {columns} numbers take {size >> 20} MiB, and most of them have none; expected at "
            f"most {_SMALL_TABLE >> 20} MiB or {_MAX_EMPTY} times the file's size: make the vectors shorter"
        )


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


def _ids(table: Table, name: str) -> Any:
    """The column as int64 or as strings."""
    column = _present(table, name, "an id")
    if pa.types.is_boolean(column.type):
        _refuse_type(table, name, "an id of text or a whole number")
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return _cast(table, name, column, pa.int64(), "a whole number below 2⁶³, or text")
    column = _cast(table, name, column, pa.string(), "an id of text or a whole number")
    length = pc.utf8_length(column)
    good = pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_RAW_ID))
    good = pc.and_not(good, pc.match_substring_regex(column, r"[\x00\r\n]"))  # NumPy cuts off NUL at the end of an id
    wrong = pc.index(good, False).as_py()
    if wrong >= 0:
        raise UserError(
            f"{table.row(wrong)}: {shown(name)} is {table.value(name, wrong)}; expected an id of 1 to {MAX_RAW_ID} "
            f"characters, none of them NUL or a line break"
        )
    if _starts(column, _WHOLE_FLOAT) and _all_match(column, _WHOLE_FLOAT):
        return _without_fraction(column)
    return column


def _as_ids(column: Any) -> Shaped[np.ndarray, " entries"]:
    if pa.types.is_integer(column.type) or _all_match(column, _INTEGER):
        return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
    return np.array(column.to_pylist(), np.str_)


def _present(table: Table, name: str, expected: str) -> Any:
    column = table.columns[name]
    missing = pc.index(pc.is_null(column, nan_is_null=True), True).as_py()
    if missing >= 0:
        raise UserError(f"{table.row(missing)}: {shown(name)} is missing; expected {expected}")
    return column


def _without_fraction(column: Any) -> Any:
    """Text of whole numbers without the `.0` that other programs write after them."""
    return pc.replace_substring_regex(column, _NO_FRACTION, "") if _is_text(column.type) else column


def _places(column: Any, labels: Collection[str]) -> Int[np.ndarray, " entries"]:
    """The place of each text among the labels, in capitals or not, with blanks or `.0` or not; -1 for others."""
    column = _without_fraction(pc.utf8_lower(pc.utf8_trim_whitespace(column)))
    return np.asarray(pc.fill_null(pc.index_in(column, pa.array(list(labels))), -1).to_numpy(), np.int64)


def _cast(table: Table, name: str, column: Any, kind: Any, expected: str) -> Any:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        index = _first_that_fails(column, kind)
        raise UserError(
            f"{table.row(index)}: {shown(name)} is {table.value(name, index)}; expected {expected}"
        ) from None
    except pa.ArrowNotImplementedError:
        _refuse_type(table, name, expected)


def _refuse_type(table: Table, name: str, expected: str) -> NoReturn:
    found = type_name(table.columns[name].type)
    raise UserError(f"{table.file}: {shown(name)} is a column of {found}; expected {expected}") from None


def _first_that_fails(column: Any, kind: Any) -> int:
    """The index of the first value that is none of that type, where there is one; Arrow does not say which."""
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


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_fixed_list(kind: Any) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def _all_match(column: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())


def _starts(column: Any, pattern: str) -> bool:
    """Whether the first value has the pattern."""
    return len(column) > 0 and bool(pc.match_substring_regex(column[0], pattern).as_py())
