"""Coverage, exposure, novelty and popularity of recommended items, against loops over lists."""

import math

import numpy as np
import pytest

from slmrec_jax.evaluation import catalogue
from slmrec_jax.evaluation.catalogue import coverage, exposure, gini, mean_popularity, novelty

LISTS = [[0, 3, 4], [3, 0, -1], [6, 3, 1], [-1, -1, -1]]
RANKED = np.array(LISTS, np.int32)
DEGREES = np.array([5, 2, 1, 8, 0, 3, 4])
NUM_USERS = 9


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Divide even a few users into several blocks."""
    monkeypatch.setattr(catalogue, "_USERS_AT_ONCE", 3)


def test_exposure_counts_the_lists_of_an_item():
    expected = [sum(item in row for row in LISTS) for item in range(7)]
    assert exposure(RANKED, 7).tolist() == expected
    assert exposure(RANKED[:0], 7).tolist() == [0] * 7


def test_coverage_is_the_share_of_items_in_any_list():
    recommended = {item for row in LISTS for item in row if item >= 0}
    assert coverage(exposure(RANKED, 7)) == len(recommended) / 7
    assert coverage(np.zeros(3, int)) == 0
    assert coverage(np.ones(3, int)) == 1


@pytest.mark.parametrize("exposures", [[3, 1, 0, 2, 2], [0, 0, 7], [4, 4], [1]])
def test_gini_is_half_the_relative_mean_difference(exposures):
    pairs = [abs(x - y) for x in exposures for y in exposures]
    expected = np.mean(pairs) / (2 * np.mean(exposures))
    assert gini(np.array(exposures)) == pytest.approx(expected, abs=1e-15)


def test_gini_lies_between_equality_and_one_item():
    assert gini(np.full(6, 3)) == pytest.approx(0, abs=1e-15)
    assert gini(np.eye(6, dtype=int)[2]) == pytest.approx(5 / 6)
    assert gini(np.zeros(6, int)) == 0


def test_novelty_is_the_mean_self_information():
    """An item without training interactions counts as having one, and an empty list has 0."""
    expected = [
        np.mean([-math.log2(max(DEGREES[item], 1) / NUM_USERS) for item in row if item >= 0] or [0.0]) for row in LISTS
    ]
    np.testing.assert_allclose(novelty(RANKED, DEGREES, NUM_USERS), expected, rtol=1e-14)
    of_all = novelty(np.zeros((1, 1), np.int32), np.array([NUM_USERS]), NUM_USERS)
    assert of_all[0] == 0  # everyone knows it


def test_popularity_is_the_mean_degree():
    expected = [np.mean([DEGREES[item] for item in row if item >= 0] or [0.0]) for row in LISTS]
    np.testing.assert_allclose(mean_popularity(RANKED, DEGREES), expected, rtol=1e-14)
