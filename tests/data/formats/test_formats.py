"""Folders: their format is found, DiffMM's is read, and what is wrong with one is said in a line."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from slmrec_jax.data import Source, load
from slmrec_jax.data.formats import find_format
from slmrec_jax.errors import UserError

NAMES = {
    "diffmm": ("trnMat.pkl", "valMat.pkl", "tstMat.pkl"),
    "sslrec": ("train_mat.pkl", "valid_mat.pkl", "test_mat.pkl"),
    "sslrec, older": ("train_mat.pkl", "val_mat.pkl", "test_mat.pkl"),
}
MATRICES = [sp.coo_matrix(np.array(rows)) for rows in ([[1, 0, 1], [0, 1, 0]], [[0, 1, 0], [0, 0, 0]], [[0, 0, 0]] * 2)]
MATRICES[2] = sp.csr_matrix(([1.0], ([1], [2])), shape=(2, 3))


def write(folder, names=NAMES["diffmm"], **tables):
    for name, matrix in zip(names, MATRICES, strict=True):
        (folder / name).write_bytes(pickle.dumps(matrix, 3))
    for name, table in tables.items():
        np.save(folder / f"{name}_feat.npy", table)
    return folder


def refusal(folder, format=None):
    with pytest.raises(UserError) as caught:
        load(str(folder), format=format)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_reads_the_three_matrices(tmp_path, names):
    dataset = load(str(write(tmp_path, names)))
    assert dataset.name == tmp_path.name
    assert (dataset.num_users, dataset.num_items) == (2, 3)
    assert [list(zip(*split, strict=True)) for split in (dataset.train, dataset.valid, dataset.test)] == [
        [(0, 0), (0, 2), (1, 1)],
        [(0, 1)],
        [(1, 2)],
    ]


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_features_are_named_as_the_field_names_them(tmp_path, dtype):
    tables = {name: np.full((3, 2), n, dtype) for n, name in enumerate(("zest", "text", "odour", "audio", "image"))}
    features = load(str(write(tmp_path, **tables))).features
    assert list(features) == ["visual", "acoustic", "textual", "odour", "zest"]
    assert [feature.values[0, 0] for feature in features.values()] == [4, 3, 1, 2, 0]
    assert all(feature.values.dtype == np.float32 and feature.present.all() for feature in features.values())


def test_fortran_order_is_the_same_table(tmp_path):
    table = np.arange(6.0).reshape(3, 2)
    folder = write(tmp_path, image=np.asfortranarray(table))
    assert (load(str(folder)).features["visual"].values == table).all()


def test_exchanged_validation_and_test_are_told_apart(tmp_path):
    before = load(str(write(tmp_path))).fingerprint
    valid, test = ((tmp_path / name).read_bytes() for name in ("valMat.pkl", "tstMat.pkl"))
    (tmp_path / "valMat.pkl").write_bytes(test)
    (tmp_path / "tstMat.pkl").write_bytes(valid)
    assert load(str(tmp_path)).fingerprint != before


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
    write(tmp_path)
    file = tmp_path / "image_feat.npy"
    if isinstance(table, bytes):
        file.write_bytes(table)
    else:
        np.save(file, table)
    assert found in refusal(tmp_path)


def test_an_archive_is_no_table(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones((3, 2)))
    (write(tmp_path) / "image_feat.npy").write_bytes(buffer.getvalue())
    assert "archive" in refusal(tmp_path)


def test_a_pipe_or_folder_is_no_table(tmp_path):
    os.mkfifo(write(tmp_path) / "image_feat.npy")
    assert "not a regular file" in refusal(tmp_path)


def test_matrices_must_agree_in_shape(tmp_path):
    (write(tmp_path) / "tstMat.pkl").write_bytes(pickle.dumps(sp.eye(4).tocoo()))
    assert "tstMat.pkl: shape (4, 4), but trnMat.pkl has (2, 3)" in refusal(tmp_path)
    for shape in ((2, 4), (3, 3)):  # one side alone is not enough
        (tmp_path / "tstMat.pkl").write_bytes(pickle.dumps(sp.coo_matrix(([1.0], ([0], [0])), shape=shape)))
        assert f"tstMat.pkl: shape {shape}, but trnMat.pkl has (2, 3)" in refusal(tmp_path)


def test_an_empty_train_split_is_named_by_its_file(tmp_path):
    (write(tmp_path) / "trnMat.pkl").write_bytes(pickle.dumps(sp.coo_matrix((2, 3))))
    assert "trnMat.pkl: there are no interactions" in refusal(tmp_path)


def test_a_missing_matrix_is_named(tmp_path):
    (write(tmp_path) / "valMat.pkl").unlink()
    assert "the valid split is missing; expected valMat.pkl or valid_mat.pkl or val_mat.pkl" in refusal(tmp_path)


@pytest.mark.parametrize("twice", ["val_mat.pkl", "visual_feat.npy"])
def test_two_files_for_one_thing_are_a_question(tmp_path, twice):
    write(tmp_path, image=np.ones((3, 2)))
    (tmp_path / twice).write_bytes(b"")
    assert "keep one" in refusal(tmp_path)


def test_a_malformed_matrix_is_named(tmp_path):
    (write(tmp_path) / "valMat.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert "valMat.pkl: byte 0: asks for 'os.system'" in refusal(tmp_path)


# --- which format ------------------------------------------------------------------------------------------------


def test_an_unknown_folder_lists_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    line = refusal(tmp_path)
    assert "looked for trnMat.pkl or train_mat.pkl (diffmm)" in line
    assert "found 'notes.txt'" in line


def test_an_empty_folder(tmp_path):
    assert "an empty folder" in refusal(tmp_path)


def test_two_fitting_formats_are_a_question(tmp_path):
    write(tmp_path)
    (tmp_path / "train.json").write_text("")
    source = Source(str(tmp_path))
    with pytest.raises(UserError, match="looks like diffmm and mmssl; say which it is with format="):
        find_format(tmp_path, source)
    assert find_format(tmp_path, source._replace(format="mmssl")) == "mmssl"


def test_a_format_can_be_named(tmp_path):
    assert load(str(write(tmp_path)), format="diffmm").num_users == 2
    assert "no format 'diffm'; there is: diffmm" in refusal(tmp_path, "diffm")


def test_what_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "a file; give the folder" in refusal(tmp_path / "file")
    assert "cannot be read" in refusal("x" * 5000)


# --- real data ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shared_data():
    folder = Path(os.environ.get("SLMREC_SHARED") or Path(__file__).parents[4] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (SLMREC_SHARED names another place)")
    return folder


def test_reads_tiktok(shared_data):
    dataset = load(str(shared_data / "tiktok"))
    assert (dataset.num_users, dataset.num_items) == (9308, 6710)
    assert [len(split.users) for split in (dataset.train, dataset.valid, dataset.test)] == [59541, 3051, 6130]
    assert {name: feature.values.shape for name, feature in dataset.features.items()} == {
        "visual": (6710, 128),
        "acoustic": (6710, 128),
    }


def test_the_same_purchases_in_two_tools_splits_are_other_data(tmp_path):
    """MMRec and DiffMM divide Amazon-Baby differently; their figures must not stand side by side."""
    rng = np.random.default_rng(0)
    pairs = np.argwhere(rng.random((40, 60)) < 0.2)
    image = rng.normal(size=(60, 4)).astype(np.float32)

    def mmrec(name, labels):
        folder = tmp_path / name
        folder.mkdir()
        rows = [f"{user}\t{item}\t{label}" for (user, item), label in zip(pairs, labels, strict=True)]
        (folder / "baby.inter").write_text("\n".join(["userID\titemID\tx_label", *rows]) + "\n")
        np.save(folder / "image_feat.npy", image)
        return load(str(folder))

    def diffmm(name, labels):
        folder = tmp_path / name
        folder.mkdir()
        for file, label in zip(NAMES["diffmm"], range(3), strict=True):
            users, items = pairs[labels == label].T
            matrix = sp.coo_matrix((np.ones(len(users)), (users, items)), shape=(40, 60))
            (folder / file).write_bytes(pickle.dumps(matrix, 3))
        np.save(folder / "image_feat.npy", image)
        return load(str(folder))

    ours, theirs = (rng.choice(3, len(pairs), p=[0.8, 0.1, 0.1]) for _ in range(2))
    for labels in (ours, theirs):
        labels[np.unique(pairs[:, 0], return_index=True)[1]] = 0  # MMRec drops users without training interactions
    assert mmrec("mmrec", ours).fingerprint != diffmm("diffmm", theirs).fingerprint
    assert mmrec("mmrec2", theirs).fingerprint == diffmm("diffmm2", theirs).fingerprint
