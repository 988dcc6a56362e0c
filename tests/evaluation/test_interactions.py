"""Selections of interactions, against NumPy's and Python's own, with blocks smaller than the arrays."""

import tracemalloc

import numpy as np
import pytest

from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.evaluation.interactions import _contained, contains_all, known_matrix, positions_of, presence
from slmrec_jax.evaluation.metrics import measure
from slmrec_jax.evaluation.protocol import plan_evaluation, split_warnings
from slmrec_jax.types import Interactions


@pytest.fixture(params=[1, 3, 10**6])
def blocks(request, monkeypatch):
    monkeypatch.setattr("slmrec_jax.data.pairs._BLOCK", request.param)


def some_pairs(seed, count=40, users=12, items=9, ordered=False):
    draw = np.random.default_rng(seed)
    pairs = np.stack([draw.integers(users, size=count), draw.integers(items, size=count)]).astype(np.int32)
    pairs = np.unique(pairs, axis=1) if ordered else pairs
    return Interactions(pairs[0].copy(), pairs[1].copy())


def as_set(pairs):
    return set(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True))


@pytest.mark.usefixtures("blocks")
def test_presence_and_places():
    ids = np.array([3, 0, 7, 3, 9, 5], np.int32)
    assert np.flatnonzero(presence(ids, 11)).tolist() == [0, 3, 5, 7, 9]
    assert presence(ids[:0], 2).tolist() == [False, False]
    chosen = np.array([False, True, True, True, False, True])  # 6 and above are not chosen
    assert positions_of(chosen, ids).tolist() == [0, 3, 5]
    assert positions_of(chosen, ids[:0]).tolist() == []


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("users", [[0, 3, 4], [7, 0, 0, 3], [20], [], list(range(12))])
def test_the_matrix_of_known_items(users):
    known = [some_pairs(0), some_pairs(1), some_pairs(2, count=0)]
    matrix = known_matrix(np.array(users, np.int32), known, 9)
    pairs = set.union(*map(as_set, known))
    expected = np.array([[(user, item) in pairs for item in range(9)] for user in users]).reshape(-1, 9)
    np.testing.assert_array_equal(matrix.toarray() != 0, expected)
    assert matrix.has_sorted_indices
    assert len(matrix.indices) == expected.sum()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("seed", range(5))
def test_membership_of_sorted_pairs(seed):
    pairs, others = some_pairs(seed, ordered=True), some_pairs(seed + 100)
    found = _contained(pairs, others)
    assert found.tolist() == [pair in as_set(pairs) for pair in zip(*others, strict=True)]
    assert not contains_all(pairs, others)
    assert contains_all(pairs, Interactions(pairs.users[::-3], pairs.items[::-3]))
    assert not contains_all(some_pairs(0, count=0), others)


def test_metrics_by_blocks_of_users_are_those_of_all(monkeypatch):
    draw = np.random.default_rng(0)
    users = np.arange(12, dtype=np.int32)
    ranked = np.stack([draw.permutation(9)[:5] for _ in users]).astype(np.int32)
    held_out = some_pairs(0, count=200)
    whole = measure(ranked, users, held_out, [2, 5], ndcg="found")
    monkeypatch.setattr("slmrec_jax.evaluation.metrics._USERS_AT_ONCE", 5)
    for key, values in measure(ranked, users, held_out, [2, 5], ndcg="found").items():
        np.testing.assert_array_equal(values, whole[key])


@pytest.mark.parametrize("name", ["strict", "mmrec", "slmrec"])
def test_planning_a_sample_takes_little_beside_the_interactions(name, monkeypatch):
    """Blocks and a byte for each user and item; as 64-bit numbers the interactions alone would be twice themselves."""
    monkeypatch.setattr("slmrec_jax.data.pairs._BLOCK", 2**12)
    num_users, num_items, each = 20_000, 1000, 30
    users = np.repeat(np.arange(num_users, dtype=np.int32), each)
    items = (
        np.sort(np.random.default_rng(0).integers(num_items, size=(num_users, each)), axis=1).ravel().astype(np.int32)
    )
    train, fewer = Interactions(users, items), slice(None, None, 7)
    valid, test = (Interactions(users[fewer], (items[fewer] + shift).astype(np.int32) % num_items) for shift in (1, 2))
    ids = np.arange(num_users), np.arange(num_items)
    dataset = Dataset("toy", num_users, num_items, train, valid, test, {}, *ids)
    protocol = PROTOCOLS[name]
    plan_evaluation(dataset, protocol.split, protocol, users=100)  # warm up
    tracemalloc.start()
    for split in ("valid", "test"):
        planned = plan_evaluation(dataset, split, protocol, users=100)
        split_warnings(dataset, split, protocol)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(planned.users) == 100
    assert most < 0.5 * (users.nbytes + items.nbytes)
