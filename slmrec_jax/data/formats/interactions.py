"""Read interaction tables with named columns, and make data sets of them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import ITEM_TEXTS, NO_INTERACTIONS, SPLITS, Dataset, Feature, Words
from slmrec_jax.data.formats.roles import (
    ColumnLayout,
    choose_columns,
    find_layout,
    named_columns,
    note_renamed,
    table_parts,
)
from slmrec_jax.data.formats.windows import has_window, within_window
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.readers.columns import MISSING, cast_column
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.refusals import listed, shown_value
from slmrec_jax.data.readers.row_ids import NumberedIds, fetch_pairs
from slmrec_jax.data.readers.row_values import flags, labels, matches, numbers, times
from slmrec_jax.data.readers.rows import Rows, TextPart, parquet_rows, text_rows
from slmrec_jax.data.readers.tables import Table, read_parquet, read_text
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.split import SPLIT_METHODS, Unsplit
from slmrec_jax.errors import UserError, setting

LISTS_SUFFIX = "_pairs.tsv"
"""The end of MicroLens' file names. A row has a user, a tab, and the user's items in time order, separated by
blanks."""
SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "validation", "val"), "test": ("test",)}
"""The names of each split in file names and in a column `split`."""

_SPLIT_LABELS = {name: SPLITS.index(split) for split, names in SPLIT_NAMES.items() for name in names}
_SPLIT_LABELS |= {str(number): number for number in range(len(SPLITS))}


class InteractionTable(NamedTuple):
    """A table whose columns are named by role, without the rows that are not interactions."""

    rows: Rows
    notes: list[str]
    of_one_user: bool = False
    """Whether times are positions in a user's list."""


def read_interactions(
    engine: Engine, file: Path, source: Source, separator: str | None = None, root: Path | None = None
) -> InteractionTable:
    """Read users, items and other known columns of the rows that are interactions (`take_interactions`).

    Args:
        engine: The engine, which was made with the Parquet files of the table.
        file: The table, or a folder of files with the same columns.
        source: Names columns, and determines which rows count.
        separator: The usual separator, if the suffix does not determine it; quotes then have no meaning.
        root: The folder of the data set; by default that of the file.
    """
    if file.name.endswith(LISTS_SUFFIX):
        return InteractionTable(_unroll_item_lists(engine, file, source), [], of_one_user=True)
    named, parts = named_columns(source), table_parts(file)
    found = [find_layout(part, named, separator=separator, root=root) for part in parts]
    chosen = [choose_columns(part, each, named, ("user", "item")) for part, each in zip(parts, found, strict=True)]
    layout, columns = found[0], chosen[0]
    for part, each, other in zip(parts, found, chosen, strict=True):
        if bool(each.separator) != bool(layout.separator):
            kind, first = ("text", "Parquet") if each.separator else ("Parquet", "text")
            raise UserError(
                f"{part}: it is {kind}, but {parts[0].name} is {first}; give all files of {file.name} the same kind"
            )
        if set(other) != set(columns):
            raise UserError(
                f"{part}: it has columns of {listed(list(other))}, but {parts[0].name} of {listed(list(columns))}; "
                f"give all files of {file.name} the same columns"
            )
    if layout.separator:
        texts = zip(parts, found, chosen, strict=True)
        rows = text_rows(engine, file, [_text_part(part, each, columns) for part, each, columns in texts])
    else:
        if any(other != columns for other in chosen):
            raise UserError(f"{file}: its files use different names for the same columns; use the same names")
        rows = parquet_rows(engine, file, parts, root or file.parent, columns)
    notes = note_renamed(file, columns) if layout.header else []
    if not layout.header and layout.names[0] == "1":
        notes.append(f"{file.name}: row 1 ({_first_data_row(rows, columns)}) is read as data, not as names")
    return take_interactions(rows, columns, layout.names, source, notes)


