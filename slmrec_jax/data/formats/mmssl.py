"""Reads the folders of MMSSL, LATTICE and MICRO: JSON lists of items a user, and a `.npy` table for each modality.

MMSSL keeps its training interactions as a pickled sparse matrix as well, or instead.
"""

from pathlib import Path

import numpy as np

from slmrec_jax.data.dataset import Dataset, make_dataset
from slmrec_jax.data.readers.feature_files import feature_of_rows, find_feature_files
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.json_lists import ItemLists, read_item_lists
from slmrec_jax.data.readers.npy_files import read_table
from slmrec_jax.data.readers.raw_ids import count_rows
from slmrec_jax.data.untrusted.pickles import SparsePattern, read_sparse
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "train.json or train_mat"

_LISTS = {"train": "train.json", "valid": "val.json", "test": "test.json"}
_MATRIX = "train_mat"


def recognises(folder: Path) -> bool:
    """Whether there are training interactions in one of the two forms."""
    return any((folder / name).exists() for name in (_LISTS["train"], _MATRIX))


def read(folder: Path) -> Dataset:
    """Reads the lists of each split, the matrix where it is there, and every `<modality>_feat.npy`.

    There are as many users and items as the matrix says. Without it there are as many items as feature rows, and
    otherwise one more than the largest id.

    Raises:
        UserError: A file that is missing, malformed, or at odds with the others.
    """
    files = {split: folder / name for split, name in _LISTS.items()}
    matrix_file = folder / _MATRIX
    for split, file in files.items():
        if not file.exists() and not (split == "train" and matrix_file.exists()):
            raise UserError(f"{folder}: the {split} split is missing; expected {file.name}")
    lists = {split: read_item_lists(file) for split, file in files.items() if file.exists()}
    matrix = read_sparse(matrix_file) if matrix_file.exists() else None
    if matrix is not None and "train" in lists:
        _check_agreement(files["train"], lists["train"], matrix)
    tables = find_feature_files(folder)
    features = {modality: feature_of_rows(file, read_table(file)) for modality, file in tables.items()}
    rows = [len(feature.values) for feature in features.values()]
    num_users, num_items = matrix.shape if matrix is not None else _counts(folder, lists, rows)
    train = Interactions(matrix.rows, matrix.columns) if matrix is not None else lists["train"].pairs
    origins = {**files, **tables} | ({"train": matrix_file} if matrix is not None else {})
    counted = [] if rows or matrix is not None else [f"items: {num_items}, one more than the largest id"]
    return make_dataset(
        folder.resolve().name,
        train,
        lists["valid"].pairs,
        lists["test"].pairs,
        num_users=num_users,
        num_items=num_items,
        features=features,
        origins={part: str(file) for part, file in origins.items()},
        notes=[*counted, *not_read(folder, [*files.values(), matrix_file, *tables.values()])],
    )


def _counts(folder: Path, lists: dict[str, ItemLists], rows: list[int]) -> tuple[int, int]:
    num_users = count_rows(str(folder), "user", [each.users for each in lists.values()])
    return num_users, rows[0] if rows else count_rows(
        str(folder), "item", [each.pairs.items for each in lists.values()]
    )


def _check_agreement(file: Path, lists: ItemLists, matrix: SparsePattern) -> None:
    given = Interactions(matrix.rows.astype(np.int64), matrix.columns.astype(np.int64))
    width = 1 + max((int(ids.max()) for ids in (lists.pairs.items, given.items) if len(ids)), default=0)
    listed, stored = (np.unique(pairs.users * width + pairs.items) for pairs in (lists.pairs, given))
    alone = np.setxor1d(listed, stored, assume_unique=True)
    if len(alone):
        user, item = divmod(int(alone[0]), width)
        there = file.name if np.isin(alone[0], listed) else _MATRIX
        raise UserError(
            f"{file}: {len(listed)} interactions, but {_MATRIX} has {len(stored)}, and {len(alone)} are in one of the "
            f"two only (user {user}, item {item} in {there}); expected the same in both: keep the right one"
        )
