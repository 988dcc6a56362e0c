"""NeuRec's folders, as SLMRec uses them: interactions without a header, and features by raw item id."""

import numpy as np
import pytest
from foreign_files import tensor_pickle, torch_stream
from small_folders import read, refusal, splits

# Items 5, 0, 3 by first appearance in train, then 1 in test; users 7, 2, then 4.
NEUREC = {"small.train": b"7,5\n2,5\n7,0\n2,3\n", "small.test": b"4,1\n7,3\n"}
TABLE = np.arange(12, dtype=np.float32).reshape(6, 2)


def tensor(values, storage):
    return torch_stream(tensor_pickle(values.shape, storage=storage), values.tobytes(), size=values.size)


def test_ids_are_numbered_by_first_appearance_in_train_then_test(tmp_path):
    dataset = read(tmp_path, NEUREC)
    assert dataset.name == "small"
    assert dataset.user_ids.tolist() == [7, 2, 4]
    assert dataset.item_ids.tolist() == [5, 0, 3, 1]
    assert splits(dataset) == [[(0, 0), (0, 1), (1, 0), (1, 2)], [], [(0, 2), (2, 3)]]


@pytest.mark.parametrize("row", [b"7,5", b"7,5,4.0", b"7,5,4.0,123456789"])
def test_columns_are_ui_uir_or_uirt(tmp_path, row):
    assert splits(read(tmp_path, {"small.train": row + b"\r\n", "small.test": row})) == [[(0, 0)], [], [(0, 0)]]


@pytest.mark.parametrize(
    "names",
    [
        ("small_visual_feat.pt", "small_audio_feat.pt", "small_textual_feat.pt"),
        ("small_feat_v.npy", "small_feat_a.npy", "small_feat_t.npy"),
        ("small_FeatureVideo_normal.npy", "small_FeatureAudio_avg_normal.npy", "small_FeatureText_stl_normal.npy"),
    ],
)
def test_features_are_rows_of_the_original_ids(tmp_path, names):
    tables = {
        name: tensor(TABLE + n, "FloatStorage") if name.endswith(".pt") else TABLE.astype("f8") + n
        for n, name in enumerate(names)
    }
    dataset = read(tmp_path, NEUREC | tables)
    assert list(dataset.features) == ["visual", "acoustic", "textual"]
    for n, feature in enumerate(dataset.features.values()):
        assert feature.values.tolist() == (TABLE[[5, 0, 3, 1]] + n).tolist()
        assert feature.present.all()


def test_only_features_with_the_name_of_the_data_set_are_read(tmp_path):
    files = {"other_feat_v.npy": b"", "_feat_v.npy": b"", "smaller_feat_v.npy": b"", "small_feat_v.txt": b""}
    assert read(tmp_path, NEUREC | files).features == {}


def test_a_test_file_is_needed(tmp_path):
    assert "no known data set" in refusal(tmp_path, {"small.train": NEUREC["small.train"]})


def test_words_of_items(tmp_path):
    pairs = np.array([[3, 5, 5, 2, 3], [9, 4, 4, 8, 1]])  # item 2 is not in the data
    files = {"small_textual_feat.pt": tensor(pairs, "LongStorage")}
    items, words, num_words = read(tmp_path, NEUREC | files).features["textual"]
    assert list(zip(items.tolist(), words.tolist(), strict=True)) == [(0, 4), (0, 4), (2, 1), (2, 9)]
    assert num_words == 10


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"small.train": b"7,5\n7\n"}, "small.train: CSV parse error: Row #2: Expected 2 columns, got 1"),
        ({"small.train": b"7 5\n7 3\n"}, "small.train: row 1 has 1 columns separated by ','; expected 2 to 4"),
        ({"small.train": "7;5;4,5\n"}, "small.train: row 1 can be split at ',', ';'"),
        ({"small.test": b"7,5,1,1,1\n"}, "small.test: row 1 has 5 columns"),
        ({"small.test": b"7,\n"}, "small.test: row 1: item is ''; expected an id"),
        ({"small.train": b"7,5\n7\x00,5\n"}, "small.train: row 2: user is '7\\x00'; expected an id"),
        (
            {"small.train": b"user,item\n7,5\n"},
            "small.train: row 1 holds names ('user', 'item'), but this format has no",
        ),
        ({"small.train": b""}, "small.train: it is empty; expected a table with 'user', 'item'"),
        (
            {"other.train": b"1,1\n", "other.test": b"1,1\n"},
            "found several ('other.train', 'small.train'); k",
        ),
        ({"small_feat_v.npy": TABLE[:5]}, "small_feat_v.npy: 5 rows, but there is an item with the id 5"),
        ({"small_feat_v.npy": TABLE.astype(int)}, "small_feat_v.npy: an array of int64 of shape (6, 2)"),
        ({"small_feat_v.npy": np.array([[8], [1]])}, "small_feat_v.npy: none of its 1 pairs of an item and a word"),
        ({"small_feat_v.npy": np.array([[5], [-1]])}, "small_feat_v.npy: entry 0 of words is -1"),
        ({"small_feat_v.pt": b"PK"}, "small_feat_v.pt: "),
        ({"small_feat_v.npy": TABLE, "small_visual_feat.npy": TABLE}, "are both visual features; keep one"),
        ({"small_feat_v.npy": TABLE, "small.train": b"7,x\n"}, "some ids are not whole numbers, for example 'x'"),
        ({"small_feat_v.npy": TABLE, "small.train": b"7,-1\n"}, "there is an item with the id -1"),
    ],
)
def test_malformed_files_are_refused(tmp_path, files, line):
    assert line in refusal(tmp_path, NEUREC | files)
