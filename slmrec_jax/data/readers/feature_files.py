"""Finds a folder's feature tables and names modalities as the field does, in the order in which models take them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Shaped

from slmrec_jax.data.dataset import Feature
from slmrec_jax.data.inspect.checks import check_finite
from slmrec_jax.data.readers.columns import check_room, find
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.errors import UserError

T = TypeVar("T")

_ENDING = re.compile("_(feat|feats|feature|features|emb|embs|embedding|embeddings)$")
_ORDER = ("visual", "acoustic", "textual")
_NAMES = {
    "image": "visual",
    "video": "visual",
    "v": "visual",
    "audio": "acoustic",
    "a": "acoustic",
    "text": "textual",
    "t": "textual",
}


def modality_name(name: str) -> str:
    """The field's name of a modality: visual, acoustic or textual; others keep theirs."""
    return _NAMES.get(name, name)


def modality_of(file: Path) -> str:
    """The modality that a file is called by, with `_feat`, `_emb` or the like at its end or not."""
    return modality_name(_ENDING.sub("", uncompressed(file).stem.lower()))


def is_named_as_feature(file: Path) -> bool:
    """Whether a file's name says that it holds features: a modality's own name, or an end such as `_feat`."""
    return modality_of(file) in _ORDER or _ENDING.search(uncompressed(file).stem.lower()) is not None


def in_order(features: Mapping[str, T]) -> dict[str, T]:
    """Puts visual, acoustic and textual first, in this order, and the others after them by the alphabet."""
    first = [modality for modality in _ORDER if modality in features]
    return {modality: features[modality] for modality in first + sorted(set(features) - set(first))}


def find_feature_files(folder: Path, suffix: str = "_feat.npy") -> dict[str, Path]:
    """The files of a folder that are called `<modality><suffix>`, by modality and in order.

    Raises:
        UserError: Two files are of one modality, or a name cannot be printed.
    """
    files: dict[str, Path] = {}
    for file in sorted(folder.glob(f"?*{suffix}")):
        add_feature_file(files, modality_name(file.name.removesuffix(suffix)), file)
    return in_order(files)


def add_feature_file(files: dict[str, Path], modality: str, file: Path) -> None:
    """Enters a file under its modality.

    Raises:
        UserError: There is one already, or the name cannot be printed.
    """
    if not file.name.isprintable():  # error lines name it
        raise UserError(f"{file.parent}: the file {file.name!a} has control characters in its name; rename it")
    if modality in files:
        raise UserError(f"{file.parent}: {files[modality].name} and {file.name} are both {modality} features; keep one")
    files[modality] = file


def feature_of_rows(file: Path, values: Float[np.ndarray, "items columns"]) -> Feature:
    """A feature with a row for each item; a row of NaN alone stands for an item that lacks it.

    Raises:
        UserError: All rows are of NaN.
    """
    present = has_numbers(values)
    if len(present) and not present.any():
        raise UserError(f"{file}: every row is of NaN alone; fill it, or leave this feature out")
    return Feature(values, present)


def has_numbers(values: Shaped[np.ndarray, "rows columns"]) -> Bool[np.ndarray, " rows"]:
    """Which rows have other values than NaN."""
    present = np.ones(len(values), np.bool_)
    candidates = np.flatnonzero(np.isnan(values[:, 0])) if values.shape[1] else np.zeros(0, np.int64)
    present[candidates[np.isnan(values[candidates]).all(axis=1)]] = False
    return present


def as_float32(values: Shaped[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Numbers as float32; what lies beyond its range becomes infinite, and is refused as such later."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)


def by_raw_id(
    table: Table,
    key: str,
    values: Shaped[np.ndarray, "entries columns"],
    present: Bool[np.ndarray, " entries"],
    item_ids: Shaped[np.ndarray, " items"],
    stored: str = "",
) -> tuple[Feature, list[str]]:
    """Bring vectors that stand under raw ids into the order of the items; and what there is to say about it.

    Raises:
        UserError: A raw id that stands there twice, or is none; a value that is NaN or infinite; or no item has a
            vector.
    """
    places = find(table, key, item_ids)
    known = (places >= 0) & present
    if not known.any() and len(known) and len(item_ids):
        lacking = "has an id of the data" if present.any() else "has values"
        raise UserError(
            f"{table.file}: no row {lacking}; its first id is {table.value(key, 0)}, and the data's "
            f"{item_ids[0].item()!r}: correct the file, or leave this feature out"
        )
    taken = as_float32(values[known])
    check_finite(str(table.file), taken, np.flatnonzero(known) + 1 + table.header, first=1)
    check_room(table.file, len(item_ids), values.shape[1])
    empty = np.zeros((len(item_ids), values.shape[1]), np.float32)
    feature = Feature(empty, np.zeros(len(item_ids), np.bool_), stored or values.dtype.name)
    feature.values[places[known]] = taken
    feature.present[places[known]] = True
    notes = []
    if not known.all():
        notes.append(f"{table.file.name}: rows of items that are not in the data, or without values: {(~known).sum()}")
    if not feature.present.all():
        notes.append(f"{table.file.name}: items without this feature: {(~feature.present).sum()} of {len(item_ids)}")
    return feature, notes
