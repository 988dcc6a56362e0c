"""Counts and distributions of a data set, to check before training; `findings` puts them into words."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt64

from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.data.ids import alike
from slmrec_jax.data.pairs import pair_keys

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "90%": 0.9, "99%": 0.99, "max": 1.0}
_EXTREMES = ("min", "median", "max")

_VALUES_PER_CHUNK = 2**22


class VectorFacts(NamedTuple):
    """Facts about a vector modality. Rows are those of items that have it."""

    columns: int
    stored: str
    """The original dtype of the numbers."""
    missing: int
    """The number of items without a row."""
    norms: Mapping[str, float]
    """The min, median and max of the rows' L2 norms; empty if there are no rows."""
    zeros: int
    """The number of rows of zeros."""
    duplicates: int
    """The number of rows that equal an earlier row."""
    most_copies: int
    """The number of occurrences of the most frequent row."""


class WordFacts(NamedTuple):
    """Facts about a modality of word ids."""

    words: int
    """The size of the vocabulary."""
    used: int
    """The number of words that occur."""
    missing: int
    """The number of items without words."""
    per_item: Mapping[str, float]
    """The min, median and max number of words of items that have any."""


class Inspection(NamedTuple):
    """Facts about a data set. Degrees are numbers of training interactions."""

    name: str
    fingerprint: str
    users: int
    items: int
    interactions: Mapping[str, int]
    """The number of interactions by split."""
    density: float
    """The number of all interactions, divided by users × items."""
    user_degrees: Mapping[str, float]
    """Quantiles of user degrees, by the names of `QUANTILES`."""
    item_degrees: Mapping[str, float]
    cold_users: int
    """The number of users without training interactions."""
    cold_items: int
    new_users: Mapping[str, int]
    """The number of users without training interactions in validation and in test."""
    new_items: Mapping[str, int]
    overlap: Mapping[str, int]
    """The number of interactions in two splits, by names such as `train & valid`."""
    modalities: Mapping[str, VectorFacts | WordFacts]
    bare_items: int
    """The number of items without any modality; 0 if the data set has no modalities."""
    alike_ids: tuple[str, ...]
    """Warnings about users and items whose raw ids look alike."""
    notes: tuple[str, ...]


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Compute the facts about a data set, with little extra memory."""
    users, items = dataset.degrees()
    sizes = {split: len(pairs.users) for split, pairs in dataset.splits.items()}
    held_out = {split: pairs for split, pairs in dataset.splits.items() if split != "train"}
    keys = {split: pair_keys(pairs, dataset.num_items) for split, pairs in dataset.splits.items()}
    there = [_has(feature, dataset.num_items) for feature in dataset.features.values()]
    return Inspection(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        users=dataset.num_users,
        items=dataset.num_items,
        interactions=sizes,
        density=sum(sizes.values()) / (dataset.num_users * dataset.num_items),
        user_degrees=_quantiles(users, QUANTILES),
        item_degrees=_quantiles(items, QUANTILES),
        cold_users=int((users == 0).sum()),
        cold_items=int((items == 0).sum()),
        new_users={split: int((users[np.unique(pairs.users)] == 0).sum()) for split, pairs in held_out.items()},
        new_items={split: int((items[np.unique(pairs.items)] == 0).sum()) for split, pairs in held_out.items()},
        overlap={
            f"{one} & {other}": len(np.intersect1d(keys[one], keys[other], assume_unique=True))
            for one, other in combinations(keys, 2)
        },
        modalities={name: _modality_facts(feature, dataset.num_items) for name, feature in dataset.features.items()},
        bare_items=int(np.count_nonzero(~np.any(there, axis=0))) if there else 0,
        alike_ids=tuple(alike(dataset.user_ids, dataset.item_ids)),
        notes=dataset.notes,
    )


def norms(feature: Feature) -> Float[np.ndarray, " present"]:
    """Compute the L2 norms of the rows that are present, in float64."""
    squares = [np.einsum("rc,rc->r", rows, rows) for rows in map(np.float64, _chunks(feature))]
    return np.asarray(np.sqrt(np.concatenate([np.zeros(0), *squares])))


def count_missing(feature: Feature | Words, num_items: int) -> int:
    """Count the items that lack a modality."""
    return int(np.count_nonzero(~_has(feature, num_items)))


def _has(feature: Feature | Words, num_items: int) -> Bool[np.ndarray, " items"]:
    if isinstance(feature, Words):
        return np.asarray(np.bincount(feature.items, minlength=num_items) > 0)
    return np.asarray(feature.present)


def _modality_facts(feature: Feature | Words, num_items: int) -> VectorFacts | WordFacts:
    missing = count_missing(feature, num_items)
    if isinstance(feature, Words):
        counts = np.bincount(feature.items, minlength=num_items)
        used = len(np.unique(feature.words))
        return WordFacts(feature.num_words, used, missing, _quantiles(counts[counts > 0], _EXTREMES))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(_hash(rows) for rows in _chunks(feature))])
    copies = np.unique(hashes, return_counts=True)[1]
    lengths = norms(feature)
    return VectorFacts(
        columns=feature.values.shape[1],
        stored=feature.stored,
        missing=missing,
        norms=_quantiles(lengths, _EXTREMES),
        zeros=int((lengths == 0).sum()),
        duplicates=len(hashes) - len(copies),
        most_copies=int(copies.max(initial=0)),
    )


def _chunks(feature: Feature) -> Iterator[Float[np.ndarray, "rows columns"]]:
    """Yield the rows that are present, in order and as float32."""
    step = max(1, _VALUES_PER_CHUNK // feature.values.shape[1])
    for start in range(0, len(feature.values), step):
        rows, there = feature.values[start : start + step], feature.present[start : start + step]
        yield np.asarray(rows if there.all() else rows[there], np.float32)


def _hash(rows: Float[np.ndarray, "rows columns"]) -> UInt64[np.ndarray, " rows"]:
    """Hash rows to numbers. Equal rows have equal hashes; two different rows collide with probability 2⁻⁶⁴."""
    factors = np.random.Generator(np.random.PCG64(0)).integers(2**64, size=rows.shape[1], dtype=np.uint64)
    words = (rows + np.float32(0)).view(np.uint32).astype(np.uint64) + np.uint64(0x9E3779B9)  # -0 becomes 0
    words = (words ^ (words << np.uint64(29))) * factors
    return np.asarray((words ^ (words >> np.uint64(32))).sum(axis=1, dtype=np.uint64))


def _quantiles(values: Shaped[np.ndarray, " _"], names: Mapping[str, float] | tuple[str, ...]) -> dict[str, float]:
    if len(values) == 0:
        return {}
    found = np.quantile(values, [QUANTILES[name] for name in names], method="nearest")
    return dict(zip(names, found.astype(np.float64).tolist(), strict=True))