def take_interactions(
    rows: Rows, columns: Mapping[str, str], names: Sequence[str], source: Source, notes: list[str]
) -> InteractionTable:
    """Return the rows that are interactions, without those with label 0, outside the time window or with a low rating.

    Args:
        rows: Rows whose columns are named by role.
        columns: The column name of each role.
        names: All column names, for error messages.
        source: Has the time window and the minimum rating.
        notes: The notes on the table so far.
    """
    unread = [name for name in names if name not in columns.values()]
    if "timestamp" not in columns and unread and uncompressed(rows.file).suffix != ".inter":
        notes.append(f"{rows.file.name}: no known column of times; columns that are not read: {listed(unread)}")
    if "label" in columns:
        rows = keep_taken(rows, "label", columns["label"], notes)
    if end := has_window(source):
        if "timestamp" not in columns:
            raise _no_column(rows.file, names, "times", "time_column", end)
        for within, what in within_window(rows, source):
            rows = _keep_rows(rows, within, what, notes, even_all=True)
    if source.min_rating is not None:
        if "rating" not in columns:
            raise _no_column(rows.file, names, "ratings", "rating_column", setting("min_rating"))
        enough = f"{numbers(rows, 'rating')} >= {float(source.min_rating)!r}"
        rows = _keep_rows(rows, enough, f"a rating below {source.min_rating:g}", notes)
    elif "rating" in columns:
        notes.append("ratings are not used: a row counts as an interaction whatever its rating")
    return InteractionTable(rows, notes)


def read_items(file: Path, source: Source) -> Table:
    """Read `ITEM_TEXTS` and the item column, which is named as in the interactions or has a known name."""
    column = source.item_column
    named = {"item": column} if column and not column.isdecimal() else {}
    found = find_layout(file, named, ("item",))
    if "item" not in found.roles:
        named, found = {}, find_layout(file, {}, ("item",))
    texts = text_columns(str(file), found.names)
    return _read_roles(file, found, {"item": choose_columns(file, found, named, ("item",))["item"], **texts})


def text_columns(where: str, names: Sequence[str]) -> dict[str, str]:
    """Return the existing column of each kind of `ITEM_TEXTS`, in upper or lower case."""
    found: dict[str, str] = {}
    for name in names:
        kind = name.lower()
        if kind in ITEM_TEXTS:
            if kind in found:
                raise UserError(f"{where}: {found[kind]!r} and {name!r} are both columns of {kind}s; keep one")
            found[kind] = name
    return found


def item_texts_of(table: Table) -> dict[str, Shaped[np.ndarray, " items"]]:
    """Return the `ITEM_TEXTS` columns of an item table as text; empty where a value is missing."""
    return {
        name: np.array(pc.fill_null(cast_column(table, name, column, pa.string(), "text"), "").to_pylist(), np.object_)
        for name, column in table.columns.items()
        if name in ITEM_TEXTS
    }


def keep_taken(rows: Rows, role: str, column: str, notes: list[str]) -> Rows:
    """Drop the rows with label 0 (shown, but not taken), and add a note on their number.

    The label column is called `role` in the view and `column` in the file.
    """
    taken = flags(rows, role)
    if taken is None:
        notes.append(f"{rows.file.name}: column {column!r} is not used: it has values other than 0 and 1")
        return rows
    return _keep_rows(rows, taken, f"{column} 0", notes)


def assemble(
    name: str,
    tables: Mapping[str, InteractionTable],
    users: NumberedIds,
    items: NumberedIds,
    features: Mapping[str, Feature | Words],
    files: Mapping[str, Path],
    notes: Sequence[str],
    split: str | None,
    item_texts: Mapping[str, Shaped[np.ndarray, " items"]] | None = None,
) -> Dataset | Unsplit:
    """Make a data set from one table per split, or from a single table under "", which may have a column `split`.

    Users and items are those of the tables. `files` are the files of splits, modalities and items, for error messages;
    `item_texts` are shown with items. `split` is the method that will split the data. If it is given, times are read
    now or never, and the engine is closed; otherwise, times are read on demand. If it uses the times of a table with a
    column `split`, that column is ignored.

    Raises:
        UserError: `split` uses times, which are in several tables.
    """
    rows = [found.rows for found in tables.values()]
    whole = tables.get("")
    method = SPLIT_METHODS.get(split or "")
    now = method is not None and method.times != "unused" and any("timestamp" in each.kinds for each in rows)
    if now and whole is None:
        raise UserError(
            f"{rows[0].file}: the split {split!r} uses times, but not those of tables that are already split; put all "
            f"interactions in one table, or choose another split"
        )
    divided = whole is None or ("split" in whole.rows.kinds and not now)
    if whole is None:
        splits = [str(SPLITS.index(part)) for part in tables]
    else:
        splits = [labels(whole.rows, "split", _SPLIT_LABELS) if divided else "0"]
    later = not divided and method is None and "timestamp" in rows[0].kinds
    given = sum(each.num_rows()[0] for each in rows)
    pairs, first_times = fetch_pairs(rows, users, items, splits, times(rows[0], "timestamp") if now else None)
    if not later:
        rows[0].engine.close()
    kept = sum(len(each.users) for each in pairs)
    repeats = [f"rows that repeat an interaction, merged: {given - kept} of {given}"] if kept < given else []
    dataset = make_dataset(
        name,
        *(each if len(each.users) else NO_INTERACTIONS for each in pairs),
        num_users=len(users.ids),
        num_items=len(items.ids),
        features=features,
        user_ids=users.ids,
        item_ids=items.ids,
        item_texts=item_texts,
        origins={part or "train": file for part, file in files.items()},
        notes=[*dict.fromkeys(note for found in tables.values() for note in found.notes), *notes, *repeats],
    )
    if whole is None or divided:
        return dataset
    if now:
        return Unsplit(dataset, lambda: first_times, whole.of_one_user)
    return Unsplit(dataset, partial(_read_times, rows, users, items) if later else None, whole.of_one_user)


