"""Reads tables of interactions whose columns have names, and makes a data set of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, Feature, Words, make_dataset
from slmrec_jax.data.formats.roles import COLUMN_FIELDS, Layout, chosen_roles, layout, renamed
from slmrec_jax.data.readers.columns import MISSING, as_flags, as_labels, as_numbers, as_times
from slmrec_jax.data.readers.raw_ids import EncodedIds
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.tables import Table, read_parquet, read_text
from slmrec_jax.data.split import TEST, TRAIN, VALID, Unsplit, first_times
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions

LISTS = "_pairs.tsv"
"""How the name of MicroLens' files ends: a user, a tab, and their items in the order of time with blanks between."""
SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "validation", "val"), "test": ("test",)}
"""What the file of a split, and its rows in a column `split`, may be called."""

_PARTS = dict(zip(SPLIT_NAMES, (TRAIN, VALID, TEST), strict=True))
_LABELS = {name: _PARTS[split] for split, names in SPLIT_NAMES.items() for name in names}
_LABELS |= {str(part): part for part in _PARTS.values()}


class InteractionTable(NamedTuple):
    """A table whose columns are called by what they are for, without the rows that are no interactions."""

    table: Table
    notes: list[str]
    of_one_user: bool = False
    """Whether times are places in a user's list."""


def read_interactions(file: Path, source: Source, separator: str | None = None) -> InteractionTable:
    """Read users, items and what else is known, without rows of label 0 or of too low a rating.

    Args:
        file: Text, Parquet, or one of those that are known by their name.
        source: Names columns, and says from which rating on a row counts.
        separator: What stands between columns by rule, where the suffix does not say; then quotes mean nothing.

    Raises:
        UserError: The file cannot be read, or lacks a column of users or of items or one that is named.
    """
    if file.name.endswith(LISTS):
        return InteractionTable(_read_lists(file, source), [], of_one_user=True)
    found = layout(file, source, separator=separator)
    roles = chosen_roles(file, found, source, ("user", "item"))
    table = _read_roles(file, found, roles)
    notes = (
        renamed(file, {role: column for role, column in roles.items() if role in COLUMN_FIELDS}) if found.header else []
    )
    if not found.header and found.names[0] == "1":
        notes.append(f"{file.name}: row 1 ({_first_row(table, roles)}) is read as data, not as names")
    if "label" in roles:
        table = keep_taken(table, "label", roles["label"], notes)
    if source.min_rating is not None:
        if "rating" not in roles:
            raise UserError(_no_rating(file, found.names))
        enough = as_numbers(table, "rating") >= source.min_rating
        table = _keep(table, enough, f"a rating below {source.min_rating:g}", notes)
    elif "rating" in roles:
        notes.append("ratings are not used: every row counts as an interaction")
    return InteractionTable(table, notes)


def read_items(file: Path, source: Source) -> Table:
    """Read the column of items of a table, under the name that interactions have it or one that is known.

    Raises:
        UserError: The file cannot be read, or has no such column or more than one.
    """
    own = Source(source.data)
    named = own if (source.item_column or "0").isdecimal() else Source(source.data, item_column=source.item_column)
    found = layout(file, named, ("item",))
    if "item" not in found.roles:
        named, found = own, layout(file, own, ("item",))
    return _read_roles(file, found, {"item": chosen_roles(file, found, named, ("item",))["item"]})


def keep_taken(table: Table, role: str, column: str, notes: list[str]) -> Table:
    """The rows that are not labelled 0, which is what was shown and not taken; notes say how many are left out.

    Args:
        table: With labels.
        role: What they are called in the table.
        column: What they are called in the file.
        notes: Where to say what was done.

    Raises:
        UserError: All labels are 0.
    """
    taken = as_flags(table, role)
    if taken is None:
        notes.append(f"{table.file.name}: column {column!r} is not used: it has other values than 0 and 1")
        return table
    return _keep(table, taken, f"{column} 0", notes)


