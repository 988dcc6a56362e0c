"""Plain tables: interactions under raw ids of any type, a catalogue, and one file for each modality."""

import datetime
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from small_folders import parquet, read, refusal, sizes, splits

CSV = b"userId,item_id,split\nann,B2,train\nbob,B1,train\nann,B1,valid\nbob,B2,test\nann,B2,train\n"
NUMBERED = CSV.replace(b"B", b"")
ROWS = {"user": ["ann", "bob", "ann", "bob", "ann"], "item": ["B2", "B1", "B1", "B2", "B2"]}
LABELS = ["train", "train", "valid", "test", "train"]


def tensors(**arrays):
    return safetensors.numpy.save(arrays)


# --- interactions ------------------------------------------------------------------------------------------------


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
        ("clicks.parquet", parquet({**ROWS, "split": pa.array(LABELS).dictionary_encode()})),
    ],
)
def test_tables_with_a_column_of_splits(tmp_path, name, content):
    dataset = read(tmp_path, {name: content})
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == (["ann", "bob"], ["B1", "B2"])
    assert splits(dataset) == [[(0, 1), (1, 0)], [(0, 0)], [(1, 1)]]


def test_the_table_named_interactions_takes_precedence(tmp_path):
    dataset = read(tmp_path, {"clicks.csv": b"user,item\nx,y\n", "interactions.csv": CSV})
    assert dataset.num_users == 2
    assert "not read: 'clicks.csv'" in dataset.notes


def test_a_table_for_each_split(tmp_path):
    files = {
        "train.csv": b"user,item\nann,B2\nbob,B1\n",
        "val.tsv": b"user\titem\nann\tB1\n",
        "test.parquet": parquet({"user": ["bob"], "item": ["B2"]}),
    }
    assert splits(read(tmp_path, files)) == [[(0, 1), (1, 0)], [(0, 0)], [(1, 1)]]
    (tmp_path / "val.tsv").unlink()
    assert splits(read(tmp_path, {})) == [[(0, 1), (1, 0)], [], [(1, 1)]]


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
    dataset = read(tmp_path, {"interactions.parquet": content})
    assert dataset.user_ids.tolist() == dataset.item_ids.tolist() == ordered


def test_beside_train_the_other_splits_are_never_lost(tmp_path):
    train = {"train.csv": "user,item\na,x\nb,y\n"}
    for name, content in (("valid.csv", "who,what\na,y\n"), ("test.parquet", parquet({"who": [1], "what": [2]}))):
        line = refusal(tmp_path / name, {**train, name: content})
        assert line.startswith(f"{name}: there is no column 'user'; it has 'who', 'what'")
    line = refusal(tmp_path / "parts", {"train/0.csv": train["train.csv"], "test/0.csv": "who,what\na,y\n"})
    assert line.startswith("test/0.csv: there is no column 'user'")
    unrelated = {"test.txt": "any text\n", "test/readme.txt": "any text\n"}
    assert sizes(read(tmp_path / "other", {**train, **unrelated})) == [2, 0, 0]
    # A table of the split that is there is not doubted because of a namesake.
    both = {"valid.csv": "user,item\na,y\n", "test.csv": "user,item\nb,x\n"}
    namesakes = {"val.csv": "epoch,loss\n1,2\n", "test/negatives.csv": "who,what\n1,2\n"}
    assert sizes(read(tmp_path / "namesakes", {**train, **both, **namesakes})) == [2, 1, 1]


def test_an_absent_table_is_named(tmp_path):
    line = refusal(tmp_path, {"x.npy": np.ones(2)}, format="neurec")
    assert line.endswith(": expected a .train and a .test file, found none; add it, or leave out format")


def test_ids_may_be_numbers_in_one_file_and_text_in_another(tmp_path):
    files = {"train.parquet": parquet({"user": [7, 8], "item": [70, 80]}), "test.csv": b"user,item\n7,80\n"}
    dataset = read(tmp_path, files)
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == ([7, 8], [70, 80])
    assert splits(dataset) == [[(0, 0), (1, 1)], [], [(0, 1)]]


