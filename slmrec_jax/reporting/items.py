"""What the space of items looks like: a map, clusters, and neighbours under each table of vectors."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from slmrec_jax.data.dataset import Dataset
from slmrec_jax.encoding import features
from slmrec_jax.evaluation import analysis
from slmrec_jax.serving.recommendations import rows_of
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.run import Run

NUM_CLUSTERS = 8

SAMPLE = 10_000
"""Where all pairs of rows are compared, so many are drawn from larger tables: time grows with their square."""


class Vectors(NamedTuple):
    """A table that items can be compared by."""

    values: Float[np.ndarray, "items columns"]
    present: Bool[np.ndarray, " items"]


class ItemMap(NamedTuple):
    """Items in the plane."""

    places: Float[np.ndarray, "items 2"]
    shares: tuple[float, float]
    """Of the variance, that each axis shows."""


def item_vectors(run: Run) -> dict[str, Vectors]:
    """Each modality as models see it, rows of length 1; word ids as the means of random word vectors."""
    spec, inputs = make_spec(run.config, run.dataset), make_inputs(run.dataset)
    found = {}
    for name, modality in spec.modalities.items():
        values, present = features.frozen(inputs.features[name], modality, normalized=True)
        found[name] = Vectors(np.asarray(values), np.asarray(present) > 0)
    return found


def sample(rows: int, seed: int = 0) -> Int[np.ndarray, " sampled"]:
    """The ids of at most `SAMPLE` rows, ascending; the same ones each time."""
    if rows <= SAMPLE:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, SAMPLE, replace=False))


def agreements(tables: Mapping[str, Vectors], k: int = 10) -> dict[tuple[str, str], float]:
    """`modality_agreement` of each two tables, over (a sample of) the items that have both, if three have.

    Returns:
        By the names of the pair, in the order of `tables`.
    """
    found = {}
    for (first, x), (second, y) in combinations(tables.items(), 2):
        both = np.flatnonzero(x.present & y.present)
        if len(both) > 2:
            chosen = both[sample(len(both))]
            found[first, second] = analysis.modality_agreement(x.values[chosen], y.values[chosen], k)
    return found


def item_map(rows: Float[np.ndarray, "items dim"]) -> ItemMap:
    """The first two principal components, by singular values; each axis points to where its largest weight is positive.

    Other dimensions are not seen: items that lie together here may be far apart.
    """
    centred = rows - rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.concatenate([axes, np.zeros_like(axes)])[:2]  # embeddings of one dimension have but one
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
    variances = np.append(sizes, 0.0)[:2] ** 2 / max(float(np.sum(sizes**2)), 1e-12)
    return ItemMap(centred @ (axes * signs).T, (float(variances[0]), float(variances[1])))


def kmeans(
    rows: Float[np.ndarray, "rows columns"], num_clusters: int, *, seed: int = 0, steps: int = 25
) -> Int[np.ndarray, " rows"]:
    """Lloyd's algorithm from rows drawn as k-means++ does (Arthur & Vassilvitskii, 2007); the largest cluster is 0.

    A cluster that loses all rows keeps its centre; fewer different rows than clusters make fewer of them. Of a large
    table the centres are those of a `sample`.

    Args:
        rows: at least one.
        num_clusters: at most.
        seed: of the draw.
        steps: at most so many moves of the centres.
    """
    rng = np.random.default_rng(seed)
    drawn = rows[sample(len(rows))]
    centres = drawn[[rng.integers(len(drawn))]]
    while len(centres) < num_clusters and (nearest := _distances(drawn, centres).min(axis=1)).max() > 1e-9:
        centres = np.concatenate([centres, drawn[[rng.choice(len(drawn), p=nearest / nearest.sum())]]])
    labels = np.full(len(drawn), -1)
    for _ in range(steps):
        before, labels = labels, _distances(drawn, centres).argmin(axis=1)
        if np.array_equal(before, labels):
            break
        for label in np.unique(labels):
            centres[label] = drawn[labels == label].mean(axis=0)
    blocks = (rows[start : start + SAMPLE] for start in range(0, len(rows), SAMPLE))
    labels = np.concatenate([_distances(block, centres).argmin(axis=1) for block in blocks])
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return np.argsort(order)[labels]


def clusters(vectors: Vectors, seed: int = 0) -> Int[np.ndarray, " items"]:
    """The cluster of each item by a modality; -1 where it lacks that."""
    labels = np.full(len(vectors.present), -1)
    if vectors.present.any():
        labels[vectors.present] = kmeans(vectors.values[vectors.present], NUM_CLUSTERS, seed=seed)
    return labels


def choose_items(dataset: Dataset, named: Any) -> Int[np.ndarray, " chosen"]:
    """Return the rows of items named by raw ids; by default five, from the most met in training down to the middle.

    Raises:
        UserError: an item is not known.
    """
    if named is not None:
        return rows_of(named, dataset.item_ids, "item", dataset.name)
    ordered = np.argsort(-np.bincount(dataset.train.items, minlength=dataset.num_items), kind="stable")
    some: np.ndarray = ordered[np.unique(np.linspace(0, (dataset.num_items - 1) // 2, 5).astype(int))]
    return some


def neighbour_ids(
    vectors: Vectors, items: Int[np.ndarray, " chosen"], item_ids: Shaped[np.ndarray, " items"], k: int
) -> list[list[str]]:
    """The raw ids of each item's k nearest, best first; fewer where there are fewer."""
    found = analysis.neighbours(vectors.values, items, k, present=vectors.present).items
    return [[str(item_ids[other]) for other in row if other >= 0] for row in found]


def _distances(
    rows: Float[np.ndarray, "rows columns"], centres: Float[np.ndarray, "clusters columns"]
) -> Float[np.ndarray, "rows clusters"]:
    """Squared; rounding may leave what should be 0 a little above it."""
    squares = np.sum(rows**2, axis=1)[:, None] - 2 * (rows @ centres.T) + np.sum(centres**2, axis=1)
    distances: np.ndarray = np.maximum(squares, 0)
    return distances
