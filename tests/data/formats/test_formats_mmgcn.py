"""MMGCN's folders: pairs, lists, features and words are read, and how items are counted is found and said."""

import numpy as np
import pytest
from foreign_files import EVIL, npy, npy_header, object_npy, tensor_pickle, torch_stream, torch_zip
from small_folders import SHARED, pairs, refusal, shared_folder, sizes, splits

from slmrec_jax.data import Words, load

TRAIN = [[0, 3], [0, 1], [1, 0], [2, 2], [0, 3]]
VALID = [[0, 2], [1], [2, 4, 0]]
TEST = [[1, 2], [2, 1]]
TABLE = np.arange(10.0).reshape(5, 2)


def write(folder, train=TRAIN, valid=VALID, test=TEST, kind="", **features):
    (folder / f"train{kind}.npy").write_bytes(npy(np.array(train)))
    (folder / f"val{kind}.npy").write_bytes(object_npy(valid, 2))
    (folder / f"test{kind}.npy").write_bytes(object_npy(test))
    for name, content in features.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def moved(lists, by):
    return [[user, *(item + by for item in items)] for user, *items in lists]


def tensor(values, storage="DoubleStorage"):
    values = np.ascontiguousarray(values)
    return torch_stream(tensor_pickle(values.shape, storage=storage), values.tobytes(), size=values.size)


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "_full", "_sample"])
def test_reads_pairs_and_lists(tmp_path, kind):
    dataset = load(write(tmp_path, kind=kind))
    assert dataset.name == tmp_path.name
    assert (dataset.num_users, dataset.num_items) == (3, 5)
    assert splits(dataset) == [
        [(0, 1), (0, 3), (1, 0), (2, 2)],
        [(0, 2), (2, 0), (2, 4)],
        [(1, 2), (2, 1)],
    ]


def test_a_user_of_no_interactions_counts(tmp_path):
    dataset = load(write(tmp_path, valid=[*VALID, [7]]))
    assert dataset.num_users == 8
    assert dataset.user_ids.tolist() == list(range(8))


@pytest.mark.parametrize(
    "names",
    [
        ("FeatureVideo_normal.npy", "FeatureAudio_avg_normal.npy", "FeatureText_stl_normal.npy"),
        ("feat_v.pt", "feat_a.pt", "feat_t.pt"),
        ("v_feat_sample.pt", "a_feat_sample.npy", "t_feat_sample.pt"),
        ("v_feat.npy", "feat_a.npy", "FeatureText_stl_normal.pt"),
    ],
)
def test_features_are_named_as_the_field_names_them(tmp_path, names):
    tables = {name: TABLE + number for number, name in enumerate(names)}
    content = {name: tensor(table) if name.endswith(".pt") else npy(table) for name, table in tables.items()}
    features = load(write(tmp_path, **dict(reversed(content.items())))).features
    assert list(features) == ["visual", "acoustic", "textual"]
    for number, feature in enumerate(features.values()):
        assert feature.values.dtype == np.float32
        assert feature.present.all()
        assert (feature.values == TABLE + number).all()


def test_features_set_the_number_of_items(tmp_path):
    assert load(write(tmp_path, feat_v__npy=npy(np.ones((9, 2), np.float16)))).num_items == 9


@pytest.mark.parametrize("transposed", [False, True])
def test_words_are_pairs_of_an_item_and_a_word(tmp_path, transposed):
    words = np.array([[0, 0, 4, 2], [7, 3, 3, 5]])
    pickled = tensor_pickle((2, 4), (1, 2) if transposed else (4, 1), storage="LongStorage")
    content = torch_zip(pickled, (words.T if transposed else words).tobytes())
    feature = load(write(tmp_path, feat_t__pt=content)).features["textual"]
    assert isinstance(feature, Words)
    assert sorted(zip(feature.items.tolist(), feature.words.tolist(), strict=True)) == [(0, 3), (0, 7), (2, 5), (4, 3)]
    assert feature.num_words == 8


def test_words_may_be_of_items_without_interactions(tmp_path):
    assert load(write(tmp_path, feat_t__npy=npy(np.array([[6], [0]])))).num_items == 7


def test_two_items_with_vectors_are_no_words(tmp_path):
    folder = write(tmp_path, [[0, 1]], [[0, 0]], [[0, 1]], feat_t__npy=npy(np.ones((2, 3))))
    assert load(folder).features["textual"].values.shape == (2, 3)


