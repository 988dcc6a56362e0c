"""Formats of text: each small folder is written byte for byte as its tool leaves it."""

import os
from pathlib import Path

import numpy as np
import pytest

from slmrec_jax.data import load
from slmrec_jax.errors import UserError


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content)
    return folder


def refusal(folder, files=None, format=None):
    write(folder, files or {})
    with pytest.raises(UserError) as caught:
        load(str(folder), format)
    line = str(caught.value)
    assert line.isprintable()
    return line.replace(f"{folder}/", "")


def splits(dataset):
    return [
        list(zip(*map(np.ndarray.tolist, split), strict=True)) for split in (dataset.train, dataset.valid, dataset.test)
    ]


@pytest.fixture
def shared_data():
    folder = Path(os.environ.get("SLMREC_SHARED") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (SLMREC_SHARED names another place)")
    return folder


# --- LightGCN and NGCF -------------------------------------------------------------------------------------------

LINES = {"train.txt": b"0 0 2\n1 1\n2 \n", "test.txt": b"0 1\n1 \n2 3 0\n"}
PAIRS = {"data1.txt": b"2\t1\t13883\r\n1\t3\t1.2e+05\r\n", "test1.txt": b"1\t2\t57\r\n"}


def test_lines_of_a_user_and_their_items(tmp_path):
    dataset = load(str(write(tmp_path, LINES)))
    assert (dataset.num_users, dataset.num_items) == (3, 4)
    assert splits(dataset) == [[(0, 0), (0, 2), (1, 1)], [], [(0, 1), (2, 0), (2, 3)]]
    assert dataset.item_ids.tolist() == [0, 1, 2, 3]


def test_the_last_user_may_have_no_items(tmp_path):
    assert load(str(write(tmp_path, LINES | {"test.txt": b"7"}))).num_users == 8


def test_pairs_count_from_1_and_keep_their_ids(tmp_path):
    dataset = load(str(write(tmp_path, PAIRS)))
    assert splits(dataset) == [[(0, 2), (1, 0)], [], [(0, 1)]]
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == ([1, 2], [1, 2, 3])


def test_lists_name_users_and_items_and_count_them(tmp_path):
    lists = {
        "user_list.txt": b"org_id remap_id\nA1 1\nA0 0\nA2 2\n",
        "item_list.txt": b"org_id remap_id freebase_id\n70 0 m.0\n60 1 m.1\n50 2 m.2\n40 3 m.3\n30 4 m.4\n",
    }
    dataset = load(str(write(tmp_path, LINES | lists)))
    assert dataset.user_ids.tolist() == ["A0", "A1", "A2"]
    assert dataset.item_ids.tolist() == [70, 60, 50, 40, 30]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"train.txt": b"0 1\n1 x\n"}, "train.txt: line 2: found 'x'"),
        ({"train.txt": b"0 1\n\n1 -1\n"}, "train.txt: line 3: found '-1'"),
        ({"train.txt": b"0 1.0\n"}, "train.txt: line 1: found '1.0'"),
        ({"train.txt": b"0 " + b"9" * 5000}, "train.txt: line 1: found '9999"),
        ({"train.txt": b"0 \xff\x1b[2J\n"}, "train.txt: line 1: found "),
        ({"train.txt": b"0\n"}, "train.txt: there are no interactions"),
        ({"train.txt": b""}, "train.txt: there are no interactions"),
        ({"train.txt": b"0 2000000000\n"}, "largest item id is 2000000000, but only 4 ids occur"),
        ({"data1.txt": b""}, "there is train.txt and data1.txt; expected one"),
        ({"item_list.txt": b"org_id remap_id\na 0\nb 1\n"}, "train.txt: entry 1 of items is 2"),
        (
            {"item_list.txt": b"org_id remap_id\na 0\nb 1\nc 1\n"},
            "item_list.txt: row 4: remap_id is 1 where 2 comes next",
        ),
        ({"item_list.txt": b"org_id remap_id\na 0\na 1\nb 2\nc 3\n"}, "item_list.txt: the raw id 'a' stands in 2 rows"),
        ({"item_list.txt": b"org_id remap_id\na 0\nb x\n"}, "item_list.txt: row 3: remap_id is 'x'"),
        ({"item_list.txt": b"org_id remap_id\na 0\n 1\n"}, "item_list.txt: row 3: org_id is ''"),
        ({"item_list.txt": b"org_id remap_id\na 0\nb 1 2\n"}, "item_list.txt: CSV parse error: Row #3: Expected 2"),
        ({"item_list.txt": b"org_id remap_id\n\xff 0\n"}, "item_list.txt: "),
        ({"item_list.txt": b"org_id remap_id\n"}, "item_list.txt: there are no ids in it"),
        (
            {"item_list.txt": b"org remap_id\na 0\n"},
            "item_list.txt: there is no column 'org_id'; it has 'org', 're",
        ),
        (
            {"item_list.txt": b"org_id remap_id org_id\na 0 a\n"},
            "item_list.txt: there is more than one column 'org_id'",
        ),
        ({"item_list.txt": b""}, "item_list.txt: Empty CSV file"),
        ({"user_list.txt": b"org_id remap_id\n" + b"a" * 257 + b" 0\n"}, "user_list.txt: row 2: org_id is 'aaa"),
    ],
)
def test_lightgcn_refuses(tmp_path, files, line):
    assert line in refusal(tmp_path, LINES | files)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"data1.txt": b"1\t1\t1\r\n0\t1\t1\r\n"}, "data1.txt: row 2: user is 0; expected ids counted from 1"),
        ({"test1.txt": b"1\t1\t1\r\n1\t-1\t1\r\n"}, "test1.txt: row 2: item is -1"),
        ({"test1.txt": b"1\t1\t1\r\n1\t1\r\n"}, "test1.txt: CSV parse error: Row #2: Expected 3 columns, got 2"),
        (
            {"test1.txt": b"1 1 1\r\n1 1 1\r\n"},
            "test1.txt: row 1 has 1 columns separated by '\\t'; expected 2 to 3: 'user'",
        ),
        ({"test1.txt": b"1\t1\t1\t1\r\n"}, "test1.txt: row 1 has 4 columns"),
    ],
)
def test_pairs_refuse(tmp_path, files, line):
    assert line in refusal(tmp_path, PAIRS | files)


