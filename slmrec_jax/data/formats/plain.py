"""Reader and writer for plain tables: raw ids of any type in CSV, TSV or Parquet, and one file per modality.

This is the format for data that no tool has prepared. Tables are written as CSV. `roles.KNOWN_NAMES` lists the known
column names.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data import store
from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.data.formats.catalogues import in_catalogue, numbers_rows, read_numbered
from slmrec_jax.data.formats.content_hints import content_columns, notes_on_columns, notes_on_content
from slmrec_jax.data.formats.interactions import (
    LISTS_SUFFIX,
    SPLIT_NAMES,
    assemble,
    item_texts_of,
    read_interactions,
    read_items,
)
from slmrec_jax.data.formats.roles import (
    BY_COLUMNS,
    WITHOUT_HEADER,
    find_layout,
    find_roles,
    named_columns,
    table_parts,
)
from slmrec_jax.data.formats.written import raw_pairs, vectors_of, with_rows, write_npy, write_text
from slmrec_jax.data.inspect.checks import check_finite, check_padding
from slmrec_jax.data.readers.dataset_folders import (
    column_kinds,
    is_dataset_folder,
    is_saved_dataset,
    modalities_of,
    vector_columns,
)
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.feature_files import (
    by_modality,
    by_raw_id,
    is_named_as_feature,
    note_missing,
)
from slmrec_jax.data.readers.feature_tables import (
    FEATURE_SUFFIXES,
    VectorTable,
    may_hold_vectors,
    note_origin,
    read_vectors,
)
from slmrec_jax.data.readers.folders import choose_file, not_read, with_suffix
from slmrec_jax.data.readers.headers import SEPARATORS, TABLE_SUFFIXES
from slmrec_jax.data.readers.item_folders import is_item_folder
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.row_ids import number_ids
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.split import Unsplit
from slmrec_jax.data.vectors import as_held
from slmrec_jax.errors import UserError, setting

LOOKS_FOR = "a .csv, .tsv, .txt, .dat or .parquet file with columns user and item"

_UNDIVIDED = ("interactions", "ratings")
"""Names of the table of all interactions. The first one that exists is read."""
_CATALOGUE = "items"
_USERS = ("users.csv", ",", "user", "row")
"""The file that lists users, with its separator and columns."""
_FEATURE_FOLDER = "features"


def recognises(folder: Path, source: Source) -> bool:
    """Return whether a table is named like an interaction table, or has user and item columns."""
    return not store.recognises(folder, source) and bool(_find_tables(folder, source))


def read(folder: Path, source: Source) -> Dataset | Unsplit:
    """Read the interactions, the item catalogue if there is one, and the modalities.

    Interactions are in the only table with user and item columns, or in `interactions.*`, with or without a column
    `split`, or in `train.*`, `valid.*` and `test.*`. Every row counts as an interaction, except rows with label 0 and
    rows with a rating below the source's minimum.

    Items are those of `items.csv` (or .tsv, .parquet) in file order, with its columns `title` and `image`; without such
    a file, those of the interactions in raw id order. Users are those of `users.csv` in the order of its column `row`;
    without that file, those of the interactions in raw id order.

    A modality is a `.npy`, `.safetensors` or `.parquet` file in the folder or in `features/`, named after the modality,
    with or without the ending `_feat` or `_emb`; image, audio and text become visual, acoustic and textual. A `.csv` or
    `.tsv` file is a modality in `features/`, and also in the folder itself if it has such an ending or one of these
    three names. Its rows have raw ids (`feature_tables.read_vectors`) or are in catalogue order; without either, row i
    is the item with raw id i. An item without a row, or with a row of NaN, lacks the modality. A folder written by
    `datasets` may take the place of such a file (`readers.dataset_folders`).
    """
    files = _find_interactions(folder, source)
    parts = [part for file in files.values() for part in table_parts(file)]
    engine = Engine([part for part in parts if uncompressed(part).suffix == ".parquet"])
    found = {split: read_interactions(engine, file, source, root=folder) for split, file in files.items()}
    tables = [each.rows for each in found.values()]
    users, items = (number_ids(tables, role) for role in ("user", "item"))
    catalogue = [file for file in with_suffix(folder, TABLE_SUFFIXES) if _stem(file) == _CATALOGUE]
    others = {"items": choose_file(folder, catalogue, f"tables of {_CATALOGUE}")} if catalogue else {}
    texts = {}
    if catalogue:
        listed_items = read_items(others["items"], source)
        items, texts = in_catalogue(items, tables, listed_items), item_texts_of(listed_items)
    name, *columns = _USERS
    if numbers_rows(folder / name, *columns):
        others["users"] = folder / name
        users = in_catalogue(users, tables, read_numbered(folder / name, *columns, role="user"), "user")
    folders = _dataset_folders(folder)
    feature_files = _find_features(folder, [*files.values(), *others.values()], folders)
    features, notes = {}, []
    for modality, file in feature_files.items():
        key = item_column(file, source.item_column)
        features[modality], of_feature = _read_modality(file, modality, key, items.ids, numbered=not catalogue)
        notes += of_feature
    for place in folders:
        key = item_column(place, source.item_column) if vector_columns(place) else None
        notes += notes_on_columns(folder, place, key, features)
    files = {**files, **feature_files, **others}
    notes += not_read(folder, [*files.values(), *parts]) + notes_on_content(folder, others.get("items"), features)
    return assemble(folder.resolve().name, found, users, items, features, files, notes, source.split, texts)


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write interactions with a column `split`, users, items, and one `.npy` per modality. There are no notes."""
    tables = (
        (users, items, np.full(len(users), split))
        for split, pairs in dataset.splits.items()
        for users, items in raw_pairs(dataset, pairs)
    )
    write_text(folder / f"{_UNDIVIDED[0]}.csv", ",", ("user", "item", "split"), tables, quotes=True)
    name, separator, *columns = _USERS
    write_text(folder / name, separator, columns, [with_rows(dataset.user_ids)], quotes=True)
    items = (dataset.item_ids, *dataset.item_texts.values())
    write_text(folder / f"{_CATALOGUE}.csv", ",", ("item", *dataset.item_texts), [items], quotes=True)
    for modality, feature in vectors_of(dataset).items():
        (folder / _FEATURE_FOLDER).mkdir(exist_ok=True)
        write_npy(feature, folder / _FEATURE_FOLDER / f"{modality}.npy")
    return []


