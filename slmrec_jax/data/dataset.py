"""The container that every reader fills and every trainer reads: splits, features, raw ids and a fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.inspect.checks import check_count, check_feature, check_pairs, check_range, check_raw_ids
from slmrec_jax.errors import UserError, check_type
from slmrec_jax.types import Interactions

SPLITS = ("train", "valid", "test")


class Feature(NamedTuple):
    """A modality given as one vector per item."""

    values: Float[np.ndarray, "items columns"]
    """float32; the row of an item that lacks the modality is 0."""
    present: Bool[np.ndarray, " items"]
    """Which items have this modality."""
    stored: str = ""
    """The type of the numbers where they came from, such as float16; `make_dataset` fills it in where it is
    empty. No part of the fingerprint."""


class Words(NamedTuple):
    """A modality given as word ids: item `items[n]` has word `words[n]`, as often as the pair stands there."""

    items: Int[np.ndarray, " pairs"]
    words: Int[np.ndarray, " pairs"]
    num_words: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions of users with items in three splits, and what is known of the items.

    Internal ids are rows: 0..num_users-1 and 0..num_items-1. Each split is int32, free of duplicates and sorted by
    user, then item (`make_dataset` brings anything into that form). The same pair may stand in two splits, and
    validation and test may be empty: what is masked and what is needed is the evaluation protocol's business.
    """

    name: str
    num_users: int
    num_items: int
    train: Interactions
    valid: Interactions
    test: Interactions
    features: Mapping[str, Feature | Words]
    """By modality, in the order in which models take them."""
    user_ids: Shaped[np.ndarray, " users"]
    """Raw ids, integers or strings; the row is the internal id."""
    item_ids: Shaped[np.ndarray, " items"]
    notes: tuple[str, ...] = ()
    """What its reader found or decided and the user should know, a line each; no part of the fingerprint."""
    source: Source | None = field(default=None, init=False)
    """Where `load` read it; `None` for a data set made in memory. `dataclasses.replace` leaves it out, because a data
    set that was changed is not what its source holds."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the splits, the raw ids and the features.

        The same content has the same fingerprint whatever file, memory order or machine it comes from, and under any
        name; exchanging validation and test, or leaving a modality out, changes it. The order of modalities does not.
        """
        digest = hashlib.sha256(json.dumps([self.num_users, self.num_items]).encode())
        for split in SPLITS:
            pairs: Interactions = getattr(self, split)
            _add(digest, f"{split}.users", pairs.users, "<i4")
            _add(digest, f"{split}.items", pairs.items, "<i4")
        for ids in (self.user_ids, self.item_ids):
            # JSON keeps 1 and "1" apart and bounds each id, whatever characters it has.
            digest.update(json.dumps(ids.tolist()).encode())
        for name in sorted(self.features):
            feature = self.features[name]
            if isinstance(feature, Words):
                _add(digest, json.dumps([name, feature.num_words]), feature.items, "<i4")
                _add(digest, "words", feature.words, "<i4")
            else:
                _add(digest, json.dumps(name), feature.values, "<f4")
                _add(digest, "present", feature.present, "|b1")
        return digest.hexdigest()

    def with_modalities(self, names: Sequence[str]) -> "Dataset":
        """Keeps the named modalities, in that order; no names keep all.

        Raises:
            UserError: A name that this data set has no feature for; the line lists those it has.
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

        Among equals, the smaller id comes first, so that the order is a fixed one: a data set that has it already is
        returned as it is. A product with the graph mostly reads the rows of nodes with many neighbours; next to each
        other, those rows share memory pages and stay in the cache.

        Raw ids, features, notes and `source` follow their users and items. The fingerprint differs from that of the
        original, because it covers the order of the rows. Features are copied once.
        """
        users = _order_by_degree(self.train.users, self.num_users)
        items = _order_by_degree(self.train.items, self.num_items)
        if _is_range(users) and _is_range(items):
            return self
        renumbered = take_rows(self, users, items)
        object.__setattr__(renumbered, "source", self.source)  # the content is still that of the source
        return renumbered


def take_rows(dataset: Dataset, users: Int[np.ndarray, " users"], items: Int[np.ndarray, " items"]) -> Dataset:
    """Return the data set of these users and items, numbered in this order, without the interactions of any others.

    Args:
        dataset: The data set to take from.
        users: Internal ids, each at most once.
        items: Internal ids, each at most once.
    """
    user_rows, item_rows = _new_rows(users, dataset.num_users), _new_rows(items, dataset.num_items)

    def taken(pairs: Interactions) -> Interactions:
        new_users, new_items = user_rows[pairs.users], item_rows[pairs.items]
        kept = (new_users >= 0) & (new_items >= 0)
        return distinct(Interactions(new_users[kept], new_items[kept]), len(items))

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
    )