@pytest.mark.parametrize("files", [LINES, PAIRS])
def test_a_missing_test_split_is_named(tmp_path, files):
    train, test = files
    assert f"the test split is missing; expected {test}" in refusal(tmp_path, {train: files[train]})


@pytest.mark.parametrize("name", ["train.txt", "test.txt", "item_list.txt"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    write(tmp_path, LINES)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert f"{name}: not a regular file" in refusal(tmp_path)


def test_reads_lastfm(shared_data):
    dataset = load(str(shared_data / "lastfm"))
    assert (dataset.num_users, dataset.num_items) == (1892, 4489)
    assert [len(split.users) for split in (dataset.train, dataset.valid, dataset.test)] == [42135, 0, 10533]
    assert (dataset.user_ids[0], dataset.item_ids[0]) == (1, 1)


# --- MMRec -------------------------------------------------------------------------------------------------------

# User 2 has no training interaction; item 3 has none at all.
MMREC = {
    "small.inter": b"userID\titemID\trating\ttimestamp\tx_label\n"
    b"0\t0\t5.0\t1362700800\t0\n1\t1\t5.0\t1362700801\t0\n0\t1\t4.0\t1362700802\t1\n1\t4\t4.0\t1362700803\t2\n"
    b"2\t0\t3.0\t1362700804\t1\n2\t2\t3.0\t1362700805\t2\n",
    "image_feat.npy": np.arange(10, dtype=np.float64).reshape(5, 2),
    "text_feat.npy": np.ones((5, 3), np.float32),
}
MAPPINGS = {
    "u_id_mapping.csv": b"user_id\tuserID\nA3\t0\nA1\t1\nA2\t2\n",
    "i_id_mapping.csv": b"asin,itemID\nB4,4\n0007,3\nB2,2\nB1,1\nB0,0\n",
}


def test_mmrec_labels_name_the_splits(tmp_path):
    dataset = load(str(write(tmp_path, MMREC)))
    assert (dataset.num_users, dataset.num_items) == (3, 5)
    assert splits(dataset) == [[(0, 0), (1, 1)], [(0, 1)], [(1, 4)]]
    assert list(dataset.features) == ["visual", "textual"]
    assert dataset.features["visual"].values[4].tolist() == [8, 9]
    assert dataset.notes == tuple(
        f"{split}: interactions of users without training interactions, dropped: 1 of 1 users"
        for split in ("valid", "test")
    )


def test_mmrec_mappings_are_of_tabs_or_commas(tmp_path):
    dataset = load(str(write(tmp_path, MMREC | MAPPINGS)))
    assert dataset.user_ids.tolist() == ["A3", "A1", "A2"]
    assert dataset.item_ids.tolist() == ["B0", "B1", "B2", "0007", "B4"]


@pytest.mark.parametrize(("listed", "missing"), [(b"1\n3\n", [1, 3]), (b"", []), (b"\n", [])])
def test_images_filled_in_with_the_mean_are_missing(tmp_path, listed, missing):
    visual, textual = load(str(write(tmp_path, MMREC | {"missed_img_itemIDs.csv": listed}))).features.values()
    assert np.flatnonzero(~visual.present).tolist() == missing
    assert not visual.values[missing].any()
    assert textual.present.all()


def test_of_several_tables_the_one_called_as_the_folder_is_read(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    write(folder, MMREC | {"small14.inter": MMREC["small.inter"].replace(b"4\t4.0", b"3\t4.0")})
    assert load(str(folder)).num_items == 5
    folder.rename(tmp_path / "large")
    assert "'small.inter', 'small14.inter' are all" in refusal(tmp_path / "large")


HEAD = b"userID\titemID\tx_label\n0\t0\t0\n"


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"small.inter": HEAD + b"0\t1\t3\n"}, "small.inter: row 3: x_label is 3; expected 0 for training"),
        ({"small.inter": HEAD + b"0\t-1\t0\n"}, "small.inter: row 3: itemID is -1; expected ids counted from 0"),
        ({"small.inter": HEAD + b"0\tB01\t0\n"}, "small.inter: row 3: itemID is 'B01'; expected a whole number"),
        ({"small.inter": HEAD + b"0\t1\t0\t5\n"}, "small.inter: CSV parse error: Row #3: Expected 3 columns, got 4"),
        (
            {"small.inter": HEAD.replace(b"userID", b"uid")},
            "small.inter: there is no column 'userID'; it has 'uid', 'i",
        ),
        ({"small.inter": b"userID\titemID\tx_label\n0\t0\t1\n"}, "small.inter: no row has the x_label 0"),
        ({"small.inter": b"userID\titemID\tx_label\n"}, "small.inter: no row has the x_label 0"),
        ({"image_feat.npy": np.ones((6, 2))}, "image_feat.npy: 6 rows for 5 items"),
        ({"image_feat.npy": np.array([[None]])}, "image_feat.npy: not a readable .npy table"),
        ({"visual_feat.npy": np.ones((5, 2))}, "image_feat.npy and visual_feat.npy are both visual features; keep one"),
        ({"missed_img_itemIDs.csv": b"5\n"}, "missed_img_itemIDs.csv: row 1: item 5; expected ids of 0..4"),
        ({"missed_img_itemIDs.csv": b"x\n"}, "missed_img_itemIDs.csv: row 1: itemID is 'x'"),
        ({"u_id_mapping.csv": b"user_id\tuserID\na\t0\nb\t1\n"}, "u_id_mapping.csv: 2 ids, but there are 3 userIDs"),
        ({"u_id_mapping.csv": b"user_id\tuserID\na\t0\nb\t0\nc\t2\n"}, "u_id_mapping.csv: row 3: userID is 0 where 1"),
        ({"u_id_mapping.csv": b"user_id\tuserID\na\t0\na\t1\nc\t2\n"}, "u_id_mapping.csv: the raw id 'a' stands in 2"),
        ({"u_id_mapping.csv": b"userID\n0\n"}, "u_id_mapping.csv: one column only; expected the raw ids and 'userID'"),
        ({"u_id_mapping.csv": b"user_id,id\na,0\n"}, "u_id_mapping.csv: there is no column 'userID'"),
    ],
)
def test_mmrec_refuses(tmp_path, files, line):
    assert line in refusal(tmp_path, MMREC | files)


