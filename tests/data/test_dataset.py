"""The container: its form, its fingerprint, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import GRAPHS

from slmrec_jax import data
from slmrec_jax.data import Dataset, Feature, Words, check_dataset, make_dataset
from slmrec_jax.data.pairs import popularity_hit_rate
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions


def pairs(*rows, dtype=np.int64):
    users, items = zip(*rows, strict=True) if rows else ((), ())
    return Interactions(np.array(users, dtype), np.array(items, dtype))


def parts(**changes):
    visual = np.arange(8, dtype=np.float64).reshape(4, 2)
    given = {
        "name": "small",
        "train": pairs((1, 2), (0, 3), (1, 2), (0, 0)),
        "valid": pairs((2, 1)),
        "test": pairs((0, 1)),
        "num_users": 3,
        "num_items": 4,
        "features": {
            "visual": Feature(visual, np.array([True, False, True, True])),
            "textual": Words(np.array([3, 0, 0]), np.array([1, 4, 4]), 5),
        },
        "user_ids": np.array(["ann", "bob", "cy"]),
    }
    return given | changes


def small(**changes):
    return make_dataset(**parts(**changes))


def with_visual(values, present=(True,) * 4):
    return {"visual": Feature(np.asarray(values), np.array(present))}


def test_interactions_are_sorted_distinct_and_int32():
    dataset = small()
    assert dataset.train.users.tolist() == [0, 0, 1]
    assert dataset.train.items.tolist() == [0, 3, 2]
    assert {ids.dtype for ids in (*dataset.train, *dataset.valid, *dataset.test)} == {np.dtype(np.int32)}
    check_dataset(dataset)


def test_features_are_float32_and_zero_where_absent():
    visual = small().features["visual"]
    assert visual.values.dtype == np.float32
    assert visual.values.tolist() == [[0, 1], [0, 0], [4, 5], [6, 7]]


def test_absent_rows_may_hold_anything():
    values = np.ones((4, 2))
    values[1] = np.nan
    assert not small(features=with_visual(values, (True, False, True, True))).features["visual"].values[1].any()


def test_words_keep_their_counts():
    words = small().features["textual"]
    assert list(zip(words.items, words.words, strict=True)) == [(0, 4), (0, 4), (3, 1)]


def test_raw_ids_default_to_rows():
    assert small().item_ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_held_out_splits_may_be_empty(split):
    dataset = small(**{split: pairs()})
    assert getattr(dataset, split).users.tolist() == []
    check_dataset(dataset)


def test_notes_are_kept_but_not_part_of_the_fingerprint():
    dataset = small(notes=["two users were dropped"])
    assert dataset.notes == ("two users were dropped", "rows that repeat an interaction, merged: 1 of 6")
    assert dataset.fingerprint == small().fingerprint


def test_a_pair_may_be_in_two_splits():
    check_dataset(small(valid=pairs((0, 0))))


def read_only(ids):
    ids.flags.writeable = False
    return ids


@pytest.mark.parametrize("view", [lambda ids: ids[:], lambda ids: ids[:][:], lambda ids: np.frombuffer(ids, np.int32)])
def test_a_read_only_view_of_what_can_be_written_to_is_copied(view):
    users, items = np.array([0, 0, 1], np.int32), np.array([0, 3, 2], np.int32)
    dataset = small(train=Interactions(read_only(view(users)), read_only(view(items))))
    users[:], items[:] = 2, 1
    assert dataset.train.users.tolist() == [0, 0, 1]
    assert dataset.train.items.tolist() == [0, 3, 2]


def test_what_no_one_can_write_to_is_kept(tmp_path):
    given = Interactions(*(np.array(ids, np.int32) for ids in ([0, 0, 1], [0, 3, 2])))
    np.save(tmp_path / "users.npy", given.users)
    mapped = np.load(tmp_path / "users.npy", mmap_mode="r")
    in_bytes = np.frombuffer(given.items.tobytes(), np.int32)
    assert np.shares_memory(small(train=Interactions(mapped, in_bytes)).train.users, mapped)
    assert np.shares_memory(small(train=Interactions(mapped, in_bytes)).train.items, in_bytes)
    whole = Interactions(*map(read_only, given))
    assert np.shares_memory(small(train=Interactions(whole.users[:2], whole.items[:2])).train.users, whole.users)


# --- fingerprint -------------------------------------------------------------------------------------------------


def test_fingerprint_depends_on_content_alone():
    visual = parts()["features"]["visual"]
    stored_otherwise = small(
        name="other",
        train=pairs((0, 0), (0, 3), (1, 2), dtype=">i2"),
        features={
            "textual": Words(np.array([0, 3, 0], np.uint8), np.array([4, 1, 4]), 5),
            "visual": Feature(np.asfortranarray(visual.values.astype(">f4")), visual.present),
        },
        item_ids=np.arange(4, dtype=np.uint16),
    )
    assert stored_otherwise.fingerprint == small().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"valid": pairs((0, 1)), "test": pairs((2, 1))},
        {"train": pairs((0, 0), (0, 3), (1, 3))},
        {"num_users": 4, "user_ids": np.array(["ann", "bob", "cy", "di"])},
        {"user_ids": np.array(["ann", "bob", "cyd"])},
        {"item_ids": np.array(["0", "1", "2", "3"])},
        {"features": {}},
        {"features": {**parts()["features"], "visual": Feature(np.ones((4, 2)), np.ones(4, bool))}},
        {"features": {**parts()["features"], "textual": Words(np.array([3, 0]), np.array([1, 4]), 5)}},
        {"features": {**parts()["features"], "textual": Words(np.array([3, 0, 0]), np.array([1, 4, 4]), 6)}},
    ],
)
def test_fingerprint_tells_contents_apart(changes):
    assert small(**changes).fingerprint != small().fingerprint


def test_fingerprint_tells_absent_from_zero():
    zero = np.zeros((4, 2))
    absent, there = (small(features=with_visual(zero, (True, True, True, last))) for last in (False, True))
    assert absent.fingerprint != there.fingerprint


def test_fingerprint_does_not_depend_on_the_byte_order():
    dataset = small()
    swapped = replace(dataset, train=Interactions(*(ids.astype(">i4") for ids in dataset.train)))
    assert swapped.fingerprint == dataset.fingerprint


def test_fingerprint_is_the_published_one(monkeypatch):
    # A result of an older version carries it: a change of the definition needs a line in the changelog.
    published = "d8dc83396ac6c75208fc66228b38330e33a0ee66bd54715118859e9f04f79f21"
    assert small().fingerprint == small().by_degree().fingerprint == published
    monkeypatch.setattr("slmrec_jax.data.dataset._BYTES_AT_ONCE", 8)  # tables are hashed in parts
    assert small().fingerprint == published


# --- modalities --------------------------------------------------------------------------------------------------


def test_with_modalities_keeps_the_order_asked_for():
    dataset = small()
    assert list(dataset.with_modalities(["textual", "visual"]).features) == ["textual", "visual"]
    assert list(dataset.with_modalities(["textual"]).features) == ["textual"]
    assert dataset.with_modalities(()) is dataset


def test_with_modalities_lists_those_that_exist():
    with pytest.raises(UserError, match="no modality 'smell'; it has: visual, textual"):
        small().with_modalities(["smell"])


# --- refusals ----------------------------------------------------------------------------------------------------

REFUSALS = [
    ({"num_users": 0}, "small: there are 0 users"),
    ({"num_items": 2**31}, "more than int32"),
    ({"train": pairs(), "valid": pairs(), "test": pairs()}, "there are no interactions"),
    ({"train": pairs()}, "train: it has no interactions"),
    ({"train": pairs((0, 4))}, r"train: entry 0 of items is 4, and 1 are outside 0\.\.3"),
    ({"test": pairs((0, 1), (-1, 1))}, r"test: entry 1 of users is -1"),
    ({"train": pairs((0, 2**32))}, "entry 0 of items is 4294967296"),
    ({"train": Interactions(np.array([0, 1]), np.array([1]))}, "2 entries in users but 1 in items"),
    ({"train": Interactions(np.array([0.5]), np.array([1]))}, "users is an array of float64"),
    ({"user_ids": np.array(["ann", "ann", "cy"])}, r"raw id 'ann' occurs in 2 rows \(0, 1\)"),
    ({"user_ids": np.array(["ann"])}, "1 raw ids for 3 rows"),
    ({"user_ids": np.array([None, 1, 2])}, "raw ids are object"),
    ({"features": with_visual(np.ones((3, 2)))}, "visual: 3 rows for 4 items"),
    ({"features": with_visual(np.ones(4))}, r"visual: found an array of float32 of shape \(4,\)"),
    ({"features": with_visual([["a"]] * 4)}, "visual: found an array of <U1"),
    ({"features": with_visual(np.ones((4, 0)))}, "no columns"),
    ({"features": with_visual(np.ones((4, 2)), (True,))}, "`present` is bool of shape"),
    (
        {"features": with_visual([[1, 2], [np.nan, np.inf], [1, 2], [0, -np.inf]])},
        r"3 values in 2 rows .*rows 1, 3, counted from 0\)",
    ),
    ({"features": with_visual(np.full((4, 2), 1e300))}, "8 values in 4 rows are NaN or infinite as float32"),
    ({"features": {"textual": Words(np.array([4]), np.array([0]), 5)}}, "textual: entry 0 of items is 4"),
    ({"features": {"textual": Words(np.array([0]), np.array([5]), 5)}}, "textual: entry 0 of words is 5"),
    ({"features": {"textual": Words(np.array([0]), np.array([5, 1]), 5)}}, "1 entries in items but 2 in words"),
]


@pytest.mark.parametrize(("changes", "line"), REFUSALS)
def test_bad_input_gets_one_line(changes, line):
    with pytest.raises(UserError, match=line) as caught:
        small(**changes)
    assert "\n" not in str(caught.value)


def test_rows_are_counted_through_a_large_table(monkeypatch):
    monkeypatch.setattr("slmrec_jax.data.vectors._VALUES_PER_BLOCK", 4)
    with pytest.raises(UserError, match=r"2 values in 2 rows .*rows 1, 3, counted from 0\)"):
        small(features=with_visual([[1, 2], [np.nan, 0], [1, 2], [0, np.inf]]))


def test_the_line_names_the_file_an_array_came_from():
    with pytest.raises(UserError, match=r"^some/where\.npy: 3 rows"):
        small(features=with_visual(np.ones((3, 2))), origins={"visual": "some/where.npy"})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda d: replace(d, train=Interactions(d.train.users[::-1], d.train.items[::-1])), "train is not int32, sor"),
        (lambda d: replace(d, train=Interactions(*(np.repeat(ids, 2) for ids in d.train))), "free of duplicates"),
        (lambda d: replace(d, test=Interactions(*(ids.astype(np.int64) for ids in d.test))), "test is not int32"),
        (lambda d: replace(d, features=with_visual(np.ones((4, 2)))), "visual is float64"),
        (lambda d: replace(d, features=with_visual(np.ones((4, 2), "f4"), (True,) * 3 + (False,))), "or not 0 where"),
        (lambda d: replace(d, num_items=2), "outside 0..1"),
    ],
)
def test_check_refuses_what_was_built_by_hand(change, line):
    dataset: Dataset = change(small())
    with pytest.raises(UserError, match=line):
        check_dataset(dataset)


def test_loading_does_not_change_what_the_reader_keeps(tiny, monkeypatch):
    """Otherwise a data set made in memory would claim a source that holds something else."""
    made = replace(tiny)
    monkeypatch.setattr(data, "demo", lambda: made)
    assert data.load("demo").source is not None
    assert made.source is None


def hit_rate_by_definition(train, num_items, k):
    degrees = np.bincount(train.items, minlength=num_items)
    by_popularity = sorted(range(num_items), key=lambda item: (-degrees[item], item))
    hits = []
    for user, item in zip(*train, strict=True):
        others = set(train.items[train.users == user]) - {item}
        hits.append(item in [each for each in by_popularity if each not in others][:k])
    return np.mean(hits)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("k", [1, 4])
def test_the_hit_rate_of_popularity_is_its_definition(name, k):
    _, num_items, users, items = GRAPHS[name]
    order = np.lexsort((items, users))
    train = Interactions(users[order], items[order])
    found = popularity_hit_rate(train, num_items, k)
    np.testing.assert_allclose(found, hit_rate_by_definition(train, num_items, k), rtol=1e-12)


def test_the_hit_rate_of_popularity_is_that_of_a_sample_of_users(monkeypatch):
    _, num_items, users, items = GRAPHS["random"]
    order = np.lexsort((items, users))
    monkeypatch.setattr("slmrec_jax.data.pairs._SAMPLED", 60)
    third = users[order] % 3 == 0  # 150 interactions
    train = Interactions(users[order], items[order])
    expected = []
    degrees = np.bincount(items, minlength=num_items)
    by_popularity = sorted(range(num_items), key=lambda item: (-degrees[item], item))
    for user, item in zip(train.users[third], train.items[third], strict=True):
        others = set(train.items[train.users == user]) - {item}
        expected.append(item in [each for each in by_popularity if each not in others][:5])
    np.testing.assert_allclose(popularity_hit_rate(train, num_items, 5), np.mean(expected), rtol=1e-12)


def test_without_interactions_popularity_hits_nothing():
    assert popularity_hit_rate(Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32)), 3) == 0.0
