"""Construction of data sets from frames and arrays in memory, with raw ids of any type."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmrec_jax.config.checks import check_fields
from slmrec_jax.config.config import IN_MEMORY
from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.formats.catalogues import in_catalogue
from slmrec_jax.data.formats.interactions import (
    SPLIT_NAMES,
    InteractionTable,
    assemble,
    item_texts_of,
    take_interactions,
    text_columns,
)
from slmrec_jax.data.formats.roles import COLUMN_FIELDS, ColumnLayout, choose_columns, find_roles, named_columns
from slmrec_jax.data.formats.windows import time_text
from slmrec_jax.data.frame_columns import columns_of, held_table, is_table, names_of
from slmrec_jax.data.frame_features import feature_of
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.row_ids import number_ids
from slmrec_jax.data.readers.rows import memory_rows
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.selection import select
from slmrec_jax.data.split import split_dataset
from slmrec_jax.errors import UserError, check_type

_TABLE = "a pandas, Polars or Arrow table, a mapping of arrays, or a pair of arrays of users and items"
_ITEMS = "raw ids, or a table with a column of them"


def dataset(
    interactions: Any,
    *,
    features: Mapping[str, Any] | None = None,
    items: Any = None,
    name: str = "data",
    split: str | None = None,
    split_seed: int = 0,
    min_rating: float | None = None,
    k_core: int = 0,
    since: object = None,
    until: object = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
) -> Dataset:
    """Make a data set from interactions and features in memory.

    Args:
        interactions: A table with columns of users and items, and optionally times, ratings, labels and splits: a
            pandas or Polars frame or any object with the Arrow or dataframe interchange protocol, a mapping of arrays,
            or a pair of arrays. Or a mapping from `train`, `valid` and `test` to such tables. Ids are strings or
            integers. If all ids of users, or all of items, are written like `7` or `7.0`, they become integers,
            otherwise strings.
        features: By modality, an array with one row per item, a pair (ids, vectors), or a mapping from ids to vectors.
            An item with a row of NaN or without a vector lacks the modality. The rows of an array without ids are in
            the order of `items`; without `items`, row i is the item with raw id i.
        items: The raw ids of the items in the order of feature rows, or a table with a column of raw ids and optionally
            `title` and `image`, which are shown with items. By default the items of the interactions.
        name: The name of the data set in reports.
        split: How to split the interactions, as for `load`; not needed if a column or a mapping gives the splits.
        split_seed: The seed of a random split.
        min_rating: Drop rows with a lower rating.
        k_core: Keep only users and items with at least this many interactions.
        since: Drop rows before this time: a number or a date, as in the data.
        until: Drop rows at or after this time, likewise.
        user_column: The name of the column of users, if it is not one of the known names.
        item_column: The column of items, likewise.
        time_column: The column of times, likewise.
        rating_column: The column of ratings, likewise.

    Raises:
        UserError: An argument is unusable. The message names it and the row, counted from 0.
    """
    check_type("name", name, str, "what the data set is called")
    check_type("features", features, (Mapping, type(None)), "a mapping from modality to vectors")
    for each in (name, *(features or ())):
        if not isinstance(each, str) or not each.isprintable() or not each:
            raise UserError(
                f"{each!r} is not a valid name for a data set or a modality: give text without control characters"
            )
    window = time_text(since), time_text(until)
    columns = (user_column, item_column, time_column, rating_column)
    source = Source(IN_MEMORY, None, split, split_seed, min_rating, k_core, *window, *columns)
    check_fields(source)
    engine = Engine()
    found = {part: _interactions(engine, argument, given, source) for part, argument, given in _parts(interactions)}
    tables = [each.rows for each in found.values()]
    users, coded = (number_ids(tables, role) for role in ("user", "item"))
    texts = {}
    if items is not None:
        catalogue = _catalogue(items, source)
        coded, texts = in_catalogue(coded, tables, catalogue), item_texts_of(catalogue)
    made, notes = {}, []
    for modality, given in (features or {}).items():
        made[modality], of_feature = feature_of(modality, given, coded.ids, ordered=items is not None)
        notes += of_feature
    data = assemble(name, found, users, coded, made, {}, notes, split, texts)
    return split_dataset(select(data, source), split, split_seed)


def _parts(interactions: Any) -> list[tuple[str, str, Any]]:
    """Return the split, the argument's name and the table of each part. The split is "" for an unsplit table."""
    splits = {each: split for split, names in SPLIT_NAMES.items() for each in names}
    if not isinstance(interactions, Mapping) or "train" not in interactions:
        return [("", "interactions", interactions)]
    if unknown := [str(each) for each in interactions if each not in splits]:
        given = interactions["train"]
        if not (is_table(given) or isinstance(given, tuple)):  # it is a column of that name
            return [("", "interactions", interactions)]
        raise UserError(f"interactions has {listed(unknown)}, which names no split; give {', '.join(splits)}")
    for split, names in SPLIT_NAMES.items():
        same = [each for each in interactions if each in names]
        if len(same) > 1:
            raise UserError(f"interactions has {listed(same)}, which all name the split {split}; keep one")
    return [(splits[each], f"interactions[{each!r}]", given) for each, given in interactions.items()]


def _interactions(engine: Engine, argument: str, given: Any, source: Source) -> InteractionTable:
    if isinstance(given, tuple) and len(given) == 2:
        given = {"user": given[0], "item": given[1]}
    given = held_table(argument, given, _TABLE)
    names, named = names_of(argument, given), named_columns(source)
    chosen = _chosen(argument, names, named, ("user", "item"))
    read = {role: column for role, column in chosen.items() if role != "rating" or source.min_rating is not None}
    columns = columns_of(argument, given, list(read.values()), _TABLE)
    table = Table(Path(argument), {role: columns[column] for role, column in read.items()}, first=0)
    return take_interactions(memory_rows(engine, table), chosen, names, source, [])


def _catalogue(given: Any, source: Source) -> Table:
    """Return the columns of `items`, with the raw id column named `item`."""
    if not is_table(given):  # only raw ids
        given = {"item": given}
    given = held_table("items", given, _ITEMS)
    names = names_of("items", given)
    named = {"item": source.item_column} if source.item_column in names else {}
    chosen = {"item": _chosen("items", names, named, ("item",))["item"], **text_columns("items", names)}
    columns = columns_of("items", given, list(chosen.values()), _ITEMS)
    return Table(Path("items"), {role: columns[column] for role, column in chosen.items()}, first=0)


def _chosen(argument: str, names: Sequence[str], named: Mapping[str, str], wanted: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each role."""
    roles = find_roles(names, named)
    for role in wanted:
        if role not in roles and role not in named:
            raise UserError(
                f"{argument}: there is no column {role!r}; it has {listed(names)}: name the column of {role}s with "
                f"{COLUMN_FIELDS[role]}"
            )
    return choose_columns(Path(argument), ColumnLayout(names, roles, ""), named, wanted)
