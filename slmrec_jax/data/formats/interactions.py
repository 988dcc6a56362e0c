"""Reads tables of interactions with named columns, and makes data sets from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import ITEM_TEXTS, NO_INTERACTIONS, SPLITS, Dataset, Feature, Words, by_split
from slmrec_jax.data.formats.roles import Layout, choose_columns, find_layout, named_columns, note_renamed
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.readers.columns import MISSING, as_flags, as_labels, as_numbers, as_times, cast_column
from slmrec_jax.data.readers.raw_ids import EncodedIds
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.tables import Table, read_parquet, read_text
from slmrec_jax.data.split import Unsplit, first_times
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions

LISTS_SUFFIX = "_pairs.tsv"
"""The end of MicroLens' file names; a row is a user, a tab, and their items in order of time, separated by blanks."""
SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "validation", "val"), "test": ("test",)}
"""The names of a split, in file names and in a column `split`."""

_SPLIT_LABELS = {name: SPLITS.index(split) for split, names in SPLIT_NAMES.items() for name in names}
_SPLIT_LABELS |= {str(number): number for number in range(len(SPLITS))}


class InteractionTable(NamedTuple):
    """A table whose columns are named by their roles, without the rows that are not interactions."""

    table: Table
    notes: list[str]
    of_one_user: bool = False
    """True if times are positions in a user's list."""


def read_interactions(file: Path, source: Source, separator: str | None = None) -> InteractionTable:
    """Read users, items and other known columns, without rows that have label 0 or a rating that is too low.

    If the suffix does not tell the regular separator, give it as `separator`; quotes then have no meaning.
    """
    if file.name.endswith(LISTS_SUFFIX):
        return InteractionTable(_unroll_item_lists(file, source), [], of_one_user=True)
    named = named_columns(source)
    found = find_layout(file, named, separator=separator)
    columns = choose_columns(file, found, named, ("user", "item"))
    table = _read_roles(file, found, columns)
    notes = note_renamed(file, columns) if found.header else []
    if not found.header and found.names[0] == "1":
        notes.append(f"{file.name}: row 1 ({_first_data_row(table, columns)}) is read as data, not as names")
    return take_interactions(table, columns, found.names, source, notes)


def take_interactions(
    table: Table, columns: Mapping[str, str], names: Sequence[str], source: Source, notes: list[str]
) -> InteractionTable:
    """Return the rows of a table that are interactions: not those with label 0 or a rating below the source's.

    Args:
        table: Columns named by their roles.
        columns: The name of each role's column.
        names: All columns that there are, for error lines.
        source: Has the least rating.
        notes: Notes on the table so far.
    """
    unread = [name for name in names if name not in columns.values()]
    if "timestamp" not in columns and unread and table.file.suffix != ".inter":
        notes.append(f"{table.file.name}: no known column of times; columns that are not read: {listed(unread)}")
    if "label" in columns:
        table = keep_taken(table, "label", columns["label"], notes)
    if source.min_rating is not None:
        if "rating" not in columns:
            raise _no_ratings(table.file, names)
        enough = as_numbers(table, "rating") >= source.min_rating
        table = _keep_rows(table, enough, f"a rating below {source.min_rating:g}", notes)
    elif "rating" in columns:
        notes.append("ratings are not used: every row counts as an interaction")
    return InteractionTable(table, notes)


def read_items(file: Path, source: Source) -> Table:
    """Read `ITEM_TEXTS` and the column of items, which has the same name as in the interactions or a known one."""
    column = source.item_column
    named = {"item": column} if column and not column.isdecimal() else {}
    found = find_layout(file, named, ("item",))
    if "item" not in found.roles:
        named, found = {}, find_layout(file, {}, ("item",))
    texts = text_columns(str(file), found.names)
    return _read_roles(file, found, {"item": choose_columns(file, found, named, ("item",))["item"], **texts})


def text_columns(where: str, names: Sequence[str]) -> dict[str, str]:
    """Return the column of each kind of `ITEM_TEXTS` that there is, in upper or lower case."""
    found: dict[str, str] = {}
    for name in names:
        kind = name.lower()
        if kind in ITEM_TEXTS:
            if kind in found:
                raise UserError(f"{where}: {found[kind]!r} and {name!r} are both columns of {kind}s; keep one")
            found[kind] = name
    return found


def item_texts_of(table: Table) -> dict[str, Shaped[np.ndarray, " items"]]:
    """Return the columns `ITEM_TEXTS` that a table of items has, as text; empty where a value is missing."""
    return {
        name: np.array(pc.fill_null(cast_column(table, name, column, pa.string(), "text"), "").to_pylist(), np.object_)
        for name, column in table.columns.items()
        if name in ITEM_TEXTS
    }


