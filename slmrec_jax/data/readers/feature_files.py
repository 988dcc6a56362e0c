"""Detection of the modalities of feature files, and alignment of features with items."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from slmrec_jax.data.dataset import Feature
from slmrec_jax.data.inspect.checks import check_finite
from slmrec_jax.data.readers.columns import check_vectors_fit
from slmrec_jax.data.readers.folders import visible_entries
from slmrec_jax.data.readers.npy_files import read_table
from slmrec_jax.data.readers.opening import check_name
from slmrec_jax.data.readers.raw_ids import find_ids
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.vectors import as_held, held_type, is_mapped, row_blocks
from slmrec_jax.errors import UserError

T = TypeVar("T")

_SUFFIX_OF_FEATURES = re.compile("_(feat|feats|feature|features|emb|embs|embedding|embeddings)$")
_ORDER = ("visual", "acoustic", "textual")
_FIELD_NAMES = {
    **dict.fromkeys(("image", "video", "v"), "visual"),
    **dict.fromkeys(("audio", "a"), "acoustic"),
    **dict.fromkeys(("text", "t"), "textual"),
}


def modality_name(name: str) -> str:
    """Return the standard name of a modality: visual, acoustic or textual. Other names are kept."""
    return _FIELD_NAMES.get(name, name)


def modality_of(file: Path) -> str:
    """Return the modality in a file's name, without a final `_feat`, `_emb` or similar."""
    return modality_of_name(uncompressed(file).stem)


def modality_of_name(name: str) -> str:
    """Return the modality in the name of a file or column, likewise."""
    return modality_name(_SUFFIX_OF_FEATURES.sub("", name.lower()))


def is_named_as_feature(file: Path) -> bool:
    """Return whether a file is named like features: a known modality, or an ending such as `_feat`."""
    return modality_of(file) in _ORDER or _SUFFIX_OF_FEATURES.search(uncompressed(file).stem.lower()) is not None


def in_order(features: Mapping[str, T]) -> dict[str, T]:
    """Order features: visual, acoustic and textual first, then the others in alphabetical order."""
    first = [modality for modality in _ORDER if modality in features]
    return {modality: features[modality] for modality in first + sorted(set(features) - set(first))}


def by_modality(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return feature files by modality, in order. Two files of the same modality are rejected."""
    found: dict[str, Path] = {}
    for modality, file in files:
        check_name(file)
        if modality in found:
            raise UserError(f"{found[modality]} and {file} are both {modality} features; keep one")
        found[modality] = file
    return in_order(found)


def read_feature_tables(folder: Path) -> tuple[dict[str, Feature], dict[str, Path]]:
    """Read every `<modality>_feat.npy` with one row per item; return the features and their files by modality."""
    found = [file for file in visible_entries(folder) if file.match("?*_feat.npy")]
    files = by_modality((modality_name(file.name.removesuffix("_feat.npy")), file) for file in found)
    return {modality: feature_of_rows(file, read_table(file)) for modality, file in files.items()}, files


def feature_of_rows(file: Path, values: Float[np.ndarray, "items columns"]) -> Feature:
    """Make a feature from one row per item. A row of only NaN means that the item lacks it."""
    present = has_numbers(values)
    if len(present) and not present.any():
        raise UserError(f"{file}: every row is NaN; fill it, or leave this feature out")
    return Feature(values, present)


def has_numbers(values: Shaped[np.ndarray, "rows columns"]) -> Bool[np.ndarray, " rows"]:
    """Return a mask of the rows that are not entirely NaN."""
    present = np.ones(len(values), np.bool_)
    for block in row_blocks(values) if values.shape[1] else ():
        rows = values[block]
        candidates = np.flatnonzero(np.isnan(rows[:, 0]))
        present[block.start + candidates[np.isnan(rows[candidates]).all(axis=1)]] = False
    return present


def by_raw_id(
    table: Table,
    key: str,
    values: Shaped[np.ndarray, "entries columns"],
    present: Bool[np.ndarray, " entries"],
    item_ids: Shaped[np.ndarray, " items"],
    stored: str = "",
) -> tuple[Feature, list[str]]:
    """Make a feature in item order from vectors keyed by raw ids; also return notes about omissions."""
    places = find_ids(table, key, item_ids)
    known = (places >= 0) & present
    if not known.any() and len(known) and len(item_ids):
        lacking = "has an id of the data" if present.any() else "has values"
        raise UserError(
            f"{table.file}: no row {lacking}; its first id is {table.value(key, 0)}, and the data's "
            f"{item_ids[0].item()!r}: correct the ids, or leave this feature out"
        )
    if not table.in_memory:
        check_vectors_fit(table.file, len(item_ids), values.shape[1])
    stored = stored or values.dtype.name
    if known.all() and len(known) == len(item_ids) and (np.diff(places) > 0).all() and is_mapped(values):
        feature = Feature(as_held(values), known, stored)
    else:
        feature = _by_place(values, places, known, len(item_ids), stored)
    rows = np.zeros(len(item_ids), np.int64)
    rows[places[known]] = np.flatnonzero(known) + table.first
    check_finite(str(table.file), feature.values, rows, among=feature.present, first=min(1, table.first))
    notes = note_missing(table.file, feature.present)
    if not known.all():
        left_out = f"rows of items that are not in the data, or without values: {(~known).sum()}"
        notes.insert(0, f"{table.file.name}: {left_out}")
    return feature, notes


def _by_place(
    values: Shaped[np.ndarray, "entries columns"],
    places: Int[np.ndarray, " entries"],
    known: Bool[np.ndarray, " entries"],
    num_items: int,
    stored: str,
) -> Feature:
    """Place known rows at their items, converting blocks of rows."""
    feature = Feature(
        np.zeros((num_items, values.shape[1]), held_type(values.dtype)), np.zeros(num_items, np.bool_), stored
    )
    for block in row_blocks(values):
        feature.values[places[block][known[block]]] = as_held(values[block][known[block]])
    feature.present[places[known]] = True
    return feature


def note_missing(file: Path, present: Bool[np.ndarray, " items"]) -> list[str]:
    """Return a note about the items without a vector in a file, if there are any."""
    if present.all():
        return []
    return [f"{file.name}: items without this feature: {(~present).sum()} of {len(present)}"]
