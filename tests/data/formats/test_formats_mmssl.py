"""MMSSL's folders: JSON lists and the pickled matrix are read, must agree, and what is odd in them is refused."""

import json
import os
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from foreign_files import EVIL
from small_folders import pairs, refusal, splits

from slmrec_jax.data import load

TRAIN = {"0": [3, 1], "1": [0, 0], "2": []}
VALID = {"0": [2], "2": [4, 0]}
TEST = {"1": [2], "3": []}
ROWS, COLUMNS = [0, 0, 1], [1, 3, 0]


def matrix(rows=ROWS, columns=COLUMNS, shape=(4, 6), layout="csr_matrix"):
    made = getattr(sp, layout)(sp.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=shape))
    return pickle.dumps(made, 3)


def write(folder, train=TRAIN, valid=VALID, test=TEST, train_mat=None, **tables):
    for name, lists in (("train", train), ("val", valid), ("test", test)):
        if lists is not None:
            (folder / f"{name}.json").write_text(lists if isinstance(lists, str) else json.dumps(lists))
    if train_mat is not None:
        (folder / "train_mat").write_bytes(train_mat)
    for name, table in tables.items():
        np.save(folder / f"{name}_feat.npy", table)
    return folder


# --- what is read ------------------------------------------------------------------------------------------------


FORMS = {
    "lists": {},
    "matrix": {"train": None, "train_mat": matrix()},
    "both": {"train_mat": matrix(layout="csc_matrix")},
    "as coo": {"train": None, "train_mat": matrix(layout="coo_matrix")},
}


@pytest.mark.parametrize("form", FORMS)
def test_reads_lists_and_the_matrix(tmp_path, form):
    dataset = load(write(tmp_path, **FORMS[form]))
    assert dataset.name == tmp_path.name
    assert splits(dataset) == [
        [(0, 1), (0, 3), (1, 0)],
        [(0, 2), (2, 0), (2, 4)],
        [(1, 2)],
    ]
    assert (dataset.num_users, dataset.num_items) == ((4, 5) if form == "lists" else (4, 6))


def test_lists_and_matrix_are_the_same_data(tmp_path):
    for form in ("lists", "both"):
        (tmp_path / form).mkdir()
    given = {"image": np.ones((6, 2), np.float32)}
    lists, both = (load(write(tmp_path / form, **FORMS[form], **given)) for form in ("lists", "both"))
    assert lists.fingerprint == both.fingerprint


def test_features_set_the_number_of_items(tmp_path):
    tables = {"text": np.ones((7, 3)), "audio": np.ones((7, 2), np.float16), "image": np.ones((7, 1), np.float32)}
    dataset = load(write(tmp_path, **tables))
    assert dataset.num_items == 7
    assert {name: feature.values.shape for name, feature in dataset.features.items()} == {
        "visual": (7, 1),
        "acoustic": (7, 2),
        "textual": (7, 3),
    }
    assert list(dataset.features) == ["visual", "acoustic", "textual"]
    assert dataset.notes == ("rows that repeat an interaction, merged: 1 of 8",)


def test_a_guessed_number_of_items_is_noted(tmp_path):
    assert load(write(tmp_path)).notes[0] == "items: 5, one more than the largest id"


def test_a_mark_of_utf_8_is_no_matter(tmp_path):
    assert pairs(load(write(tmp_path, valid='\ufeff{"0": [1]}')).valid) == [(0, 1)]


# --- what is refused ---------------------------------------------------------------------------------------------


DISAGREE = {
    "one more": matrix([*ROWS, 3], [*COLUMNS, 5]),
    "one less": matrix(ROWS[:2], COLUMNS[:2]),
    "another": matrix(ROWS, [1, 3, 2]),
    "none": matrix([], []),
}


@pytest.mark.parametrize("name", DISAGREE)
def test_lists_and_matrix_must_agree(tmp_path, name):
    line = refusal(write(tmp_path, train_mat=DISAGREE[name]))
    assert "train.json: 3 interactions, but train_mat has" in line
    assert "in only one of the two (user " in line


@pytest.mark.parametrize(
    ("train_mat", "where"),
    [
        (matrix([*ROWS, 3], [*COLUMNS, 5]), "user 3, item 5 in train_mat"),
        (matrix(ROWS[:2], COLUMNS[:2]), "user 1, item 0 in train.json"),
    ],
)
def test_the_disagreement_is_placed(tmp_path, train_mat, where):
    assert where in refusal(write(tmp_path, train_mat=train_mat))


