"""DiffMM's and SSLRec's folders: pickled matrices and tables of features, and what is refused in them."""

import io
import os
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from small_folders import SHARED, read, refusal, shared_folder, sizes, splits, write

from slmrec_jax.data import load

NAMES = {
    "diffmm": ("trnMat.pkl", "valMat.pkl", "tstMat.pkl"),
    "sslrec": ("train_mat.pkl", "valid_mat.pkl", "test_mat.pkl"),
    "sslrec, older": ("train_mat.pkl", "val_mat.pkl", "test_mat.pkl"),
}
MATRICES = [
    sp.coo_matrix(np.array([[1, 0, 1], [0, 1, 0]])),
    sp.coo_matrix(np.array([[0, 1, 0], [0, 0, 0]])),
    sp.csr_matrix(([1.0], ([1], [2])), shape=(2, 3)),
]


def files(names=NAMES["diffmm"], matrices=MATRICES, **tables):
    matrices = {name: pickle.dumps(matrix, 3) for name, matrix in zip(names, matrices, strict=True)}
    return matrices | {f"{name}_feat.npy": table for name, table in tables.items()}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_reads_the_three_matrices(tmp_path, names):
    dataset = read(tmp_path, files(names))
    assert dataset.name == tmp_path.name
    assert (dataset.num_users, dataset.num_items) == (2, 3)
    assert splits(dataset) == [[(0, 0), (0, 2), (1, 1)], [(0, 1)], [(1, 2)]]


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_features_are_named_as_the_field_names_them(tmp_path, dtype):
    tables = {name: np.full((3, 2), n, dtype) for n, name in enumerate(("zest", "text", "odour", "audio", "image"))}
    features = read(tmp_path, files(**tables)).features
    assert list(features) == ["visual", "acoustic", "textual", "odour", "zest"]
    assert [feature.values[0, 0] for feature in features.values()] == [4, 3, 1, 2, 0]
    kept = np.float16 if dtype == "<f2" else np.float32
    assert all(feature.values.dtype == kept and feature.present.all() for feature in features.values())


def test_fortran_order_is_the_same_table(tmp_path):
    table = np.arange(6.0).reshape(3, 2)
    assert (read(tmp_path, files(image=np.asfortranarray(table))).features["visual"].values == table).all()


def test_exchanged_validation_and_test_are_told_apart(tmp_path):
    train, valid, test = MATRICES
    exchanged = read(tmp_path / "exchanged", files(matrices=[train, test, valid]))
    assert exchanged.fingerprint != read(tmp_path / "given", files()).fingerprint


def npy(header):
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


BAD_TABLES = {
    "too few rows": (np.ones((2, 2)), "image_feat.npy: 2 rows for 3 items"),
    "one dimension": (np.ones(3), "float64 of shape (3,)"),
    "integers": (np.ones((3, 2), int), "int64 of shape (3, 2); expected a table of float16"),
    "complex": (np.ones((3, 2), complex), "complex128"),
    "long double": (np.ones((3, 2), np.longdouble), "of shape (3, 2)"),
    "objects": (np.array([[None] * 2] * 3), "not a readable .npy table"),
    "nan": (np.array([[1, 2], [np.nan, 3], [4, np.inf]]), "image_feat.npy: 2 values in 2 rows"),
    "beyond float32": (np.full((3, 2), 1e300), "6 values in 3 rows"),
    "no columns": (np.ones((3, 0)), "image_feat.npy: "),
    "text": (b"hello", "not a readable .npy table"),
    "a pickle": (pickle.dumps(np.ones((3, 2))), "not a readable .npy table"),
    "empty": (b"", "not a readable .npy table"),
    "short": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }") + b"1234", "not a readable"),
    "vast": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4611686018427387904), }"), "not a readable"),
    "negative": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }"), "image_feat.npy: "),
    "no tuple": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': 3, }"), "not a readable"),
    "code": (npy("__import__('os').abort()"), "not a readable"),
    "deep": (npy("(" * 100), "not a readable"),
    "unbalanced": (npy("{'descr"), "not a readable"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_get_one_line(tmp_path, name):
    table, found = BAD_TABLES[name]
    assert found in refusal(tmp_path, files(image=table))


def test_an_archive_is_not_a_table(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones((3, 2)))
    assert "archive" in refusal(tmp_path, files(image=buffer.getvalue()))


def test_a_pipe_is_not_a_table(tmp_path):
    os.mkfifo(write(tmp_path, files()) / "image_feat.npy")
    assert "not a regular file" in refusal(tmp_path)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4), (3, 3)], ids=str)
