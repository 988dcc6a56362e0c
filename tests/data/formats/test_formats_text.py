"""Formats of text: each small folder is written byte for byte as its tool leaves it."""

import datetime
import io
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from foreign_files import tensor_pickle, torch_stream

from slmrec_jax.data import Source, load
from slmrec_jax.data.formats import FORMATS
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
        load(str(folder), format=format)
    line = str(caught.value)
    assert line.isprintable()
    return line.replace(f"{folder}/", "")


def splits(dataset):
    return [
        list(zip(*map(np.ndarray.tolist, split), strict=True)) for split in (dataset.train, dataset.valid, dataset.test)
    ]


@pytest.fixture
def shared_data():
    folder = Path(os.environ.get("SLMREC_SHARED") or Path(__file__).parents[4] / "shared" / "data")
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
        "user_list.txt": b"org_id remap_id\nA1 1\nA0 0\nA2 2\nA3 3\n",
        "item_list.txt": b"org_id remap_id freebase_id\n70 0 m.0\n60 1 m.1\n50 2 m.2\n40 3 m.3\n30 4 m.4\n",
    }
    dataset = load(str(write(tmp_path, LINES | lists)))
    assert dataset.user_ids.tolist() == ["A0", "A1", "A2", "A3"]
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
        ({"item_list.txt": b"org_id remap_id\na 0\na 1\nb 2\nc 3\n"}, "item_list.txt: the raw id 'a' occurs in 2 rows"),
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
        ({"item_list.txt": b""}, "item_list.txt: it is empty"),
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
        ({"image_feat.npy": np.ones((2, 2)), "missed_img_itemIDs.csv": b"4\n"}, "image_feat.npy: 2 rows for 5 items"),
        ({"image_feat.npy": np.array([[None]])}, "image_feat.npy: not a readable .npy table"),
        ({"visual_feat.npy": np.ones((5, 2))}, "image_feat.npy and visual_feat.npy are both visual features; keep one"),
        ({"missed_img_itemIDs.csv": b"5\n"}, "missed_img_itemIDs.csv: row 1: item 5; expected ids of 0..4"),
        ({"missed_img_itemIDs.csv": b"x\n"}, "missed_img_itemIDs.csv: row 1: itemID is 'x'"),
        ({"u_id_mapping.csv": b"user_id\tuserID\na\t0\nb\t1\n"}, "u_id_mapping.csv: 2 ids, but there are 3 userIDs"),
        ({"u_id_mapping.csv": b"user_id\tuserID\na\t0\nb\t0\nc\t2\n"}, "u_id_mapping.csv: row 3: userID is 0 where 1"),
        ({"u_id_mapping.csv": b"user_id\tuserID\na\t0\na\t1\nc\t2\n"}, "u_id_mapping.csv: the raw id 'a' occurs in 2"),
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
    "small.item": b'item_id:token\ttitle:token_seq\n10\tThe "Matrix\n11\n',  # not read
    "small.itememb": b"iid:token\titem_emb:float_seq\n9\t1 2.5\n10\t-3e-1 0\n8\t9 9\n",
}


def test_recbole_in_one_piece_asks_for_a_split(tmp_path):
    line = refusal(tmp_path, RECBOLE)
    assert "it is not split; say how with split='NAME'" in line
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