def gather(
    name: str,
    tables: Mapping[str, InteractionTable],
    users: EncodedIds,
    items: EncodedIds,
    features: Mapping[str, Feature | Words],
    files: Mapping[str, Path],
    notes: Sequence[str],
) -> Dataset | Unsplit:
    """A data set of the tables of each split; or of one table under "", which a column may divide.

    Args:
        name: What it is called.
        tables: By split.
        users: With the rows of each table.
        items: Likewise.
        features: By modality.
        files: That of each split or modality, and of items, for error lines.
        notes: What there is to say beside that of the tables.
    """
    pairs = {part: Interactions(users.rows[n], items.rows[n]) for n, part in enumerate(tables)}
    whole = tables.get("")
    if whole is not None and "split" in whole.table.columns:
        pairs, whole = _by_label(whole.table, pairs[""]), None
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    dataset = make_dataset(
        name,
        *(pairs.get(split, none) for split in ("train" if whole is None else "", "valid", "test")),
        num_users=len(users.ids),
        num_items=len(items.ids),
        features=features,
        user_ids=users.ids,
        item_ids=items.ids,
        origins={part or "train": str(file) for part, file in files.items()},
        notes=[*dict.fromkeys(note for found in tables.values() for note in found.notes), *notes],
    )
    if whole is None:
        return dataset
    if "timestamp" not in whole.table.columns:
        return Unsplit(dataset)
    table, rows, num_items = whole.table, pairs[""], len(items.ids)
    return Unsplit(dataset, lambda: first_times(rows, as_times(table, "timestamp"), num_items), whole.of_one_user)


def _read_roles(file: Path, found: Layout, roles: Mapping[str, str]) -> Table:
    columns = list(roles.values())
    if not found.separator:
        table = read_parquet(file, columns)
    else:
        names = None if found.header else found.names
        table = read_text(file, found.separator, columns, names=names, quotes=found.quotes)
    return Table(file, {role: table.columns[name] for role, name in roles.items()}, table.header)


def _first_row(table: Table, columns: Mapping[str, str]) -> str:
    """The first cells of a table whose columns are numbered, in words.

    Raises:
        UserError: They are names rather than data.
    """
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


def _read_lists(file: Path, source: Source) -> Table:
    if source.min_rating is not None:
        raise UserError(_no_rating(file, ("user", "items")))
    table = read_text(file, "\t", ("user", "items"), names=("user", "items"))
    items = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(table.columns["items"]))
    rows = np.asarray(pc.list_parent_indices(items).to_numpy(), np.int64)
    starts = np.r_[0, np.flatnonzero(np.diff(rows)) + 1] if len(rows) else np.zeros(0, np.int64)
    places = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    columns = {
        "user": table.columns["user"].take(pa.array(rows)),
        "item": pc.list_flatten(items),
        "timestamp": pa.chunked_array([pa.array(places)]),
    }
    return Table(file, columns, header=False, rows=rows)


def _keep(table: Table, chosen: Bool[np.ndarray, " entries"], what: str, notes: list[str]) -> Table:
    if chosen.all():
        return table
    if not chosen.any():
        raise UserError(f"{table.file}: every row has {what}; expected some interactions")
    notes.append(f"{table.file.name}: rows with {what}, left out: {(~chosen).sum()} of {len(chosen)}")
    return table.where(chosen)


def _no_rating(file: Path, names: Sequence[str]) -> str:
    return (
        f"{file}: there is no column of ratings; it has {listed(names)}: name it by "
        f"{setting('rating_column')}, or leave out {setting('min_rating')}"
    )


def _by_label(table: Table, pairs: Interactions) -> dict[str, Interactions]:
    parts = as_labels(table, "split", _LABELS)
    return {
        split: Interactions(pairs.users[parts == part], pairs.items[parts == part]) for split, part in _PARTS.items()
    }
