"""Reads plain tables: interactions under raw ids of any type as CSV, TSV or Parquet, and one file for each modality.

For data that no tool has prepared. `roles.KNOWN_NAMES` has what columns may be called.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data import store
from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.data.formats.interactions import LISTS, SPLIT_NAMES, gather, read_interactions, read_items
from slmrec_jax.data.formats.roles import WITHOUT_HEADER, layout
from slmrec_jax.data.inspect.checks import check_finite, check_padding
from slmrec_jax.data.readers.feature_files import (
    add_feature_file,
    as_float32,
    by_raw_id,
    in_order,
    is_named_as_feature,
    modality_of,
)
from slmrec_jax.data.readers.feature_tables import FEATURE_SUFFIXES, may_hold_vectors, read_vectors
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.headers import SEPARATORS, TABLE_SUFFIXES
from slmrec_jax.data.readers.raw_ids import EncodedIds, as_raw_ids, encode_ids, find_ids
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.tables import Table, choose_file
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError

LOOKS_FOR = "a .csv, .tsv, .txt, .dat or .parquet file with columns user and item"

_WHOLE = ("interactions", "ratings")
"""What the table of all interactions is called; the first of these that is there is read."""
_BY_COLUMNS = (".txt", ".dat", ".data")
"""Files of these kinds are other things too, whatever their name; only columns make them tables of interactions."""
_CATALOGUE = "items"
_FEATURES = "features"


def recognises(folder: Path, source: Source) -> bool:
    """Whether there is a table that is called as one of interactions, or has columns of users and of items."""
    return not store.recognises(folder) and bool(_tables(folder, source))


def read(folder: Path, source: Source) -> Dataset | Unsplit:
    """Reads the interactions, the catalogue of items if there is one, and the modalities.

    Interactions: the only table with columns of users and items, or `interactions.*`, with a column `split` or not;
    or `train.*`, `valid.*` and `test.*`. Every row counts as one but those of label 0 and those with a rating below
    the source's.

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
    files = _interaction_files(folder, source)
    found = {part: read_interactions(file, source) for part, file in files.items()}
    tables = [each.table for each in found.values()]
    users, items = (encode_ids(tables, role) for role in ("user", "item"))
    catalogue = _find(folder, _CATALOGUE)
    if catalogue is not None:
        items = _in_catalogue(items, tables, read_items(catalogue, source))
    others = {"items": catalogue} if catalogue else {}
    feature_files = _feature_files(folder, [*files.values(), *others.values()])
    features, notes = {}, []
    for modality, file in feature_files.items():
        features[modality], of_feature = _feature(file, items.ids, in_order_of_items=catalogue is not None)
        notes += of_feature
    files = {**files, **feature_files, **others}
    notes += not_read(folder, files.values())
    return gather(folder.resolve().name, found, users, items, features, files, notes)


def _tables(folder: Path, source: Source) -> list[Path]:
    """The tables that may be of interactions: by their name, or by their columns; else lists of users' items."""
    tables = [file for file in _files(folder, (*TABLE_SUFFIXES, *_BY_COLUMNS)) if not file.name.endswith(LISTS)]
    found = [file for file in tables if _is_called_so(file) or {"user", "item"} <= set(layout(file, source).roles)]
    return found or [file for file in _files(folder, TABLE_SUFFIXES) if file.name.endswith(LISTS)]


def _is_called_so(file: Path) -> bool:
    stem_counts = uncompressed(file).suffix not in _BY_COLUMNS
    return file.name in WITHOUT_HEADER or (stem_counts and _stem(file) in (_WHOLE[0], "train"))


def _interaction_files(folder: Path, source: Source) -> dict[str, Path]:
    """The file of each split, or the only one under ""."""
    tables = _tables(folder, source)
    by_split = {split: [file for file in tables if _stem(file) in names] for split, names in SPLIT_NAMES.items()}
    whole = next(filter(None, ([file for file in tables if _stem(file) == stem] for stem in _WHOLE)), [])
    if not any(by_split.values()):
        return {"": choose_file(folder, whole or tables, "tables of interactions (columns user and item)")}
    if not by_split["train"] or whole:
        found = listed([file.name for file in tables])
        raise UserError(f"{folder}: there is {found}; expected train, and maybe valid and test, or {_WHOLE[0]} alone")
    return {
        split: choose_file(folder, found, f"tables of the {split} split") for split, found in by_split.items() if found
    }


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if uncompressed(file).suffix in suffixes]


def _stem(file: Path) -> str:
    return uncompressed(file).stem.lower()


def _find(folder: Path, stem: str) -> Path | None:
    files = [file for file in _files(folder, TABLE_SUFFIXES) if _stem(file) == stem]
    return choose_file(folder, files, f"tables of {stem}") if files else None


def _in_catalogue(items: EncodedIds, tables: Sequence[Table], table: Table) -> EncodedIds:
    """Puts items in the order of the catalogue."""
    places = find_ids(table, "item", items.ids)
    rows = np.full(len(items.ids), -1)
    rows[places[places >= 0]] = np.flatnonzero(places >= 0)
    for interactions, codes in zip(tables, items.rows, strict=True):
        unknown = np.flatnonzero(rows[codes] < 0)
        if len(unknown):
            index = int(unknown[0])
            raise UserError(
                f"{interactions.row(index)}: item is {interactions.value('item', index)}, which {table.file.name} does "
                f"not have; add it there"
            )
    return EncodedIds(as_raw_ids(table, "item"), tuple(rows[codes] for codes in items.rows))


def _feature_files(folder: Path, tables: Sequence[Path]) -> dict[str, Path]:
    found = [file for file in _files(folder, FEATURE_SUFFIXES) if file not in tables and _may_be_feature(file)]
    if (folder / _FEATURES).is_dir():
        found += _files(folder / _FEATURES, FEATURE_SUFFIXES)
    files: dict[str, Path] = {}
    for file in found:
        add_feature_file(files, modality_of(file), file)
    return in_order(files)


def _may_be_feature(file: Path) -> bool:
    """Whether a file beside the interactions holds features, by its name or else its columns."""
    suffix = uncompressed(file).suffix
    if suffix not in TABLE_SUFFIXES:
        return True
    found = layout(file, Source("")).roles
    if "user" in found:
        return False
    return is_named_as_feature(file) or (suffix not in SEPARATORS and may_hold_vectors(file, found.get("item", [])))


def item_column(file: Path) -> str | None:
    """The column of raw ids beside the vectors of a table with names."""
    keys = layout(file, Source("")).roles.get("item", []) if uncompressed(file).suffix in TABLE_SUFFIXES else []
    if len(keys) > 1:
        raise UserError(f"{file}: {listed(keys)} are all columns of items; keep the one of the vectors' raw ids")
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
    if not present.any():
        raise UserError(f"{file}: the rows of all items are of NaN alone; fill them, or leave this feature out")
    missing = [f"{file.name}: items without this feature: {(~present).sum()} of {len(present)}"]
    return Feature(values, present, vectors.stored), [] if present.all() else missing