def test_the_order_of_rows_and_the_kind_of_file_do_not_matter(tmp_path):
    head, *rows = CSV.splitlines(keepends=True)
    contents = {
        "interactions.csv": CSV,
        "clicks.csv": head + b"".join(rows[::-1]),
        "clicks.parquet": parquet({**ROWS, "split": LABELS}),
    }
    found = [read(tmp_path / str(n), {name: content}) for n, (name, content) in enumerate(contents.items())]
    assert len({dataset.fingerprint for dataset in found}) == 1


def test_a_table_in_one_piece_asks_for_a_split(tmp_path):
    files = {"clicks.csv": b"user,item,rating\nann,x,0\nann,y,5\nann,z,4\n"}
    assert "it is not split; say how with split='NAME'" in refusal(tmp_path, files)
    dataset = read(tmp_path, {}, split="leave-one-out", split_seed=3)
    assert sizes(dataset) == [1, 1, 1]
    assert dataset.notes[0] == "ratings are not used: a row counts as an interaction whatever its rating"


def test_interactions_in_two_splits_are_counted_where_they_are_divided_again(tmp_path):
    rows = "user,item,split\na,x,train\na,x,test\na,y,train\n"
    assert "interactions that were in two splits, merged: 1" in read(tmp_path, {"x.csv": rows}, split="mmrec").notes


def broken_text():
    """Arrow takes this for text, but it is not."""
    offsets = np.arange(6, dtype=np.int32).tobytes()
    return pa.Array.from_buffers(pa.string(), 5, [None, pa.py_buffer(offsets), pa.py_buffer(b"ab\xffcd")])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"user,thing\na,b\n", "there is no column 'item'; it has 'user', 'thing': rename the column of items"),
        (b"user,uid,item\na,b,c\n", "'user', 'uid' could all be the column of users"),
        (b"user,item\na,b\na\n", "CSV parse error: Row #3: Expected 2 columns"),
        (b"user,item\na,b\n,b\n", "row 3: user is ''; expected an id"),
        (b"user,item\na,b\n\xff,b\n", ""),
        (b"user,item,split\na,b,train\na,c,later\n", "row 3: split is 'later'"),
        (b"user,item,split\na,b,test\n", "it has no interactions"),
        (b"user,item\n", "it has no rows"),
        (b"", ""),
    ],
)
def test_malformed_text_is_refused(tmp_path, content, line):
    assert f"interactions.csv: {line}" in refusal(tmp_path, {"interactions.csv": content})


