"""Data sets made of frames and arrays in memory, with raw ids of any type."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.interchange
from jaxtyping import Shaped

from slmrec_jax.config.checks import check_fields
from slmrec_jax.config.config import IN_MEMORY
from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import ITEM_TEXTS, Dataset, Feature
from slmrec_jax.data.formats.interactions import (
    SPLIT_NAMES,
    InteractionTable,
    assemble,
    item_texts_of,
    take_interactions,
)
from slmrec_jax.data.formats.plain import in_catalogue, in_row_order
from slmrec_jax.data.formats.roles import Layout, choose_columns, find_roles, named_columns
from slmrec_jax.data.readers.feature_files import by_raw_id, has_numbers
from slmrec_jax.data.readers.feature_tables import VectorTable
from slmrec_jax.data.readers.raw_ids import encode_ids
from slmrec_jax.data.readers.refusals import one_line
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.selection import select
from slmrec_jax.data.split import split_dataset
from slmrec_jax.errors import UserError, check_type, shown

_TABLE = "a pandas, Polars or Arrow table, a mapping of arrays, or a pair of arrays of users and items"
_ITEMS = "raw ids, or a table with a column of them"
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
        items: Raw ids of the items, in the order of the rows of features, or a table with a column of them, and maybe
            of `title` and `image`, which are shown with items. By default those of the interactions.
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
    texts = {}
    if items is not None:
        catalogue = _catalogue(items, source)
        coded, texts = in_catalogue(coded, tables, catalogue), item_texts_of(catalogue)
    made, notes = {}, []
    for modality, given in (features or {}).items():
        made[modality], of_feature = _feature(modality, given, coded.ids, ordered=items is not None)
        notes += of_feature
    data = assemble(name, found, users, coded, made, {}, notes, texts)
    return split_dataset(select(data, source), split, split_seed)


def _parts(interactions: Any) -> list[tuple[str, str, Any]]:
    """Return the split, the argument's name and the table of each part; the split is "" for an undivided table."""
    splits = {each: split for split, names in SPLIT_NAMES.items() for each in names}
    if isinstance(interactions, Mapping) and "train" in interactions and set(interactions) <= set(splits):
        return [(splits[each], f"interactions[{each!r}]", given) for each, given in interactions.items()]
    return [("", "interactions", interactions)]


def _interactions(argument: str, given: Any, source: Source) -> InteractionTable:
    if isinstance(given, tuple | list) and len(given) == 2:
        given = {"user": given[0], "item": given[1]}
    columns, named = _columns(argument, given, _TABLE), named_columns(source)
    chosen = _chosen(argument, columns, named, ("user", "item"))
    table = Table(Path(argument), {role: columns[column] for role, column in chosen.items()}, first=0)
    return take_interactions(table, chosen, list(columns), source, [])


def _catalogue(given: Any, source: Source) -> Table:
    """Return the columns of `items`, with that of raw ids named `item`."""
    if not isinstance(given, Mapping | pa.Table) and not hasattr(given, "columns"):  # raw ids alone
        given = {"item": given}
    columns = _columns("items", given, _ITEMS)
    named = {"item": source.item_column} if source.item_column in columns else {}
    item = _chosen("items", columns, named, ("item",))["item"]
    texts = {name.lower(): values for name, values in columns.items() if name.lower() in ITEM_TEXTS}
    return Table(Path("items"), {"item": columns[item], **texts}, first=0)


def _chosen(
    argument: str, columns: Mapping[str, Any], named: Mapping[str, str], wanted: tuple[str, ...]
) -> dict[str, str]:
    layout = Layout(list(columns), find_roles(list(columns), named), "")
    return choose_columns(Path(argument), layout, named, wanted)


def _columns(argument: str, given: Any, expected: str) -> dict[str, Any]:
    """Return the columns of anything that is a table, as Arrow arrays without dictionaries."""
    with _refused(argument, expected):
        if hasattr(given, "__arrow_c_stream__"):
            table = pa.table(given)
        elif hasattr(given, "__dataframe__"):
            table = pa.interchange.from_dataframe(given)
        elif isinstance(given, Mapping) and given:
            table = pa.table({str(name): _arrow(values) for name, values in given.items()})
        else:
            raise UserError(f"{argument} is {shown(given)}: give {expected}")
        if len(set(table.column_names)) < table.num_columns:
            raise UserError(f"{argument}: two columns have the same name; rename one")
        return dict(zip(table.column_names, map(_decoded, table.columns), strict=True))


def _arrow(values: Any) -> Any:
    """Return a column of any array or sequence."""
    if hasattr(values, "__arrow_c_stream__"):
        return pa.chunked_array(values)
    is_arrow = hasattr(values, "__arrow_c_array__") or isinstance(values, list | tuple)
    return pa.array(values if is_arrow else np.asarray(values))


def _decoded(column: Any) -> Any:
    """Return a column of values where it was one of places in a dictionary, as pandas' categories are."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _feature(
    modality: str, given: Any, item_ids: Shaped[np.ndarray, " items"], *, ordered: bool
) -> tuple[Feature, list[str]]:
    """Return one modality; `ordered` says whether rows without ids are in the order of the items."""
    argument, ids = Path(f"features[{modality!r}]"), None
    if isinstance(given, Mapping):
        ids, given = list(given), list(given.values())
    elif isinstance(given, tuple) and len(given) == 2:
        ids, given = given
    with _refused(str(argument), _VECTORS):
        values = np.asarray(given)
    if values.ndim != 2 or values.dtype.kind not in "fiub" or values.size == 0:
        raise UserError(f"{argument}: an array of {values.dtype} of shape {values.shape}: give {_VECTORS}")
    present = has_numbers(values)
    if ids is None:
        fix = None if ordered else "give the raw ids in the order of the rows as items"
        return in_row_order(argument, VectorTable(values, present, None, values.dtype.name), item_ids, fix)
    keys = _columns(str(argument), {"item": ids}, _VECTORS)
    if len(keys["item"]) != len(values):
        raise UserError(f"{argument}: {len(keys['item'])} ids for {len(values)} vectors; give one for each")
    return by_raw_id(Table(argument, keys, first=0), "item", values, present, item_ids)


@contextmanager
def _refused(argument: str, expected: str) -> Iterator[None]:
    """Turn what NumPy or Arrow cannot read into a line that names the argument."""
    try:
        yield
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{argument}: not readable ({one_line(error)}): give {expected}") from error
