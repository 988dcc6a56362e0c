"""The item space of a run: a map, clusters, and neighbours under each table of vectors."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.vq import kmeans2, vq

from slmrec_jax.data.dataset import ITEM_TEXTS, Dataset
from slmrec_jax.encoding import features
from slmrec_jax.encoding.rows import feature_rows
from slmrec_jax.evaluation import analysis
from slmrec_jax.serving.named_ids import find_rows
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.run import Run
from slmrec_jax.types import ALL

NUM_CLUSTERS = 8

SAMPLE = 10_000
"""The maximum number of rows for comparing all pairs, which takes quadratic time. Larger tables are sampled."""


class ItemVectors(NamedTuple):
    """A table of vectors by which items are compared."""

    values: Float[np.ndarray, "items columns"]
    present: Bool[np.ndarray, " items"]


class ItemMap(NamedTuple):
    """Items projected to a plane."""

    places: Float[np.ndarray, "items 2"]
    shares: tuple[float, float]
    """The share of the variance on each axis."""


class Plane(NamedTuple):
    """A plane to which items are projected."""

    centre: Float[np.ndarray, " dim"]
    axes: Float[np.ndarray, "2 dim"]
    shares: tuple[float, float]
    """The share of the variance on each axis."""


def modality_vectors(run: Run) -> dict[str, ItemVectors]:
    """Return the unit vectors of each modality; word ids become means of random word vectors, as in models."""
    spec, inputs = make_spec(run.config, run.dataset), make_inputs(run.dataset)
    found = {}
    for name, modality in spec.modalities.items():
        feature = features.frozen(inputs.features[name], modality, normalized=True)
        found[name] = ItemVectors(np.asarray(feature_rows(feature)(ALL)), np.asarray(feature.present) > 0)
    return found


def sample(rows: int) -> Int[np.ndarray, " sampled"]:
    """Return the ids of at most `SAMPLE` rows, ascending. The sample is deterministic."""
    if rows <= SAMPLE:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))


def agreements(tables: Mapping[str, ItemVectors], k: int = 10) -> dict[tuple[str, str], float]:
    """Return the `modality_agreement` of each pair of tables with at least three items in common.

    If there are many common items, they are sampled.
    """
    found = {}
    for (first, x), (second, y) in combinations(tables.items(), 2):
        both = np.flatnonzero(x.present & y.present)
        if len(both) > 2:
            chosen = both[sample(len(both))]
            found[first, second] = analysis.modality_agreement(x.values[chosen], y.values[chosen], k)
    return found


def plane_of(rows: Float[np.ndarray, "items dim"]) -> Plane:
    """Compute the plane of the first two principal components. The largest weight of each axis is positive."""
    centre = rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(rows - centre, full_matrices=False)
    axes = np.concatenate([axes, np.zeros_like(axes)])[:2]  # one-dimensional embeddings have a single axis
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
    variances = np.append(sizes, 0.0)[:2] ** 2 / max(float(np.sum(sizes**2)), 1e-12)
    return Plane(centre, axes * signs, (float(variances[0]), float(variances[1])))


def item_map(rows: Float[np.ndarray, "items dim"]) -> ItemMap:
    """Project items to the plane of their first two principal components."""
    plane = plane_of(rows)
    return ItemMap((rows - plane.centre) @ plane.axes.T, plane.shares)


def kmeans(rows: Float[np.ndarray, "rows columns"], num_clusters: int) -> Int[np.ndarray, " rows"]:
    """Cluster rows with Lloyd's algorithm from k-means++ centres. Clusters are numbered by descending size.

    Equal rows share a cluster, so there may be fewer clusters. For a large table, the centres are computed from a
    `sample`.
    """
    drawn = rows[sample(len(rows))]
    num_clusters = min(num_clusters, len(np.unique(drawn, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")  # its centre stays unchanged
        centres, _ = kmeans2(drawn, num_clusters, iter=25, minit="++", rng=0)
    labels, _ = vq(rows, centres)
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.argsort(np.argsort(-counts, kind="stable"))[labels]


def clusters(vectors: ItemVectors) -> Int[np.ndarray, " items"]:
    """Return the cluster of each item by a modality; -1 for items without it."""
    labels = np.full(len(vectors.present), -1)
    if vectors.present.any():
        labels[vectors.present] = kmeans(vectors.values[vectors.present], NUM_CLUSTERS)
    return labels


def choose_items(dataset: Dataset, named: Any) -> Int[np.ndarray, " chosen"]:
    """Return the rows of items given by known raw ids; by default five items, from the most popular to the median."""
    if named is not None:
        return find_rows(named, dataset.item_ids, "item", dataset.name)
    ordered = np.argsort(-np.bincount(dataset.train.items, minlength=dataset.num_items), kind="stable")
    some: np.ndarray = ordered[np.unique(np.linspace(0, (dataset.num_items - 1) // 2, 5).astype(int))]
    return some


def item_names(dataset: Dataset) -> list[str]:
    """Return the raw id of each item, followed by its title and, in brackets, the path of its picture, if any."""
    nothing = [""] * dataset.num_items
    titles, images = (dataset.item_texts.get(kind, nothing) for kind in ITEM_TEXTS)
    return [
        f"{raw}{f': {title}' if title else ''}{f' [{image}]' if image else ''}"
        for raw, title, image in zip(dataset.item_ids, titles, images, strict=True)
    ]


def neighbour_names(
    vectors: ItemVectors, items: Int[np.ndarray, " chosen"], names: Sequence[str], k: int
) -> list[list[str]]:
    """Return the names of the (at most k) nearest neighbours of each item, best first."""
    found = analysis.neighbours(vectors.values, items, k, present=vectors.present).items
    return [[names[other] for other in row if other >= 0] for row in found]