def test_vectors_of_interactions_are_no_modality(tmp_path):
    rows = b"user_id:token\titem_id:token\tmood:float_seq\n1\t2\t0.5 1\n1\t3\t0.5\n1\t4\t0\n"
    assert load(str(write(tmp_path, {"small.inter": rows})), split="mmrec").features == {}


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
            {"small.inter": b"who:token\titem_id:token\n1\t2\n"},
            "small.inter: there is no column 'user'; it has 'who:token', 'item_id:token'",
        ),
        ({"small.inter": INTER + b"u1\t\t1\t1\n"}, "small.inter: row 2: item is ''; expected an id"),
        ({"small.inter": INTER + b"u1\t2\t1\n"}, "small.inter: CSV parse error: Row #2: Expected 4 columns, got 3"),
        (
            {"small.inter": INTER + b"u1\t9\t1\tsoon\n"},
            "small.inter: row 2: timestamp is 'soon'; expected a numb",
        ),
        ({"small.inter": INTER + b"u1\t9\t1\t\n"}, "small.inter: row 2: timestamp is ''"),
        ({"small.inter": INTER + b"u1\t9\t1\tnan\n"}, "small.inter: row 2: timestamp is 'nan'"),
        ({"small.inter": INTER}, "small.inter: there are no rows in it"),
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
            {"small.itememb": b"iid:token\tit\x1bm:float_seq\n9\tx\n"},
            "small.itememb: row 2: 'x' in it\\x1bm:float_seq; expected numbers",
        ),
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


# --- NeuRec, as SLMRec uses it -----------------------------------------------------------------------------------

# Items 5, 0, 3 by first appearance in train, then 1 in test; users 7, 2, then 4.
NEUREC = {"small.train": b"7,5\n2,5\n7,0\n2,3\n", "small.test": b"4,1\n7,3\n"}
TABLE = np.arange(12, dtype=np.float32).reshape(6, 2)


def tensor(values, storage):
    return torch_stream(tensor_pickle(values.shape, storage=storage), values.tobytes(), size=values.size)


def test_neurec_numbers_by_first_appearance_in_train_then_test(tmp_path):
    dataset = load(str(write(tmp_path, NEUREC)))
    assert dataset.name == "small"
    assert dataset.user_ids.tolist() == [7, 2, 4]
    assert dataset.item_ids.tolist() == [5, 0, 3, 1]
    assert splits(dataset) == [[(0, 0), (0, 1), (1, 0), (1, 2)], [], [(0, 2), (2, 3)]]


@pytest.mark.parametrize("row", [b"7,5", b"7,5,4.0", b"7,5,4.0,123456789"])
def test_neurec_columns_are_ui_uir_or_uirt(tmp_path, row):
    write(tmp_path, {"small.train": row + b"\r\n", "small.test": row})
    assert splits(load(str(tmp_path))) == [[(0, 0)], [], [(0, 0)]]


@pytest.mark.parametrize(
    "names",
    [
        ("small_visual_feat.pt", "small_audio_feat.pt", "small_textual_feat.pt"),
        ("small_feat_v.npy", "small_feat_a.npy", "small_feat_t.npy"),
        ("small_FeatureVideo_normal.npy", "small_FeatureAudio_avg_normal.npy", "small_FeatureText_stl_normal.npy"),
    ],
)
def test_neurec_features_are_rows_of_the_original_ids(tmp_path, names):
    tables = {
        name: tensor(TABLE + n, "FloatStorage") if name.endswith(".pt") else TABLE.astype("f8") + n
        for n, name in enumerate(names)
    }
    dataset = load(str(write(tmp_path, NEUREC | tables)))
    assert list(dataset.features) == ["visual", "acoustic", "textual"]
    for n, feature in enumerate(dataset.features.values()):
        assert feature.values.tolist() == (TABLE[[5, 0, 3, 1]] + n).tolist()
        assert feature.present.all()


def test_neurec_reads_the_features_of_its_name_alone(tmp_path):
    files = {"other_feat_v.npy": b"", "_feat_v.npy": b"", "smaller_feat_v.npy": b"", "small_feat_v.txt": b""}
    assert load(str(write(tmp_path, NEUREC | files))).features == {}


def test_neurec_needs_a_test_file(tmp_path):
    assert "no known data set" in refusal(tmp_path, {"small.train": NEUREC["small.train"]})