@pytest.mark.parametrize("content", [b"PAR1", b""])
def test_malformed_parquet_is_refused(tmp_path, content):
    assert "interactions.parquet: not a readable table" in refusal(tmp_path, {"interactions.parquet": content})


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"user": ["a", None, "b", "c", "d"]}, "row 2: user is missing"),
        ({"user": [1.0, 2.0, 2.5, 3.0, 4.0]}, "row 3: user is 2.5; expected a whole number"),
        ({"user": pa.array([1, 2, 2**63, 3, 4], pa.uint64())}, "row 3: user is 9223372036854775808; expected"),
        ({"user": [b"a", b"\xff", b"b", b"c", b"d"]}, "row 2: user is b'\\xff'; expected"),
        ({"user": [[1]] * 5}, "user is a column of list<element: int64>; expected an id"),
        ({"user": [True, False] * 2 + [True]}, "user is a column of bool; expected an id"),
        ({"item": broken_text()}, "not a readable Parquet file (Invalid string encoding"),
        ({"split": broken_text()}, "not a readable Parquet file (Invalid string encoding"),
        ({"split": [["train"]] * 5}, "split is a column of list<element: string>; expected one of train, valid"),
        ({"split": ["train", None, "test", "test", "test"]}, "row 2: split is missing"),
    ],
)
def test_malformed_columns_are_refused(tmp_path, columns, line):
    files = {"interactions.parquet": parquet({**ROWS, "split": LABELS, **columns})}
    assert f"interactions.parquet: {line}" in refusal(tmp_path, files)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"train.csv": CSV, "interactions.csv": CSV},
            "'interactions.csv', 'train.csv'; expected only train, and maybe",
        ),
        ({"valid.csv": CSV}, "there is 'valid.csv'; expected only train, and maybe valid and test"),
        ({"cli\x1bcks.csv": CSV}, "the file 'cli\\x1bcks.csv' has control characters in its name; rename it"),
        ({"clicks.csv": CSV, "views.csv": CSV}, "found several ('clicks.csv', 'views.csv'); keep one"),
        ({"clicks.csv": CSV, "items.csv": b"item\nB1\n"}, "clicks.csv: row 2: item is 'B2', which items.csv does not"),
        ({"clicks.csv": CSV, "items.csv": b"item\nB1\nB1\nB2\n"}, "items.csv: row 3: item is 'B1' for the second time"),
        ({"clicks.csv": CSV, "items.csv": b"name\nB1\n"}, "items.csv: there is no column 'item'; it has 'name'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, files, line):
    assert line in refusal(tmp_path, files)


# --- features ----------------------------------------------------------------------------------------------------

VECTORS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
WITH_ROW_0 = np.array([[0, 0], *VECTORS])
KEYED = [
    parquet({"item_id": ["B9", "B2", "B1"], "vector": VECTORS}),
    parquet({"item": ["B9", "B2", "B1"], "v": pa.array(VECTORS, pa.list_(pa.float16(), 2))}),
    parquet({"item": ["B9", "B2", "B1"], "f0": [1, 3, 5], "f1": [2.0, 4.0, 6.0]}),
]


@pytest.mark.parametrize("content", KEYED)
@pytest.mark.parametrize("name", ["image.parquet", "features/visual_emb.parquet"])
def test_features_under_raw_ids(tmp_path, name, content):
    dataset = read(tmp_path, {"clicks.csv": CSV, name: content})
    assert dataset.features["visual"].values.tolist() == [[5, 6], [3, 4]]
    assert dataset.features["visual"].present.all()
    assert dataset.notes[0] == f"{Path(name).name}: rows of items that are not in the data, or without values: 1"


@pytest.mark.parametrize(
    ("name", "content", "values"),
    [
        ("image.npy", WITH_ROW_0, VECTORS[:2]),
        ("image.npy", WITH_ROW_0.astype(np.uint8), VECTORS[:2]),
        ("image.npy", np.asfortranarray(WITH_ROW_0.astype(">f2")), VECTORS[:2]),
        ("image.parquet", parquet({"v": WITH_ROW_0.tolist()}), VECTORS[:2]),
        ("image.safetensors", tensors(x=WITH_ROW_0.astype(np.float32)), VECTORS[:2]),
        ("image.safetensors", tensors(x=WITH_ROW_0.astype(ml_dtypes.bfloat16)), VECTORS[:2]),
        ("image.safetensors", tensors(x=np.array(VECTORS), ids=np.array([2, 7, 1])), [VECTORS[2], VECTORS[0]]),
        ("image.parquet", parquet({"item": ["2", "7", "1"], "v": VECTORS}), [VECTORS[2], VECTORS[0]]),
    ],
)
def test_features_of_items_with_numbers(tmp_path, name, content, values):
    dataset = read(tmp_path, {"clicks.csv": NUMBERED, name: content})
    assert dataset.item_ids.tolist() == [1, 2]
    assert dataset.features["visual"].values.tolist() == values


def test_a_catalogue_gives_the_items_and_their_order(tmp_path):
    files = {"clicks.csv": CSV, "items.csv": b"item,title\nB2,x\nB7,y\nB1,z\n", "text_feat.npy": np.array(VECTORS)}
    dataset = read(tmp_path, files)
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
    dataset = read(tmp_path, files)
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
    assert "image.npy: 1 values in 1 rows are NaN" in refusal(tmp_path, {"image.npy": nan[[2, 0, 1]]})


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("image.npy", np.ones((2, 2)), "2 rows without ids, and some items' ids are not row numbers, for example 2;"),
        ("image.npy", np.ones(3), "an array of float64 of shape (3,); expected a table of numbers"),
        ("image.npy", np.array([["a"]]), "not a readable .npy table"),
        ("image.npy", np.array([[0], [1], [np.inf]]), "1 values in 1 rows are NaN or infinite"),
        ("image.npy", np.ones((3, 0)), "a table of shape"),
        ("image.parquet", b"PAR1", "not a readable table"),
        ("image.parquet", parquet({"item": [1, 2], "v": [[1.0], [1.0, 2.0]]}), "row 2: 2 numbers in v"),
        ("image.parquet", parquet({"item": [1, 1], "v": [[1.0], [2.0]]}), "row 2: item is 1 for the second"),
        ("image.parquet", parquet({"item": [1, None], "v": [[1.0], [2.0]]}), "row 2: item is missing"),
        ("image.parquet", parquet({"item": [1, 2], "v": [["a"], ["b"]]}), "'v' is a column of list<"),
        ("image.parquet", parquet({"item": [1, 2], "v": [[None, 1.0], [1.0, 1.0]]}), "1 values in 1 rows are NaN"),
        ("image.parquet", parquet({"item": [1, 2], "v": [[[1]], [[1]]]}), "'v' is a column of list<"),
        ("image.parquet", parquet({"item": [1, 2], "v": ["1 2", "3 4"]}), "it has the columns 'item', 'v'"),
        ("image.parquet", parquet({"item": [1, 2]}), "it has only the column 'item'"),
        ("image.parquet", parquet({"a": [[1]], "b": [[1]]}), "it has the columns 'a', 'b'; expected one"),
        ("image.parquet", parquet({"id": [2, 1, 0], "v": VECTORS}), "found 'id' beside the vectors in 'v', and no kn"),
        ("image.safetensors", b"{}", "not a readable .safetensors file"),
        ("image.safetensors", tensors(x=np.ones(3)), "it has 'x (3,)'; expected one two-dimensional tensor"),
        ("image.safetensors", tensors(x=np.ones((3, 2)), i=np.arange(2)), "2 ids for 3 rows"),
        ("image.safetensors", tensors(x=np.ones((2, 2)), i=np.array([1, 1])), "row 2: item is 1 for"),
    ],
)
def test_malformed_features_are_refused(tmp_path, name, content, line):
    assert f"{name}: {line}" in refusal(tmp_path, {"clicks.csv": NUMBERED, name: content})