def keep_taken(table: Table, role: str, column: str, notes: list[str]) -> Table:
    """Return the rows that do not have label 0 (shown, but not taken), and add a note on the number of the others.

    The labels are called `role` in the table and `column` in the file.
    """
    taken = as_flags(table, role)
    if taken is None:
        notes.append(f"{table.file.name}: column {column!r} is not used: it has other values than 0 and 1")
        return table
    return _keep_rows(table, taken, f"{column} 0", notes)


def assemble(
    name: str,
    tables: Mapping[str, InteractionTable],
    users: EncodedIds,
    items: EncodedIds,
    features: Mapping[str, Feature | Words],
    files: Mapping[str, Path],
    notes: Sequence[str],
    item_texts: Mapping[str, Shaped[np.ndarray, " items"]] | None = None,
) -> Dataset | Unsplit:
    """Make a data set from one table per split, or from a single table under "", which a column `split` may divide.

    Users and items come with the rows of each table. `files` are those of splits, modalities and items, for errors;
    `item_texts` are shown with items.
    """
    pairs = dict(zip(tables, map(Interactions, users.rows, items.rows), strict=True))
    whole = tables.get("")
    divided = whole is None or "split" in whole.table.columns
    if whole is not None:
        rows = pairs[""]
        pairs = by_split(rows, as_labels(whole.table, "split", _SPLIT_LABELS)) if divided else {"train": rows}
    dataset = make_dataset(
        name,
        *(pairs.get(split, NO_INTERACTIONS) for split in SPLITS),
        num_users=len(users.ids),
        num_items=len(items.ids),
        features=features,
        user_ids=users.ids,
        item_ids=items.ids,
        item_texts=item_texts,
        origins={part or "train": file for part, file in files.items()},
        notes=[*dict.fromkeys(note for found in tables.values() for note in found.notes), *notes],
    )
    if whole is None or divided:
        return dataset
    if "timestamp" not in whole.table.columns:
        return Unsplit(dataset)
    table = whole.table
    return Unsplit(dataset, lambda: first_times(rows, as_times(table, "timestamp"), len(items.ids)), whole.of_one_user)


def _read_roles(file: Path, found: Layout, columns: Mapping[str, str]) -> Table:
    names = list(columns.values())
    if found.separator:
        given = None if found.header else found.names
        table = read_text(file, found.separator, names, names=given, quotes=found.quotes)
    else:
        table = read_parquet(file, names)
    return table._replace(columns={role: table.columns[name] for role, name in columns.items()})


def _first_data_row(table: Table, columns: Mapping[str, str]) -> str:
    """Describe the first row of a table whose columns are numbered; a row of names is refused."""
    for role, column in table.columns.items():
        whole = pc.match_substring_regex(pc.utf8_trim_whitespace(column), r"^-?[0-9]+(\.0*)?$")
        of_numbers = role in ("timestamp", "rating") or (len(whole) > 1 and pc.all(whole.slice(1)).as_py())
        first = str(column[0]).strip().lower() if len(column) else ""
        if of_numbers and first not in MISSING and not any(map(str.isdigit, first)):
            raise UserError(
                f"{table.row(0)}: column {columns[role]} is {table.value(role, 0)}, which is a name; name columns by "
                f"it instead of by numbers"
            )
    return ", ".join(table.value(role, 0) for role in columns)


def _unroll_item_lists(file: Path, source: Source) -> Table:
    if source.min_rating is not None:
        raise _no_ratings(file, ("user", "items"))
    table = read_text(file, "\t", ("user", "items"), names=("user", "items"))
    items = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(table.columns["items"]))
    rows = np.asarray(pc.list_parent_indices(items).to_numpy(), np.int64)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    positions = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    columns = {
        "user": table.columns["user"].take(pa.array(rows)),
        "item": pc.list_flatten(items),
        "timestamp": pa.chunked_array([pa.array(positions)]),
    }
    return Table(file, columns, first=1, rows=rows)


def _keep_rows(table: Table, chosen: Bool[np.ndarray, " entries"], what: str, notes: list[str]) -> Table:
    if chosen.all():
        return table
    if not chosen.any():
        raise UserError(f"{table.file}: every row has {what}; expected some interactions")
    notes.append(f"{table.file.name}: rows with {what}, left out: {(~chosen).sum()} of {len(chosen)}")
    return table.where(chosen)


def _no_ratings(file: Path, names: Sequence[str]) -> UserError:
    return UserError(
        f"{file}: there is no column of ratings; it has {listed(names)}: name it by "
        f"{setting('rating_column')}, or leave out {setting('min_rating')}"
    )
