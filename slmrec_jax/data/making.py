"""Construction of data sets from arrays, and checks of hand-built ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.dataset import ITEM_TEXTS, Dataset, Feature, Words, sorted_words
from slmrec_jax.data.inspect.checks import (
    AnyArray,
    check_count,
    check_feature,
    check_pairs,
    check_range,
    check_raw_ids,
)
from slmrec_jax.data.pairs import are_unique, unique_pairs
from slmrec_jax.data.vectors import HELD_TYPES, has_content, is_fixed, is_real, own_or_mapped
from slmrec_jax.errors import UserError, check_choice, check_type
from slmrec_jax.types import Interactions


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
    item_texts: Mapping[str, Shaped[np.ndarray, " items"]] | None = None,
    origins: Mapping[str, str | Path] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Check arrays and convert them to a data set.

    Interactions may be unsorted and repeated, of any integer dtype; features may have any real dtype. float16 and
    bfloat16 are kept; other dtypes become float32. The rows of items that lack a feature may hold anything; they are
    set to 0. Arrays are copied, with two exceptions that need no conversion: interactions that are read-only, including
    the arrays that they are views of, and features in read-only memory-mapped files (`numpy.load(file,
    mmap_mode="r")`), which must not change while the data set is used.

    Args:
        name: The name of the data set in reports.
        train: Pairs of internal ids; `valid` and `test` likewise.
        valid: The split that selects the best epoch. It may be empty.
        test: The split that is used once, at the end. It may be empty.
        num_users: The number of users, with or without interactions.
        num_items: The number of items.
        features: The item features by modality, in the order in which models use them.
        user_ids: Raw user ids by internal id; by default the internal ids.
        item_ids: Raw item ids, likewise.
        item_texts: Texts to show with items, by kind: `title` and `image`.
        origins: The file that each split, modality, "users" or "items" came from, for error messages.
        notes: Findings and decisions of the reader that the user should know.

    Raises:
        UserError: An array is invalid. The message describes the first fault, its place and the fix.
    """
    _check_types(name, {"train": train, "valid": valid, "test": test}, num_users, num_items, notes)
    _check_content_types(name, features, item_texts)
    where = f"data set {name}"
    _check_counts(name, num_users, num_items)  # checked before arrays of that size are made
    given = Dataset(
        name,
        int(num_users),
        int(num_items),
        train=Interactions(*(_array(f"{where}: train", ids) for ids in train)),
        valid=Interactions(*(_array(f"{where}: valid", ids) for ids in valid)),
        test=Interactions(*(_array(f"{where}: test", ids) for ids in test)),
        features={
            modality: _convert_feature(f"{where}: {modality}", feature)
            for modality, feature in (features or {}).items()
        },
        user_ids=np.arange(num_users) if user_ids is None else _array(f"{where}: user_ids", user_ids),
        item_ids=np.arange(num_items) if item_ids is None else _array(f"{where}: item_ids", item_ids),
        item_texts={kind: np.asarray(texts, np.object_) for kind, texts in (item_texts or {}).items()},
    )
    _check_content(given, origins or {})
    splits = [_own(unique_pairs(pairs, given.num_items)) for pairs in given.splits.values()]
    rows, kept = (sum(len(pairs.users) for pairs in each) for each in (given.splits.values(), splits))
    repeats = [f"rows that repeat an interaction, merged: {rows - kept} of {rows}"] if kept < rows else []
    features = {name: sorted_words(each) if isinstance(each, Words) else each for name, each in given.features.items()}
    train, valid, test = splits
    return replace(given, train=train, valid=valid, test=test, features=features, notes=(*notes, *repeats))


def check_dataset(dataset: Dataset) -> None:
    """Reject a data set, built in any way, that cannot be used for training or evaluation."""
    _check_counts(dataset.name, dataset.num_users, dataset.num_items)
    _check_content(dataset, {})
    for split, pairs in dataset.splits.items():
        if not are_unique(pairs):
            found = f"{split} is not int32, sorted by user and item, and free of duplicates"
            raise UserError(f"data set {dataset.name}: {found}; build it with make_dataset")
    for name, feature in dataset.features.items():
        if not isinstance(feature, Feature):
            continue
        if feature.values.dtype not in HELD_TYPES or has_content(feature.values, ~feature.present):
            found = f"{name} is {feature.values.dtype}, or not 0 where it is not present"
            expected = "float16, bfloat16 or float32, and 0"
            raise UserError(f"data set {dataset.name}: {found}; expected {expected}: build it with make_dataset")