def test_neurec_words_of_items(tmp_path):
    pairs = np.array([[3, 5, 5, 2, 3], [9, 4, 4, 8, 1]])  # item 2 is not in the data
    files = {"small_textual_feat.pt": tensor(pairs, "LongStorage")}
    items, words, num_words = load(str(write(tmp_path, NEUREC | files))).features["textual"]
    assert list(zip(items.tolist(), words.tolist(), strict=True)) == [(0, 4), (0, 4), (2, 1), (2, 9)]
    assert num_words == 10


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"small.train": b"7,5\n7\n"}, "small.train: CSV parse error: Row #2: Expected 2 columns, got 1"),
        ({"small.train": b"7 5\n7 3\n"}, "small.train: row 1 has 1 columns separated by ','; expected 2 to 4"),
        ({"small.test": b"7,5,1,1,1\n"}, "small.test: row 1 has 5 columns"),
        ({"small.test": b"7,\n"}, "small.test: row 1: item is ''; expected an id"),
        ({"small.train": b"7,5\n7\x00,5\n"}, "small.train: row 2: user is '7\\x00'; expected an id"),
        ({"small.train": b""}, "small.train: it is empty; expected a table with 'user', 'item'"),
        ({"other.train": b"1,1\n", "other.test": b"1,1\n"}, "'other.train', 'small.train' are all"),
        ({"small_feat_v.npy": TABLE[:5]}, "small_feat_v.npy: 5 rows, but there is an item with the id 5"),
        ({"small_feat_v.npy": TABLE.astype(int)}, "small_feat_v.npy: an array of int64 of shape (6, 2)"),
        ({"small_feat_v.npy": np.array([[8], [1]])}, "small_feat_v.npy: none of its 1 pairs of an item and a word"),
        ({"small_feat_v.npy": np.array([[5], [-1]])}, "small_feat_v.npy: entry 0 of words is -1"),
        ({"small_feat_v.pt": b"PK"}, "small_feat_v.pt: "),
        ({"small_feat_v.npy": TABLE, "small_visual_feat.npy": TABLE}, "are both visual features; keep one"),
        ({"small_feat_v.npy": TABLE, "small.train": b"7,x\n"}, "the ids are not whole numbers, as 'x'"),
        ({"small_feat_v.npy": TABLE, "small.train": b"7,-1\n"}, "there is an item with the id -1"),
    ],
)
def test_neurec_refuses(tmp_path, files, line):
    assert line in refusal(tmp_path, NEUREC | files)


# --- plain tables ------------------------------------------------------------------------------------------------

CSV = b"userId,item_id,split\nann,B2,train\nbob,B1,train\nann,B1,valid\nbob,B2,test\nann,B2,train\n"
ROWS = {"user": ["ann", "bob", "ann", "bob", "ann"], "item": ["B2", "B1", "B1", "B2", "B2"]}
LABELS = ["train", "train", "valid", "test", "train"]


def parquet(columns):
    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer)
    return buffer.getvalue()


def tensors(**arrays):
    return safetensors.numpy.save(arrays)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("interactions.csv", CSV),
        ("clicks.csv", CSV.replace(b"\n", b"\r\n")),
        ("clicks.csv", b"\xef\xbb\xbf" + CSV.replace(b"ann", b'"ann"').replace(b"userId", b'"USER"')),
        ("clicks.tsv", CSV.replace(b",", b"\t")),
        ("clicks.parquet", parquet({**ROWS, "split": LABELS, "more": [None] * 5})),
        ("clicks.parquet", parquet({**ROWS, "x_label": [0.0, 0.0, 1.0, 2.0, 0.0]})),
        ("clicks.parquet", parquet({**ROWS, "Split": [label.upper() for label in LABELS]})),
        ("clicks.parquet", parquet(pa.table({**ROWS, "split": pa.array(LABELS).dictionary_encode()}))),
    ],
)
def test_plain_tables_with_a_column_of_splits(tmp_path, name, content):
    dataset = load(str(write(tmp_path, {name: content})))
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == (["ann", "bob"], ["B1", "B2"])
    assert splits(dataset) == [[(0, 1), (1, 0)], [(0, 0)], [(1, 1)]]


