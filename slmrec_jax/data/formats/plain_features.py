"""The modalities of a plain data set: their files, the raw ids in these, and the order of rows without ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.dataset import Feature
from slmrec_jax.data.formats.content_hints import content_columns
from slmrec_jax.data.formats.roles import find_layout, find_roles
from slmrec_jax.data.inspect.checks import check_finite, check_padding
from slmrec_jax.data.readers.dataset_folders import (
    column_kinds,
    is_dataset_folder,
    is_saved_dataset,
    modalities_of,
    vector_columns,
)
from slmrec_jax.data.readers.feature_files import by_modality, by_raw_id, is_named_as_feature, note_missing
from slmrec_jax.data.readers.feature_tables import (
    FEATURE_SUFFIXES,
    VectorTable,
    may_hold_vectors,
    note_origin,
    read_vectors,
)
from slmrec_jax.data.readers.folders import visible_entries, with_suffix
from slmrec_jax.data.readers.headers import SEPARATORS, TABLE_SUFFIXES
from slmrec_jax.data.readers.item_folders import is_item_folder
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.vectors import as_held
from slmrec_jax.errors import UserError, setting

FEATURE_FOLDER = "features"


def find_features(
    folder: Path, tables: Sequence[Path], folders: Sequence[Path], named: str | None = None
) -> dict[str, Path]:
    """Return the file or folder of each modality.

    Args:
        folder: The folder of the data set.
        tables: The files that are read as tables of interactions, items or users.
        folders: The folders of `datasets`.
        named: The name of the item column, as given by the user.
    """
    beside = [file for file in with_suffix(folder, FEATURE_SUFFIXES) if file not in tables]
    found = [file for file in beside if _may_be_feature(file, named)]
    if (folder / FEATURE_FOLDER).is_dir():
        found += with_suffix(folder / FEATURE_FOLDER, FEATURE_SUFFIXES)
    for place in (folder, folder / FEATURE_FOLDER):
        found += [entry for entry in visible_entries(place) if is_item_folder(entry)] if place.is_dir() else []
    found = [file for file in found if file not in folders]
    found += [place for place in folders if vector_columns(place) or not content_columns(place)]
    return by_modality((modality, file) for file in found for modality in modalities_of(file))


def dataset_folders(folder: Path) -> list[Path]:
    """Return the folders of `datasets`: saved ones with items next to the interactions, and all in `features`.

    `features` itself may be such a folder.
    """
    features = folder / FEATURE_FOLDER
    if is_saved_dataset(features):
        inside = [features]
    elif features.is_dir():
        inside = [entry for entry in visible_entries(features) if is_dataset_folder(entry)]
    else:
        inside = []
    beside = [entry for entry in visible_entries(folder) if entry != features and is_saved_dataset(entry)]
    return [entry for entry in beside if _has_items(entry)] + inside


def _has_items(place: Path) -> bool:
    """Return whether a folder of `datasets` has items with vectors, texts or pictures, and no users."""
    roles = find_roles(list(column_kinds(place)), {})
    return "item" in roles and "user" not in roles and bool(vector_columns(place) or content_columns(place))


def _may_be_feature(file: Path, named: str | None) -> bool:
    """Return whether a file next to the interactions holds features, by its name or columns."""
    suffix = uncompressed(file).suffix
    if suffix not in TABLE_SUFFIXES:
        return True
    if "user" in find_layout(file, {}).roles:
        return False
    if is_named_as_feature(file):
        return True
    return suffix not in SEPARATORS and may_hold_vectors(file, _item_columns(file, named))


def item_column(file: Path, named: str | None = None) -> str | None:
    """Return the raw id column of a table of vectors, or `None`. Several such columns are rejected.

    It has the name `named`, which the user gave for the interactions, or a known name. A folder of `datasets` must have
    such a column.
    """
    keys = _item_columns(file, named)
    if not keys and is_dataset_folder(file):
        fix = f"call it item, or name it with {setting('item_column')}"
        raise UserError(f"{file}: there is no column of raw item ids; it has {listed(list(column_kinds(file)))}: {fix}")
    if len(keys) > 1:
        raise UserError(f"{file}: {listed(keys)} could all be the column of items; keep the one with the raw ids")
    return keys[0] if keys else None


def _item_columns(file: Path, named: str | None) -> list[str]:
    if is_dataset_folder(file):
        names: Sequence[str] = list(column_kinds(file))
    elif uncompressed(file).suffix in TABLE_SUFFIXES:
        names = find_layout(file, {}).names
    else:
        return []
    by_user = {} if named is None or named.isdecimal() else {"item": named}  # a number counts interactions' columns
    return find_roles(names, by_user).get("item") or find_roles(names, {}).get("item", [])


def read_modality(
    file: Path, modality: str, key: str | None, item_ids: Shaped[np.ndarray, " items"], *, numbered: bool
) -> tuple[Feature, list[str]]:
    """Read the vectors of a file. Rows without ids are in item order or, if `numbered`, numbered by raw id."""
    vectors = read_vectors(file, key, modality)
    if vectors.keys is not None:
        feature, notes = by_raw_id(vectors.keys, "item", vectors.values, vectors.present, item_ids, vectors.stored)
    else:
        fix = "list the items in the order of the rows in items.csv (a column item)"
        feature, notes = in_row_order(file, vectors, item_ids, fix if numbered else None)
    return feature, note_origin(file) + notes


def in_row_order(
    file: Path, vectors: VectorTable, item_ids: Shaped[np.ndarray, " items"], fix: str | None
) -> tuple[Feature, list[str]]:
    """Convert vectors without ids to a feature, and return notes about items without a vector.

    Rows are in item order. If that order is unknown, row i is the item with raw id i; `fix` is then the advice if there
    are other ids.
    """
    values, present = vectors.values, vectors.present
    if fix is not None:
        if item_ids.dtype.kind != "i" or item_ids.min() < 0 or item_ids.max() >= len(values):
            wrong = next(item for item in item_ids.tolist() if not isinstance(item, int) or not 0 <= item < len(values))
            raise UserError(
                f"{file}: {len(values)} rows without ids, and some items' ids are not row numbers, for example "
                f"{wrong!r}; put the raw ids beside the vectors, or {fix}"
            )
        if item_ids.min() == 0:
            check_padding(str(file), values, int(item_ids.max()) + 1)
        if len(item_ids) < len(values) or (np.diff(item_ids) < 0).any():
            values, present = values[item_ids], present[item_ids]
    values = as_held(values)
    check_finite(str(file), values, None if fix is None else item_ids, among=present)
    if not present.any():
        raise UserError(f"{file}: the rows of all items are NaN; fill them, or leave this feature out")
    return Feature(values, present, vectors.stored), note_missing(file, present)
