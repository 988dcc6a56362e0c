"""Reader for folders of MMSSL, LATTICE and MICRO: JSON lists of items by user, and one `.npy` table per modality.

MMSSL stores its training interactions also, or only, as a pickled sparse matrix.
"""

from pathlib import Path

import numpy as np

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.pairs import pair_keys
from slmrec_jax.data.readers.feature_files import read_feature_tables
from slmrec_jax.data.readers.folders import file_of_split, not_read
from slmrec_jax.data.readers.json_lists import ItemLists, read_item_lists
from slmrec_jax.data.readers.raw_ids import count_rows
from slmrec_jax.data.untrusted.pickles import SparsePattern, read_sparse
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "train.json or train_mat"

_LISTS = {"train": "train.json", "valid": "val.json", "test": "test.json"}
_TRAIN_MATRIX = "train_mat"


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there are training interactions in one of the two forms."""
    return any((folder / name).exists() for name in (_LISTS["train"], _TRAIN_MATRIX))


def read(folder: Path, source: Source) -> Dataset:
    """Read the lists of each split, the matrix if it exists, and every `<modality>_feat.npy`.

    The matrix determines the numbers of users and items. Without it, the number of items is the number of feature rows
    if there are features; other numbers are one more than the largest id.
    """
    matrix_file = folder / _TRAIN_MATRIX
    files = {
        split: file_of_split(folder, split, [name])
        for split, name in _LISTS.items()
        if split != "train" or (folder / name).exists() or not matrix_file.exists()
    }
    lists = {split: read_item_lists(file) for split, file in files.items()}
    features, tables = read_feature_tables(folder)
    notes = not_read(folder, [*files.values(), matrix_file, *tables.values()])
    origins = {**files, **tables}
    if matrix_file.exists():
        matrix = read_sparse(matrix_file)
        if "train" in lists:
            _check_agreement(files["train"], lists["train"], matrix)
        train = Interactions(matrix.rows, matrix.columns)
        num_users, num_items = matrix.shape
        origins["train"] = matrix_file
    else:
        train = lists["train"].pairs
        num_users = count_rows(str(folder), "user", [each.users for each in lists.values()])
        if features:
            num_items = len(next(iter(features.values())).values)
        else:
            num_items = count_rows(str(folder), "item", [each.pairs.items for each in lists.values()])
            notes = [f"items: {num_items}, one more than the largest id", *notes]
    return make_dataset(
        folder.resolve().name,
        train,
        lists["valid"].pairs,
        lists["test"].pairs,
        num_users=num_users,
        num_items=num_items,
        features=features,
        origins=origins,
        notes=notes,
    )


def _check_agreement(file: Path, lists: ItemLists, matrix: SparsePattern) -> None:
    given = Interactions(matrix.rows, matrix.columns)
    width = 1 + max((int(ids.max()) for ids in (lists.pairs.items, given.items) if len(ids)), default=0)
    listed, stored = (np.unique(pair_keys(pairs, width)) for pairs in (lists.pairs, given))
    alone = np.setxor1d(listed, stored, assume_unique=True)
    if len(alone):
        user, item = divmod(int(alone[0]), width)
        there = file.name if np.isin(alone[0], listed) else _TRAIN_MATRIX
        raise UserError(
            f"{file}: {len(listed)} interactions, but {_TRAIN_MATRIX} has {len(stored)}, and {len(alone)} are in only "
            f"one of the two (user {user}, item {item} in {there}); expected the same in both: keep the right one"
        )
