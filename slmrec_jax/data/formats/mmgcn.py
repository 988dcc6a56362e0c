"""Reader for folders of MMGCN, GRCN and similar tools: pairs and lists of ids in `.npy`, features in `.npy` or `.pt`.

Item ids count either from the number of users, as nodes of one graph, or from 0. The files do not state which, so the
number of feature rows decides.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.data.inspect.checks import MAX_COUNT, check_range
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.readers.feature_files import by_modality, feature_of_rows
from slmrec_jax.data.readers.folders import file_of_split, not_read
from slmrec_jax.data.readers.json_lists import ItemLists
from slmrec_jax.data.readers.npy_files import read_numbers
from slmrec_jax.data.readers.raw_ids import count_rows
from slmrec_jax.data.untrusted.object_arrays import read_lists
from slmrec_jax.data.untrusted.torch_files import read_tensor
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "train.npy, train_full.npy or train_sample.npy"

_STEMS = {"train": "train", "valid": "val", "test": "test"}
_VARIANTS = ("", "_full", "_sample")
_FEATURE_STEMS = {
    "visual": ("FeatureVideo_normal", "feat_v", "v_feat", "v_feat_sample"),
    "acoustic": ("FeatureAudio_avg_normal", "feat_a", "a_feat", "a_feat_sample"),
    "textual": ("FeatureText_stl_normal", "feat_t", "t_feat", "t_feat_sample"),
}
"""The file names by modality, without the suffix `.npy` or `.pt`."""
_EXPECTED_IDS = "ids are counted from 0 and fit into int32"


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there is a training file under one of its known names."""
    return any((folder / f"train{variant}.npy").exists() for variant in _VARIANTS)


def read(folder: Path, source: Source) -> Dataset:
    """Read train (rows of a user and an item), val and test (lists of a user and their items) and the features.

    The number of items is the number of feature rows. Without a feature table it is one more than the largest id, as
    always for users. Notes state from where item ids are counted and which features are missing. Instead of vectors, an
    integer table with two rows lists pairs of an item and a word.
    """
    names = {split: [f"{stem}{variant}.npy" for variant in _VARIANTS] for split, stem in _STEMS.items()}
    files = {split: file_of_split(folder, split, names[split]) for split in _STEMS}
    splits = [(_read_pair_rows if split == "train" else _read_user_lists)(file) for split, file in files.items()]
    feature_files = by_modality(
        (modality, file)
        for modality, stems in _FEATURE_STEMS.items()
        for stem in stems
        for suffix in (".npy", ".pt")
        if (file := folder / f"{stem}{suffix}").exists()
    )
    features = {modality: _read_vectors_or_word_ids(file) for modality, file in feature_files.items()}
    users, items = [split.users for split in splits], [split.pairs.items for split in splits]
    rows = next((len(feature.values) for feature in features.values() if isinstance(feature, Feature)), None)
    first, note = _first_item(str(folder), count_rows(str(folder), "user", users), items, rows)
    of_words = [feature.items for feature in features.values() if isinstance(feature, Words)]
    if rows is None:
        rows = count_rows(str(folder), "item", [*(each - first for each in items), *of_words])
    absent = [
        f"no {modality} features: looked for {', '.join(stems)}, each .npy or .pt"
        for modality, stems in _FEATURE_STEMS.items()
        if modality not in features
    ]
    return make_dataset(
        folder.resolve().name,
        *(Interactions(split.pairs.users, split.pairs.items - first) for split in splits),
        num_users=count_rows(str(folder), "user", [*users, np.array([first - 1])]),
        num_items=rows,
        features=features,
        item_ids=np.arange(first, first + rows),
        origins={**files, **feature_files},
        notes=[note, *absent, *not_read(folder, [*files.values(), *feature_files.values()])],
    )


def _read_pair_rows(file: Path) -> ItemLists:
    table = read_numbers(file, "rows of a user and an item")
    if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu":
        raise UserError(
            f"{file}: an array of {table.dtype} of shape {table.shape}; expected integers, a user and an item per row"
        )
    pairs = Interactions(*(_checked_ids(file, name, table[:, n]) for n, name in enumerate(("users", "items"))))
    return ItemLists(pairs, pairs.users)


def _read_user_lists(file: Path) -> ItemLists:
    ids, offsets = read_lists(file)
    lengths = np.diff(offsets)
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise UserError(f"{file}: list {empty[0]} is empty; expected a user and then their items, if any")
    vast = np.flatnonzero(ids >= MAX_COUNT)
    if len(vast):
        number = np.searchsorted(offsets, vast[0], side="right") - 1
        raise UserError(f"{file}: list {number} has the id {ids[vast[0]]}; {_EXPECTED_IDS}")
    users = ids[offsets[:-1]]
    return ItemLists(Interactions(np.repeat(users, lengths - 1), np.delete(ids, offsets[:-1])), users)


def _checked_ids(file: Path, name: str, ids: Shaped[np.ndarray, " entries"]) -> Int[np.ndarray, " entries"]:
    check_range(str(file), name, ids, MAX_COUNT, _EXPECTED_IDS)
    return ids.astype(np.int64)


def _first_item(
    where: str, num_users: int, items: Sequence[Int[np.ndarray, "..."]], rows: int | None
) -> tuple[int, str]:
    """Return the id of the item in row 0, and a note: 0 if ids fit the feature rows, else the number of users."""
    together = np.concatenate(items)
    lowest, highest = (int(together.min()), int(together.max())) if len(together) else (0, 0)
    if rows is None and lowest == num_users:
        return lowest, f"item ids: counted from {lowest}, as the lowest is the number of users; no features to check"
    if rows is None:
        return 0, f"item ids: counted from 0, the largest is {highest}; no features to check"
    if highest < rows:
        return 0, f"item ids: counted from 0, and the largest is {highest} of {rows} feature rows"
    # Users beyond the largest user id, who have no interactions, shift the items further.
    first = max(num_users, highest + 1 - rows)
    if first <= lowest and first in (num_users, lowest):
        note = f"item ids: counted from {first}, the number of users, for {rows} feature rows; the largest is {highest}"
        return first, note
    raise UserError(
        f"{where}: item ids are {lowest} to {highest}, which do not fit the {rows} feature rows, counted neither from "
        f"0 nor from the number of users, {num_users}; expected row i to be item i"
    )


def _read_vectors_or_word_ids(file: Path) -> Feature | Words:
    values, of_words = read_vectors_or_words(file)
    if not of_words:
        return feature_of_rows(file, values)
    items, words = (_checked_ids(file, name, values[n]) for n, name in enumerate(("items", "words")))
    return Words(items, words, count_rows(str(file), "word", [words]))


def read_vectors_or_words(file: Path) -> tuple[Shaped[np.ndarray, "..."], bool]:
    """Read vectors (one row per item) or word ids (two rows, of items and words); also return which of the two."""
    values = read_tensor(file) if file.suffix == ".pt" else read_numbers(file, "a table of numbers, one row per item")
    of_words = values.ndim == 2 and values.shape[0] == 2 and values.dtype.kind in "iu"
    if not of_words and (values.ndim != 2 or values.dtype.kind != "f"):
        raise UserError(
            f"{file}: an array of {values.dtype} of shape {values.shape}; expected a floating-point table, one row "
            f"per item, or integers in two rows, items and words"
        )
    return values, of_words