def _read_times(rows: Sequence[Rows], users: NumberedIds, items: NumberedIds) -> Shaped[np.ndarray, " interactions"]:
    return fetch_pairs(rows, users, items, ["0"], times(rows[0], "timestamp")).times


def _text_part(file: Path, found: ColumnLayout, columns: Mapping[str, str]) -> TextPart:
    return TextPart(file, found.separator, columns, None if found.header else found.names, found.quotes)


def _read_roles(file: Path, found: ColumnLayout, columns: Mapping[str, str]) -> Table:
    names = list(columns.values())
    if found.separator:
        given = None if found.header else found.names
        table = read_text(file, found.separator, names, names=given, quotes=found.quotes)
    else:
        table = read_parquet(file, names)
    return table._replace(columns={role: table.columns[name] for role, name in columns.items()})


def _first_data_row(rows: Rows, columns: Mapping[str, str]) -> str:
    """Describe the first row of a table with numbered columns. A row of names is rejected."""
    found = rows.find("true", ", ".join(columns))
    first = [] if found is None else list(map(shown_value, found[2:]))
    for role, value in zip(columns, first, strict=False):  # the table may be empty
        whole = matches(f"trim({role})", r"^-?[0-9]+(\.0*)?$")
        _, others, not_whole = rows.num_rows("row > 0 OR part > 0", f"(row > 0 OR part > 0) AND NOT {whole}")
        of_numbers = role in ("timestamp", "rating") or (others and not not_whole)
        text = value.strip("'\" ").lower()
        if of_numbers and text not in MISSING and not any(map(str.isdigit, text)):
            raise UserError(
                f"{rows.place(0, 0)}: column {columns[role]} is {value}, which is a name; give column names instead "
                f"of numbers"
            )
    return ", ".join(first)


def _unroll_item_lists(engine: Engine, file: Path, source: Source) -> Rows:
    names = {"user": "user", "items": "items"}
    if end := has_window(source):
        raise _no_column(file, tuple(names), "times", "time_column", end)
    if source.min_rating is not None:
        raise _no_column(file, tuple(names), "ratings", "rating_column", setting("min_rating"))
    rows = text_rows(engine, file, [TextPart(file, "\t", names, tuple(names), quotes=False)])
    listed_items = f"SELECT *, string_split_regex(trim(items, ' \t\r'), '[ \t]+') AS given FROM {rows.view}"
    columns = '"user", unnest(given) AS item, generate_subscripts(given, 1) AS "timestamp", part, row'
    kinds = {"user": pa.string(), "item": pa.string(), "timestamp": pa.int64()}
    return rows.select(f"SELECT {columns} FROM ({listed_items})", kinds)


def _keep_rows(rows: Rows, chosen: str, what: str, notes: list[str], *, even_all: bool = False) -> Rows:
    """Return the chosen rows, and add a note on the number of others; with `even_all`, even if that is 0."""
    total, kept = rows.num_rows(chosen)
    if kept == total and not even_all:
        return rows
    if not kept:
        raise UserError(f"{rows.file}: every row has {what}; expected some interactions")
    notes.append(f"{rows.file.name}: rows with {what}, left out: {total - kept} of {total}")
    return rows.where(chosen)


def _no_column(file: Path, names: Sequence[str], what: str, field: str, given: str) -> UserError:
    fix = f"name it with {setting(field)}, or leave out {given}"
    return UserError(f"{file}: there is no column of {what}; it has {listed(names)}: {fix}")
