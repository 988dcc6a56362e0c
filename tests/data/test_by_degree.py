"""Users and items numbered by falling degree: the same data under other row numbers."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from slmrec_jax import data
from slmrec_jax.data import Feature, Words, check_dataset, make_dataset
from slmrec_jax.data.dataset import SPLITS
from slmrec_jax.types import Interactions


def random_dataset(seed, num_users=40, num_items=25):
    """Degrees with many ties, nodes without interactions, missing features, and word ids."""
    rng = np.random.default_rng(seed)

    def pairs(count):
        return Interactions(rng.integers(num_users - 3, size=count), rng.integers(num_items - 2, size=count) ** 2 % 23)

    return make_dataset(
        "random",
        pairs(120),
        pairs(20),
        pairs(20),
        num_users=num_users,
        num_items=num_items,
        features={
            "visual": Feature(rng.normal(size=(num_items, 3)), rng.random(num_items) < 0.7),
            "textual": Words(rng.integers(num_items, size=60), rng.integers(9, size=60), 9),
        },
        user_ids=np.array([f"u{row}" for row in rng.permutation(num_users)]),
        item_ids=rng.permutation(1000)[:num_items],
        notes=["a note"],
    )


@pytest.fixture(params=[0, 1, 2], ids="seed {}".format)
def original(request):
    return random_dataset(request.param)


def raw_pairs(dataset, split):
    pairs = getattr(dataset, split)
    return list(zip(dataset.user_ids[pairs.users].tolist(), dataset.item_ids[pairs.items].tolist(), strict=True))


def test_the_order_is_by_degree_then_by_id(original):
    found = original.by_degree()
    for side, raw in (("users", "user_ids"), ("items", "item_ids")):
        degrees = Counter(getattr(original.train, side).tolist())
        ids = getattr(original, raw).tolist()
        expected = sorted(range(len(ids)), key=lambda row: (-degrees[row], row))
        assert getattr(found, raw).tolist() == [ids[row] for row in expected]
        assert expected != list(range(len(ids)))


def test_every_interaction_stays_in_its_split(original):
    found = original.by_degree()
    for split in SPLITS:
        assert sorted(raw_pairs(found, split)) == sorted(raw_pairs(original, split))
        assert {ids.dtype for ids in getattr(found, split)} == {np.dtype(np.int32)}
    check_dataset(found)  # int32, sorted by user and item, free of duplicates


def test_features_follow_their_items(original):
    found = original.by_degree()
    assert list(found.features) == list(original.features)
    rows = {raw: row for row, raw in enumerate(found.item_ids.tolist())}
    before, after = original.features["visual"], found.features["visual"]
    assert after.values.dtype == np.float32
    assert after.stored == before.stored == "float64"
    assert not before.present.all()
    for row, raw in enumerate(original.item_ids.tolist()):
        assert np.array_equal(after.values[rows[raw]], before.values[row])
        assert after.present[rows[raw]] == before.present[row]


def test_words_follow_their_items(original):
    found = original.by_degree()
    before, after = original.features["textual"], found.features["textual"]
    words = [
        Counter(zip(dataset.item_ids[items].tolist(), given.tolist(), strict=True))
        for dataset, (items, given, _) in ((original, before), (found, after))
    ]
    assert words[0] == words[1]
    assert max(words[0].values()) > 1
    pairs = list(zip(after.items.tolist(), after.words.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert (after.items.dtype, after.words.dtype, after.num_words) == (np.int32, np.int32, 9)


def test_a_renumbered_data_set_is_returned_as_it_is(original):
    found = original.by_degree()
    assert found is not original
    assert found.by_degree() is found


def test_name_notes_and_fingerprint_stay(original):
    found = original.by_degree()
    assert (found.name, found.notes) == (original.name, original.notes)
    assert (found.num_users, found.num_items) == (original.num_users, original.num_items)
    assert found.fingerprint == original.fingerprint


def test_the_source_stays(tiny, monkeypatch):
    monkeypatch.setattr(data, "demo", lambda: tiny)
    loaded = data.load("demo")
    assert loaded.by_degree().source == loaded.source is not None
    assert replace(loaded).by_degree().source is None


def test_the_original_is_not_changed(original):
    before = replace(original).fingerprint
    original.by_degree()
    assert replace(original).fingerprint == before