def test_the_item_column_of_the_user_names_the_ids_of_features_too(tmp_path):
    files = {
        "clicks.csv": CSV.replace(b"item_id", b"thing"),
        "image.parquet": parquet({"thing": ["B9", "B2", "B1"], "v": VECTORS}),
        "taste.parquet": parquet({"thing": ["B9", "B2", "B1"], "x": [1, 3, 5]}),
        "features/text.csv": "thing,x,y\nB9,1,2\nB2,3,4\nB1,5,6\n",
        "features/audio.parquet": parquet({"item": ["B9", "B2", "B1"], "v": VECTORS}),
    }
    dataset = read(tmp_path, files, item_column="thing")
    values = {name: feature.values.tolist() for name, feature in dataset.features.items()}
    vectors = [[5, 6], [3, 4]]
    assert values == {"visual": vectors, "acoustic": vectors, "textual": vectors, "taste": [[5], [3]]}


def test_numbers_beside_the_interactions_need_ids_or_a_name(tmp_path):
    numbers = parquet({"follower": [0, 1, 2], "followee": [1, 2, 0]})
    dataset = read(tmp_path, {"clicks.csv": NUMBERED, "social.parquet": numbers, "graph_feat.parquet": numbers})
    assert list(dataset.features) == ["graph"]
    assert "not read: 'social.parquet'" in dataset.notes


def test_names_that_begin_with_a_dot_are_skipped(tmp_path):
    files = {"clicks.csv": NUMBERED, "features/image.npy": np.ones((3, 2))}
    expected = read(tmp_path, files)
    junk = ("._clicks.csv", "._image.npy", "features/._image.npy", "features/.cache/x.parquet")
    assert read(tmp_path, dict.fromkeys(junk, b"\0\5\26\7")).fingerprint == expected.fingerprint


def test_two_files_of_one_modality_are_a_question(tmp_path):
    files = {"clicks.csv": NUMBERED, "image.npy": np.ones((3, 2)), "visual_feat.npy": np.ones((3, 2))}
    assert "visual_feat.npy are both visual features; keep one" in refusal(tmp_path, files)


def test_rows_without_ids_need_numbers_or_a_catalogue(tmp_path):
    line = refusal(tmp_path, {"clicks.csv": CSV, "image.npy": np.ones((2, 2))})
    said = "image.npy: 2 rows without ids, and some items' ids are not row numbers, for example 'B1'; put the raw ids"
    assert f"{said} beside" in line