def test_missing_features_are_noted(tmp_path):
    notes = load(write(tmp_path, feat_a__npy=npy(TABLE))).notes
    missing = [note for note in notes if note.startswith("no ")]
    assert [note.split(":")[0] for note in missing] == ["no visual features", "no textual features"]
    assert "FeatureVideo_normal, feat_v, v_feat, v_feat_sample" in missing[0]


# --- how items are counted ---------------------------------------------------------------------------------------


def numbering(folder):
    dataset = load(folder)
    (note,) = [note for note in dataset.notes if note.startswith("item ids")]
    return dataset, note


def offset(folder, by, **features):
    return write(folder, moved(TRAIN, by), moved(VALID, by), moved(TEST, by), **features)


def test_items_counted_on_from_the_users_are_moved(tmp_path):
    (tmp_path / "from 0").mkdir()
    (tmp_path / "from 3").mkdir()
    plain, _ = numbering(write(tmp_path / "from 0", feat_v__npy=npy(TABLE)))
    dataset, note = numbering(offset(tmp_path / "from 3", 3, feat_v__npy=npy(TABLE)))
    assert "counted from 3, the number of users, for 5 feature rows; the largest is 7" in note
    assert splits(dataset) == splits(plain)
    assert dataset.item_ids.tolist() == [3, 4, 5, 6, 7]
    assert plain.item_ids.tolist() == [0, 1, 2, 3, 4]
    assert dataset.num_users == 3


def test_items_that_fit_as_they_stand_stay(tmp_path):
    dataset, note = numbering(offset(tmp_path, 3, feat_v__npy=npy(np.ones((8, 2)))))
    assert "counted from 0, and the largest is 7 of 8 feature rows" in note
    assert pairs(dataset.test) == [(1, 5), (2, 4)]
    assert dataset.num_items == 8


def test_users_beyond_the_last_that_is_named_are_found_by_the_rows(tmp_path):
    dataset, note = numbering(offset(tmp_path, 5, feat_v__npy=npy(TABLE)))
    assert "counted from 5" in note
    assert dataset.num_users == 5
    assert pairs(dataset.test) == [(1, 2), (2, 1)]


def test_items_may_not_make_up_vastly_many_users(tmp_path):
    assert "the largest user id is 1999999999" in refusal(offset(tmp_path, 2 * 10**9, feat_v__npy=npy(TABLE)))


@pytest.mark.parametrize(("by", "rows"), [(1, 5), (6, 6), (3, 4), (0, 4)])
def test_items_that_fit_no_way_are_refused(tmp_path, by, rows):
    line = refusal(offset(tmp_path, by, feat_v__npy=npy(np.ones((rows, 2)))))
    assert f"item ids are {by} to {by + 4}, which do not fit the {rows} feature rows" in line


def test_without_features_the_ids_decide(tmp_path):
    for by, first in ((0, 0), (3, 3), (4, 0)):
        dataset, note = numbering(offset(tmp_path, by))
        assert f"counted from {first}" in note
        assert "no features to check" in note
        assert dataset.num_items == 5 + by - first


# --- what is refused ---------------------------------------------------------------------------------------------


