"""The data set container that readers produce and training reads: splits, features, raw ids and a fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.pairs import count_ids, pair_blocks, popularity_hit_rate, renumbered
from slmrec_jax.errors import UserError, check_type
from slmrec_jax.types import Interactions

SPLITS = ("train", "valid", "test")
ITEM_TEXTS = ("title", "image")
"""The kinds of text that may be shown with an item: its name, and the path or URL of a picture."""
_BYTES_AT_ONCE = 2**24
NO_INTERACTIONS = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))


class Feature(NamedTuple):
    """A modality with one vector per item."""

    values: Float[np.ndarray, "items columns"]
    """float16, bfloat16 or float32; read-only if mapped from a file. Rows of items that lack the modality are 0."""
    present: Bool[np.ndarray, " items"]
    """Whether each item has the modality."""
    stored: str = ""
    """The original dtype of the numbers, such as float16. It is filled in by `make_dataset` and not part of the
    fingerprint."""


class Words(NamedTuple):
    """A modality of word ids: item `items[n]` has word `words[n]`. A pair that occurs twice counts twice."""

    items: Int[np.ndarray, " pairs"]
    """Internal item ids."""
    words: Int[np.ndarray, " pairs"]
    """Word ids, below `num_words`."""
    num_words: int
    """The size of the vocabulary."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions between users and items in three splits, and the features of the items.

    Internal ids are row numbers: 0..num_users-1 and 0..num_items-1. Each split is int32, free of duplicates and sorted
    by user, then item; `make_dataset` brings any arrays into that form. The same pair may be in two splits, and
    validation and test may be empty: the evaluation protocol decides what it masks and what it needs.
    """

    name: str
    """The name in logs and reports."""
    num_users: int
    """The number of users, including those without interactions."""
    num_items: int
    """The number of items, including those without interactions."""
    train: Interactions
    """The interactions that models learn from."""
    valid: Interactions
    """The interactions that select the best epoch."""
    test: Interactions
    """The interactions that results are measured on."""
    features: Mapping[str, Feature | Words]
    """The features by modality, in the order in which models use them."""
    user_ids: Shaped[np.ndarray, " users"]
    """Raw user ids, integers or strings, by internal id."""
    item_ids: Shaped[np.ndarray, " items"]
    """Raw item ids, likewise."""
    item_texts: Mapping[str, Shaped[np.ndarray, " items"]] = field(default_factory=dict)
    """Texts to show with items, by kind (`ITEM_TEXTS`); empty where an item has none. Not part of the fingerprint."""
    notes: tuple[str, ...] = ()
    """Findings and decisions of the reader that the user should know, one line each. Not part of the fingerprint."""
    source: Source | None = field(default=None, init=False)
    """The source that `load` read the data set from; `None` if it was made in memory. `dataclasses.replace` drops it,
    because a changed data set no longer equals its source."""

    @property
    def splits(self) -> dict[str, Interactions]:
        """The interactions by split, in the order of `SPLITS`."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @cached_property
    def popularity_hit_rate(self) -> float:
        """The hit rate at 20 of a ranking by popularity in training.

        It is the share of training interactions whose item would be among the 20 most popular for its user, not
        counting the user's other items. For many interactions, it is estimated from every n-th user.
        """
        return popularity_hit_rate(self.train, self.num_items)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the splits, the raw ids and the features, all in the order of `by_degree`.

        It depends only on the content: not on the file, memory layout or machine, on the data set's name, on the order
        of the modalities, or on whether rows are numbered by degree. Swapping validation and test or dropping a
        modality changes it.
        """
        words = {name: feature for name, feature in self.features.items() if isinstance(feature, Words)}
        known: Dataset = replace(self, features=words)
        order = None if _are_by_degree(self) else _by_degree(self)
        if order is None:
            ordered = replace(known, features={name: sorted_words(each) for name, each in words.items()})
        else:
            ordered = take_rows(known, *order)
        items = None if order is None else order[1]
        digest = hashlib.sha256(json.dumps([self.num_users, self.num_items]).encode())
        for split, pairs in ordered.splits.items():
            _hash_array(digest, f"{split}.users", pairs.users, "<i4")
            _hash_array(digest, f"{split}.items", pairs.items, "<i4")
        for ids in (ordered.user_ids, ordered.item_ids):
            _hash_ids(digest, ids)
        for name, feature in sorted({**self.features, **ordered.features}.items()):
            if isinstance(feature, Words):
                _hash_array(digest, json.dumps([name, feature.num_words]), feature.items, "<i4")
                _hash_array(digest, "words", feature.words, "<i4")
            else:
                _hash_array(digest, json.dumps(name), feature.values, "<f4", items)
                _hash_array(digest, "present", feature.present, "|b1", items)
        return digest.hexdigest()

    def degrees(self) -> tuple[Int[np.ndarray, " users"], Int[np.ndarray, " items"]]:
        """Return the number of training interactions of each user and of each item."""
        return count_ids(self.train.users, self.num_users), count_ids(self.train.items, self.num_items)

    def with_modalities(self, names: Sequence[str]) -> "Dataset":
        """Return the data set with only the named modalities, in that order. Without names, all are kept.

        Args:
            names: Modalities, each once.

        Raises:
            UserError: A name is repeated, or the data set has no such modality; the message lists its modalities.
        """
        check_type(f"data set {self.name}: modalities", names, (tuple, list), "a tuple of names")
        for name in names:
            if list(names).count(name) > 1:
                raise UserError(f"data set {self.name}: the modality {name!r} was asked for twice; name each once")
            if name not in self.features:
                has = ", ".join(self.features) or "none"
                raise UserError(f"data set {self.name}: there is no modality {name!r}; it has: {has}")
        return replace(self, features={name: self.features[name] for name in names}) if names else self

    def by_degree(self) -> "Dataset":
        """Return the data set with users and items numbered by descending number of training interactions.

        Ties are broken by id, so that the order is unique. A data set that is already in this order is returned
        unchanged. A graph product mostly reads the rows of nodes with many neighbours; next to each other, these rows
        share memory pages and stay in cache. The fingerprint and `source` stay the same; features are copied once.
        """
        if _are_by_degree(self):
            return self
        renumbered = take_rows(self, *_by_degree(self))
        object.__setattr__(renumbered, "source", self.source)  # the content still equals that of the source
        return renumbered


def take_rows(dataset: Dataset, users: Int[np.ndarray, " users"], items: Int[np.ndarray, " items"]) -> Dataset:
    """Return the data set restricted to the given users and items, numbered in the given order.

    `users` and `items` are internal ids without repeats. Interactions of other users or items are dropped.
    """
    item_rows = np.full(dataset.num_items, -1, np.int32)
    item_rows[items] = np.arange(len(items), dtype=np.int32)

    def taken(pairs: Interactions) -> Interactions:
        return renumbered(pairs, users, item_rows, dataset.num_users, len(items))

    return replace(
        dataset,
        num_users=len(users),
        num_items=len(items),
        train=taken(dataset.train),
        valid=taken(dataset.valid),
        test=taken(dataset.test),
        features={name: _take_items(feature, items, item_rows) for name, feature in dataset.features.items()},
        user_ids=dataset.user_ids[users],
        item_ids=dataset.item_ids[items],
        item_texts={kind: texts[items] for kind, texts in dataset.item_texts.items()},
    )


def by_split(pairs: Interactions, splits: Int[np.ndarray, " interactions"]) -> dict[str, Interactions]:
    """Divide interactions by split; `splits` has the index in `SPLITS` of each interaction's split."""
    return {name: Interactions(pairs.users[splits == n], pairs.items[splits == n]) for n, name in enumerate(SPLITS)}