def make_dataset(
    name: str,
    train: Interactions,
    valid: Interactions,
    test: Interactions,
    *,
    num_users: int,
    num_items: int,
    features: Mapping[str, Feature | Words] | None = None,
    user_ids: Shaped[np.ndarray, " users"] | None = None,
    item_ids: Shaped[np.ndarray, " items"] | None = None,
    origins: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Checks what is given and brings it into a data set's form.

    Interactions may be unsorted and repeated, of any integer type; features of any real type. The rows of items that
    lack a feature are set to 0, so they may hold anything.

    Args:
        name: What the data set is called in reports.
        train: Pairs of internal ids; `valid` and `test` likewise.
        valid: What selects the best epoch; may be empty.
        test: What is read once, at the end; may be empty.
        num_users: How many users there are, with interactions or without.
        num_items: How many items.
        features: What is known of items, by modality, in the order in which models take them.
        user_ids: Raw ids of the users by row; the row numbers where not given.
        item_ids: Raw ids of the items.
        origins: The file that a split, a modality, "users" or "items" came from, for error lines.
        notes: What a reader found or decided and the person should know.

    Raises:
        UserError: The first fault found, with its place and how to fix it.
    """
    _check_types(name, {"train": train, "valid": valid, "test": test}, num_users, num_items, features, notes)
    _check_counts(name, num_users, num_items)  # before an array of that size is made
    given = Dataset(
        name,
        int(num_users),
        int(num_items),
        train=_as_arrays(train),
        valid=_as_arrays(valid),
        test=_as_arrays(test),
        features={name: _as_float32(feature) for name, feature in (features or {}).items()},
        user_ids=np.arange(num_users) if user_ids is None else np.asarray(user_ids),
        item_ids=np.arange(num_items) if item_ids is None else np.asarray(item_ids),
    )
    _check_content(given, origins or {})
    train, valid, test = (distinct(getattr(given, split), given.num_items) for split in SPLITS)
    return replace(
        given,
        train=train,
        valid=valid,
        test=test,
        features={name: _sorted_words(feature) for name, feature in given.features.items()},
        notes=(*notes, *_repeats(given, (train, valid, test))),
    )


def _check_types(
    name: object,
    splits: Mapping[str, object],
    num_users: object,
    num_items: object,
    features: object,
    notes: object,
) -> None:
    """Reject what another type would make a data set of nonsense from, or a traceback."""
    check_type("name", name, str, "what the data set is called")
    for split, pairs in splits.items():
        check_type(f"data set {name}: {split}", pairs, Interactions, "slmrec_jax.types.Interactions(users, items)")
    for side, count in (("num_users", num_users), ("num_items", num_items)):
        check_type(f"data set {name}: {side}", count, (int, np.integer), "a whole number")
    check_type(f"data set {name}: features", features, (Mapping, type(None)), "a dict of Feature or Words by modality")
    for modality, feature in (features or {}).items():  # type: ignore[attr-defined]
        check_type(
            f"data set {name}: {modality}", feature, (Feature, Words), "Feature(values, present) of slmrec_jax.data"
        )
    check_type(f"data set {name}: notes", notes, (tuple, list), "a tuple of lines")


def distinct(pairs: Interactions, num_items: int) -> Interactions:
    """Interactions as a data set keeps them: int32, sorted by user, then item, and each once."""
    keys = np.sort(pairs.users.astype(np.int64) * num_items + pairs.items.astype(np.int64))
    keys = keys[np.diff(keys, prepend=-1) > 0]  # np.unique would hash, which takes several times as long
    users = keys // num_items
    return Interactions(users.astype(np.int32), (keys - users * num_items).astype(np.int32))


def check(dataset: Dataset) -> None:
    """Reject a data set, however it was built, that cannot be trained or evaluated on.

    Raises:
        UserError: The first fault found, with its place and how to fix it.
    """
    _check_content(dataset, {})
    for split in SPLITS:
        pairs: Interactions = getattr(dataset, split)
        keys = pairs.users.astype(np.int64) * dataset.num_items + pairs.items
        if pairs.users.dtype != np.int32 or pairs.items.dtype != np.int32 or (np.diff(keys) <= 0).any():
            raise UserError(
                f"data set {dataset.name}: {split} is not int32, sorted by user and item and free of duplicates; "
                f"build it with make_dataset"
            )
    for name, feature in dataset.features.items():
        if isinstance(feature, Feature) and (
            feature.values.dtype != np.float32 or feature.values[~feature.present].any()
        ):
            raise UserError(
                f"data set {dataset.name}: {name} is {feature.values.dtype}, or not 0 where it is not present; "
                f"expected float32 and 0: build it with make_dataset"
            )


def _check_content(dataset: Dataset, origins: Mapping[str, str]) -> None:
    def place(part: str) -> str:
        return origins.get(part, f"data set {dataset.name}: {part}")

    _check_counts(dataset.name, dataset.num_users, dataset.num_items)
    sizes = {split: len(getattr(dataset, split).users) for split in SPLITS}
    if not any(sizes.values()):
        raise UserError(f"data set {dataset.name}: there is not one interaction; expected some, in train at the least")
    for split in SPLITS:
        pairs: Interactions = getattr(dataset, split)
        check_pairs(place(split), ("users", "items"), pairs.users, pairs.items)
        if split == "train" and sizes[split] == 0:
            raise UserError(f"{place(split)}: there are no interactions in it; move some here from another split")
        check_range(place(split), "users", pairs.users, dataset.num_users, "ids are rows, counted from 0")
        check_range(place(split), "items", pairs.items, dataset.num_items, "ids are rows, counted from 0")
    check_raw_ids(place("users"), dataset.user_ids, dataset.num_users)
    check_raw_ids(place("items"), dataset.item_ids, dataset.num_items)
    for name, feature in dataset.features.items():
        if isinstance(feature, Words):
            check_pairs(place(name), ("items", "words"), feature.items, feature.words)
            check_count("words", feature.num_words, place(name))
            check_range(place(name), "items", feature.items, dataset.num_items, "ids are rows, counted from 0")
            check_range(place(name), "words", feature.words, feature.num_words, "raise num_words or fix the id")
        else:
            check_feature(place(name), feature.values, feature.present, dataset.num_items, from_file=name in origins)


def _check_counts(name: str, num_users: int, num_items: int) -> None:
    check_count("users", num_users, f"data set {name}")
    check_count("items", num_items, f"data set {name}")


def _repeats(given: Dataset, splits: Sequence[Interactions]) -> list[str]:
    rows = sum(len(getattr(given, split).users) for split in SPLITS)
    repeats = rows - sum(len(pairs.users) for pairs in splits)
    return [f"rows that repeat an interaction, merged: {repeats} of {rows}"] if repeats else []


def _as_arrays(pairs: Interactions) -> Interactions:
    return Interactions(np.asarray(pairs.users), np.asarray(pairs.items))


def _as_float32(feature: Feature | Words) -> Feature | Words:
    if isinstance(feature, Words):
        return Words(np.asarray(feature.items), np.asarray(feature.words), int(feature.num_words))
    values, present = np.asarray(feature.values), np.asarray(feature.present)
    stored = feature.stored or values.dtype.name
    if values.dtype.kind not in "fiub":
        return Feature(values, present, stored)  # the check refuses it with its name
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
        values = np.array(values, np.float32, order="C")  # a copy: readers give views on files, which may change
    if present.dtype == np.bool_ and present.shape == values.shape[:1] and not present.all():
        values[~present] = 0
    return Feature(values, present, stored)


def _sorted_words(feature: Feature | Words) -> Feature | Words:
    if isinstance(feature, Feature):
        return feature
    order = np.lexsort((feature.words, feature.items))
    items, words = (ids[order].astype(np.int32) for ids in (feature.items, feature.words))
    return Words(items, words, feature.num_words)


def _order_by_degree(ends: Int[np.ndarray, " interactions"], count: int) -> Int[np.ndarray, " nodes"]:
    return np.argsort(-np.bincount(ends, minlength=count), kind="stable")


def _is_range(ids: Int[np.ndarray, " nodes"]) -> bool:
    return bool((ids == np.arange(len(ids))).all())


def _new_rows(taken: Int[np.ndarray, " taken"], count: int) -> Int[np.ndarray, " nodes"]:
    """Return the new row of each old one; -1 for those that are not taken."""
    rows = np.full(count, -1, np.int32)
    rows[taken] = np.arange(len(taken), dtype=np.int32)
    return rows


def _take_items(
    feature: Feature | Words, items: Int[np.ndarray, " taken"], item_rows: Int[np.ndarray, " items"]
) -> Feature | Words:
    if isinstance(feature, Feature):
        return Feature(feature.values[items], feature.present[items], feature.stored)
    rows = item_rows[feature.items]
    return _sorted_words(Words(rows[rows >= 0], feature.words[rows >= 0], feature.num_words))


def _add(digest: "hashlib._Hash", label: str, array: Shaped[np.ndarray, "..."], dtype: str) -> None:
    digest.update(f"\n{label} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array, np.dtype(dtype)).data.cast("B"))