# --- RecBole -----------------------------------------------------------------------------------------------------

INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
RECBOLE = {
    "small.inter": INTER + b"u2\t10\t4\t881250949\nu1\t9\t3\t891717742\nu1\t10\t1\t878887116\nu1\t9\t2\t881250000\n"
    b"u1\t7\t1\t878887117\n",
    "small.user": b"user_id:token\tage:float\nu1\t24\n",
    "small.item": b'item_id:token\ttitle:token_seq\n10\tThe "Matrix\n',
    "small.itememb": b"iid:token\titem_emb:float_seq\n9\t1 2.5\n10\t-3e-1 0\n8\t9 9\n",
}


def test_recbole_in_one_piece_asks_for_a_split(tmp_path):
    line = refusal(tmp_path, RECBOLE)
    assert "it is not split; say how with --split" in line
    dataset = load(str(tmp_path), split="time")
    assert dataset.user_ids.tolist() == ["u1", "u2"]
    assert dataset.item_ids.tolist() == [7, 9, 10]
    # (u1, 9) is there twice, and counts from the first time on.
    assert splits(dataset) == [[(0, 0), (0, 1), (0, 2)], [], [(1, 2)]]


def test_recbole_vectors_stand_under_raw_ids(tmp_path):
    dataset = load(str(write(tmp_path, RECBOLE)), split="leave-one-out")
    (name, feature), *none = dataset.features.items()
    assert (name, none) == ("item", [])
    assert feature.values.tolist() == [[0, 0], [1, 2.5], [np.float32(-0.3), 0]]
    assert feature.present.tolist() == [False, True, True]
    assert dataset.notes[:3] == (
        "ratings are not used: every row counts as an interaction",
        "small.itememb: rows of items that are not in the data, or without values: 1",
        "small.itememb: items without this feature: 1 of 3",
    )