REFUSED = {
    "a flat train": ("train.npy", npy(np.arange(4)), "train.npy: an array of int64 of shape (4,)"),
    "three columns": ("train.npy", npy(np.ones((2, 3), int)), "train.npy: an array of int64 of shape (2, 3)"),
    "fractions": ("train.npy", npy(np.ones((2, 2))), "train.npy: an array of float64"),
    "a negative id": ("train.npy", npy(np.array([[0, 1], [-2, 0]])), "entry 1 of users is -2"),
    "a vast id": ("train.npy", npy(np.array([[0, 2**40]])), "entry 0 of items is 1099511627776"),
    "a vast unsigned id": ("train.npy", npy(np.array([[0, 2**64 - 1]], "u8")), "is 18446744073709551615"),
    "a mistyped user": ("train.npy", npy(np.array([[0, 1], [10**9, 0]])), "the largest user id is 1000000000"),
    "a mistyped item": ("train.npy", npy(np.array([[0, 1], [0, 10**9]])), "the largest item id is 1000000000"),
    "no pairs": ("train.npy", npy(np.zeros((0, 2), int)), "train.npy: it has no interactions"),
    "code in train": ("train.npy", npy_header("|O", "(1,)") + EVIL["reduce"], "train.npy: not a readable .npy"),
    "code in val": ("val.npy", npy_header("|O", "(1,)") + EVIL["reduce"], "val.npy: byte 130: asks for"),
    "code in a tensor": ("feat_v.pt", EVIL["reduce"], "feat_v.pt: byte 2: asks for"),
    "an empty list": ("val.npy", object_npy([[0, 1], []]), "val.npy: list 1 is empty"),
    "a vast id in a list": ("val.npy", object_npy([[0, 1], [1, 2**33]]), "val.npy: list 1 has the id 8589934592"),
    "a vast user in a list": ("val.npy", object_npy([[2**33]]), "val.npy: list 0 has the id 8589934592"),
    "whole numbers for features": ("feat_v.npy", npy(np.ones((5, 2), int)), "feat_v.npy: an array of int64"),
    "a cube of features": ("feat_v.npy", npy(np.ones((5, 2, 2))), "feat_v.npy: an array of float64 of shape"),
    "complex features": ("feat_v.npy", npy(np.ones((5, 2), complex)), "feat_v.npy: an array of complex128"),
    "features that are no numbers": ("feat_v.npy", npy(np.full((5, 2), np.nan)), "feat_v.npy: every row is NaN"),
    "features beyond float32": ("feat_v.npy", npy(np.full((5, 2), 1e300)), "feat_v.npy: 10 values"),
    "a negative word": ("feat_t.npy", npy(np.array([[0], [-1]])), "feat_t.npy: entry 0 of words is -1"),
    "a mistyped word": ("feat_t.npy", npy(np.array([[0], [10**9]])), "feat_t.npy: the largest word id"),
    "no words": ("feat_t.npy", npy(np.zeros((2, 0), int)), "feat_t.npy: there are 0 words"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_files_get_one_line(tmp_path, name):
    file, content, line = REFUSED[name]
    write(tmp_path)
    assert line in refusal(tmp_path, {file: content})


def test_tables_must_agree(tmp_path):
    folder = write(tmp_path, feat_v__npy=npy(TABLE), feat_a__npy=npy(np.ones((6, 2))))
    assert "feat_a.npy: 6 rows for 5 items" in refusal(folder)


def test_words_must_be_of_the_items(tmp_path):
    folder = write(tmp_path, feat_v__npy=npy(TABLE), feat_t__npy=npy(np.array([[0, 5], [1, 1]])))
    assert "feat_t.npy: entry 1 of items is 5" in refusal(folder)


@pytest.mark.parametrize("name", ["val.npy", "test.npy"])
def test_a_missing_split_is_named(tmp_path, name):
    (write(tmp_path) / name).unlink()
    assert f"split is missing; expected {name} or" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["train_full.npy", "val_sample.npy", "feat_v.pt", "v_feat.npy"])
def test_two_files_for_one_thing_are_a_question(tmp_path, name):
    (write(tmp_path, feat_v__npy=npy(TABLE)) / name).write_bytes(b"")
    assert "keep one" in refusal(tmp_path)


# --- real data ---------------------------------------------------------------------------------------------------


REAL = {
    "tiktok": (1651, [1929, 212, 170], {"visual": (1651, 128), "acoustic": (1651, 128), "textual": (12950, 11571)}, 0),
    "kwai": (3691, [3418, 421, 484], {}, 3),
    "movielens": (1141, [2071, 263, 307], {"acoustic": (1141, 128), "textual": (1141, 100)}, 1),
}


@pytest.mark.parametrize("name", REAL)
def test_reads_the_samples(name):
    num_items, counts, shapes, missing = REAL[name]
    dataset = load(shared_folder(SHARED / "mmgcn_sample" / name))
    assert (dataset.num_users, dataset.num_items) == (100, num_items)
    assert sizes(dataset) == counts
    assert {
        modality: (len(feature.items), feature.num_words) if isinstance(feature, Words) else feature.values.shape
        for modality, feature in dataset.features.items()
    } == shapes
    assert "counted from 0" in dataset.notes[0]
    assert sum(note.startswith("no ") for note in dataset.notes) == missing
    assert dataset.notes[-1] == "not read: 'user_item_dict_sample.npy'"


def test_the_sample_of_words_begins_as_in_the_file():
    words = load(shared_folder(SHARED / "mmgcn_sample/tiktok")).features["textual"]
    assert list(zip(words.items[:5].tolist(), words.words[:5].tolist(), strict=True)) == [
        (0, 4100),
        (0, 11493),
        (1, 2726),
        (1, 8855),
        (1, 8903),
    ]
    assert len(np.unique(words.items)) == 1651
