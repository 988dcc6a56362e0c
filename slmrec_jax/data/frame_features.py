"""Features from arrays and columns in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from slmrec_jax.data.dataset import Feature, Words
from slmrec_jax.data.formats.plain_features import in_row_order
from slmrec_jax.data.frame_columns import columns_of, refusing
from slmrec_jax.data.readers.feature_files import by_raw_id, has_numbers
from slmrec_jax.data.readers.feature_tables import VectorTable
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.vectors import HELD_TYPES, as_held, is_real
from slmrec_jax.errors import UserError

_VECTORS = "an array with a row for each item, a pair of arrays (ids, vectors), or a mapping from ids to vectors"


def feature_of(
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
        given = _with_nan(argument, np.asarray(given.values), np.asarray(given.present, np.bool_))
    elif isinstance(given, tuple) and len(given) == 2:
        ids, given = given
    elif _has_labels(given):
        ids = given.index
    with refusing(str(argument), _VECTORS):
        values = _numbers(argument, given)
    if values.ndim != 2 or not is_real(values.dtype) or values.size == 0:
        raise UserError(f"{argument}: an array of {values.dtype} of shape {values.shape}: give {_VECTORS}")
    present = has_numbers(values)
    if ids is not None:
        keys = columns_of(str(argument), {"item": ids}, ["item"], _VECTORS)
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


def _numbers(argument: Path, given: Any) -> Shaped[np.ndarray, "..."]:
    """Convert vectors to one array of a native NumPy dtype. Masked values and missing vectors become NaN."""
    if isinstance(given, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(given.astype(np.float32), np.nan))
    try:
        values = np.asarray(given)
    except ValueError:  # vectors of different lengths, or a missing one
        values = np.empty(len(given), np.object_)
        values[:] = list(given)
    if values.dtype == np.object_ and values.ndim == 1:  # a column of vectors
        return _stacked(argument, values)
    return as_held(values) if values.dtype.isbuiltin != 1 and values.dtype.kind == "V" else values


def _stacked(argument: Path, vectors: Shaped[np.ndarray, " rows"]) -> Shaped[np.ndarray, "rows columns"]:
    """Stack vectors of one length. A missing vector becomes a row of NaN."""
    missing = np.array([_is_missing(vector) for vector in vectors], np.bool_)
    found = [np.asarray(vector) for vector in vectors]
    widths = np.array([0 if lacks else vector.size for vector, lacks in zip(found, missing, strict=True)])
    if missing.all():
        raise UserError(f"{argument}: every vector is missing; fill it, or leave this feature out")
    first = int(missing.argmin())
    if (odd := np.flatnonzero(~missing & (widths != widths[first]))).size:
        raise UserError(
            f"{argument}: row {odd[0]} has {widths[odd[0]]} numbers, and row {first} has {widths[first]}; give vectors "
            "of one length"
        )
    kind = found[first].dtype
    none = np.full(widths[first], np.nan, kind if kind.kind == "f" or kind in HELD_TYPES else np.float64)
    return np.stack([none if lacks else vector for vector, lacks in zip(found, missing, strict=True)])


def _is_missing(vector: Any) -> bool:
    """Return whether this is `None`, a scalar NaN or the NA of pandas."""
    return vector is None or type(vector).__name__ == "NAType" or (np.ndim(vector) == 0 and bool(vector != vector))


def _with_nan(
    argument: Path, values: Shaped[np.ndarray, "items columns"], present: Bool[np.ndarray, "..."]
) -> Shaped[np.ndarray, "items columns"]:
    """Replace the rows that are not present with NaN."""
    if present.shape != values.shape[:1]:
        raise UserError(
            f"{argument}: `present` has the shape {present.shape} and `values` {values.shape}; give one for each row"
        )
    if present.all():
        return values
    copied = np.array(values, values.dtype if values.dtype.kind not in "iub" else np.float64)
    copied[~present] = np.nan
    return copied