ODD = {
    "a user twice": ('{"0": [1], "1": [2], "0": [3]}', "the user '0' appears twice"),
    "a key twice further in": ('{"0": {"a": 1, "a": 2}}', "the user 'a' appears twice"),
    "a key that is no number": ('{"u1": [1]}', "found the user 'u1'"),
    "a leading zero": ('{"01": [1]}', "found the user '01'"),
    "a sign": ('{"+1": [1]}', "found the user '+1'"),
    "a space": ('{" 1": [1]}', "found the user ' 1'"),
    "digits of another script": ('{"\u0661": [1]}', "found the user '\\u0661'"),
    "a vast user": ('{"9999999999": [1]}', "found the user '9999999999'"),
    "a line break in a key": ('{"1\\n2": [1]}', "found the user '1\\n2'"),
    "no list": ('{"0": 5}', "user 0 has a number"),
    "null": ('{"0": null}', "user 0 has null"),
    "text": ('{"0": "1"}', "user 0 has text"),
    "an item of text": ('{"0": [1, "2"]}', "user 0: item 1 of their list is '2'"),
    "a fraction": ('{"0": [1.0]}', "item 0 of their list is 1.0"),
    "a truth": ('{"0": [true]}', "item 0 of their list is True"),
    "a negative item": ('{"0": [-1]}', "item 0 of their list is -1"),
    "a vast item": ('{"0": [99999999999]}', "item 0 of their list is 99999999999"),
    "a list in a list": ('{"0": [[1]]}', "item 0 of their list is a list"),
    "no number": ('{"0": [NaN]}', "NaN is not an id"),
    "infinite": ('{"0": [-Infinity]}', "-Infinity is not an id"),
    "a list": ("[[0, 1]]", "found a list; expected an object"),
    "a number": ("7", "found a number"),
    "nothing": ("", "not readable as JSON (Expecting value"),
    "cut off": ('{"0": [1, 2', "not readable as JSON"),
    "more after the end": ('{"0": [1]} x', "not readable as JSON (Extra data"),
    "too deep": ('{"0": ' + "[" * 100_000, "nested too deeply"),
    "many digits": ('{"0": [' + "9" * 5000 + "]}", "not readable as JSON"),
    "a mistyped user": ('{"999999999": [1]}', "the largest user id is 999999999"),
    "a mistyped item": ('{"0": [999999999]}', "the largest item id is 999999999"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_json_gets_one_line(tmp_path, name):
    text, found = ODD[name]
    line = refusal(write(tmp_path, valid=text))
    assert found in line
    assert "val.json: " in line or "mistyped" in name


def test_other_encodings_are_refused(tmp_path):
    for encoding in ("utf-16", "latin-1"):
        (write(tmp_path) / "val.json").write_bytes('{"0": ["é"]}'.encode(encoding))
        assert "val.json: not readable as JSON ('utf-8' codec" in refusal(tmp_path)


@pytest.mark.parametrize("name", EVIL)
def test_code_in_the_matrix_is_refused(tmp_path, name):
    assert "train_mat: byte " in refusal(write(tmp_path, train_mat=EVIL[name]))


def test_ids_beyond_the_matrix_are_refused(tmp_path):
    line = refusal(write(tmp_path, train=None, train_mat=matrix(shape=(4, 4))))
    assert "val.json: entry 1 of items is 4, and 1 are outside 0..3" in line


def test_tables_must_have_a_row_for_each_item(tmp_path):
    assert "image_feat.npy: 7 rows for 6 items" in refusal(write(tmp_path, train_mat=matrix(), image=np.ones((7, 2))))
    assert "text_feat.npy: 6 rows for 7 items" in refusal(
        write(tmp_path, train_mat=matrix(shape=(4, 7)), text=np.ones((6, 2)))
    )


def test_no_training_interactions_are_refused(tmp_path):
    assert "train.json: it has no interactions" in refusal(write(tmp_path, train={"0": []}))


@pytest.mark.parametrize("name", ["train.json", "val.json", "test.json"])
def test_a_missing_split_is_named(tmp_path, name):
    (write(tmp_path) / name).unlink()
    split = "valid" if name == "val.json" else name.removesuffix(".json")
    assert f"the {split} split is missing; expected {name}" in refusal(tmp_path, format="mmssl")


def test_a_pipe_is_no_file(tmp_path):
    (write(tmp_path) / "val.json").unlink()
    os.mkfifo(tmp_path / "val.json")
    assert "val.json: not a regular file" in refusal(tmp_path)