def test_the_table_called_interactions_goes_first(tmp_path):
    dataset = load(str(write(tmp_path, {"clicks.csv": b"user,item\nx,y\n", "interactions.csv": CSV})))
    assert dataset.num_users == 2
    assert "not read: 'clicks.csv'" in dataset.notes


def test_what_is_no_parquet_is_nothing_to_other_formats(tmp_path):
    assert load(str(write(tmp_path, LINES | {"broken.parquet": b"nothing"}))).num_users == 3


def test_plain_tables_of_each_split(tmp_path):
    files = {
        "train.csv": b"user,item\nann,B2\nbob,B1\n",
        "val.tsv": b"user\titem\nann\tB1\n",
        "test.parquet": parquet({"user": ["bob"], "item": ["B2"]}),
    }
    assert splits(load(str(write(tmp_path, files)))) == [[(0, 1), (1, 0)], [(0, 0)], [(1, 1)]]
    (tmp_path / "val.tsv").unlink()
    assert splits(load(str(tmp_path))) == [[(0, 1), (1, 0)], [], [(1, 1)]]


IDS = [
    (pa.array([3, 1, 2], pa.int8()), [1, 2, 3]),
    (pa.array([3, 1, 2], pa.uint64()), [1, 2, 3]),
    (pa.array([3.0, 1.0, 2.0]), [1, 2, 3]),
    (pa.array(["10", "9", "-1"]), [-1, 9, 10]),
    (pa.array(["10", "9", "01"]), ["01", "10", "9"]),
    (pa.array(["b", "a", "c"], pa.large_string()), ["a", "b", "c"]),
    (pa.array(["b", "a", "c"], pa.string_view()), ["a", "b", "c"]),
    (pa.array([b"b", b"a", b"c"]), ["a", "b", "c"]),
    (pa.array(["é", "z", "日本"]).dictionary_encode(), ["z", "é", "日本"]),
    (pa.array([datetime.date(2020, 1, day) for day in (3, 1, 2)]), ["2020-01-01", "2020-01-02", "2020-01-03"]),
]


@pytest.mark.parametrize(("ids", "ordered"), IDS, ids=[str(ids.type) for ids, _ in IDS])
def test_raw_ids_of_any_type_are_put_in_order(tmp_path, ids, ordered):
    content = parquet({"user": ids, "item": ids, "split": ["train", "train", "test"]})
    dataset = load(str(write(tmp_path, {"interactions.parquet": content})))
    assert dataset.user_ids.tolist() == dataset.item_ids.tolist() == ordered


def test_ids_may_be_numbers_in_one_file_and_text_in_another(tmp_path):
    files = {"train.parquet": parquet({"user": [7, 8], "item": [70, 80]}), "test.csv": b"user,item\n7,80\n"}
    dataset = load(str(write(tmp_path, files)))
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == ([7, 8], [70, 80])
    assert splits(dataset) == [[(0, 0), (1, 1)], [], [(0, 1)]]


def test_the_order_of_rows_and_the_kind_of_file_do_not_matter(tmp_path):
    head, *rows = CSV.splitlines(keepends=True)
    contents = {
        "interactions.csv": CSV,
        "clicks.csv": head + b"".join(rows[::-1]),
        "clicks.parquet": parquet({**ROWS, "split": LABELS}),
    }
    fingerprints = set()
    for n, (name, content) in enumerate(contents.items()):
        (tmp_path / str(n)).mkdir()
        fingerprints.add(load(str(write(tmp_path / str(n), {name: content}))).fingerprint)
    assert len(fingerprints) == 1


TIMES = [
    pa.array([1, 5, 3, 4, 2]),
    pa.array([0.1, 0.5, 0.3, 0.4, 0.2]),
    pa.array(["1", "50", "30", "40", "2"]),
    pa.array(["1", "5e1", "3e1", "4e1", "2"]),
    pa.array([datetime.datetime(2020, 1, day, 10) for day in (1, 5, 3, 4, 2)]),
    pa.array([datetime.date(2020, 1, day) for day in (1, 5, 3, 4, 2)]),
    pa.array([f"2020-01-0{day}" for day in (1, 5, 3, 4, 2)]),
    pa.array([f"2020-01-01T0{hour}:00:00Z" for hour in (1, 5, 3, 4, 2)]),
    pa.array([f"2020-01-01 10:00:00+0{9 - hour}:00" for hour in (1, 5, 3, 4, 2)]),
]


