"""Reads the folders of MMGCN, GRCN and their kin: pairs and lists of ids in `.npy`, features in `.npy` or `.pt`.

Their item ids may be counted on from the number of users, as nodes of one graph, or from 0; nothing in the files says
which, and the feature rows decide.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from slmrec_jax.data.dataset import SPLITS, Dataset, Feature, Words, make_dataset
from slmrec_jax.data.inspect.checks import MAX_COUNT, check_range
from slmrec_jax.data.readers.feature_files import feature_of_rows
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.npy_files import read_numbers
from slmrec_jax.data.readers.raw_ids import count_rows
from slmrec_jax.data.untrusted.object_arrays import read_lists
from slmrec_jax.data.untrusted.torch_files import read_tensor
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

_STEMS = {"train": "train", "valid": "val", "test": "test"}
_KINDS = ("", "_full", "_sample")
LOOKS_FOR = "train.npy, train_full.npy or train_sample.npy"

_FEATURES = {
    "visual": ("FeatureVideo_normal", "feat_v", "v_feat", "v_feat_sample"),
    "acoustic": ("FeatureAudio_avg_normal", "feat_a", "a_feat", "a_feat_sample"),
    "textual": ("FeatureText_stl_normal", "feat_t", "t_feat", "t_feat_sample"),
}
"""The names of the files, `.npy` or `.pt`."""
_IDS = "ids are counted from 0 and fit into int32"


class _Split(NamedTuple):
    pairs: Interactions
    """Ids as they stand in the file, int64."""
    users: Int[np.ndarray, " users"]
    """Every user that the file names, with items or without."""


class _Numbering(NamedTuple):
    first: int
    """The id of the item in row 0."""
    note: str


def recognises(folder: Path) -> bool:
    """Whether there is a training file under one of its names."""
    return any((folder / f"train{kind}.npy").exists() for kind in _KINDS)


def read(folder: Path) -> Dataset:
    """Reads train (rows of a user and an item), val and test (lists of a user and their items) and the features.

    There are as many items as feature rows. Without a table of features, there is one more than the largest id, and
    there always is of users. Notes say which way items were taken to be counted, and which features are missing.
    A table of integers with two rows, in place of vectors, lists pairs of an item and a word.

    Raises:
        UserError: A file that is missing, malformed, or at odds with the others.
    """
    files = {split: _split_file(folder, split) for split in SPLITS}
    splits = {split: (_read_pairs if split == "train" else _read_held_out)(file) for split, file in files.items()}
    feature_files = _feature_files(folder)
    features = {modality: _read_feature(file) for modality, file in feature_files.items()}
    users = [split.users for split in splits.values()]
    num_users = count_rows(str(folder), "user", users)
    items = [split.pairs.items for split in splits.values()]
    rows = [len(feature.values) for feature in features.values() if isinstance(feature, Feature)]
    numbering = _numbering(str(folder), num_users, items, rows[0] if rows else None)
    first = numbering.first
    worded = [feature.items for feature in features.values() if isinstance(feature, Words)]
    num_items = rows[0] if rows else count_rows(str(folder), "item", [*(each - first for each in items), *worded])
    num_users = count_rows(str(folder), "user", [*users, np.array([first - 1])])
    return make_dataset(
        folder.resolve().name,
        *(Interactions(split.pairs.users, split.pairs.items - first) for split in splits.values()),
        num_users=num_users,
        num_items=num_items,
        features=features,
        item_ids=np.arange(first, first + num_items),
        origins={part: str(file) for part, file in {**files, **feature_files}.items()},
        notes=[
            numbering.note,
            *_missing(features),
            *not_read(folder, [*files.values(), *feature_files.values()]),
        ],
    )


def _split_file(folder: Path, split: str) -> Path:
    names = [f"{_STEMS[split]}{kind}.npy" for kind in _KINDS]
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise UserError(f"{folder}: the {split} split is missing; expected {' or '.join(names)}")
    if len(found) > 1:
        raise UserError(
            f"{folder}: {' and '.join(file.name for file in found)} are both there for the {split} split; keep one"
        )
    return found[0]


def _read_pairs(file: Path) -> _Split:
    table = read_numbers(file, "rows of a user and an item")
    if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu":
        raise UserError(
            f"{file}: an array of {table.dtype} of shape {table.shape}; expected integers, one row a user and an item"
        )
    pairs = Interactions(*(_ids(file, name, table[:, n]) for n, name in enumerate(("users", "items"))))
    return _Split(pairs, pairs.users)


def _read_held_out(file: Path) -> _Split:
    ids, offsets = read_lists(file)
    lengths = np.diff(offsets)
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise UserError(f"{file}: list {empty[0]} is empty; expected a user and then their items, if there are any")
    vast = np.flatnonzero(ids >= MAX_COUNT)
    if len(vast):
        number = np.searchsorted(offsets, vast[0], side="right") - 1
        raise UserError(f"{file}: list {number} has the id {ids[vast[0]]}; {_IDS}")
    users = ids[offsets[:-1]]
    of_item = np.ones(len(ids), np.bool_)
    of_item[offsets[:-1]] = False
    return _Split(Interactions(np.repeat(users, lengths - 1), ids[of_item]), users)


def _ids(file: Path, name: str, ids: Shaped[np.ndarray, " entries"]) -> Int[np.ndarray, " entries"]:
    check_range(str(file), name, ids, MAX_COUNT, _IDS)
    return ids.astype(np.int64)


def _numbering(where: str, num_users: int, items: list[Int[np.ndarray, "..."]], rows: int | None) -> _Numbering:
    """Where item ids start: at 0 where they fit into the feature rows so, else at the number of users."""
    found = [each for each in items if len(each)]
    lowest = min((int(each.min()) for each in found), default=0)
    highest = max((int(each.max()) for each in found), default=0)
    if rows is None:
        if lowest == num_users:
            return _Numbering(
                lowest, f"item ids: counted from {lowest}, as the lowest is the number of users; no features to ask"
            )
        return _Numbering(0, f"item ids: counted from 0, the largest is {highest}; no features to ask")
    if highest < rows:
        return _Numbering(0, f"item ids: counted from 0, and the largest is {highest} of {rows} feature rows")
    # Users beyond the largest id, who have no interactions, would move the items further.
    least = max(num_users, highest + 1 - rows)
    if least <= lowest and least in (num_users, lowest):
        return _Numbering(
            least,
            f"item ids: counted from {least}, the number of users, for {rows} feature rows; the largest is {highest}",
        )
    raise UserError(
        f"{where}: item ids are {lowest} to {highest}, which the {rows} feature rows do not hold, neither counted from "
        f"0 nor from the number of users, {num_users}; expected row i to be item i"
    )


def _feature_files(folder: Path) -> dict[str, Path]:
    files = {}
    for modality, stems in _FEATURES.items():
        names = [f"{stem}{suffix}" for stem in stems for suffix in (".npy", ".pt")]
        found = [folder / name for name in names if (folder / name).exists()]
        if len(found) > 1:
            raise UserError(f"{folder}: {found[0].name} and {found[1].name} are both {modality} features; keep one")
        if found:
            files[modality] = found[0]
    return files


def _read_feature(file: Path) -> Feature | Words:
    values = read_tensor(file) if file.suffix == ".pt" else read_numbers(file, "a table of numbers, one row an item")
    if values.ndim == 2 and values.shape[0] == 2 and values.dtype.kind in "iu":
        items, words = (_ids(file, name, values[n]) for n, name in enumerate(("items", "words")))
        return Words(items, words, count_rows(str(file), "word", [words]))
    if values.ndim != 2 or values.dtype.kind != "f":
        raise UserError(
            f"{file}: an array of {values.dtype} of shape {values.shape}; expected a table of floating point, one row "
            f"an item, or integers in two rows, items and words"
        )
    return feature_of_rows(file, values)


def _missing(features: dict[str, Feature | Words]) -> list[str]:
    return [
        f"no {modality} features: looked for {', '.join(stems)}, each .npy or .pt"
        for modality, stems in _FEATURES.items()
        if modality not in features
    ]