def sorted_words(feature: Words) -> Words:
    """Convert word ids to the form that a data set stores: int32, sorted by item, then word."""
    order = np.lexsort((feature.words, feature.items))
    return Words(feature.items[order].astype(np.int32), feature.words[order].astype(np.int32), feature.num_words)


def has_same_interactions(first: Dataset, other: Dataset) -> bool:
    """Return whether two data sets have the same users, items and splits, in the same order. Features may differ."""
    return all(
        np.array_equal(*pair)
        for pair in (
            (first.user_ids, other.user_ids),
            (first.item_ids, other.item_ids),
            *((a, b) for split in first.splits for a, b in zip(first.splits[split], other.splits[split], strict=True)),
        )
    )


def _by_degree(dataset: Dataset) -> list[Int[np.ndarray, " nodes"]]:
    """Return the users and the items by descending degree, with ties in id order."""
    return [np.argsort(-each, kind="stable") for each in dataset.degrees()]


def _take_items(
    feature: Feature | Words, items: Int[np.ndarray, " taken"], item_rows: Int[np.ndarray, " items"]
) -> Feature | Words:
    if isinstance(feature, Feature):
        if len(items) == len(feature.values) and (np.diff(items) > 0).all():
            return feature  # all rows in order: a memory-mapped file stays mapped
        return Feature(feature.values[items], feature.present[items], feature.stored)
    rows = item_rows[feature.items]
    return sorted_words(Words(rows[rows >= 0], feature.words[rows >= 0], feature.num_words))


def _are_by_degree(dataset: Dataset) -> bool:
    return all((np.diff(each) <= 0).all() for each in dataset.degrees())


def _hash_ids(digest: "hashlib._Hash", ids: Shaped[np.ndarray, " rows"]) -> None:
    """Add raw ids to a digest as one JSON list, without holding the list in memory.

    JSON distinguishes 1 from "1" and delimits ids with any characters.
    """
    digest.update(b"[")
    for block in pair_blocks(len(ids)):
        digest.update((", " * (block.start > 0) + json.dumps(ids[block].tolist())[1:-1]).encode())
    digest.update(b"]")


def _hash_array(
    digest: "hashlib._Hash",
    label: str,
    array: Shaped[np.ndarray, "..."],
    dtype: str,
    order: Int[np.ndarray, " rows"] | None = None,
) -> None:
    """Add an array to a digest with its rows in the given order, without copying the whole array."""
    digest.update(f"\n{label} {array.shape}\n".encode())
    step = max(1, _BYTES_AT_ONCE * len(array) // max(1, array.size * np.dtype(dtype).itemsize))
    for start in range(0, len(array), step):
        rows: Any = slice(start, start + step) if order is None else order[start : start + step]
        digest.update(array[rows].astype(dtype).tobytes())
