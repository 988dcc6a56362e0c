"""Metrics of rankings, against a plain float64 definition and by hand."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.metrics import means, measure
from slmrec_jax.types import Interactions

NAMES = ("recall", "ndcg", "precision", "hit", "map", "mrr")


def pairs(*rows):
    users, items = zip(*rows, strict=True)
    return Interactions(np.array(users, np.int32), np.array(items, np.int32))


def a_case(seed, num_users=8, num_items=20, ranks=15):
    """Rankings, some with empty places, and random held-out items for each user."""
    draw = np.random.default_rng(seed)
    ranked = np.stack([draw.permutation(num_items)[:ranks] for _ in range(num_users)]).astype(np.int32)
    for row in ranked[::3]:
        row[draw.integers(ranks) :] = -1
    users = np.sort(draw.choice(3 * num_users, num_users, replace=False)).astype(np.int32)
    relevant = {int(user): set(draw.permutation(num_items)[: draw.integers(1, num_items)].tolist()) for user in users}
    rows = draw.permutation([(user, item) for user, items in relevant.items() for item in items])
    return ranked, users, pairs(*rows), relevant


@settings(max_examples=40, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**6), ks=st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_equals_the_definitions(seed, ks):
    ranked, users, held_out, relevant = a_case(seed)
    standard = measure(ranked, users, held_out, ks)
    found = measure(ranked, users, held_out, ks, ndcg="found")
    assert set(standard) == set(found) == {f"{name}@{k}" for name in NAMES for k in ks}
    for row, user in enumerate(users.tolist()):
        for k in ks:
            expected = reference.metrics_of_user(ranked[row].tolist(), relevant[user], k, max(ks))
            for name in NAMES:
                assert standard[f"{name}@{k}"].dtype == np.float64
                assert standard[f"{name}@{k}"][row] == pytest.approx(expected[name], abs=1e-12)
                in_found = "found_ndcg" if name == "ndcg" else name
                assert found[f"{name}@{k}"][row] == pytest.approx(expected[in_found], abs=1e-12)


def test_by_hand():
    ranked = np.array([[7, 3, 9, 1], [2, 4, 5, 6]], np.int32)
    held_out = pairs((0, 3), (0, 1), (0, 8), (5, 0))
    result = measure(ranked, np.array([0, 5], np.int32), held_out, [2, 4])
    third, log3, log5 = 1 / 3, np.log2(3), np.log2(5)
    expected = {
        "recall@2": third,
        "recall@4": 2 * third,
        "precision@4": 0.5,
        "hit@2": 1,
        "mrr@4": 0.5,
        "map@2": 0.5 / 2,
        "map@4": (1 / 2 + 2 / 4) / 3,
        "ndcg@2": (1 / log3) / (1 + 1 / log3),
        "ndcg@4": (1 / log3 + 1 / log5) / (1 + 1 / log3 + 1 / 2),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(result[key], [value, 0], err_msg=key)
    assert means(result)["recall@4"] == pytest.approx(third)


def test_a_perfect_ranking_scores_one():
    ranked = np.array([[4, 2, 0, 1]], np.int32)
    result = measure(ranked, np.array([3], np.int32), pairs((3, 2), (3, 4)), [2])
    assert {key: value.item() for key, value in result.items()} == dict.fromkeys((f"{name}@2" for name in NAMES), 1.0)


def test_found_ndcg_forgives_what_is_not_in_the_list():
    ranked = np.array([[0, 1, 2, 3]], np.int32)
    users, held_out = np.array([0], np.int32), pairs((0, 0), (0, 8), (0, 9))
    assert measure(ranked, users, held_out, [4], ndcg="found")["ndcg@4"].item() == 1
    assert measure(ranked, users, held_out, [4])["ndcg@4"].item() < 0.5


def test_an_empty_place_is_no_hit():
    # As one number, (user 1, no item) would be (user 0, the last item).
    ranked = np.array([[0, 2], [-1, -1]], np.int32)
    result = measure(ranked, np.array([0, 1], np.int32), pairs((0, 2), (1, 0)), [2])
    assert result["recall@2"].tolist() == [1, 0]


def test_a_repeated_pair_counts_once():
    ranked, users = np.array([[0, 1]], np.int32), np.array([0], np.int32)
    once, twice = (measure(ranked, users, pairs(*rows), [1, 2]) for rows in ([(0, 1)], [(0, 1), (0, 1)]))
    assert means(once) == means(twice)


def test_large_ids_do_not_overflow():
    # 65536 users × 65536 items: in 32 bits, the last user's pairs would be the first one's.
    users, last_item = np.array([0, 2**16], np.int32), 2**16 - 1
    held_out = pairs((0, 5), (2**16, 9), (2**16, last_item))
    result = measure(np.array([[9], [last_item]], np.int32), users, held_out, [1])
    assert result["recall@1"].tolist() == [0, 0.5]


@pytest.mark.parametrize("ks", [[0, 1], [3]])
def test_refuses_cutoffs_beyond_the_ranking(ks):
    with pytest.raises(UserError, match="give K from 1 to 2, the number of ranked items"):
        measure(np.array([[0, 1]], np.int32), np.array([0], np.int32), pairs((0, 1)), ks)


def test_refuses_a_user_without_held_out_items():
    with pytest.raises(ValueError, match="user 4 has no held-out items"):
        measure(np.array([[0], [1]], np.int32), np.array([0, 4], np.int32), pairs((0, 1)), [1])
