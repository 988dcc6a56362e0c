"""Splits: each keeps every interaction once, follows its rule, and is the same for the same seed on every machine."""

import numpy as np
import pytest

import slmrec_jax as slm
from slmrec_jax.data import check_dataset, make_dataset
from slmrec_jax.data.dataset import NO_INTERACTIONS
from slmrec_jax.data.split import SPLIT_METHODS, Unsplit, draw, split_dataset
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

COUNTS = (1, 2, 3, 9, 10, 14, 15, 40)
"""Interactions of each user."""


def undivided(times=None, counts=COUNTS):
    users = np.repeat(np.arange(len(counts)), counts)
    items = np.concatenate([np.arange(count) + user for user, count in enumerate(counts)])
    dataset = make_dataset(
        "small",
        Interactions(users, items),
        NO_INTERACTIONS,
        NO_INTERACTIONS,
        num_users=len(counts),
        num_items=int(items.max()) + 1,
        notes=["as given"],
    )
    return Unsplit(dataset, None if times is None else lambda: times)


def pairs(*splits):
    return [pair for split in splits for pair in zip(split.users.tolist(), split.items.tolist(), strict=True)]


def per_user(split):
    return np.bincount(split.users, minlength=len(COUNTS)).tolist()


@pytest.mark.parametrize("name", SPLIT_METHODS)
def test_every_interaction_is_kept_once(name):
    data = undivided(np.arange(sum(COUNTS)))
    dataset = split_dataset(data, name)
    assert sorted(pairs(*dataset.splits.values())) == pairs(data.dataset.train)
    check_dataset(dataset)
    assert dataset.notes[:2] == ("as given", f"split by '{name}' with seed 0")


@pytest.mark.parametrize("name", sorted(set(SPLIT_METHODS) - {"time"}))
def test_the_seed_decides(name):
    data = undivided()
    fingerprints = [split_dataset(data, name, seed).fingerprint for seed in (0, 0, 1, -1)]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


