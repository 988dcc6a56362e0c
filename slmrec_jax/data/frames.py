"""Construction of data sets from frames and arrays in memory, with raw ids of any type."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.interchange
from jaxtyping import Bool, Shaped

from slmrec_jax.config.checks import check_fields
from slmrec_jax.config.config import IN_MEMORY
from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.data.formats.catalogues import in_catalogue
from slmrec_jax.data.formats.interactions import (
    SPLIT_NAMES,
    InteractionTable,
    assemble,
    item_texts_of,
    take_interactions,
    text_columns,
)
from slmrec_jax.data.formats.plain_features import in_row_order
from slmrec_jax.data.formats.roles import COLUMN_FIELDS, ColumnLayout, choose_columns, find_roles, named_columns
from slmrec_jax.data.formats.windows import time_text
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.feature_files import by_raw_id, has_numbers
from slmrec_jax.data.readers.feature_tables import VectorTable
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.row_ids import number_ids
from slmrec_jax.data.readers.rows import memory_rows
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.selection import select
from slmrec_jax.data.split import split_dataset
from slmrec_jax.data.vectors import as_held, is_real
from slmrec_jax.errors import UserError, check_type, one_line, shown

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
            integers.
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
        made[modality], of_feature = _feature(modality, given, coded.ids, ordered=items is not None)
        notes += of_feature
    data = assemble(name, found, users, coded, made, {}, notes, split, texts)
    return split_dataset(select(data, source), split, split_seed)


def _parts(interactions: Any) -> list[tuple[str, str, Any]]:
    """Return the split, the argument's name and the table of each part. The split is "" for an unsplit table."""
    splits = {each: split for split, names in SPLIT_NAMES.items() for each in names}
    if not isinstance(interactions, Mapping) or "train" not in interactions or not set(interactions) <= set(splits):
        return [("", "interactions", interactions)]
    for split, names in SPLIT_NAMES.items():
        same = [each for each in interactions if each in names]
        if len(same) > 1:
            raise UserError(f"interactions has {listed(same)}, which all name the split {split}; keep one")
    return [(splits[each], f"interactions[{each!r}]", given) for each, given in interactions.items()]


def _interactions(engine: Engine, argument: str, given: Any, source: Source) -> InteractionTable:
    if isinstance(given, tuple) and len(given) == 2:
        given = {"user": given[0], "item": given[1]}
    names, named = _names(argument, given, _TABLE), named_columns(source)
    chosen = _chosen(argument, names, named, ("user", "item"))
    columns = _columns(argument, given, list(chosen.values()), _TABLE)
    table = Table(Path(argument), {role: columns[column] for role, column in chosen.items()}, first=0)
    return take_interactions(memory_rows(engine, table), chosen, names, source, [])


def _catalogue(given: Any, source: Source) -> Table:
    """Return the columns of `items`, with the raw id column named `item`."""
    if not _is_table(given):  # only raw ids
        given = {"item": given}
    names = _names("items", given, _ITEMS)
    named = {"item": source.item_column} if source.item_column in names else {}
    chosen = {"item": _chosen("items", names, named, ("item",))["item"], **text_columns("items", names)}
    columns = _columns("items", given, list(chosen.values()), _ITEMS)
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


def _is_table(given: Any) -> bool:
    return isinstance(given, Mapping | pa.Table | pa.RecordBatch) or hasattr(given, "columns")


def _names(argument: str, given: Any, expected: str) -> list[str]:
    """Return the column names of any kind of table."""
    if isinstance(given, pa.Table | pa.RecordBatch):
        names = given.schema.names
    elif isinstance(given, Mapping) and given:
        names = list(given)
    elif hasattr(given, "columns") and (hasattr(given, "__arrow_c_stream__") or hasattr(given, "__dataframe__")):
        names = list(given.columns)
    else:
        with _refused(argument, expected):
            names = _other_table(argument, given, expected).column_names
    if len(set(map(str, names))) < len(names):
        raise UserError(f"{argument}: two columns have the same name; rename one")
    return list(map(str, names))


def _columns(argument: str, given: Any, names: Sequence[str], expected: str) -> dict[str, Any]:
    """Return some columns of any kind of table as Arrow arrays of values. Other columns may hold anything."""
    with _refused(argument, expected):
        if isinstance(given, Mapping):
            found = {str(name): values for name, values in given.items() if str(name) in names}
            columns = {name: _arrow(f"{argument}: column {name!r}", found[name]) for name in names}
            if len(set(map(len, columns.values()))) > 1:
                raise UserError(f"{argument}: columns of {listed(names)} have different lengths; make them equal")
        else:
            if hasattr(given, "columns") and not isinstance(given, pa.Table | pa.RecordBatch):
                given = given[[name for name in given.columns if str(name) in names]]
            table = _other_table(argument, given, expected)
            by_name = dict(zip(map(str, table.column_names), table.columns, strict=True))
            columns = {name: by_name[name] for name in names}
        return {name: _decoded(column) for name, column in columns.items()}


