"""Rows of tables as views of an engine, with columns named by role; `row_values` and `row_ids` read the values.

A check is a query for the first wrong row, so that errors name the file and the row, as for any other table.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.folders import partition_keys
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.parquet_files import type_name
from slmrec_jax.data.readers.refusals import short_name, shown_value
from slmrec_jax.data.readers.tables import Table, choose_names, text_blocks
from slmrec_jax.errors import UserError, one_line

_COARSE = ("s", "ms")
_MOST_COARSE = (2**63 - 2) // 1000
"""The largest time in milliseconds that fits in 64 bits as microseconds."""
_MOST_YEAR = 290_000


class Rows(NamedTuple):
    """The rows of one table, which may be in several files."""

    engine: Engine
    view: str
    """The view. Its columns are named by role; `part` and `row` count the files and their rows from 0."""
    kinds: Mapping[str, Any]
    """The Arrow type of each column, by role."""
    file: Path
    """The name of the table in errors about the whole table."""
    parts: Sequence[Path]
    first: int
    """The number of the first row in error messages: 2 below a header, 1 without a header, 0 in memory."""

    def where(self, condition: str) -> "Rows":
        """Select the rows that fulfil a condition."""
        return self.select(f"SELECT * FROM {self.view} WHERE {condition}", self.kinds)

    def select(self, query: str, kinds: Mapping[str, Any]) -> "Rows":
        """Return the rows of a query, which must keep `part` and `row` and have the columns of `kinds`."""
        return _rows(self.engine, query, kinds, self.file, self.parts, self.first)

    def blocks(self, *values: str) -> Generator[Any, None, None]:
        """Yield values of all rows, in order, as Arrow record batches."""
        return self.engine.blocks(f"SELECT {', '.join(values)} FROM {self.view}")

    def fetch(self) -> Table:
        """Load the rows of a single-file table into memory."""
        table = pa.Table.from_batches(list(self.blocks(*self.kinds, "row")))
        columns = {role: table.column(place) for place, role in enumerate(self.kinds)}
        return Table(self.file, columns, self.first, np.asarray(table.column("row").to_numpy(), np.int64))

    def num_rows(self, *conditions: str) -> tuple[int, ...]:
        """Count the rows, and those that fulfil each condition."""
        counts = ", ".join(["count(*)", *(f"count_if({each})" for each in conditions)])
        return self.engine.rows(f"SELECT {counts} FROM {self.view}")[0]

    def find(self, condition: str, values: str) -> tuple[Any, ...] | None:
        """Return the part, row and values of the first row that fulfils a condition."""
        found = self.engine.rows(
            f"SELECT part, row, {values} FROM {self.view} WHERE {condition} ORDER BY part, row LIMIT 1"
        )
        return found[0] if found else None

    def check(self, role: str, wrong: str, expected: str) -> None:
        """Raise an error for the first row whose value is wrong, if there is one."""
        if found := self.find(wrong, role):
            part, row, value = found
            raise UserError(f"{self.place(part, row)}: {role} is {shown_value(value)}; expected {expected}")

    def check_complete(self, role: str, expected: str) -> None:
        """Raise an error for the first row without a value, if there is one."""
        missing = f"{role} IS NULL" + (f" OR isnan({role})" if pa.types.is_floating(self.kinds[role]) else "")
        if found := self.find(missing, "NULL"):
            raise UserError(f"{self.place(*found[:2])}: {role} is missing; expected {expected}")

    def place(self, part: int, row: int) -> str:
        """Describe the place of a row for error messages."""
        return f"{self.parts[part]}: row {row + self.first}"

    def wrong_type(self, role: str, expected: str) -> UserError:
        """Make the error for a column of an unexpected type."""
        found = type_name(self.kinds[role])
        return UserError(f"{self.parts[0]}: {short_name(role)} is a column of {found}; expected {expected}")


class TextPart(NamedTuple):
    """One file of a text table, with the arguments of `tables.read_text`."""

    file: Path
    separator: str
    columns: Mapping[str, str]
    """The column name of each role."""
    names: Sequence[str] | None
    quotes: bool


def text_rows(engine: Engine, file: Path, parts: Sequence[TextPart]) -> Rows:
    """Read a table of text files. `file` names it in errors about the whole table."""
    selections, first = [], 1
    for number, (part, separator, columns, names, quotes) in enumerate(parts):
        blocks, first = text_blocks(part, separator, list(columns.values()), names=names, quotes=quotes)
        table = engine.new_name()
        engine.add_table(table, (block.rename_columns(list(columns)) for block in blocks), str(part))
        selections.append(f"SELECT *, {number} AS part, rowid AS row FROM {table}")
    kinds = dict.fromkeys(parts[0].columns, pa.string())
    return _rows(engine, " UNION ALL BY NAME ".join(selections), kinds, file, [part.file for part in parts], first)


def parquet_rows(engine: Engine, file: Path, parts: Sequence[Path], root: Path, columns: Mapping[str, str]) -> Rows:
    """Read columns of Parquet files, which may differ in other columns and in the width of integers.

    Args:
        engine: The engine, which was made with the files.
        file: The name of the table in errors about the whole table.
        parts: The files.
        root: The folder of the data set. A folder `key=value` below it becomes a column `key`.
        columns: The column name of each role.
    """
    layouts = [_part_layout(part, root, columns) for part in parts]
    kinds = dict(layouts[0].kinds)
    for part, layout in zip(parts, layouts, strict=True):
        for role, column in columns.items():
            one, other = layout.kinds[role], kinds[role]
            if one == other:
                continue
            if not (pa.types.is_integer(one) and pa.types.is_integer(other)):
                one, other = type_name(one), type_name(other)
                raise UserError(
                    f"{part}: {column!r} is a column of {one}, but of {other} in {parts[0].name}; use the same types"
                )
            kinds[role] = pa.int64()
    alike: dict[object, list[int]] = {}
    for number, layout in enumerate(layouts):
        _check_times_fit(parts[number], layout)
        alike.setdefault((layout.names, *layout.kinds.values(), *layout.values), []).append(number)
    queries = []
    for numbers in alike.values():
        first = layouts[numbers[0]]
        values = {role: [layouts[number].values[role] for number in numbers] for role in first.values}
        queries.append(engine.parquet([parts[number] for number in numbers], first.columns, values, numbers))
    return _rows(engine, " UNION ALL BY NAME ".join(queries), kinds, file, parts, 1)


def memory_rows(engine: Engine, table: Table) -> Rows:
    """Make rows from a table in memory."""
    for role, column in table.columns.items():
        _check_time_column(table, role, column)
    halves = {role: pa.types.is_float16(column.type) for role, column in table.columns.items()}
    columns = {role: column.cast(pa.float32()) if halves[role] else column for role, column in table.columns.items()}
    name = engine.new_name()
    engine.add_table(name, [pa.table(columns)], str(table.file))
    kinds = {role: column.type for role, column in columns.items()}
    query = f"SELECT *, 0 AS part, rowid AS row FROM {name}"
    return _rows(engine, query, kinds, table.file, [table.file], table.first)


def _rows(engine: Engine, query: str, kinds: Mapping[str, Any], file: Path, parts: Sequence[Path], first: int) -> Rows:
    view = engine.new_name()
    engine.run(f"CREATE VIEW {view} AS {query}")
    return Rows(engine, view, kinds, file, parts, first)


@contextmanager
def _refusing_bad_parquet(part: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{part}: not a readable table ({one_line(error)}); write it again") from error


class _PartLayout(NamedTuple):
    """The columns of a Parquet file and of the folders around it."""

    names: tuple[str, ...]
    columns: dict[str, int]
    """The index of each role's column."""
    values: dict[str, str | None]
    """The value of each role that is given by a folder's name."""
    kinds: dict[str, Any]
    """The Arrow type of each role's column."""