@pytest.mark.parametrize("times", TIMES, ids=[f"{times.type} {times[1]}" for times in TIMES])
def test_times_of_any_kind(tmp_path, times):
    content = parquet({"user": ["ann"] * 5, "item": list("abcde"), "timestamp": times})
    dataset = load(str(write(tmp_path, {"interactions.parquet": content})), split="leave-one-out")
    assert splits(dataset) == [[(0, 0), (0, 2), (0, 4)], [(0, 3)], [(0, 1)]]


def test_times_are_not_looked_at_where_the_split_does_not(tmp_path):
    write(tmp_path, {"interactions.csv": b"user,item,timestamp\na,x,\na,y,1\na,z,2\n"})
    load(str(tmp_path), split="mmrec")
    with pytest.raises(UserError, match=r"interactions\.csv: row 2: timestamp is ''"):
        load(str(tmp_path), split="time")


def test_plain_tables_in_one_piece_ask_for_a_split(tmp_path):
    write(tmp_path, {"clicks.csv": b"user,item,rating\nann,x,0\nann,y,5\nann,z,4\n"})
    assert "it is not split; say how with split='NAME'" in refusal(tmp_path)
    dataset = load(str(tmp_path), split="leave-one-out", split_seed=3)
    assert [len(split.users) for split in (dataset.train, dataset.valid, dataset.test)] == [1, 1, 1]
    assert dataset.notes[0] == "ratings are not used: every row counts as an interaction"


VECTORS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
KEYED = [
    parquet({"item_id": ["B9", "B2", "B1"], "vector": VECTORS}),
    parquet(pa.table({"item": ["B9", "B2", "B1"], "v": pa.array(VECTORS, pa.list_(pa.float16(), 2))})),
    parquet({"item": ["B9", "B2", "B1"], "f0": [1, 3, 5], "f1": [2.0, 4.0, 6.0]}),
]


@pytest.mark.parametrize("content", KEYED)
@pytest.mark.parametrize("name", ["image.parquet", "features/visual_emb.parquet"])
def test_plain_features_under_raw_ids(tmp_path, name, content):
    (tmp_path / "features").mkdir()
    dataset = load(str(write(tmp_path, {"clicks.csv": CSV, name: content})))
    assert dataset.features["visual"].values.tolist() == [[5, 6], [3, 4]]
    assert dataset.features["visual"].present.all()
    assert dataset.notes[0] == f"{Path(name).name}: rows of items that are not in the data, or without values: 1"


NUMBERED = CSV.replace(b"B", b"")


@pytest.mark.parametrize(
    ("name", "content", "values"),
    [
        ("image.npy", np.array([[0, 0], *VECTORS]), VECTORS[:2]),
        ("image.npy", np.array([[0, 0], *VECTORS], np.uint8), VECTORS[:2]),
        ("image.npy", np.asfortranarray(np.array([[0, 0], *VECTORS], ">f2")), VECTORS[:2]),
        ("image.parquet", parquet({"v": [[0.0, 0.0], *VECTORS]}), VECTORS[:2]),
        ("image.safetensors", tensors(x=np.array([[0, 0], *VECTORS], np.float32)), VECTORS[:2]),
        ("image.safetensors", tensors(x=np.array([[0, 0], *VECTORS], ml_dtypes.bfloat16)), VECTORS[:2]),
        ("image.safetensors", tensors(x=np.array(VECTORS), ids=np.array([2, 7, 1])), [VECTORS[2], VECTORS[0]]),
        ("image.parquet", parquet({"item": ["2", "7", "1"], "v": VECTORS}), [VECTORS[2], VECTORS[0]]),
    ],
)
def test_plain_features_of_items_with_numbers(tmp_path, name, content, values):
    dataset = load(str(write(tmp_path, {"clicks.csv": NUMBERED, name: content})))
    assert dataset.item_ids.tolist() == [1, 2]
    assert dataset.features["visual"].values.tolist() == values


