"""Reads plain tables: interactions under raw ids of any type as CSV, TSV or Parquet, and one file for each modality.

For data that no tool has prepared. Columns may be called `user`, `user_id`, `userId` and so on.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data import store
from slmrec_jax.data.checks import check_finite, check_padding
from slmrec_jax.data.columns import Encoded, as_labels, as_raw_ids, as_times, encode, find
from slmrec_jax.data.dataset import Dataset, Feature, make_dataset
from slmrec_jax.data.feature_files import (
    add_feature_file,
    as_float32,
    by_raw_id,
    in_order,
    is_named_as_feature,
    modality_of,
)
from slmrec_jax.data.feature_tables import SUFFIXES as FEATURE_SUFFIXES
from slmrec_jax.data.feature_tables import read_vectors
from slmrec_jax.data.split import TEST, TRAIN, VALID, Times, Unsplit, first_times
from slmrec_jax.data.tables import (
    SEPARATORS,
    SUFFIXES,
    Table,
    choose_file,
    column_names,
    first_row,
    is_parquet,
    listed,
    read_any,
)
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "a .csv, .tsv or .parquet file with columns user and item"

_ROLES = {
    "user": ("user", "userid", "uid"),
    "item": ("item", "itemid", "iid"),
    "split": ("split", "xlabel"),
    "rating": ("rating",),
    "timestamp": ("timestamp", "time"),
}
"""What columns may be called, but for capitals and underscores."""
_SPLITS = {"train": ("train",), "valid": ("valid", "validation", "val"), "test": ("test",)}
"""What the file of a split, and its rows in a column `split`, may be called."""
_LABELS = {name: part for part, names in zip((TRAIN, VALID, TEST), _SPLITS.values(), strict=True) for name in names}
_LABELS |= {str(part): part for part in (TRAIN, VALID, TEST)}
_WHOLE = "interactions"
_CATALOGUE = "items"
_FEATURES = "features"


def recognises(folder: Path) -> bool:
    """Whether there is a table that is called as one of interactions, or has columns of users and of items."""
    return not store.recognises(folder) and bool(_tables(folder))


def read(folder: Path) -> Dataset | Unsplit:
    """Reads the interactions, the catalogue of items if there is one, and the modalities.

    Interactions: the only table with columns of users and items, or `interactions.*`, with a column `split` or not;
    or `train.*`, `valid.*` and `test.*`. Every row counts as one, whatever its rating.

    Items are those of `items.csv` (or .tsv, .parquet) in its order, or else those of the interactions in the order of
    their raw ids. Users are those of the interactions.

    A modality is a `.npy`, `.safetensors` or `.parquet` file here or in `features/`, called as the modality, with
    `_feat` or `_emb` at its end or not; image, audio and text become visual, acoustic and textual. So is a `.csv` or
    `.tsv` file in `features/`, or here if it is called as one of these or has such an end. Its rows stand under
    raw ids (`feature_tables.read_vectors`); else they are in the order of the catalogue; else row i is the item with
    the raw id i. An item without a row, or with one of NaN, lacks the modality.

    Raises:
        UserError: A file that is missing, malformed, or at odds with the others.
    """
    files = _interaction_files(folder)
    tables = {part: _read_roles(file, ("user", "item"), ("split", "timestamp")) for part, file in files.items()}
    users, items = (encode(list(tables.values()), role) for role in ("user", "item"))
    catalogue = _find(folder, _CATALOGUE)
    if catalogue is not None:
        items = _in_catalogue(items, list(tables.values()), catalogue)
    pairs = {part: Interactions(users.rows[n], items.rows[n]) for n, part in enumerate(tables)}
    whole = tables.get("")
    if whole is not None and "split" in whole.columns:
        pairs, whole = _by_label(whole, pairs[""]), None
    feature_files, notes = _feature_files(folder, [*files.values(), *([catalogue] if catalogue else [])])
    features = {}
    for modality, file in feature_files.items():
        features[modality], found = _feature(file, items.ids, in_order_of_items=catalogue is not None)
        notes += found
    if any(_roles(file).get("rating") for file in files.values()):
        notes.append("ratings are not used: every row counts as an interaction")
    origins = {"items": catalogue} if catalogue else {}
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    dataset = make_dataset(
        folder.resolve().name,
        *(pairs.get(split, none) for split in ("train" if whole is None else "", "valid", "test")),
        num_users=len(users.ids),
        num_items=len(items.ids),
        features=features,
        user_ids=users.ids,
        item_ids=items.ids,
        origins={part or "train": str(file) for part, file in {**files, **feature_files, **origins}.items()},
        notes=notes,
    )
    if whole is None:
        return dataset
    known = "timestamp" in whole.columns
    return Unsplit(dataset, partial(_times, whole, pairs[""], len(items.ids)) if known else None)


def _tables(folder: Path) -> list[Path]:
    """The tables that may be of interactions: by their name, or by their columns."""
    return [file for file in _files(folder, SUFFIXES) if _stem(file) in (_WHOLE, "train") or _is_of_interactions(file)]


def _interaction_files(folder: Path) -> dict[str, Path]:
    """The file of each split, or the only one under ""."""
    tables = _tables(folder)
    by_split = {split: [file for file in tables if _stem(file) in names] for split, names in _SPLITS.items()}
    whole = [file for file in tables if _stem(file) == _WHOLE]
    if not any(by_split.values()):
        return {"": choose_file(folder, whole or tables, "tables of interactions (columns user and item)")}
    if not by_split["train"] or whole:
        found = listed([file.name for file in tables])
        raise UserError(f"{folder}: there is {found}; expected train, and maybe valid and test, or {_WHOLE} alone")
    return {
        split: choose_file(folder, found, f"tables of the {split} split") for split, found in by_split.items() if found
    }


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.suffix in suffixes]


def _stem(file: Path) -> str:
    return file.stem.lower()


def _find(folder: Path, stem: str) -> Path | None:
    files = [file for file in _files(folder, SUFFIXES) if _stem(file) == stem]
    return choose_file(folder, files, f"tables of {stem}") if files else None


def _is_of_interactions(file: Path) -> bool:
    if file.suffix == ".parquet" and not is_parquet(file):  # what is damaged is no other format's business
        return False
    return {"user", "item"} <= set(_roles(file))


def _roles(file: Path) -> dict[str, list[str]]:
    """The columns of a table by what they are for."""
    names = column_names(file) if file.suffix == ".parquet" else first_row(file, SEPARATORS[file.suffix])
    plain = {name: name.replace("_", "").lower() for name in names}
    return {
        role: found for role, called in _ROLES.items() if (found := [name for name in names if plain[name] in called])
    }


def _read_roles(file: Path, wanted: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """A table whose columns are called by what they are for."""
    roles = {role: names for role, names in _roles(file).items() if role in (*wanted, *optional)}
    for role in wanted:
        if role not in roles:
            raise UserError(
                f"{file}: there is no column {role!r}; it has {listed(column_names(file))}: rename the one of {role}s"
            )
    for role, names in roles.items():
        if len(names) > 1:
            raise UserError(f"{file}: {listed(names)} are all columns of {role}s; keep one")
    table = read_any(file, [name for (name,) in roles.values()])
    return Table(file, {role: table.columns[name] for role, (name,) in roles.items()}, table.header)


def _by_label(table: Table, pairs: Interactions) -> dict[str, Interactions]:
    parts = as_labels(table, "split", _LABELS)
    return {
        name: Interactions(pairs.users[parts == part], pairs.items[parts == part]) for part, name in enumerate(_SPLITS)
    }


def _times(table: Table, pairs: Interactions, num_items: int) -> Times:
    return first_times(pairs, as_times(table, "timestamp"), num_items)


def _in_catalogue(items: Encoded, tables: Sequence[Table], file: Path) -> Encoded:
    """Puts items in the order of the catalogue."""
    table = _read_roles(file, ("item",))
    places = find(table, "item", items.ids)
    rows = np.full(len(items.ids), -1)
    rows[places[places >= 0]] = np.flatnonzero(places >= 0)
    for interactions, codes in zip(tables, items.rows, strict=True):
        unknown = np.flatnonzero(rows[codes] < 0)
        if len(unknown):
            index = int(unknown[0])
            raise UserError(
                f"{interactions.row(index)}: item is {interactions.value('item', index)}, which {file.name} does not "
                f"have; add it there"
            )
    return Encoded(as_raw_ids(table, "item"), tuple(rows[codes] for codes in items.rows))


def _feature_files(folder: Path, tables: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    beside = [file for file in _files(folder, (*FEATURE_SUFFIXES, *SUFFIXES)) if file not in tables]
    read = [
        file
        for file in beside
        if file.suffix in FEATURE_SUFFIXES
        and not (file.suffix == ".parquet" and "user" in _roles(file))
        and (file.suffix not in SEPARATORS or is_named_as_feature(file))
    ]
    if (folder / _FEATURES).is_dir():
        read += _files(folder / _FEATURES, FEATURE_SUFFIXES)
    files: dict[str, Path] = {}
    for file in read:
        add_feature_file(files, modality_of(file), file)
    return in_order(files), [f"{file.name!a} is not read" for file in beside if file not in read]


def item_column(file: Path) -> str | None:
    """The column of raw ids beside the vectors of a table with names."""
    keys = _roles(file).get("item") if file.suffix in SUFFIXES else None
    return keys[0] if keys else None


def _feature(
    file: Path, item_ids: Shaped[np.ndarray, " items"], *, in_order_of_items: bool
) -> tuple[Feature, list[str]]:
    vectors = read_vectors(file, item_column(file))
    values, present = vectors.values, vectors.present
    if vectors.keys is not None:
        return by_raw_id(vectors.keys, "item", values, present, item_ids, vectors.stored)
    if not in_order_of_items:
        if item_ids.dtype.kind != "i" or item_ids.min() < 0 or item_ids.max() >= len(values):
            wrong = next(item for item in item_ids.tolist() if not isinstance(item, int) or not 0 <= item < len(values))
            raise UserError(
                f"{file}: {len(values)} rows without ids, and there is an item {wrong!r}; put the raw ids beside the "
                f"vectors, or list the items in the order of the rows in {_CATALOGUE}.csv (a column item)"
            )
        if item_ids.min() == 0:
            check_padding(str(file), values, int(item_ids.max()) + 1)
        values, present = as_float32(values[item_ids]), present[item_ids]
        check_finite(str(file), values[present], item_ids[present])
    missing = [f"{file.name}: items without this feature: {(~present).sum()} of {len(present)}"]
    return Feature(values, present, vectors.stored), [] if present.all() else missing