def _part_layout(part: Path, root: Path, columns: Mapping[str, str]) -> _PartLayout:
    check_file(part, "a table")
    with _refusing_bad_parquet(part), part.open("rb") as raw:
        schema = pyarrow.parquet.read_schema(raw)
        names = tuple(schema.names)
    keys = partition_keys(part, root)
    for key, _ in keys:
        for name in names:
            if name.casefold() == key.casefold() and {name, key} & set(columns.values()):
                raise UserError(f"{part}: {name!r} is a column and {key!r} the key of a folder; rename one of them")
    choose_names(part, [*names, *(key for key, _ in keys)], list(columns.values()))
    values = {role: dict(keys)[name] for role, name in columns.items() if name not in names}
    places = {role: names.index(name) for role, name in columns.items() if name in names}
    kinds = {role: schema.field(places[role]).type if role in places else pa.string() for role in columns}
    kinds = {role: kind.value_type if pa.types.is_dictionary(kind) else kind for role, kind in kinds.items()}
    return _PartLayout(names, places, values, kinds)


def _check_times_fit(part: Path, layout: _PartLayout) -> None:
    """Reject times in seconds and milliseconds that are too large for DuckDB, which converts them to microseconds."""
    for role, place in layout.columns.items():
        if not pa.types.is_timestamp(layout.kinds[role]) or layout.kinds[role].unit not in _COARSE:
            continue
        with _refusing_bad_parquet(part), part.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as opened:
            paths = [opened.schema.column(leaf).path for leaf in range(len(opened.schema))]
            name = layout.names[place]
            if paths.count(name) != 1 or not _may_be_large(opened.metadata, paths.index(name)):
                continue
            first = 0
            for batch in opened.iter_batches(columns=[name]):
                column = batch.column(0)
                _check_time_column(Table(part, {role: column}, 1 + first), role, column)
                first += len(column)


def _may_be_large(metadata: Any, place: int) -> bool:
    """Return whether a time may be too large, according to the statistics of a column."""
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group).column(place).statistics
        if found is None or not found.has_min_max or max(-found.min_raw, found.max_raw) > _MOST_COARSE:
            return True
    return False


def _check_time_column(table: Table, role: str, column: Any) -> None:
    """Raise an error for the first time that is too large, if there is one."""
    kind = column.type
    if not pa.types.is_timestamp(kind) or kind.unit not in _COARSE:
        return
    numbers = column.cast(pa.int64())
    most = _MOST_COARSE // (1 if kind.unit == "ms" else 1000)
    large = pc.or_(pc.greater(numbers, most), pc.less(numbers, -most))
    if (place := pc.index(large, True).as_py()) >= 0:
        raise table.refusal(role, place, f"a time between the years -{_MOST_YEAR} and {_MOST_YEAR}")
