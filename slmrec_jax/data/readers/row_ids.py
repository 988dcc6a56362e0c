"""Number raw ids, and convert rows to sorted, distinct pairs of these numbers."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int, Shaped

from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.raw_ids import INTEGER, MAX_LENGTH, WHOLE_FLOAT
from slmrec_jax.data.readers.refusals import shown_value
from slmrec_jax.data.readers.row_values import MAX_DIGITS, as_text, can_be_text, matches, text_without_fraction
from slmrec_jax.data.readers.rows import Rows
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

_ID_BITS = 31
_CONTROL = r"[\x00\r\n]"
"""A pattern of forbidden characters. NumPy would cut off NUL at the end of an id."""


class NumberedIds(NamedTuple):
    """The raw ids in a column shared by tables, and their numbers."""

    ids: Shaped[np.ndarray, " distinct"]
    """The ids in sorted order: integers if all are written as such (`7`, not `007`), otherwise strings."""
    table: str
    """The engine's table with the columns `raw`, `id` and `key`, whose values are unique."""
    keys: tuple[str, ...]
    """For each table, SQL for the key of a row."""


def number_ids(tables: Sequence[Rows], role: str) -> NumberedIds:
    """Number the raw ids of a column in sorted order. The type must be convertible to text."""
    engine = tables[0].engine
    names = [f"{role}_{place}" for place in range(len(tables))]
    found = [_distinct_ids(rows, role, name) for rows, name in zip(tables, names, strict=True)]
    values, kinds = [each.value for each in found], [each.kind for each in found]
    # Some programs write integers like this. Elsewhere among text, the same writing is an id of its own.
    if not any(each.fractions == "some" for each in found):
        for place, name in enumerate(names):
            if found[place].fractions == "all":
                values[place] = text_without_fraction(values[place])
                whole = text_without_fraction("raw")
                engine.run(f"CREATE OR REPLACE TABLE {name} AS SELECT DISTINCT {whole} AS raw FROM {name}")
    if len(set(kinds)) > 1:
        values = [f"{value}::VARCHAR" for value in values]
        kinds = ["VARCHAR"]
    union = " UNION ".join(f"SELECT raw::{kinds[0]} AS raw FROM {name}" for name in names)
    engine.run(f"CREATE TABLE {role}_ids AS {union}")
    (count, whole, distinct), *_ = engine.rows(
        f"SELECT count(*), bool_and({matches('raw::VARCHAR', INTEGER)}), count(DISTINCT hash(raw)) FROM {role}_ids"
    )
    if count == 0:
        raise UserError(f"{tables[0].parts[0]}: it has no rows; expected some")
    if whole and kinds[0] == "VARCHAR":
        values = [f"{value}::BIGINT" for value in values]
    raw = "raw::BIGINT" if whole else "raw"
    by_hash = kinds[0] == "VARCHAR" and not whole and distinct == count  # joins on hashes are faster than on text
    key = f"hash({raw})" if by_hash else raw
    engine.run(
        f"CREATE TABLE {role}_numbers AS SELECT {raw} AS raw, {key} AS key, (row_number() OVER (ORDER BY {raw}) - 1) "
        f"AS id FROM {role}_ids"
    )
    for name in (f"{role}_ids", *names):
        engine.run(f"DROP TABLE {name}")
    keys = tuple(f"hash({value})" if by_hash else value for value in values)
    return NumberedIds(_fetch_ids(engine, f"{role}_numbers", count), f"{role}_numbers", keys)


def renumber(
    engine: Engine, numbered: NumberedIds, ids: Shaped[np.ndarray, " places"], places: Int[np.ndarray, " distinct"]
) -> NumberedIds:
    """Number ids in a different order: id n becomes `places[n]`. `ids` are the raw ids in the new order."""
    table, moved = engine.new_name(), engine.new_name()
    engine.add_table(table, [pa.table({"old": np.arange(len(places)), "new": places})])
    engine.run(f"CREATE TABLE {moved} AS SELECT raw, key, new AS id FROM {numbered.table} JOIN {table} ON id = old")
    return NumberedIds(ids, moved, numbered.keys)


def place_of_id(
    tables: Sequence[Rows], numbered: NumberedIds, role: str, ids: Int[np.ndarray, " ids"]
) -> tuple[str, str]:
    """Return the place of the first row with one of the ids, and its raw id, for error messages."""
    engine, wanted = tables[0].engine, tables[0].engine.new_name()
    engine.add_table(wanted, [pa.table({"wanted": ids})])
    known = f"SELECT key FROM {numbered.table} JOIN {wanted} ON id = wanted"
    for rows, key in zip(tables, numbered.keys, strict=True):
        if found := rows.find(f"{key} IN ({known})", role):
            return rows.place(*found[:2]), shown_value(found[2])
    raise AssertionError("ids are those of rows")


class Pairs(NamedTuple):
    """Distinct interactions of numbered ids, sorted by split, user and item."""

    splits: list[Interactions]
    times: Shaped[np.ndarray, " interactions"]
    """The earliest time of each interaction; empty if not requested."""


