"""Reader for folders of DiffMM and SSLRec: one pickled sparse matrix per split and one `.npy` table per modality.

The format cannot express that an item lacks a modality, so all items count as having every modality.
"""

from pathlib import Path

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.readers.feature_files import read_feature_tables
from slmrec_jax.data.readers.folders import file_of_split, not_read
from slmrec_jax.data.untrusted.pickles import read_sparse
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "trnMat.pkl or train_mat.pkl"

_MATRICES = {
    "train": ("trnMat.pkl", "train_mat.pkl"),
    "valid": ("valMat.pkl", "valid_mat.pkl", "val_mat.pkl"),
    "test": ("tstMat.pkl", "test_mat.pkl"),
}


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there is a training matrix under one of its known names."""
    return any((folder / name).exists() for name in _MATRICES["train"])


def read(folder: Path, source: Source) -> Dataset:
    """Read the three matrices (users × items, non-zero = interaction) and every `<modality>_feat.npy`.

    image, audio and text become visual, acoustic and textual, in this order. Other modalities keep their names and
    follow in alphabetical order. Raw ids are the row and column numbers, since the format stores no others.
    """
    files = {split: file_of_split(folder, split, names) for split, names in _MATRICES.items()}
    matrices = {split: read_sparse(file) for split, file in files.items()}
    shape = matrices["train"].shape
    for split, matrix in matrices.items():
        if matrix.shape != shape:
            raise UserError(
                f"{files[split]}: shape {matrix.shape}, but {files['train'].name} has {shape}; expected the same "
                f"users and items in every split"
            )
    features, tables = read_feature_tables(folder)
    return make_dataset(
        folder.resolve().name,
        *(Interactions(matrix.rows, matrix.columns) for matrix in matrices.values()),
        num_users=shape[0],
        num_items=shape[1],
        features=features,
        origins={**files, **tables},
        notes=not_read(folder, [*files.values(), *tables.values()]),
    )
