"""What there is to know of a data set before training on it; `findings` puts it into words."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt64

from slmrec_jax.data.dataset import SPLITS, Dataset, Feature, Words
from slmrec_jax.data.ids import alike
from slmrec_jax.types import Interactions

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "90%": 0.9, "99%": 0.99, "max": 1.0}

_CHUNK = 2**22
"""Values that are looked at together."""


class Vectors(NamedTuple):
    """What is known of a modality of vectors; rows are those that are present."""

    columns: int
    stored: str
    """The type of the numbers where they came from."""
    missing: int
    """Items without a row."""
    norms: Mapping[str, float]
    """L2 norms of rows: min, median, max; empty without rows."""
    zeros: int
    """Rows of zeros."""
    duplicates: int
    """Rows that equal an earlier one."""
    most_copies: int
    """How often the most frequent row stands there."""


class WordLists(NamedTuple):
    """What is known of a modality of word ids."""

    words: int
    """Size of the vocabulary."""
    used: int
    """Words that occur."""
    missing: int
    """Items without a word."""
    per_item: Mapping[str, float]
    """Words of an item that has some: min, median, max."""


class Inspection(NamedTuple):
    """Counts and distributions; degrees are numbers of training interactions."""

    name: str
    fingerprint: str
    users: int
    items: int
    interactions: Mapping[str, int]
    """By split."""
    density: float
    """All interactions by users times items."""
    user_degrees: Mapping[str, float]
    """Quantiles, as of `QUANTILES`."""
    item_degrees: Mapping[str, float]
    cold_users: int
    """Users without a training interaction."""
    cold_items: int
    new_users: Mapping[str, int]
    """Of the users of validation and of test, those without a training interaction."""
    new_items: Mapping[str, int]
    overlap: Mapping[str, int]
    """Interactions that stand in two splits, by `train & valid` and the like."""
    modalities: Mapping[str, Vectors | WordLists]
    bare_items: int
    """Items without any modality, of data that have modalities."""
    alike_ids: tuple[str, ...]
    """A line on the users, and one on the items, whose raw ids look the same."""
    notes: tuple[str, ...]


def inspect(dataset: Dataset) -> Inspection:
    """Looks at everything once; memory is that of the data set and a constant."""
    users, items = degrees(dataset)
    held_out: dict[str, Interactions] = {split: getattr(dataset, split) for split in SPLITS if split != "train"}
    sizes = {split: len(getattr(dataset, split).users) for split in SPLITS}
    keys = {split: _keys(getattr(dataset, split), dataset.num_items) for split in SPLITS}
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
        new_users={split: _new(pairs.users, users) for split, pairs in held_out.items()},
        new_items={split: _new(pairs.items, items) for split, pairs in held_out.items()},
        overlap={
            f"{one} & {other}": len(np.intersect1d(keys[one], keys[other], assume_unique=True))
            for one, other in combinations(SPLITS, 2)
        },
        modalities={name: _modality(feature, dataset.num_items) for name, feature in dataset.features.items()},
        bare_items=_bare(dataset),
        alike_ids=tuple(alike(dataset.user_ids, dataset.item_ids)),
        notes=dataset.notes,
    )


def degrees(dataset: Dataset) -> tuple[Int[np.ndarray, " users"], Int[np.ndarray, " items"]]:
    """How many training interactions each user and each item has."""
    return (
        np.bincount(dataset.train.users, minlength=dataset.num_users),
        np.bincount(dataset.train.items, minlength=dataset.num_items),
    )


def norms(feature: Feature) -> Float[np.ndarray, " present"]:
    """The L2 norms of the rows that are present, in float64."""
    squares = [np.einsum("rc,rc->r", rows, rows) for rows in map(np.float64, _chunks(feature))]
    return np.asarray(np.sqrt(np.concatenate([np.zeros(0), *squares])))


def missing(feature: Feature | Words, num_items: int) -> int:
    """How many items lack a modality."""
    return int(np.count_nonzero(~_present(feature, num_items)))


def _modality(feature: Feature | Words, num_items: int) -> Vectors | WordLists:
    if isinstance(feature, Words):
        counts = np.bincount(feature.items, minlength=num_items)
        return WordLists(
            feature.num_words,
            len(np.unique(feature.words)),
            missing(feature, num_items),
            _quantiles(counts[counts > 0], ("min", "median", "max")),
        )
    hashes = np.concatenate([np.zeros(0, np.uint64), *(_hash(rows) for rows in _chunks(feature))])
    copies = np.unique(hashes, return_counts=True)[1]
    lengths = norms(feature)
    return Vectors(
        feature.values.shape[1],
        feature.stored,
        missing(feature, num_items),
        _quantiles(lengths, ("min", "median", "max")),
        int((lengths == 0).sum()),
        len(hashes) - len(copies),
        int(copies.max(initial=0)),
    )


def _chunks(feature: Feature) -> Iterator[Float[np.ndarray, "rows columns"]]:
    """The rows that are present, in order."""
    step = max(1, _CHUNK // feature.values.shape[1])
    for start in range(0, len(feature.values), step):
        rows, there = feature.values[start : start + step], feature.present[start : start + step]
        yield rows if there.all() else rows[there]


def _hash(rows: Float[np.ndarray, "rows columns"]) -> UInt64[np.ndarray, " rows"]:
    """A number for each row that is the same for equal rows; two others agree once in 2⁶⁴."""
    factors = np.random.Generator(np.random.PCG64(0)).integers(2**64, size=rows.shape[1], dtype=np.uint64)
    words = (rows + np.float32(0)).view(np.uint32).astype(np.uint64) + np.uint64(0x9E3779B9)  # -0 becomes 0
    words = (words ^ (words << np.uint64(29))) * factors
    return np.asarray((words ^ (words >> np.uint64(32))).sum(axis=1, dtype=np.uint64))


def _present(feature: Feature | Words, num_items: int) -> Bool[np.ndarray, " items"]:
    if isinstance(feature, Words):
        return np.asarray(np.bincount(feature.items, minlength=num_items) > 0)
    return np.asarray(feature.present)


def _bare(dataset: Dataset) -> int:
    there = [_present(feature, dataset.num_items) for feature in dataset.features.values()]
    return int(np.count_nonzero(~np.any(there, axis=0))) if there else 0


def _keys(pairs: Interactions, num_items: int) -> Int[np.ndarray, " interactions"]:
    return np.asarray(pairs.users.astype(np.int64) * num_items + pairs.items)


def _new(ids: Int[np.ndarray, " interactions"], degrees: Int[np.ndarray, " nodes"]) -> int:
    found = np.unique(ids)
    return int((degrees[found] == 0).sum())


def _quantiles(values: Shaped[np.ndarray, " _"], names: Mapping[str, float] | tuple[str, ...]) -> dict[str, float]:
    if len(values) == 0:
        return {}
    chosen = list(names)
    found = np.quantile(values, [QUANTILES[name] for name in chosen], method="nearest")
    return dict(zip(chosen, found.astype(np.float64).tolist(), strict=True))