def folders_of_parts(folder: Path) -> list[Path]:
    """Return the folders that are named like interaction tables, whether or not they hold one."""
    names = (*_UNDIVIDED, *(name for names in SPLIT_NAMES.values() for name in names))
    return [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and entry.name.lower() in names]


def _find_tables(folder: Path, source: Source) -> list[Path]:
    """Return the possible interaction tables, by name or columns; if there are none, lists of users' items."""
    named = named_columns(source)
    tables = [
        file
        for file in with_suffix(folder, (*TABLE_SUFFIXES, *BY_COLUMNS))
        if not file.name.endswith(LISTS_SUFFIX) and (_is_named_as_interactions(file) or _has_columns(file, named))
    ]
    tables += [
        entry
        for entry in folders_of_parts(folder)
        if any(_has_columns(part, named, root=folder) for part in table_parts(entry))
    ]
    return tables or [file for file in with_suffix(folder, TABLE_SUFFIXES) if file.name.endswith(LISTS_SUFFIX)]


def _is_named_as_interactions(file: Path) -> bool:
    stem_counts = uncompressed(file).suffix not in BY_COLUMNS
    return file.name in WITHOUT_HEADER or (stem_counts and _stem(file) in (_UNDIVIDED[0], "train"))


def _has_columns(file: Path, named: Mapping[str, str], root: Path | None = None) -> bool:
    return {"user", "item"} <= set(find_layout(file, named, root=root).roles)


def _find_interactions(folder: Path, source: Source) -> dict[str, Path]:
    """Return the file of each split, or the only file under ""."""
    tables = _find_tables(folder, source)
    by_split = {split: [file for file in tables if _stem(file) in names] for split, names in SPLIT_NAMES.items()}
    whole = next(filter(None, ([file for file in tables if _stem(file) == stem] for stem in _UNDIVIDED)), [])
    if not any(by_split.values()):
        return {"": choose_file(folder, whole or tables, "tables of interactions (columns user and item)")}
    if not by_split["train"] or whole:
        found, expected = listed([file.name for file in tables]), f"train, and maybe valid and test, or {_UNDIVIDED[0]}"
        raise UserError(f"{folder}: there is {found}; expected only {expected}")
    return {
        split: choose_file(folder, found, f"tables of the {split} split") for split, found in by_split.items() if found
    }