def test_a_catalogue_brings_items_and_their_order(tmp_path):
    files = {"clicks.csv": CSV, "items.csv": b"item,title\nB2,x\nB7,y\nB1,z\n", "text_feat.npy": np.array(VECTORS)}
    dataset = load(str(write(tmp_path, files)))
    assert dataset.item_ids.tolist() == ["B2", "B7", "B1"]
    assert splits(dataset) == [[(0, 0), (1, 2)], [(0, 2)], [(1, 0)]]
    assert dataset.features["textual"].values.tolist() == VECTORS


def test_items_without_vectors_lack_the_modality(tmp_path):
    nan = np.array([[1, np.nan], [np.nan, np.nan], [3, 4]])
    files = {
        "clicks.csv": NUMBERED,
        "image.npy": np.array([[9, 9], [np.nan, np.nan], [3, 4]]),
        "text.parquet": parquet({"item": [1, 2], "v": [[1.0], None]}),
        "audio.safetensors": tensors(x=np.ones((1, 2)), ids=np.array([1])),
        "notes.csv": b"anything,at all\n",
        "users.parquet": parquet({"user": ["ann"], "age": [33]}),
    }
    dataset = load(str(write(tmp_path, files)))
    assert {name: feature.present.tolist() for name, feature in dataset.features.items()} == {
        "visual": [False, True],
        "acoustic": [True, False],
        "textual": [True, False],
    }
    assert set(dataset.notes) == {
        "not read: 'notes.csv', 'users.parquet'",
        "rows that repeat an interaction, merged: 1 of 5",
        "image.npy: items without this feature: 1 of 2",
        "audio.safetensors: items without this feature: 1 of 2",
        "text.parquet: items without this feature: 1 of 2",
        "text.parquet: rows of items that are not in the data, or without values: 1",
    }
    np.save(tmp_path / "image.npy", nan[[2, 0, 1]])
    assert "image.npy: 1 values in 1 rows are NaN" in refusal(tmp_path)


def broken_text():
    """What Arrow takes for text though it is none."""
    offsets = np.arange(6, dtype=np.int32).tobytes()
    return pa.Array.from_buffers(pa.string(), 5, [None, pa.py_buffer(offsets), pa.py_buffer(b"ab\xffcd")])


