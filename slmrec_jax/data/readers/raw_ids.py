"""Conversion of id columns to arrays: raw ids of any kind, and ids that are row numbers. Errors name the row."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Shaped

from slmrec_jax.data.readers.columns import (
    all_match,
    any_match,
    cast_column,
    complete_column,
    is_text,
    without_fraction,
)
from slmrec_jax.data.readers.refusals import short_name
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.errors import UserError

MAX_LENGTH = 256
"""The maximum number of characters of a raw id, since NumPy pads all ids to the longest."""
INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
WHOLE_FLOAT = r"^(-?(?:0|[1-9][0-9]*))\.0+$"
"""A pattern of whole numbers written with a fraction; its group is the number."""
_SPARE_IDS, _MAX_GAP = 1_000_000, 100


class EncodedIds(NamedTuple):
    """Distinct raw ids, and id columns as indices into them."""

    ids: Shaped[np.ndarray, " distinct"]
    """The distinct ids: integers if all are written as such (`7`, not `007`), otherwise strings."""
    rows: tuple[Int[np.ndarray, " _"], ...]
    """For each table, the index in `ids` of each value."""


def encode_ids(tables: Sequence[Table], name: str) -> EncodedIds:
    """Number the raw ids of a column by first appearance, table after table. The type must be convertible to text."""
    columns = _without_fractions([_as_ids_of_one_type(table, name) for table in tables])
    if len({column.type for column in columns}) > 1:
        columns = [column.cast(pa.string()) for column in columns]
    together = pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
    if len(together) == 0:
        raise UserError(f"{tables[0].file}: it has no rows; expected some")
    chunks = together.dictionary_encode().chunks  # all share one dictionary
    ids = _ids_to_numpy(chunks[-1].dictionary)
    rows = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    return EncodedIds(ids, tuple(np.split(rows, np.cumsum([len(column) for column in columns])[:-1])))


def find_ids(table: Table, name: str, ids: Shaped[np.ndarray, " distinct"]) -> Int[np.ndarray, " entries"]:
    """Return the index in `ids` of each value of a column of unique raw ids, or -1.

    `7` and `"7"` are the same id. So is `"7.0"`, if neither `ids` nor another row has that.
    """
    written = _as_ids_of_one_type(table, name).cast(pa.string())
    known = pa.array(ids.tolist()).cast(pa.string())
    places, found = _places(written, known), written
    if any_match(written, WHOLE_FLOAT):
        others = _places(without_whole_fractions(written), known)
        places = np.where((places < 0) & ~np.isin(others, places), others, places)
        found = pc.if_else(places >= 0, known.take(np.maximum(places, 0)), written)
    _check_unique(table, name, found)
    return places


def _places(column: Any, known: Any) -> Int[np.ndarray, " entries"]:
    return np.asarray(pc.fill_null(pc.index_in(column, known), -1).to_numpy(), np.int64)


def _check_unique(table: Table, name: str, column: Any) -> None:
    if len(column.unique()) < len(column):
        first = pc.index_in(column, column.unique()).to_numpy()
        again = int(np.flatnonzero(np.maximum.accumulate(np.r_[-1, first[:-1]]) >= first)[0])
        raise UserError(
            f"{table.row(again)}: {short_name(name)} is {table.value(name, again)} for the second time; keep one row"
        )


def without_whole_fractions(ids: Any) -> Any:
    """Write each text id such as `7.0` without its fraction."""
    return pc.replace_substring_regex(ids, WHOLE_FLOAT, r"\1")


def as_raw_ids(table: Table, name: str) -> Shaped[np.ndarray, " entries"]:
    """Convert a column to raw ids: integers if all are written as such (`7`, not `007`), otherwise strings."""
    (column,) = _without_fractions([_as_ids_of_one_type(table, name)])
    return _ids_to_numpy(column)


def raw_ids_by_row(table: Table, raw: str, row: str, count: int | None = None) -> Shaped[np.ndarray, " rows"]:
    """Return the raw ids in column `raw` in the order of the row numbers in column `row`.

    There are `count` rows, each of which must have an id; later rows are dropped. By default, the table determines the
    count.
    """
    ids, rows = as_raw_ids(table, raw), as_rows(table, row)
    order = np.argsort(rows, kind="stable")
    count = len(rows) if count is None else count
    if count == 0:
        raise UserError(f"{table.file}: it has no ids; fill it, or remove it")
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


def as_rows(table: Table, name: str, *, first: int = 0) -> Int[np.ndarray, " entries"]:
    """Convert a column of ids that count from `first` to row numbers from 0."""
    column = without_fraction(complete_column(table, name, "a whole number"))
    ids = np.asarray(cast_column(table, name, column, pa.int64(), "a whole number").to_numpy(), np.int64)
    if len(ids) and ids.min() < first:
        index = int(ids.argmin())
        raise UserError(f"{table.row(index)}: {short_name(name)} is {ids[index]}; expected ids counted from {first}")
    return ids - first


def count_rows(where: str, what: str, ids: Sequence[Int[np.ndarray, "..."]]) -> int:
    """Return the number of rows, one more than the largest id. Ids with far more gaps than ids are rejected."""
    count = max((int(each.max()) + 1 for each in ids if len(each)), default=0)
    if count > _SPARE_IDS:
        num_ids = len(np.unique(np.concatenate(ids)))
        if count > _SPARE_IDS + _MAX_GAP * num_ids:
            raise UserError(
                f"{where}: the largest {what} id is {count - 1}, but only {num_ids} ids occur; expected row numbers: "
                f"number the {what}s without gaps, or write a plain table, which takes any ids"
            )
    return count


def _as_ids_of_one_type(table: Table, name: str) -> Any:
    """Convert the column to int64 or strings."""
    column = complete_column(table, name, "an id")
    if pa.types.is_boolean(column.type):
        raise table.wrong_type(name, "an id of text or a whole number")
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return cast_column(table, name, column, pa.int64(), "a whole number below 2⁶³, or text")
    column = cast_column(table, name, column, pa.string(), "an id of text or a whole number")
    length = pc.utf8_length(column)
    good = pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_LENGTH))
    good = pc.and_not(good, pc.match_substring_regex(column, r"[\x00\r\n]"))  # NumPy cuts off NUL at the end of an id
    wrong = pc.index(good, False).as_py()
    if wrong >= 0:
        raise table.refusal(name, wrong, f"an id of 1 to {MAX_LENGTH} characters, none of them NUL or a line break")
    return column


def _without_fractions(columns: Sequence[Any]) -> list[Any]:
    """Write text ids such as `7.0` without the fraction in columns with no other ids.

    If such an id occurs among others in any column, all columns stay as they are, so that an id is the same in each.
    """
    with_some = [is_text(column.type) and any_match(column, WHOLE_FLOAT) for column in columns]
    with_others = [some and not all_match(column, WHOLE_FLOAT) for column, some in zip(columns, with_some, strict=True)]
    if any(with_others):
        return list(columns)
    return [without_fraction(column) if some else column for column, some in zip(columns, with_some, strict=True)]


def _ids_to_numpy(column: Any) -> Shaped[np.ndarray, " entries"]:
    if pa.types.is_integer(column.type) or all_match(column, INTEGER):
        return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
    return np.array(column.to_pylist(), np.str_)
