"""The container that every reader fills and training reads: splits, features, raw ids and a fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.pairs import blocks, count_ids, popularity_hit_rate, renumbered
from slmrec_jax.errors import UserError, check_type
from slmrec_jax.types import Interactions

SPLITS = ("train", "valid", "test")
ITEM_TEXTS = ("title", "image")
"""What may be shown with an item: what it is called, and the path or address of a picture."""
_BYTES_AT_ONCE = 2**24
NO_INTERACTIONS = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))


class Feature(NamedTuple):
    """A modality with one vector per item."""

    values: Float[np.ndarray, "items columns"]
    """float16, bfloat16 or float32, read-only if mapped from a file; rows of items that lack the modality are 0."""
    present: Bool[np.ndarray, " items"]
    """True for items that have the modality."""
    stored: str = ""
    """The original type of the numbers, such as float16; not part of the fingerprint. `make_dataset` fills it in."""


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
    """What it is called in logs and reports."""
    num_users: int
    """The number of users, those without interactions included."""
    num_items: int
    """The number of items, those without interactions included."""
    train: Interactions
    """What models learn from."""
    valid: Interactions
    """What the best epoch is selected on."""
    test: Interactions
    """What results are measured on."""
    features: Mapping[str, Feature | Words]
    """By modality, in the order in which models take them."""
    user_ids: Shaped[np.ndarray, " users"]
    """Raw ids, integers or strings, indexed by internal id."""
    item_ids: Shaped[np.ndarray, " items"]
    """Raw ids of items, likewise."""
    item_texts: Mapping[str, Shaped[np.ndarray, " items"]] = field(default_factory=dict)
    """By kind of `ITEM_TEXTS`, text to show with an item; empty where it has none. Not part of the fingerprint."""
    notes: tuple[str, ...] = ()
    """What the reader found or decided that the user should know, one line each; not part of the fingerprint."""
    source: Source | None = field(default=None, init=False)
    """Where `load` read the data set; `None` if it was made in memory. `dataclasses.replace` drops it, because a
    changed data set is no longer what its source holds."""

    @property
    def splits(self) -> dict[str, Interactions]:
        """The interactions by split, in the order of `SPLITS`."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @cached_property
    def popularity_hit_rate(self) -> float:
        """The hit rate at 20 of a ranking by popularity in training.

        The share of training interactions whose item is among the 20 most popular that its user does not have
        otherwise. Of many interactions, those of every n-th user stand for all.
        """
        return popularity_hit_rate(self.train, self.num_items)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the splits, the raw ids and the features, all in the order of `by_degree`.

        It depends on the content alone: not on the file, memory layout or machine, nor on the name or the order of the
        modalities, and not on whether rows are numbered by degree. Swapping validation and test, or leaving out a
        modality, changes it.
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
        """Return the data set with the named modalities in that order; no names keep all of them.

        Args:
            names: Modalities, each once.

        Raises:
            UserError: A name is repeated, or the data set has no such modality; the message lists those it has.
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
        """Return the data set with users and items numbered by falling number of training interactions.

        Among equals, the smaller id comes first, so that the order is unique; a data set in this order is returned as
        it is. A product with the graph mostly reads the rows of nodes with many neighbours: next to each other, those
        rows share memory pages and stay in the cache. The fingerprint and `source` stay; features are copied once.
        """
        if _are_by_degree(self):
            return self
        renumbered = take_rows(self, *_by_degree(self))
        object.__setattr__(renumbered, "source", self.source)  # the content is still that of the source
        return renumbered


def take_rows(dataset: Dataset, users: Int[np.ndarray, " users"], items: Int[np.ndarray, " items"]) -> Dataset:
    """Return the data set of these users and items, numbered in this order, without the interactions of any others.

    `users` and `items` are internal ids, each at most once.
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
    """Return the interactions of each split, given the place of each one's split in `SPLITS`."""
    return {name: Interactions(pairs.users[splits == n], pairs.items[splits == n]) for n, name in enumerate(SPLITS)}


def sorted_words(feature: Words) -> Words:
    """Return word ids as a data set stores them: int32, sorted by item, then word."""
    order = np.lexsort((feature.words, feature.items))
    return Words(feature.items[order].astype(np.int32), feature.words[order].astype(np.int32), feature.num_words)


def _by_degree(dataset: Dataset) -> list[Int[np.ndarray, " nodes"]]:
    """Return the users, and the items, by falling degree; among equals, by id."""
    return [np.argsort(-each, kind="stable") for each in dataset.degrees()]


def _take_items(
    feature: Feature | Words, items: Int[np.ndarray, " taken"], item_rows: Int[np.ndarray, " items"]
) -> Feature | Words:
    if isinstance(feature, Feature):
        if len(items) == len(feature.values) and (np.diff(items) > 0).all():
            return feature  # all rows in their order: a mapped file stays one
        return Feature(feature.values[items], feature.present[items], feature.stored)
    rows = item_rows[feature.items]
    return sorted_words(Words(rows[rows >= 0], feature.words[rows >= 0], feature.num_words))


def _are_by_degree(dataset: Dataset) -> bool:
    return all((np.diff(each) <= 0).all() for each in dataset.degrees())


def _hash_ids(digest: "hashlib._Hash", ids: Shaped[np.ndarray, " rows"]) -> None:
    """Add raw ids to a digest as one list of JSON, never held as a whole.

    JSON tells 1 from "1" and delimits each id, whatever characters it contains.
    """
    digest.update(b"[")
    for block in blocks(len(ids)):
        digest.update((", " * (block.start > 0) + json.dumps(ids[block].tolist())[1:-1]).encode())
    digest.update(b"]")


def _hash_array(
    digest: "hashlib._Hash",
    label: str,
    array: Shaped[np.ndarray, "..."],
    dtype: str,
    order: Int[np.ndarray, " rows"] | None = None,
) -> None:
    """Add an array to a digest, with its rows in that order and never copied as a whole."""
    digest.update(f"\n{label} {array.shape}\n".encode())
    step = max(1, _BYTES_AT_ONCE * len(array) // max(1, array.size * np.dtype(dtype).itemsize))
    for start in range(0, len(array), step):
        rows: Any = slice(start, start + step) if order is None else order[start : start + step]
        digest.update(array[rows].astype(dtype).tobytes())
