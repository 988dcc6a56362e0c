"""Folders: their format is found or asked for, and every file that is not read is named."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from small_folders import SHARED, parquet, read, refusal, shared_folder, write

from slmrec_jax.data import Source
from slmrec_jax.data.formats import FORMATS, find_format

MATRIX = pickle.dumps(sp.coo_matrix(np.eye(2)), 3)
LISTS = '{"0": [0], "1": [1]}'
TABLE = np.ones((2, 2))
INTER = "user_id:token\titem_id:token\n1\t2\n"
FOLDERS = {
    "diffmm": {**dict.fromkeys(("trnMat.pkl", "valMat.pkl", "tstMat.pkl"), MATRIX), "image_feat.npy": TABLE},
    "mmssl": {**dict.fromkeys(("train.json", "val.json", "test.json"), LISTS), "image_feat.npy": TABLE},
    "mmssl, matrix": {"train_mat": MATRIX, "val.json": LISTS, "test.json": LISTS},
    "lightgcn": {"train.txt": "0 1\n", "test.txt": "0 0\n"},
    "lightgcn, pairs": {"data1.txt": "1\t2\t1\n", "test1.txt": "1\t1\t1\n"},
    "mmrec": {
        "x.inter": "userID\titemID\tx_label\n0\t1\t0\n0\t0\t2\n",
        "i_id_mapping.csv": "asin\titemID\nB1\t0\nB2\t1\n",
        "missed_img_itemIDs.csv": "",
        "image_feat.npy": TABLE,
    },
    "neurec": {"x.train": "0,1\n", "x.test": "0,0\n"},
    "recbole": {"x.inter": INTER, "x.itememb": "iid:token\titem_emb:float_seq\n2\t1 2.5\n"},
    "recbole, divided": {"x.train.inter": INTER, "x.test.inter": INTER},
    "plain": {"clicks.csv": "user,item\na,1\n", "image.npy": TABLE},
    "plain, divided": {"train.csv": "user,item\na,b\n", "features/image.parquet": parquet({"item": ["b"], "v": [[1]]})},
}
UNDIVIDED = ("recbole", "plain")


@pytest.mark.parametrize("name", [*FOLDERS, "mmgcn"])
def test_a_folder_has_one_format(tmp_path, name):
    write(tmp_path, FOLDERS.get(name) or {"train.npy": "", "val.npy": "", "test.npy": "", "feat_v.pt": ""})
    found = [each for each, format in FORMATS.items() if format.recognises(tmp_path, Source(str(tmp_path)))]
    assert found == [name.split(",")[0]]


@pytest.mark.parametrize(
    ("name", "format"), [("lastfm", "lightgcn"), ("tiktok", "diffmm"), ("mmgcn_sample/kwai", "mmgcn")]
)
def test_real_folders_have_one_format(name, format):
    folder = shared_folder(SHARED / name)
    assert find_format(folder, Source(str(folder))) == format


def test_a_folder_of_two_formats_is_a_question(tmp_path):
    line = refusal(tmp_path, FOLDERS["neurec"] | FOLDERS["lightgcn"])
    assert "looks like lightgcn and neurec; say which it is with format='lightgcn'" in line
    assert read(tmp_path, {}, format="neurec").item_ids.tolist() == [1, 0]
    assert read(tmp_path, {}, format="lightgcn").item_ids.tolist() == [0, 1]
    assert "no format 'diffm': give one of diffmm" in refusal(tmp_path, format="diffm")


def test_an_unknown_folder_lists_what_was_looked_for(tmp_path):
    line = refusal(tmp_path, {"notes.txt": ""})
    assert "looked for trnMat.pkl or train_mat.pkl (diffmm)" in line
    assert "found 'notes.txt'" in line


def test_an_empty_folder(tmp_path):
    assert "an empty folder" in refusal(tmp_path)


def test_what_is_not_a_folder(tmp_path):
    write(tmp_path, {"file": ""})
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "a file; give the folder" in refusal(tmp_path / "file")
    assert "cannot be read" in refusal("x" * 5000)


def test_a_damaged_parquet_file_does_not_matter_to_other_formats(tmp_path):
    assert read(tmp_path, FOLDERS["lightgcn"] | {"broken.parquet": b"nothing"}).num_users == 1


@pytest.mark.parametrize("name", ["pipe.csv", "pipe.inter", "interactions.parquet", "pipe.parquet"])
def test_pipes_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("interactions.csv", "sep=;\nuser;item\n1;2\n", "row 1 begins with 'sep=', which only Excel reads"),
        ("interactions.csv", "# exported\nuser,item\n1,2\n", "row 1 begins with '# exported', a comment"),
        ("interactions.csv", "<!DOCTYPE html>\n<html>\n", "as in a web page"),
        ("interactions.csv", "version https://git-lfs.github.com/spec/v1\n", "get it with git lfs pull"),
        ("interactions.csv", "user item rating\n1 2 3\n", "separate columns by commas or tabs"),
        ("interactions.csv.xz", "\xfd7zXZ", "'interactions.csv.xz' is compressed: unpack it"),
        ("log.zip", "PK", "'log.zip' is compressed: unpack it"),
    ],
)
def test_what_is_there_instead_of_a_table_is_named(tmp_path, name, content, line):
    assert line in refusal(tmp_path, {name: content})


@pytest.mark.parametrize("name", FOLDERS)
def test_every_file_that_is_not_read_is_named(tmp_path, name):
    in_folder = {"features/image.jpg": ""} if name == "plain, divided" else {}
    files = {**FOLDERS[name], "likes_and_views.txt": "1 2 3", ".hidden": "", "covers/1.jpg": "", **in_folder}
    notes = read(tmp_path, files, split="mmrec" if name in UNDIVIDED else None).notes
    expected = "".join(f", {file!r}" for file in in_folder)
    assert f"not read: 'covers/', 'likes_and_views.txt'{expected}" in notes


def test_a_name_that_is_not_read_is_shown_escaped_and_few_of_many(tmp_path):
    files = {f"{number:03}.jpg": "" for number in range(120)} | {"\x1b[2J.jpg": ""}
    notes = read(tmp_path, {"train.csv": "user,item\na,b\n", **files}).notes
    assert notes[-1].isprintable()
    assert notes[-1].endswith("'098.jpg' and 21 more")


@pytest.mark.parametrize("name", FOLDERS)
def test_files_that_macos_adds_are_skipped(tmp_path, name):
    how = {"split": "mmrec"} if name in UNDIVIDED else {}
    expected = read(tmp_path, FOLDERS[name], **how)
    junk = [str(path.with_name(f"._{path.name}")) for path in map(Path, FOLDERS[name])]
    dataset = read(tmp_path, dict.fromkeys(junk, b"\0\5\26\7"), **how)
    assert (dataset.fingerprint, dataset.notes) == (expected.fingerprint, expected.notes)
