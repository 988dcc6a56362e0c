"""Data sets made of frames and arrays in memory, with raw ids of any type."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.interchange
from jaxtyping import Shaped

from slmrec_jax.config.checks import check_fields
from slmrec_jax.config.config import IN_MEMORY
from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.data.formats.interactions import SPLIT_NAMES, InteractionTable, assemble, count_rows_of
from slmrec_jax.data.formats.plain import in_catalogue, place_vectors
from slmrec_jax.data.formats.roles import Layout, choose_columns, find_roles, named_columns
from slmrec_jax.data.readers.feature_files import by_raw_id, has_numbers
from slmrec_jax.data.readers.raw_ids import encode_ids
from slmrec_jax.data.readers.refusals import one_line
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.selection import select
from slmrec_jax.data.split import split_dataset
from slmrec_jax.errors import UserError, check_type, shown

_TABLE = "a pandas, Polars or Arrow table, a mapping of arrays, or a pair of arrays of users and items"
_VECTORS = "an array with a row for each item, a pair of arrays (ids, vectors), or a mapping from ids to vectors"


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
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
) -> Dataset:
    """Make a data set of interactions and features in memory.

    Args:
        interactions: A table with columns of users and items, and maybe of times, ratings, labels and splits: a pandas
            or Polars frame or anything else with the Arrow or the dataframe interchange protocol, a mapping of arrays,
            or a pair of arrays. Or a mapping from `train`, `valid` and `test` to such tables. Ids are text or whole
            numbers.
        features: By modality, an array with a row for each item, a pair (ids, vectors), or a mapping from ids to
            vectors. A row of NaN, and an id without a vector, is an item without the modality. Rows of an array without
            ids are those of `items`; without `items`, row i is the item with the raw id i.
        items: Raw ids of the items, in the order of the rows of features, or a table with a column of them. By default
            those of the interactions.
        name: The name of the data set in reports.
        split: How to divide the interactions, as for `load`; not needed where a column or a mapping divides them.
        split_seed: The seed of a random split.
        min_rating: Leave out rows with a lower rating.
        k_core: Keep only users and items with at least this many interactions.
        user_column: The column of users, if it has none of the known names.
        item_column: The column of items, likewise.
        time_column: The column of times, likewise.
        rating_column: The column of ratings, likewise.

    Raises:
        UserError: An argument cannot be used; the line names it, and the row, counted from 0.
    """
    check_type("name", name, str, "what the data set is called")
    check_type("features", features, (Mapping, type(None)), "a mapping from modality to vectors")
    columns = (user_column, item_column, time_column, rating_column)
    source = Source(IN_MEMORY, None, split, split_seed, min_rating, k_core, *columns)
    check_fields(source)
    found = {part: _interactions(argument, given, source) for part, argument, given in _parts(interactions)}
    tables = [each.table for each in found.values()]
    users, coded = (encode_ids(tables, role) for role in ("user", "item"))
    if items is not None:
        coded = in_catalogue(coded, tables, _items(items, source))
    made, notes = {}, []
    for modality, given in (features or {}).items():
        made[modality], of_feature = _feature(str(modality), given, coded.ids, in_order_of_items=items is not None)
        notes += of_feature
    data = assemble(name, found, users, coded, made, {}, notes)
    return split_dataset(select(data, source), split, split_seed)


def _parts(interactions: Any) -> list[tuple[str, str, Any]]:
    """Return the split, the argument's name and the table of each part; the split is "" for an undivided table."""
    splits = {each: split for split, names in SPLIT_NAMES.items() for each in names}
    if isinstance(interactions, Mapping) and "train" in interactions and set(interactions) <= set(splits):
        return [(splits[each], f"interactions[{each!r}]", given) for each, given in interactions.items()]
    return [("", "interactions", interactions)]


def _interactions(argument: str, given: Any, source: Source) -> InteractionTable:
    columns = _columns(argument, given, ("user", "item"))
    named = named_columns(source)
    layout = Layout(list(columns), find_roles(list(columns), named), "")
    chosen = choose_columns(Path(argument), layout, named, ("user", "item"))
    table = Table(Path(argument), {role: columns[column] for role, column in chosen.items()}, first=0)
    return count_rows_of(table, chosen, layout.names, source)


def _items(given: Any, source: Source) -> Table:
    """Return the raw ids of `items` as a table with a column `item`."""
    if (
        not hasattr(given, "__arrow_c_stream__")
        and not hasattr(given, "__dataframe__")
        and not isinstance(given, Mapping)
    ):
        given = {"item": given}
    columns = _columns("items", given, ("item",))
    named = {"item": source.item_column} if source.item_column in columns else {}
    layout = Layout(list(columns), find_roles(list(columns), named), "")
    column = choose_columns(Path("items"), layout, named, ("item",))["item"]
    return Table(Path("items"), {"item": columns[column]}, first=0)


def _columns(argument: str, given: Any, pair: tuple[str, ...]) -> dict[str, Any]:
    """Return the columns of anything that is a table, as Arrow arrays without dictionaries."""
    try:
        if hasattr(given, "__arrow_c_stream__"):
            table = pa.table(given)
        elif hasattr(given, "__dataframe__"):
            table = pa.interchange.from_dataframe(given)
        elif isinstance(given, Mapping) and given:
            table = pa.table({str(name): _arrow(values) for name, values in given.items()})
        elif isinstance(given, tuple | list) and len(given) == len(pair) == 2:
            table = pa.table(dict(zip(pair, map(_arrow, given), strict=True)))
        else:
            raise UserError(f"{argument} is {shown(given)}: give {_TABLE}")
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{argument}: not readable as a table ({one_line(error)}): give {_TABLE}") from error
    if len(set(table.column_names)) < table.num_columns:
        raise UserError(f"{argument}: two columns have the same name; rename one")
    return {name: _plain(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _arrow(values: Any) -> Any:
    """Return a column of any array or sequence."""
    if (
        hasattr(values, "__arrow_c_array__")
        or hasattr(values, "__arrow_c_stream__")
        or isinstance(values, list | tuple)
    ):
        return pa.chunked_array(values) if hasattr(values, "__arrow_c_stream__") else pa.array(values)
    return pa.array(np.asarray(values))


def _plain(column: Any) -> Any:
    """Return a column of values where it was one of places in a dictionary, as pandas' categories are."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _feature(
    modality: str, given: Any, item_ids: Shaped[np.ndarray, " items"], *, in_order_of_items: bool
) -> tuple[Feature, list[str]]:
    argument = Path(f"features[{modality!r}]")
    ids = None
    if isinstance(given, Mapping):
        ids, given = list(given), list(given.values())
    elif isinstance(given, tuple) and len(given) == 2:
        ids, given = given
    try:
        values = np.asarray(given)
        keys = None if ids is None else _plain(pa.chunked_array([_arrow(ids)]))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{argument}: not readable as vectors ({one_line(error)}): give {_VECTORS}") from error
    if values.ndim != 2 or values.dtype.kind not in "fiub" or values.size == 0:
        raise UserError(f"{argument}: an array of {values.dtype} of shape {values.shape}: give {_VECTORS}")
    present = has_numbers(values)
    if keys is None:
        return place_vectors(
            argument, values, present, item_ids, values.dtype.name, in_order_of_items=in_order_of_items
        )
    if len(keys) != len(values):
        raise UserError(f"{argument}: {len(keys)} ids for {len(values)} vectors; give one for each")
    return by_raw_id(Table(argument, {"item": keys}, first=0), "item", values, present, item_ids)