def _other_table(argument: str, given: Any, expected: str) -> pa.Table:
    if hasattr(given, "__arrow_c_stream__"):
        return pa.table(given)
    if isinstance(given, pa.RecordBatch):
        return pa.Table.from_batches([given])
    if hasattr(given, "__dataframe__"):
        return pa.interchange.from_dataframe(given)
    raise UserError(f"{argument} is {shown(given)}: give {expected}")


def _arrow(what: str, values: Any) -> Any:
    """Convert any array or sequence to a column."""
    try:
        if hasattr(values, "__arrow_c_stream__"):
            return pa.chunked_array(values)
        is_arrow = hasattr(values, "__arrow_c_array__") or isinstance(values, list | tuple | np.ma.MaskedArray)
        return pa.chunked_array([pa.array(values if is_arrow else np.asarray(values))])
    except pa.ArrowException as error:
        raise UserError(f"{what} cannot be read ({one_line(error)}); use one type, such as text") from error


def _decoded(column: Any) -> Any:
    """Decode a dictionary-encoded column, such as a categorical, into its values."""
    if pa.types.is_dictionary(column.type):
        kind = pa.string() if pa.types.is_string_view(column.type.value_type) else column.type.value_type
        return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks], kind)
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column


def _feature(
    modality: str, given: Any, item_ids: Shaped[np.ndarray, " items"], *, ordered: bool
) -> tuple[Feature, list[str]]:
    """Return one modality. `ordered` says whether rows without ids are in item order."""
    argument, ids = Path(f"features[{modality!r}]"), None
    if hasattr(given, "columns") or isinstance(given, Words):
        kind = type(given).__name__
        raise UserError(
            f"{argument} is of type {kind}: give {_VECTORS}: from a frame, (frame['id'], list(frame['vector']))"
        )
    if isinstance(given, Mapping):
        given = {each: vector for each, vector in given.items() if vector is not None}
        ids, given = list(given), list(given.values())
    elif isinstance(given, Feature):
        given = _with_nan(np.asarray(given.values), np.asarray(given.present, np.bool_))
    elif isinstance(given, tuple) and len(given) == 2:
        ids, given = given
    elif _has_labels(given):
        ids = given.index
    with _refused(str(argument), _VECTORS):
        values = _numbers(given)
    if values.ndim != 2 or not is_real(values.dtype) or values.size == 0:
        raise UserError(f"{argument}: an array of {values.dtype} of shape {values.shape}: give {_VECTORS}")
    present = has_numbers(values)
    if ids is not None:
        keys = _columns(str(argument), {"item": ids}, ["item"], _VECTORS)
        if len(keys["item"]) != len(values):
            raise UserError(f"{argument}: {len(keys['item'])} ids for {len(values)} vectors; give one for each")
        return by_raw_id(Table(argument, keys, first=0), "item", values, present, item_ids)
    if ordered and len(values) != len(item_ids):
        raise UserError(f"{argument}: {len(values)} rows for {len(item_ids)} items; give one for each item")
    fix = None if ordered else "give the raw ids in the order of the rows as items"
    return in_row_order(argument, VectorTable(values, present, None, values.dtype.name), item_ids, fix)


def _has_labels(given: Any) -> bool:
    """Return whether this is a pandas Series whose index is not just the row numbers."""
    index = getattr(given, "index", None)
    is_series = hasattr(given, "to_numpy") and index is not None and not callable(index)
    return is_series and type(index).__name__ != "RangeIndex"


def _numbers(given: Any) -> Shaped[np.ndarray, "..."]:
    """Convert vectors to one array of a native NumPy dtype. Masked values become NaN."""
    if isinstance(given, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(given.astype(np.float32), np.nan))
    values = np.asarray(given)
    if values.dtype == np.object_ and values.ndim == 1:  # a column of vectors
        return np.stack([np.asarray(vector) for vector in values])
    return as_held(values) if values.dtype.isbuiltin != 1 and values.dtype.kind == "V" else values


def _with_nan(
    values: Shaped[np.ndarray, "items columns"], present: Bool[np.ndarray, " items"]
) -> Shaped[np.ndarray, "items columns"]:
    """Replace the rows that are not present with NaN."""
    if present.all():
        return values
    copied = np.array(values, values.dtype if values.dtype.kind not in "iub" else np.float64)
    copied[~present] = np.nan
    return copied


@contextmanager
def _refused(argument: str, expected: str) -> Iterator[None]:
    """Turn errors of NumPy or Arrow into a one-line `UserError` that names the argument."""
    try:
        yield
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{argument}: not readable ({one_line(error)}): give {expected}") from error