# By hand: h = floor(n / 5), of which MMRec takes floor(h / 2) for validation, and LATTICE for test.
@pytest.mark.parametrize(
    ("name", "valid", "test"),
    [
        ("mmrec", [0, 0, 1, 1, 1, 1, 1, 4], [0, 0, 1, 1, 1, 1, 2, 4]),
        ("lattice", [0, 0, 1, 1, 1, 1, 2, 4], [0, 0, 1, 1, 1, 1, 1, 4]),
        ("leave-one-out", [0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1]),
        ("validation", [0, 1, 1, 1, 1, 1, 1, 4], [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_how_many_of_a_user_are_held_out(name, valid, test):
    dataset = split_dataset(undivided(), name, seed=7)
    assert (per_user(dataset.valid), per_user(dataset.test)) == (valid, test)


@pytest.mark.parametrize("name", ["mmrec", "leave-one-out"])
def test_each_interaction_is_as_likely_held_out_as_another(name):
    test = split_dataset(undivided(counts=(10,) * 400), name).test
    assert np.bincount(test.items - test.users, minlength=10).min() > 20  # 40 expected, standard deviation 6


def test_leave_one_out_takes_the_last_by_time():
    times = np.concatenate([np.arange(count)[::-1] for count in COUNTS])
    dataset = split_dataset(undivided(times), "leave-one-out")
    assert pairs(dataset.test) == [(user, user) for user in range(2, 8)]
    assert pairs(dataset.valid) == [(user, user + 1) for user in range(2, 8)]


def test_time_cuts_once_for_all_and_never_between_equals():
    times = np.arange(sum(COUNTS)) // 20  # 94 interactions: 0 to 3 twenty times each, 4 fourteen times
    dataset = split_dataset(undivided(times), "time")
    assert [len(split.users) for split in dataset.splits.values()] == [60, 20, 14]
    ordered = pairs(*dataset.splits.values())
    assert ordered == sorted(ordered)


def test_time_needs_times():
    with pytest.raises(UserError, match="'time' needs the time of each interaction"):
        split_dataset(undivided(), "time")


@pytest.mark.parametrize("name", ["mmrec", "lattice", "cold-items", "validation"])
def test_times_are_not_read_if_the_split_does_not_use_them(name):
    split_dataset(Unsplit(undivided().dataset, lambda: pytest.fail("asked")), name)


def test_cold_items_are_held_out_whole():
    dataset = split_dataset(undivided(), "cold-items")
    train, valid, test = (set(split.items.tolist()) for split in dataset.splits.values())
    assert not train & valid
    assert not train & test
    assert not valid & test
    assert (len(valid), len(test)) == (4, 4)  # of 47 items


def test_users_without_training_are_counted():
    times = np.arange(sum(COUNTS))[::-1]
    notes = split_dataset(undivided(times), "time").notes
    assert "users with held-out interactions but none to train on: 4" in notes


def test_validation_comes_out_of_train_and_test_stays():
    before = split_dataset(undivided(), "lattice")
    without = make_dataset("small", before.train, NO_INTERACTIONS, before.test, num_users=8, num_items=47)
    after = split_dataset(without, "validation")
    assert pairs(after.test) == pairs(before.test)
    assert sorted(pairs(after.train, after.valid)) == pairs(before.train)
    with pytest.raises(UserError, match="already has a validation split; leave out split='validation'"):
        split_dataset(before, "validation")


def test_divided_data_are_divided_again_on_demand(tiny):
    assert split_dataset(tiny, None) is tiny
    again = split_dataset(tiny, "cold-items", 3)
    assert sorted(pairs(*again.splits.values())) == sorted(set(pairs(*tiny.splits.values())))
    assert again.features is tiny.features
    assert len(np.intersect1d(again.train.items, again.test.items)) == 0


def test_undivided_data_ask_how():
    with pytest.raises(UserError, match="not split; say how with split='NAME': mmrec") as caught:
        split_dataset(undivided(), None)
    assert all(name in str(caught.value) for name in SPLIT_METHODS)


def test_an_unknown_split_lists_those_there_are():
    with pytest.raises(UserError, match="no split 'loo': give one of mmrec, lattice, leave-one-out"):
        split_dataset(undivided(), "loo")


def test_a_split_must_leave_something_to_train_on():
    with pytest.raises(UserError, match="leaves nothing to train on"):
        split_dataset(undivided(np.zeros(sum(COUNTS))), "time")


# --- the same on every machine -----------------------------------------------------------------------------------


def test_draws_are_splitmix64():
    # The first output of the published generator for seed 0, and the same in Python's integers for two keys.
    assert draw(0)[0] == 0xE220A8397B1DCDAF
    assert draw(5, np.array([7]), np.array([11]))[0] == mix(mix(mix(5) + 7) + 11)


def mix(word):
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def test_the_split_is_the_published_one():
    # Results carry its fingerprint: a change needs a line in the changelog.
    found = {name: split_dataset(undivided(np.arange(94) * 7 % 94), name, 5).fingerprint[:16] for name in SPLIT_METHODS}
    assert found == {
        "mmrec": "723dd7846d9d4d6f",
        "lattice": "dfeaa54cb244bb8d",
        "leave-one-out": "c3206cffea148770",
        "time": "eb5e2c1b49406b5f",
        "cold-items": "2435f44a72673b48",
        "validation": "56883a292de921d1",
    }


# --- data that are already split ---------------------------------------------------------------------------------

ROWS = {"user": list("aaaabbbb"), "item": list("wxyzwxyz"), "timestamp": [4, 3, 2, 1, 5, 6, 7, 8]}
LABELS = ["test", "train", "valid", "train"] * 2


@pytest.mark.parametrize("name", ["leave-one-out", "time"])
def test_times_count_where_a_column_of_splits_is_replaced(name):
    expected = slm.dataset(ROWS, split=name)
    again = slm.dataset({**ROWS, "split": LABELS}, split=name)
    assert again.fingerprint == expected.fingerprint
    assert again.notes == expected.notes


@pytest.mark.parametrize("name", ["leave-one-out", "time"])
def test_times_in_several_tables_are_refused(name):
    half = {column: values[::2] for column, values in ROWS.items()}
    with pytest.raises(UserError, match=f"'train'.: the split '{name}' uses times, but not those of tables that are"):
        slm.dataset({"train": ROWS, "test": half}, split=name)


def test_a_data_set_that_is_already_split_has_no_times():
    given = slm.dataset({**ROWS, "split": LABELS})
    note = split_dataset(given, "leave-one-out").notes[-1]
    assert note == "times of data that are already split are not used: the order of each user's interactions is random"
    with pytest.raises(UserError, match="but these data are already split, so that times are not used"):
        split_dataset(given, "time")
