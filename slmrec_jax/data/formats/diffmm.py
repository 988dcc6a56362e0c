"""Reads the folders of DiffMM and SSLRec: a pickled sparse matrix for each split and a `.npy` table for each modality.

Nothing in the format says which items lack a modality, so all count as having it.
"""

from pathlib import Path

from slmrec_jax.data.dataset import Dataset, make_dataset
from slmrec_jax.data.readers.feature_files import feature_of_rows, find_feature_files
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.npy_files import read_table
from slmrec_jax.data.untrusted.pickles import SparsePattern, read_sparse
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "trnMat.pkl or train_mat.pkl"

_MATRICES = {
    "train": ("trnMat.pkl", "train_mat.pkl"),
    "valid": ("valMat.pkl", "valid_mat.pkl", "val_mat.pkl"),
    "test": ("tstMat.pkl", "test_mat.pkl"),
}


def recognises(folder: Path) -> bool:
    """Whether there is a training matrix under one of its names."""
    return any((folder / name).exists() for name in _MATRICES["train"])


def read(folder: Path) -> Dataset:
    """Reads the three matrices (users × items, non-zero = interaction) and every `<modality>_feat.npy`.

    image, audio and text become visual, acoustic and textual, in this order; other modalities keep their names and
    follow in alphabetical order. Raw ids are the row and column numbers, as the format keeps no others.

    Raises:
        UserError: A file that is missing, malformed, or at odds with the others.
    """
    files = {split: _matrix_file(folder, split) for split in _MATRICES}
    matrices = {split: read_sparse(file) for split, file in files.items()}
    shape = matrices["train"].shape
    for split, matrix in matrices.items():
        if matrix.shape != shape:
            raise UserError(
                f"{files[split]}: shape {matrix.shape}, but {files['train'].name} has {shape}; expected the same "
                f"users and items in every split"
            )
    tables = find_feature_files(folder)
    return make_dataset(
        folder.resolve().name,
        _interactions(matrices["train"]),
        _interactions(matrices["valid"]),
        _interactions(matrices["test"]),
        num_users=shape[0],
        num_items=shape[1],
        features={name: feature_of_rows(file, read_table(file)) for name, file in tables.items()},
        origins={part: str(file) for part, file in {**files, **tables}.items()},
        notes=not_read(folder, [*files.values(), *tables.values()]),
    )


def _matrix_file(folder: Path, split: str) -> Path:
    found = [folder / name for name in _MATRICES[split] if (folder / name).exists()]
    if not found:
        raise UserError(f"{folder}: the {split} matrix is missing; expected {' or '.join(_MATRICES[split])}")
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise UserError(f"{folder}: {names} are both there for the {split} split; keep one")
    return found[0]


def _interactions(matrix: SparsePattern) -> Interactions:
    return Interactions(matrix.rows, matrix.columns)
