"""Geometry, neighbourhoods and bootstrap intervals, against float64 definitions."""

import math

import numpy as np
import pytest
import reference
import scipy.stats

from slmrec_jax.evaluation import analysis
from slmrec_jax.evaluation.analysis import (
    alignment,
    bootstrap,
    modality_agreement,
    neighbours,
    paired_bootstrap,
    uniformity,
)
from slmrec_jax.types import Interactions


@pytest.fixture
def table():
    return np.random.default_rng(0).normal(size=(17, 5)).astype(np.float32)


@pytest.fixture
def small_blocks(monkeypatch):
    """Divide even a small table into several blocks."""
    monkeypatch.setattr(analysis, "_BLOCK_BYTES", 4 * 17 * 3)


def test_alignment_is_the_mean_over_pairs(table, small_blocks):
    users, items = table[:6], table[6:]
    pairs = Interactions(np.array([0, 5, 5, 2], np.int32), np.array([3, 0, 10, 10], np.int32))
    x, y = reference.unit(users), reference.unit(items)
    distances = [np.linalg.norm(x[u] - y[i]) ** 2 for u, i in zip(*pairs, strict=True)]
    assert alignment(users, items, pairs) == pytest.approx(np.mean(distances), rel=1e-5)
    assert alignment(table, 3 * table, Interactions(*[np.arange(17, dtype=np.int32)] * 2)) == pytest.approx(0, abs=1e-9)


def test_uniformity_is_the_log_mean_over_pairs_of_different_rows(table, small_blocks):
    x = reference.unit(table)
    terms = [math.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(17) for j in range(17) if i != j]
    assert uniformity(table) == pytest.approx(math.log(np.mean(terms)), rel=1e-5)
    assert uniformity(np.ones((4, 3), np.float32)) == pytest.approx(0, abs=1e-6)
    for rows in (0, 1):
        assert math.isnan(uniformity(table[:rows]))


def test_neighbours_are_the_nearest_by_cosine(table):
    items = np.array([16, 0, 4])
    found = neighbours(table, items, 6)
    for row, item in zip(found.items, items, strict=True):
        assert row.tolist() == reference.cosine_neighbours(table, item, range(17), 6)
    x = reference.unit(table)
    np.testing.assert_allclose(found.scores[0], (x @ x[16])[found.items[0]], rtol=1e-5)


def test_equal_cosines_are_in_the_order_of_ids():
    axes = np.eye(4, dtype=np.float32)[[0, 1, 0, 1, 0, 2]]
    assert neighbours(axes, np.array([2, 5]), 5).items.tolist() == [[0, 4, 1, 3, 5], [0, 1, 2, 3, 4]]


def test_items_without_the_feature_take_no_part(table):
    present = np.ones(17, bool)
    present[[1, 4, 9]] = False
    found = neighbours(table, np.array([4, 0]), 15, present=present)
    assert (found.items[0] == -1).all()
    assert (found.scores[0] == -np.inf).all()
    expected = reference.cosine_neighbours(table, 0, np.flatnonzero(present), 15)
    assert found.items[1].tolist() == [*expected, -1, -1]


def test_agreement_is_the_shared_part_of_neighbourhoods(table):
    other = np.random.default_rng(1).normal(size=(17, 3)).astype(np.float32)
    shared = [
        len(set.intersection(*(set(reference.cosine_neighbours(x, item, range(17), 4)) for x in (table, other)))) / 4
        for item in range(17)
    ]
    assert 0 < np.mean(shared) < 1
    assert modality_agreement(table, other, 4) == pytest.approx(np.mean(shared))
    assert modality_agreement(table, 2 * table, 4) == 1.0
    assert modality_agreement(table, other, 99) == 1.0  # every other item is a neighbour


def test_a_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(2).normal(0.3, 1.0, 400)
    found = bootstrap({"a": values, "twice": 2 * values}, draws=4000, seed=1)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found["a"].mean == pytest.approx(values.mean())
    assert found["a"][1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert tuple(found["twice"]) == pytest.approx(tuple(2 * end for end in found["a"]))  # both share the drawn users
    assert bootstrap({"a": values, "twice": 2 * values}, draws=4000, seed=1) == found
    assert bootstrap({"a": values, "twice": 2 * values}, draws=4000, seed=2)["a"] != found["a"]
    narrower = bootstrap({"a": values}, draws=4000, level=0.5, seed=1)["a"]
    assert found["a"].low < narrower.low < narrower.high < found["a"].high


def test_a_bootstrap_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(3)
    found = [bootstrap({"a": rng.exponential(1.0, 200)}, draws=300, level=0.8)["a"] for _ in range(200)]
    assert 0.7 < np.mean([interval.low < 1.0 < interval.high for interval in found]) < 0.9


def test_a_paired_bootstrap_agrees_with_the_t_test():
    rng = np.random.default_rng(4)
    first = rng.random(300)
    for shift in (0.0, 0.01, 0.03):
        second = first - shift + rng.normal(0, 0.15, 300)
        found = paired_bootstrap(first, second, draws=5000)
        assert found.interval.mean == pytest.approx(np.mean(first - second))
        assert found.p_value == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue, abs=0.03)
        half = 1.96 * np.std(first - second) / math.sqrt(300)
        assert found.interval[1:] == pytest.approx((found.interval.mean - half, found.interval.mean + half), abs=1e-3)


def test_equal_systems_do_not_differ():
    values = np.random.default_rng(5).random(50)
    assert paired_bootstrap(values, values.copy()) == ((0, 0, 0), 1.0)
    certain = paired_bootstrap(values + 1, values, draws=99)
    assert certain.p_value == 1 / 100