def fetch_pairs(
    tables: Sequence[Rows],
    users: NumberedIds,
    items: NumberedIds,
    splits: Sequence[str],
    times: str | None = None,
) -> Pairs:
    """Return the interactions of all tables, and the earliest time of each if requested.

    Args:
        tables: Rows with users and items.
        users: The numbered ids of users.
        items: The numbered ids of items.
        splits: For each table, SQL for the number of a row's split, 0 to 2.
        times: SQL for the time of a row, if there is a single table.
    """
    engine = tables[0].engine
    parts = [
        f"SELECT (({split})::UBIGINT << {2 * _ID_BITS}) | (u.id::UBIGINT << {_ID_BITS}) | i.id::UBIGINT AS pair"
        f"{'' if times is None else f', {times} AS time'} FROM {rows.view} "
        f"JOIN {users.table} u ON {user} = u.key JOIN {items.table} i ON {item} = i.key"
        for rows, split, user, item in zip(tables, splits, users.keys, items.keys, strict=True)
    ]
    earliest = "" if times is None else ", min(time) AS time"
    query = f"SELECT pair{earliest} FROM ({' UNION ALL '.join(parts)}) GROUP BY pair ORDER BY pair"
    numbers = Column(np.int32), Column(np.int32)
    found_times: Column | None = None
    sizes = np.zeros(3, np.int64)
    ends_of_splits = np.arange(1, 4, dtype=np.uint64) << np.uint64(2 * _ID_BITS)
    mask = np.uint64(2**_ID_BITS - 1)
    for block in engine.blocks(query):
        pairs = block.column(0).to_numpy()
        sizes += np.diff(np.searchsorted(pairs, ends_of_splits), prepend=0)  # pairs are in order
        numbers[0].add((pairs >> np.uint64(_ID_BITS) & mask).astype(np.int32))
        numbers[1].add((pairs & mask).astype(np.int32))
        if times is not None:
            values = block.column(1).to_numpy()
            found_times = found_times or Column(values.dtype.type)
            found_times.add(values)
    found_users, found_items = (column.whole() for column in numbers)
    ends = np.cumsum(sizes)
    found = [
        Interactions(found_users[end - size : end], found_items[end - size : end])
        for end, size in zip(ends, sizes, strict=True)
    ]
    return Pairs(found, np.zeros(0) if found_times is None else found_times.whole())


class Column:
    """A column that grows block by block, without a second copy in memory."""

    def __init__(self, dtype: type, room: int = 0) -> None:
        """Start empty, with capacity for `room` values."""
        self._values: Shaped[np.ndarray, " room"] = np.empty(room, dtype)
        self._count = 0

    def add(self, block: Shaped[np.ndarray, " block"]) -> None:
        """Append values."""
        if (end := self._count + len(block)) > len(self._values):
            self._values.resize(max(end, len(self._values) * 9 // 8), refcheck=False)
        self._values[self._count : end] = block
        self._count = end

    def whole(self) -> Shaped[np.ndarray, " interactions"]:
        """Return the column as a read-only array."""
        self._values.resize(self._count, refcheck=False)
        self._values.flags.writeable = False
        return self._values


class _IdColumn(NamedTuple):
    """The raw ids of one table."""

    value: str
    """SQL for a row's raw id."""
    kind: str
    """Its SQL type."""
    fractions: Literal["all", "some", "none"]
    """Which ids are text such as `7.0`."""


def _distinct_ids(rows: Rows, role: str, table: str) -> _IdColumn:
    """Make a table of the distinct raw ids of a column."""
    kind = rows.kinds[role]
    expected, longest = (
        "an id of text or a whole number",
        f"an id of 1 to {MAX_LENGTH} characters, none of them NUL or a line break",
    )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        whole = role if pa.types.is_integer(kind) else f"CASE WHEN {role} = trunc({role}) THEN {role} END"
        value, sql_kind, wrong = f"TRY_CAST({whole} AS BIGINT)", "BIGINT", "false"
        expected = "a whole number below 2⁶³, or text"
    elif pa.types.is_decimal(kind) and kind.precision > MAX_DIGITS:
        raise rows.wrong_type(role, f"whole numbers of at most {MAX_DIGITS} digits, or text")
    elif not can_be_text(kind):
        rows.check_complete(role, "an id")
        raise rows.wrong_type(role, expected)
    else:
        value, sql_kind = as_text(rows, role), "VARCHAR"
        wrong = f"length({{0}}) = 0 OR length({{0}}) > {MAX_LENGTH} OR {matches('{0}', _CONTROL)}"
    rows.engine.run(f"CREATE TABLE {table} AS SELECT {value} AS raw FROM {rows.view} GROUP BY 1")
    fraction = "false" if sql_kind == "BIGINT" else matches("raw", WHOLE_FLOAT)
    ((bad, every, some),) = rows.engine.rows(
        f"SELECT coalesce(bool_or(raw IS NULL OR {wrong.format('raw')}), false), "
        f"coalesce(bool_and({fraction}), false), coalesce(bool_or({fraction}), false) FROM {table}"
    )
    if bad:
        rows.check_complete(role, "an id")
        rows.check(role, f"({value}) IS NULL", expected)
        rows.check(role, wrong.format(f"({value})"), longest)
    return _IdColumn(value, sql_kind, "all" if every else "some" if some else "none")


def _fetch_ids(engine: Engine, table: str, count: int) -> Shaped[np.ndarray, " distinct"]:
    blocks = (block.column(0) for block in engine.blocks(f"SELECT raw FROM {table} ORDER BY id"))
    ((kind, longest),) = engine.rows(f"SELECT any_value(typeof(raw)), max(length(raw::VARCHAR)) FROM {table}")
    ids = np.empty(count, np.int64 if kind == "BIGINT" else f"U{longest}")
    start = 0
    for block in blocks:
        ids[start : start + len(block)] = block.to_numpy() if kind == "BIGINT" else block.to_pylist()
        start += len(block)
    return ids