def _stem(file: Path) -> str:
    return uncompressed(file).stem.lower()


def _find_features(folder: Path, tables: Sequence[Path], folders: Sequence[Path]) -> dict[str, Path]:
    found = [file for file in with_suffix(folder, FEATURE_SUFFIXES) if file not in tables and _may_be_feature(file)]
    if (folder / _FEATURE_FOLDER).is_dir():
        found += with_suffix(folder / _FEATURE_FOLDER, FEATURE_SUFFIXES)
    for place in (folder, folder / _FEATURE_FOLDER):
        found += [entry for entry in sorted(place.iterdir()) if is_item_folder(entry)] if place.is_dir() else []
    found = [file for file in found if file not in folders]
    found += [place for place in folders if vector_columns(place) or not content_columns(place)]
    return by_modality((modality, file) for file in found for modality in modalities_of(file))


def _dataset_folders(folder: Path) -> list[Path]:
    """Return the folders of `datasets`: saved ones with items next to the interactions, and all in `features`.

    `features` itself may be such a folder.
    """
    features = folder / _FEATURE_FOLDER
    if is_saved_dataset(features):
        inside = [features]
    elif features.is_dir():
        inside = [entry for entry in sorted(features.iterdir()) if is_dataset_folder(entry)]
    else:
        inside = []
    beside = [entry for entry in sorted(folder.iterdir()) if entry != features and is_saved_dataset(entry)]
    return [entry for entry in beside if _has_items(entry)] + inside


def _has_items(place: Path) -> bool:
    """Return whether a folder of `datasets` has items with vectors, texts or pictures, and no users."""
    roles = find_roles(list(column_kinds(place)), {})
    return "item" in roles and "user" not in roles and bool(vector_columns(place) or content_columns(place))


def _may_be_feature(file: Path) -> bool:
    """Return whether a file next to the interactions holds features, by its name or columns."""
    suffix = uncompressed(file).suffix
    if suffix not in TABLE_SUFFIXES:
        return True
    roles = find_layout(file, {}).roles
    if "user" in roles:
        return False
    return is_named_as_feature(file) or (suffix not in SEPARATORS and may_hold_vectors(file, roles.get("item", [])))


def item_column(file: Path, named: str | None = None) -> str | None:
    """Return the raw id column of a table of vectors, or `None`. Several such columns are rejected.

    A folder of `datasets` must have one, with a known name or the name `named`.
    """
    if is_dataset_folder(file):
        names = list(column_kinds(file))
        keys = find_roles(names, {"item": named} if named in names else {}).get("item", [])
        if not keys:
            fix = f"call it item, or name it with {setting('item_column')}"
            raise UserError(f"{file}: there is no column of raw item ids; it has {listed(names)}: {fix}")
    else:
        keys = find_layout(file, {}).roles.get("item", []) if uncompressed(file).suffix in TABLE_SUFFIXES else []
    if len(keys) > 1:
        raise UserError(f"{file}: {listed(keys)} could all be the column of items; keep the one with the raw ids")
    return keys[0] if keys else None


def _read_modality(
    file: Path, modality: str, key: str | None, item_ids: Shaped[np.ndarray, " items"], *, numbered: bool
) -> tuple[Feature, list[str]]:
    """Read the vectors of a file. Rows without ids are in item order or, if `numbered`, numbered by raw id."""
    vectors = read_vectors(file, key, modality)
    if vectors.keys is not None:
        feature, notes = by_raw_id(vectors.keys, "item", vectors.values, vectors.present, item_ids, vectors.stored)
    else:
        fix = f"list the items in the order of the rows in {_CATALOGUE}.csv (a column item)"
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
        check_finite(str(file), values, item_ids, among=present)
    if not present.any():
        raise UserError(f"{file}: the rows of all items are NaN; fill them, or leave this feature out")
    return Feature(values, present, vectors.stored), note_missing(file, present)
