"""Rows of tables as views of an engine, with columns named by their roles; `row_values` and `row_ids` read the values.

A check is a query for the first wrong row, so that an error names its file and row as for any other table.
"""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from slmrec_jax.data.readers.engine import Engine, partition_folders, quoted_name
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.parquet_files import type_name
from slmrec_jax.data.readers.refusals import one_line, short_name, shown_value
from slmrec_jax.data.readers.tables import Table, choose_names, text_blocks
from slmrec_jax.errors import UserError


class Rows(NamedTuple):
    """Rows of one table, which may lie in several files."""

    engine: Engine
    view: str
    """Its columns are called by their roles; `part` and `row` count files and their rows from 0."""
    kinds: Mapping[str, Any]
    """The Arrow type of each column, by role."""
    file: Path
    """What errors about the whole table call it."""
    parts: Sequence[Path]
    first: int
    """The number of the first row in error lines: 2 below a row of names, 1 without, 0 in memory."""

    def where(self, condition: str) -> "Rows":
        """Return the rows that fulfil a condition."""
        return self.select(f"SELECT * FROM {self.view} WHERE {condition}", self.kinds)

    def select(self, query: str, kinds: Mapping[str, Any]) -> "Rows":
        """Return the rows of a query, which keeps `part` and `row`, and has the columns of `kinds`."""
        return _rows(self.engine, query, kinds, self.file, self.parts, self.first)

    def blocks(self, *values: str) -> Generator[Any, None, None]:
        """Yield values of all rows, in order, as Arrow record batches."""
        return self.engine.blocks(f"SELECT {', '.join(values)} FROM {self.view}")

    def fetch(self) -> Table:
        """Return the rows of a table of one file in memory."""
        table = pa.Table.from_batches(list(self.blocks(*self.kinds, "row")))
        columns = {role: table.column(place) for place, role in enumerate(self.kinds)}
        return Table(self.file, columns, self.first, np.asarray(table.column("row").to_numpy(), np.int64))

    def num_rows(self, *conditions: str) -> tuple[int, ...]:
        """Return the number of rows, and of those that fulfil each condition."""
        counts = ", ".join(["count(*)", *(f"count_if({each})" for each in conditions)])
        return self.engine.rows(f"SELECT {counts} FROM {self.view}")[0]

    def find(self, condition: str, values: str) -> tuple[Any, ...] | None:
        """Return part, row and values of the first row that fulfils a condition."""
        found = self.engine.rows(
            f"SELECT part, row, {values} FROM {self.view} WHERE {condition} ORDER BY part, row LIMIT 1"
        )
        return found[0] if found else None

    def check(self, role: str, wrong: str, expected: str) -> None:
        """Raise the error for the first row whose value is wrong, if there is one."""
        if found := self.find(wrong, role):
            part, row, value = found
            raise UserError(f"{self.place(part, row)}: {role} is {shown_value(value)}; expected {expected}")

    def check_complete(self, role: str, expected: str) -> None:
        """Raise the error for the first row without a value, if there is one."""
        missing = f"{role} IS NULL" + (f" OR isnan({role})" if pa.types.is_floating(self.kinds[role]) else "")
        if found := self.find(missing, "NULL"):
            raise UserError(f"{self.place(*found[:2])}: {role} is missing; expected {expected}")

    def place(self, part: int, row: int) -> str:
        """Return the place of a row for error lines."""
        return f"{self.parts[part]}: row {row + self.first}"

    def wrong_type(self, role: str, expected: str) -> UserError:
        """Return the error for a column of another type than expected."""
        found = type_name(self.kinds[role])
        return UserError(f"{self.parts[0]}: {short_name(role)} is a column of {found}; expected {expected}")


class TextPart(NamedTuple):
    """One file of a text table, as `tables.read_text` takes it."""

    file: Path
    separator: str
    columns: Mapping[str, str]
    """The name of the column of each role."""
    names: Sequence[str] | None
    quotes: bool


def text_rows(engine: Engine, file: Path, parts: Sequence[TextPart]) -> Rows:
    """Read a table of text files; `file` is what errors about the whole table call it."""
    selections, first = [], 1
    for number, (part, separator, columns, names, quotes) in enumerate(parts):
        blocks, first = text_blocks(part, separator, list(columns.values()), names=names, quotes=quotes)
        table = engine.new_name()
        engine.add_table(table, (block.rename_columns(list(columns)) for block in blocks))
        selections.append(f"SELECT *, {number} AS part, rowid AS row FROM {table}")
    kinds = dict.fromkeys(parts[0].columns, pa.string())
    return _rows(engine, " UNION ALL BY NAME ".join(selections), kinds, file, [part.file for part in parts], first)


def parquet_rows(engine: Engine, file: Path, parts: Sequence[Path], root: Path, columns: Mapping[str, str]) -> Rows:
    """Read columns of Parquet files that have the same columns.

    Args:
        engine: Knows the files.
        file: What errors about the whole table call it.
        parts: The files.
        root: The folder of the data set; folders `key=value` below it are columns too.
        columns: The name of the column of each role.
    """
    kinds = [_column_kinds(part, root, columns) for part in parts]
    for part, found in zip(parts, kinds, strict=True):
        for role, column in columns.items():
            if found[role] != kinds[0][role]:
                one, other = type_name(found[role]), type_name(kinds[0][role])
                raise UserError(
                    f"{part}: {column!r} is a column of {one}, and of {other} in {parts[0].name}; write all files alike"
                )
    chosen = ", ".join(f"{quoted_name(column)} AS {quoted_name(role)}" for role, column in columns.items())
    query = f"SELECT {chosen}, part, row FROM {engine.parquet(parts)}"
    return _rows(engine, query, kinds[0], file, parts, 1)


def memory_rows(engine: Engine, table: Table) -> Rows:
    """Take the rows of a table in memory."""
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


def parquet_names(part: Path, root: Path) -> tuple[Any, list[str]]:
    """Return the Arrow schema of a Parquet file, and the keys of its folders that are not columns of its own."""
    check_file(part, "a table")
    try:
        with part.open("rb") as raw:
            schema = pyarrow.parquet.read_schema(raw)
        names = set(schema.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{part}: not a readable table ({one_line(error)}); write it again") from error
    keys = [folder.split("=", 1)[0] for folder in partition_folders(part, root)]
    return schema, [key for key in keys if key not in names]


def _column_kinds(part: Path, root: Path, columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the Arrow type of each role's column."""
    schema, keys = parquet_names(part, root)
    choose_names(part, [*schema.names, *keys], list(columns.values()))
    kinds = {role: pa.string() if name in keys else schema.field(name).type for role, name in columns.items()}
    return {role: kind.value_type if pa.types.is_dictionary(kind) else kind for role, kind in kinds.items()}