def _check_types(
    name: object, splits: Mapping[str, object], num_users: object, num_items: object, notes: object
) -> None:
    """Reject arguments of the wrong type, which would cause a traceback or a meaningless data set."""
    check_type("name", name, str, "what the data set is called")
    where = f"data set {name}"
    for split, pairs in splits.items():
        check_type(f"{where}: {split}", pairs, Interactions, "slmrec_jax.types.Interactions(users, items)")
    check_type(f"{where}: num_users", num_users, (int, np.integer), "a whole number")
    check_type(f"{where}: num_items", num_items, (int, np.integer), "a whole number")
    check_type(f"{where}: notes", notes, (tuple, list), "a tuple of lines")


def _check_content_types(name: str, features: object, item_texts: object) -> None:
    """Do the same for features and texts."""
    where = f"data set {name}"
    check_type(f"{where}: features", features, (Mapping, type(None)), "a dict of Feature or Words by modality")
    for modality, feature in (features or {}).items():  # type: ignore[attr-defined]
        check_type(f"{where}: {modality}", feature, (Feature, Words), "Feature(values, present) of slmrec_jax.data")
        if isinstance(feature, Words):
            check_type(f"{where}: num_words of {modality}", feature.num_words, (int, np.integer), "a whole number")
    check_type(f"{where}: item_texts", item_texts, (Mapping, type(None)), "a dict of texts by kind")
    for kind in item_texts or {}:  # type: ignore[attr-defined]
        check_choice(f"{where}: a kind of item_texts", kind, ITEM_TEXTS)


def _check_counts(name: str, num_users: int, num_items: int) -> None:
    check_count("users", num_users, f"data set {name}")
    check_count("items", num_items, f"data set {name}")


def _check_content(dataset: Dataset, origins: Mapping[str, str | Path]) -> None:
    def place(part: str) -> str:
        return str(origins.get(part, f"data set {dataset.name}: {part}"))

    if not any(len(pairs.users) for pairs in dataset.splits.values()):
        raise UserError(f"data set {dataset.name}: there are no interactions; expected some, at least in train")
    for split, pairs in dataset.splits.items():
        check_pairs(place(split), ("users", "items"), pairs.users, pairs.items)
        if split == "train" and not len(pairs.users):
            raise UserError(f"{place(split)}: it has no interactions; move some here from another split")
        check_range(place(split), "users", pairs.users, dataset.num_users, "ids are rows, counted from 0")
        check_range(place(split), "items", pairs.items, dataset.num_items, "ids are rows, counted from 0")
    check_raw_ids(place("users"), dataset.user_ids, dataset.num_users)
    check_raw_ids(place("items"), dataset.item_ids, dataset.num_items)
    for kind, texts in dataset.item_texts.items():
        if texts.shape != (dataset.num_items,) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{place('items')}: {kind} is not one text for each item; give {dataset.num_items} texts")
    for name, feature in dataset.features.items():
        if isinstance(feature, Words):
            check_pairs(place(name), ("items", "words"), feature.items, feature.words)
            check_count("words", feature.num_words, place(name))
            check_range(place(name), "items", feature.items, dataset.num_items, "ids are rows, counted from 0")
            check_range(place(name), "words", feature.words, feature.num_words, "raise num_words or fix the id")
        else:
            check_feature(place(name), feature.values, feature.present, dataset.num_items, from_file=name in origins)


def _own(pairs: Interactions) -> Interactions:
    """Return arrays that no one else can change, copying those that are writable, directly or through another array."""
    return Interactions(*(each if is_fixed(each) else each.copy() for each in pairs))


def _array(where: str, values: object) -> AnyArray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(f"{where}: found lists of different lengths; give an array") from error


def _convert_feature(where: str, feature: Feature | Words) -> Feature | Words:
    if isinstance(feature, Words):
        return Words(_array(where, feature.items), _array(where, feature.words), int(feature.num_words))
    values, present = _array(where, feature.values), _array(where, feature.present)
    stored = feature.stored or values.dtype.name
    if not is_real(values.dtype):
        return Feature(values, present, stored)  # rejected later by `check_feature`, which names its type
    values = own_or_mapped(values)
    fits = values.ndim == 2 and present.dtype == np.bool_ and present.shape == values.shape[:1]
    if fits and not present.all() and has_content(values, ~present):
        if not values.flags.writeable:
            values = values.copy()
        values[~present] = 0
    return Feature(values, present, stored)