def test_matrices_must_agree_in_shape(tmp_path, shape):
    matrix = sp.coo_matrix(([1.0], ([0], [0])), shape=shape)
    line = refusal(tmp_path, files(matrices=[*MATRICES[:2], matrix]))
    assert f"tstMat.pkl: shape {shape}, but trnMat.pkl has (2, 3)" in line


def test_an_empty_train_split_is_named_by_its_file(tmp_path):
    line = refusal(tmp_path, files(matrices=[sp.coo_matrix((2, 3)), *MATRICES[1:]]))
    assert "trnMat.pkl: it has no interactions" in line


def test_a_missing_matrix_is_named(tmp_path):
    (write(tmp_path, files()) / "valMat.pkl").unlink()
    assert "the valid split is missing; expected valMat.pkl or valid_mat.pkl or val_mat.pkl" in refusal(tmp_path)


@pytest.mark.parametrize("twice", ["val_mat.pkl", "visual_feat.npy"])
def test_two_files_for_one_thing_are_a_question(tmp_path, twice):
    assert "keep one" in refusal(tmp_path, files(image=np.ones((3, 2))) | {twice: b""})


def test_a_malformed_matrix_is_named(tmp_path):
    line = refusal(tmp_path, files() | {"valMat.pkl": b"cos\nsystem\n(S'true'\ntR."})
    assert "valMat.pkl: byte 0: asks for 'os.system'" in line


def test_reads_tiktok():
    dataset = load(shared_folder(SHARED / "tiktok"))
    assert (dataset.num_users, dataset.num_items) == (9308, 6710)
    assert sizes(dataset) == [59541, 3051, 6130]
    assert {name: feature.values.shape for name, feature in dataset.features.items()} == {
        "visual": (6710, 128),
        "acoustic": (6710, 128),
    }


def test_the_same_purchases_in_two_tools_splits_are_other_data(tmp_path):
    """MMRec and DiffMM divide Amazon-Baby differently, so their figures must not be compared."""
    rng = np.random.default_rng(0)
    pairs = np.argwhere(rng.random((40, 60)) < 0.2)
    image = rng.normal(size=(60, 4)).astype(np.float32)

    def mmrec(name, labels):
        rows = [f"{user}\t{item}\t{label}" for (user, item), label in zip(pairs, labels, strict=True)]
        table = "\n".join(["userID\titemID\tx_label", *rows]) + "\n"
        return read(tmp_path / name, {"baby.inter": table, "image_feat.npy": image})

    def diffmm(name, labels):
        parts = [pairs[labels == label] for label in range(3)]
        matrices = [sp.coo_matrix((np.ones(len(part)), part.T), shape=(40, 60)) for part in parts]
        return read(tmp_path / name, files(matrices=matrices, image=image))

    ours, theirs = (rng.choice(3, len(pairs), p=[0.8, 0.1, 0.1]) for _ in range(2))
    for labels in (ours, theirs):
        labels[np.unique(pairs[:, 0], return_index=True)[1]] = 0  # MMRec drops users without training interactions
    assert mmrec("mmrec", ours).fingerprint != diffmm("diffmm", theirs).fingerprint
    assert mmrec("mmrec2", theirs).fingerprint == diffmm("diffmm2", theirs).fingerprint