def interactions(**columns):
    return {"interactions.parquet": parquet({**ROWS, "split": LABELS, **columns})}


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"interactions.csv": b"user,thing\na,b\n"},
            "interactions.csv: there is no column 'item'; it has 'user', 'thing': rename the one of items, or name it",
        ),
        ({"interactions.csv": b"user,uid,item\na,b,c\n"}, "interactions.csv: 'user', 'uid' are all columns of users"),
        ({"interactions.csv": b"user,item\na,b\na\n"}, "interactions.csv: CSV parse error: Row #3: Expected 2 columns"),
        ({"interactions.csv": b"user,item\na,b\n,b\n"}, "interactions.csv: row 3: user is ''; expected an id"),
        ({"interactions.csv": b"user,item\na,b\n\xff,b\n"}, "interactions.csv: "),
        ({"interactions.csv": b"user,item,split\na,b,train\na,c,later\n"}, "interactions.csv: row 3: split is 'later'"),
        ({"interactions.csv": b"user,item,split\na,b,test\n"}, "interactions.csv: there are no interactions"),
        ({"interactions.csv": b"user,item\n"}, "interactions.csv: there are no rows in it"),
        ({"interactions.csv": b""}, "interactions.csv: "),
        ({"interactions.parquet": b"PAR1"}, "interactions.parquet: not a readable table"),
        ({"interactions.parquet": b""}, "interactions.parquet: not a readable table"),
        (interactions(user=["a", None, "b", "c", "d"]), "interactions.parquet: row 2: user is missing"),
        (
            interactions(user=[1.0, 2.0, 2.5, 3.0, 4.0]),
            "interactions.parquet: row 3: user is 2.5; expected a whole number",
        ),
        (
            interactions(user=pa.array([1, 2, 2**63, 3, 4], pa.uint64())),
            "interactions.parquet: row 3: user is 9223372036854775808; expected",
        ),
        (
            interactions(user=[b"a", b"\xff", b"b", b"c", b"d"]),
            "interactions.parquet: row 2: user is b'\\xff'; expected",
        ),
        (
            interactions(user=[[1]] * 5),
            "interactions.parquet: user is a column of list<element: int64>; expected an id",
        ),
        (interactions(item=broken_text()), "interactions.parquet: not a readable Parquet file (Column "),
        (interactions(split=broken_text()), "interactions.parquet: not a readable Parquet file (Column "),
        (interactions(split=[["train"]] * 5), "interactions.parquet: 'split' is a column of list<"),
        (interactions(split=["train", None, "test", "test", "test"]), "interactions.parquet: row 2: split is missing"),
        ({"train.csv": CSV, "interactions.csv": CSV}, "'interactions.csv', 'train.csv'; expected train, and maybe"),
        ({"valid.csv": CSV}, "there is 'valid.csv'; expected train, and maybe valid and test"),
        ({"cli\x1bcks.csv": CSV}, "the file 'cli\\x1bcks.csv' has control characters in its name; rename it"),
        ({"clicks.csv": CSV, "views.csv": CSV}, "'clicks.csv', 'views.csv' are all"),
        (
            {"clicks.csv": CSV, "items.csv": b"item\nB1\n"},
            "clicks.csv: row 2: item is 'B2', which items.csv does not have",
        ),
        ({"clicks.csv": CSV, "items.csv": b"item\nB1\nB1\nB2\n"}, "items.csv: row 3: item is 'B1' for the second time"),
        ({"clicks.csv": CSV, "items.csv": b"name\nB1\n"}, "items.csv: there is no column 'item'; it has 'name'"),
    ],
)
def test_plain_tables_refuse(tmp_path, files, line):
    assert line in refusal(tmp_path, files)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("image.npy", np.ones((2, 2)), "image.npy: 2 rows without ids, and there is an item 2; put the raw ids beside"),
        ("image.npy", np.ones(3), "image.npy: an array of float64 of shape (3,); expected a table of numbers"),
        ("image.npy", np.array([["a"]]), "image.npy: not a readable .npy table"),
        ("image.npy", np.array([[0], [1], [np.inf]]), "image.npy: 1 values in 1 rows are NaN or infinite"),
        ("image.npy", np.ones((3, 0)), "image.npy: a table of shape"),
        ("image.parquet", b"PAR1", "image.parquet: not a readable table"),
        ("image.parquet", parquet({"item": [1, 2], "v": [[1.0], [1.0, 2.0]]}), "image.parquet: row 2: 2 numbers in v"),
        (
            "image.parquet",
            parquet({"item": [1, 1], "v": [[1.0], [2.0]]}),
            "image.parquet: row 2: item is 1 for the second",
        ),
        ("image.parquet", parquet({"item": [1, None], "v": [[1.0], [2.0]]}), "image.parquet: row 2: item is missing"),
        ("image.parquet", parquet({"item": [1, 2], "v": [["a"], ["b"]]}), "image.parquet: 'v' is a column of list<"),
        (
            "image.parquet",
            parquet({"item": [1, 2], "v": [[None, 1.0], [1.0, 1.0]]}),
            "image.parquet: 1 values in 1 rows are NaN",
        ),
        ("image.parquet", parquet({"item": [1, 2], "v": [[[1]], [[1]]]}), "image.parquet: 'v' is a column of list<"),
        (
            "image.parquet",
            parquet({"item": [1, 2], "v": ["1 2", "3 4"]}),
            "image.parquet: it has the columns 'item', 'v'",
        ),
        ("image.parquet", parquet({"item": [1, 2]}), "image.parquet: it has the column 'item' alone"),
        (
            "image.parquet",
            parquet({"a": [[1]], "b": [[1]]}),
            "image.parquet: it has the columns 'a', 'b'; expected one",
        ),
        ("image.safetensors", b"{}", "image.safetensors: not a readable .safetensors file"),
        (
            "image.safetensors",
            tensors(x=np.ones(3)),
            "image.safetensors: there are 'x (3,)'; expected one tensor of two",
        ),
        ("image.safetensors", tensors(x=np.ones((3, 2)), i=np.arange(2)), "image.safetensors: 2 ids for 3 rows"),
        (
            "image.safetensors",
            tensors(x=np.ones((2, 2)), i=np.array([1, 1])),
            "image.safetensors: row 2: item is 1 for",
        ),
        ("visual_feat.npy", np.ones((3, 2)), "image.npy and visual_feat.npy are both visual features; keep one"),
    ],
)
def test_plain_features_refuse(tmp_path, name, content, line):
    files = {"clicks.csv": NUMBERED, "image.npy": np.ones((3, 2)), name: content}
    if name != "visual_feat.npy" and name != "image.npy":
        files.pop("image.npy")
    assert line in refusal(tmp_path, files)


