"""Clusters, samples, agreement of neighbourhoods, and the map of items."""

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from slmrec_jax.reporting import items
from slmrec_jax.reporting.items import choose_items, item_map, kmeans


def planted(sizes):
    """Rows of well separated clusters in random order, with the cluster of each row."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat(np.arange(3), sizes))
    return (10 * np.eye(3)[truth] + rng.normal(size=(len(truth), 3))).astype(np.float32), truth


def test_kmeans_finds_planted_clusters():
    rows, truth = planted([40, 25, 10])
    np.testing.assert_array_equal(kmeans(rows, 3), truth)  # numbered by size
    np.testing.assert_array_equal(kmeans(rows, 8), kmeans(rows, 8))
    assert set(kmeans(rows, 1)) == {0}


def test_equal_rows_are_one_cluster():
    assert set(kmeans(np.ones((5, 2), np.float32), 3)) == {0}
    assert len(set(kmeans(np.eye(2, dtype=np.float32)[[0, 1, 0]], 8))) == 2


def test_a_cluster_may_lose_its_rows():
    rows = [[-0.1, -0.1], [-0.9, -0.3], [0.1, 0.1], [0.4, -1.7], [0.8, 4.3], [-1.7, 0.8], [0.3, 0.6], [0.5, -4.2]]
    table = np.array(rows, np.float32)
    with pytest.warns(UserWarning, match="One of the clusters is empty"):
        kmeans2(table, 4, iter=25, minit="++", rng=0)
    assert len(set(kmeans(table, 4))) <= 4


def test_kmeans_of_a_large_table_takes_a_sample_and_labels_all(monkeypatch):
    rows, truth = planted([400, 250, 100])
    before, drawn = rows.copy(), []
    monkeypatch.setattr(items, "SAMPLE", 100)
    monkeypatch.setattr(items, "kmeans2", lambda data, *rest, **how: drawn.append(data) or kmeans2(data, *rest, **how))
    np.testing.assert_array_equal(kmeans(rows, 3), truth)
    assert [len(each) for each in drawn] == [100]
    np.testing.assert_array_equal(rows, before)


def test_large_tables_are_sampled(monkeypatch):
    assert items.sample(7).tolist() == list(range(7))
    monkeypatch.setattr(items, "SAMPLE", 5)
    drawn = items.sample(100)
    assert len(set(drawn)) == 5
    assert drawn.tolist() == sorted(drawn) == items.sample(100).tolist()
    table = items.ItemVectors(np.eye(9, dtype=np.float32), np.arange(9) != 4)
    few = table._replace(present=np.arange(9) < 2)
    assert items.agreements({"a": table, "b": table, "c": few}, 3) == {("a", "b"): 1}


def test_the_map_shows_principal_components():
    x = np.random.default_rng(1).normal(size=(30, 4)) * [1.0, 5.0, 2.0, 0.5]
    found = item_map(x.astype(np.float32))
    centred = x - x.mean(axis=0)
    sizes, axes = np.linalg.eigh(centred.T @ centred)
    expected = centred @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(found.places), np.abs(expected), atol=1e-4)
    assert found.shares == pytest.approx(tuple(sizes[[-1, -2]] / sizes.sum()), rel=1e-4)
    flipped = item_map(-x.astype(np.float32))
    np.testing.assert_allclose(flipped.places, -found.places, atol=1e-4)  # the axes stay
    assert item_map(np.arange(3, dtype=np.float32)[:, None]).places[:, 1].tolist() == [0, 0, 0]


def test_a_single_item_is_named_by_a_string(tiny):
    raw = str(tiny.item_ids[3])
    assert choose_items(tiny, raw).tolist() == choose_items(tiny, [raw]).tolist() == [3]
