"""Reader and writer for plain tables: raw ids of any type in CSV, TSV or Parquet, and one file per modality.

This is the format for data that no tool has prepared. Tables are written as CSV. `roles.KNOWN_NAMES` lists the known
column names.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from slmrec_jax.config.source import Source
from slmrec_jax.data import store
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.formats.catalogues import in_catalogue, numbers_rows, read_numbered
from slmrec_jax.data.formats.content_hints import notes_on_columns, notes_on_content
from slmrec_jax.data.formats.interactions import (
    LISTS_SUFFIX,
    SPLIT_NAMES,
    assemble,
    item_texts_of,
    read_interactions,
    read_items,
)
from slmrec_jax.data.formats.plain_features import (
    FEATURE_FOLDER,
    dataset_folders,
    find_features,
    item_column,
    read_modality,
)
from slmrec_jax.data.formats.roles import (
    BY_COLUMNS,
    WITHOUT_HEADER,
    find_layout,
    named_columns,
    table_parts,
)
from slmrec_jax.data.formats.written import raw_pairs, vectors_of, with_rows, write_npy, write_text
from slmrec_jax.data.readers.dataset_folders import vector_columns
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.folders import choose_file, not_read, visible_entries, with_suffix
from slmrec_jax.data.readers.headers import TABLE_SUFFIXES
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.row_ids import number_ids
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError

LOOKS_FOR = "a .csv, .tsv, .txt, .dat or .parquet file with columns user and item"

_UNDIVIDED = ("interactions", "ratings")
"""Names of the table of all interactions. The first one that exists is read."""
_CATALOGUE = "items"
_USERS = ("users.csv", ",", "user", "row")
"""The file that lists users, with its separator and columns."""


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
    `.tsv` file, or a `.parquet` file of only numbers without raw ids, is a modality in `features/`, and also in the
    folder itself if it has such an ending or one of these three names. Its rows have raw ids
    (`feature_tables.read_vectors`) or are in catalogue order; without either, row i is the item with raw id i. An item
    without a row, or with a row of NaN, lacks the modality. A folder written by `datasets` may take the place of such a
    file (`readers.dataset_folders`).
    """
    files = _find_interactions(folder, source)
    parts = [part for file in files.values() for part in table_parts(file)]
    engine = Engine([part for part in parts if uncompressed(part).suffix == ".parquet"])
    found = {split: read_interactions(engine, file, source, root=folder) for split, file in files.items()}
    tables = [each.rows for each in found.values()]
    users, items = (number_ids(tables, role) for role in ("user", "item"))
    catalogue = [file for file in with_suffix(folder, TABLE_SUFFIXES) if _stem(file) == _CATALOGUE]
    others = {"items": choose_file(folder, catalogue, f"one table of {_CATALOGUE}")} if catalogue else {}
    texts = {}
    if catalogue:
        listed_items = read_items(others["items"], source)
        items, texts = in_catalogue(items, tables, listed_items), item_texts_of(listed_items)
    name, *columns = _USERS
    if numbers_rows(folder / name, *columns):
        others["users"] = folder / name
        users = in_catalogue(users, tables, read_numbered(folder / name, *columns, role="user"), "user")
    folders = dataset_folders(folder)
    feature_files = find_features(folder, [*files.values(), *others.values()], folders, source.item_column)
    features, notes = {}, []
    for modality, file in feature_files.items():
        key = item_column(file, source.item_column)
        features[modality], of_feature = read_modality(file, modality, key, items.ids, numbered=not catalogue)
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
        (folder / FEATURE_FOLDER).mkdir(exist_ok=True)
        write_npy(feature, folder / FEATURE_FOLDER / f"{modality}.npy")
    return []


def folders_of_parts(folder: Path) -> list[Path]:
    """Return the folders that are named like interaction tables, whether or not they hold one."""
    names = (*_UNDIVIDED, *(name for names in SPLIT_NAMES.values() for name in names))
    return [entry for entry in visible_entries(folder) if entry.is_dir() and entry.name.lower() in names]


def _find_tables(folder: Path, source: Source) -> list[Path]:
    """Return the possible interaction tables, by name or columns; if there are none, lists of users' items.

    Beside a table of the train split, the table of another split is found by its name if none is by its columns. Wrong
    columns are then an error.
    """
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
    if trained := [part for file in tables if _stem(file) == "train" for part in table_parts(file)]:
        suffixes = (*TABLE_SUFFIXES, *(uncompressed(part).suffix for part in trained))
        beside = [entry for entry in with_suffix(folder, suffixes) + folders_of_parts(folder) if entry not in tables]
        known = {_stem(file) for file in tables}
        missing = [name for names in SPLIT_NAMES.values() if known.isdisjoint(names) for name in names]
        tables += [entry for entry in beside if _stem(entry) in missing and _has_suffix(entry, suffixes)]
    return tables or [file for file in with_suffix(folder, TABLE_SUFFIXES) if file.name.endswith(LISTS_SUFFIX)]


def _has_suffix(entry: Path, suffixes: Collection[str]) -> bool:
    """Return whether a file, or a file in a folder of parts, has one of the given suffixes."""
    return any(uncompressed(part).suffix in suffixes for part in table_parts(entry))


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
        return {"": choose_file(folder, whole or tables, "one table of interactions (columns user and item)")}
    if not by_split["train"] or whole:
        found, expected = listed([file.name for file in tables]), f"train, and maybe valid and test, or {_UNDIVIDED[0]}"
        raise UserError(f"{folder}: there is {found}; expected only {expected}")
    return {
        split: choose_file(folder, found, f"one table of the {split} split")
        for split, found in by_split.items()
        if found
    }


def _stem(file: Path) -> str:
    return uncompressed(file).stem.lower()