def test_rows_without_ids_need_numbers_or_a_catalogue(tmp_path):
    line = refusal(tmp_path, {"clicks.csv": CSV, "image.npy": np.ones((2, 2))})
    assert (
        "image.npy: 2 rows without ids, and there is an item 'B1'; put the raw ids beside the vectors, or list" in line
    )


# --- which format ------------------------------------------------------------------------------------------------

FOLDERS = {
    "lightgcn": LINES,
    "lightgcn, pairs": PAIRS,
    "mmrec": MMREC | MAPPINGS | {"missed_img_itemIDs.csv": b""},
    "recbole": RECBOLE,
    "recbole, divided": {f"small.{part}.inter": INTER + row for part, row in SPLIT_ROWS.items()},
    "neurec": NEUREC,
    "plain": {"clicks.csv": CSV, "image.npy": TABLE},
    "plain, divided": {"train.csv": CSV},
    "diffmm": {"trnMat.pkl": b"", "image_feat.npy": TABLE},
    "mmgcn": {"train.npy": b"", "val.npy": b"", "test.npy": b"", "feat_v.pt": b""},
    "mmssl": {"train.json": b"", "val.json": b"", "test.json": b"", "train_mat": b"", "image_feat.npy": TABLE},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_of_one_format(tmp_path, name):
    write(tmp_path, FOLDERS[name])
    assert [each for each in FORMATS if FORMATS[each].recognises(tmp_path, Source(str(tmp_path)))] == [
        name.split(",")[0]
    ]


@pytest.mark.parametrize(
    ("name", "format"), [("lastfm", "lightgcn"), ("tiktok", "diffmm"), ("mmgcn_sample/kwai", "mmgcn")]
)
def test_real_folders_are_of_one_format(shared_data, name, format):
    folder = shared_data / name
    assert [each for each in FORMATS if FORMATS[each].recognises(folder, Source(str(folder)))] == [format]


def test_a_folder_of_two_formats_is_a_question(tmp_path):
    write(tmp_path, NEUREC | LINES)
    assert "looks like lightgcn and neurec; say which it is with format='lightgcn'" in refusal(tmp_path)
    assert load(str(tmp_path), format="neurec").num_users == 3
    assert load(str(tmp_path), format="lightgcn").num_items == 4


@pytest.mark.parametrize("name", ["pipe.csv", "pipe.inter", "interactions.parquet", "pipe.parquet"])
def test_pipes_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert refusal(tmp_path)