def test_recbole_divided_beforehand(tmp_path):
    files = {f"small.{part}.inter": INTER + row for part, row in SPLIT_ROWS.items()}
    dataset = load(str(write(tmp_path, files)))
    assert splits(dataset) == [[(0, 0), (1, 1)], [(1, 0)], [(0, 1)]]
    (tmp_path / "small.valid.inter").unlink()
    assert splits(load(str(tmp_path))) == [[(0, 0), (1, 1)], [], [(0, 1)]]


SPLIT_ROWS = {"train": b"1\ta\t1\t1\n2\tb\t1\t2\n", "valid": b"2\ta\t1\t3\n", "test": b"1\tb\t1\t4\n"}


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"small.inter": b"uid:token\titem_id:token\n1\t2\n"},
            "small.inter: there is no column 'user_id:token'; it has",
        ),
        ({"small.inter": INTER + b"u1\t\t1\t1\n"}, "small.inter: row 2: item_id:token is ''; expected an id"),
        ({"small.inter": INTER + b"u1\t2\t1\n"}, "small.inter: CSV parse error: Row #2: Expected 4 columns, got 3"),
        (
            {"small.inter": INTER + b"u1\t2\t1\tsoon\n"},
            "small.inter: row 2: timestamp:float is 'soon'; expected a numb",
        ),
        ({"small.inter": INTER + b"u1\t2\t1\t\n"}, "small.inter: row 2: timestamp:float is ''"),
        ({"small.inter": INTER + b"u1\t2\t1\tnan\n"}, "small.inter: row 2: timestamp:float is 'nan'"),
        ({"small.inter": INTER}, "small.inter: there are no rows in it"),
        (
            {"small.train.inter": INTER + b"u1\t2\t1\t1\n"},
            "small.train.inter, which is split, and small.inter, which is",
        ),
        ({"small.valid.inter": INTER + b"u1\t2\t1\t1\n"}, "the train split is missing; expected "),
        ({"other.inter": INTER + b"u1\t2\t1\t1\n"}, "'other.inter', 'small.inter' are all"),
        (
            {"small.itememb": b"iid:token\titem_emb:float_seq\n9\t1 2\n10\t1\n"},
            "small.itememb: row 3: 1 numbers in item",
        ),
        (
            {"small.itememb": b"iid:token\titem_emb:float_seq\n9\t1 2\n10\t1 x\n"},
            "small.itememb: row 3: 'x' in item_emb",
        ),
        (
            {"small.itememb": b"iid:token\titem_emb:float_seq\n9\t1\n9\t2\n"},
            "small.itememb: row 3: iid:token is '9' for",
        ),
        (
            {"small.itememb": b"iid:token\titem_emb:float_seq\n9\t\n"},
            "small.itememb: no row of item_emb:float_seq has a",
        ),
        ({"small.itememb": b"iid:token\titem_emb:float_seq\n9\tnan 1\n"}, "small.itememb: 1 values in 1 rows are NaN"),
        (
            {"small.item": b"item_id:token\titem_feat:float_seq\n9\t1\n"},
            "small.item and small.itememb are both item features; keep one",
        ),
    ],
)
def test_recbole_refuses(tmp_path, files, line):
    write(tmp_path, RECBOLE | files)
    with pytest.raises(UserError) as caught:
        load(str(tmp_path), split="time")
    assert line in str(caught.value).replace(f"{tmp_path}/", "")
