"""Split interactions into training, validation and test: like other tools, by time, or by items.

All randomness is derived from the seed by the integer arithmetic in this file. A split is therefore the same on every
machine and with every version of NumPy, and does not depend on the order in which interactions are read.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64

from slmrec_jax.data.dataset import Dataset, by_split
from slmrec_jax.data.pairs import blocks_of_users, count_ids, unique_pairs
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions

Times: TypeAlias = Shaped[np.ndarray, " interactions"]
Numbers: TypeAlias = Int[np.ndarray, " interactions"]
Parts: TypeAlias = Numbers
"""The split of each interaction: `TRAIN`, `VALID` or `TEST`."""

TRAIN, VALID, TEST = range(3)


class Unsplit(NamedTuple):
    """A data set without splits: all interactions are in `train`, and the other splits are empty."""

    dataset: Dataset
    times: Callable[[], Times] | None = None
    """Returns the times of the interactions in `train`, in any unit; called only if the split needs them."""
    of_one_user: bool = False
    """Whether times are comparable only within a user, because they are positions in the user's list."""


class Pool(NamedTuple):
    """The interactions that a method splits."""

    pairs: Interactions
    """The interactions, sorted by user."""
    times: Times
    """The times; all 0 if they are unknown or unused."""
    seed: int


class SplitMethod(NamedTuple):
    """A method of splitting interactions."""

    summary: str
    divide: Callable[[Pool], Parts]
    times: Literal["unused", "used", "needed"] = "unused"
    """Whether it uses times: never, if they are known, or always."""
    keeps_test: bool = False
    """Whether it splits only the training interactions and keeps the test split."""


def split_dataset(data: Dataset | Unsplit, name: str | None, seed: int = 0) -> Dataset:
    """Split data with a method of `SPLIT_METHODS`, replacing existing splits; `None` keeps existing splits.

    Raises:
        UserError: The data have no splits and there is no name, the name is unknown, the method does not fit the data,
            or no training interactions would be left.
    """
    if name is None and isinstance(data, Dataset):
        return data
    given = data if isinstance(data, Unsplit) else Unsplit(data)
    method, (dataset, times, _) = _choose_method(given, name, isinstance(data, Dataset)), given
    notes = [f"split by {name!r} with seed {seed}"]
    if method.times == "used" and times is None:
        why = "no times" if isinstance(data, Unsplit) else "times of data that are already split are not used"
        notes.append(f"{why}: the order of each user's interactions is random")
    pairs = dataset.train
    if isinstance(data, Dataset) and not method.keeps_test:
        users, items = (np.concatenate(columns) for columns in zip(*dataset.splits.values(), strict=True))
        pairs = unique_pairs(Interactions(users, items), dataset.num_items)
        if merged := len(users) - len(pairs.users):
            notes.append(f"interactions that were in two splits, merged: {merged}")
    unknown = np.broadcast_to(np.int64(0), len(pairs.users))  # takes no memory
    known = unknown if times is None or method.times == "unused" else times()
    parts = method.divide(Pool(pairs, known, seed))
    train, valid, test = by_split(pairs, parts).values()
    if len(train.users) == 0:
        raise UserError(f"data set {dataset.name}: the split {name!r} leaves nothing to train on; choose another")
    test = dataset.test if method.keeps_test else test
    new = np.zeros(dataset.num_users, np.bool_)
    new[valid.users] = new[test.users] = True
    new[train.users] = False
    if new.any():
        notes.append(f"users with held-out interactions but none to train on: {np.count_nonzero(new)}")
    return replace(dataset, train=train, valid=valid, test=test, notes=(*dataset.notes, *notes))


def _choose_method(given: Unsplit, name: str | None, already_split: bool) -> SplitMethod:
    dataset, times, of_one_user = given
    where = f"data set {dataset.name}"
    if name is None:
        choices = "; ".join(f"{each} ({method.summary})" for each, method in SPLIT_METHODS.items())
        raise UserError(f"{where}: it is not split; say how with {setting('split', 'NAME')}: {choices}")
    if name not in SPLIT_METHODS:
        raise UserError(f"there is no split {name!r}: give one of {', '.join(SPLIT_METHODS)}")
    method = SPLIT_METHODS[name]
    if method.times == "needed" and (times is None or of_one_user):
        none = "are already split, so that times are not used" if already_split else "have none"
        have = "have only each user's order" if of_one_user else none
        raise UserError(
            f"{where}: the split {name!r} needs the time of each interaction, but these data {have}; choose another"
        )
    if method.keeps_test and len(dataset.valid.users):
        raise UserError(f"{where}: it already has a validation split; leave out {setting('split', name)}")
    return method


def _hold_out_a_fifth(pool: Pool, smaller: int) -> Parts:
    counts, ranks = rank_within_users(pool.pairs.users, _random_order(pool))
    held = np.where(counts < 10, np.where(counts < 3, 0, 2), counts // 5)
    num_valid = held // 2 if smaller == VALID else held - held // 2
    return as_parts(ranks < num_valid, ranks < held)


def _leave_one_out(pool: Pool) -> Parts:
    draws = draw(pool.seed, *pool.pairs)
    counts, ranks = rank_within_users(pool.pairs.users, np.lexsort((draws, pool.times, pool.pairs.users)))
    return as_parts(ranks == counts - 2, (ranks >= counts - 2) & (counts > 2))


def _time(pool: Pool) -> Parts:
    places = [len(pool.times) * 8 // 10, len(pool.times) * 9 // 10]
    from_valid, from_test = np.partition(pool.times, places)[places]
    return as_parts(pool.times < from_test, pool.times >= from_valid)


def _hold_out_items(pool: Pool) -> Parts:
    items = np.flatnonzero(count_ids(pool.pairs.items, int(pool.pairs.items.max()) + 1))
    ranks = np.zeros(items[-1] + 1, np.int64)
    ranks[items[np.argsort(draw(pool.seed, items), kind="stable")]] = np.arange(len(items))
    each = len(items) // 10 or int(len(items) > 2)
    return np.asarray(as_parts(ranks < each, ranks < 2 * each)[pool.pairs.items])


def _tenth_of_train(pool: Pool) -> Parts:
    counts, ranks = rank_within_users(pool.pairs.users, _random_order(pool))
    held = np.where(counts > 1, np.maximum(1, counts // 10), 0)
    return as_parts(ranks < held, ranks < held)


def _by_user(divide: Callable[[Pool], Parts], pool: Pool) -> Parts:
    """Split the interactions of a few users at a time, since users are independent."""
    parts = np.empty(len(pool.pairs.users), np.int8)
    for block in blocks_of_users(pool.pairs.users):
        pairs = Interactions(pool.pairs.users[block], pool.pairs.items[block])
        parts[block] = divide(Pool(pairs, pool.times[block], pool.seed))
    return parts


SPLIT_METHODS: Mapping[str, SplitMethod] = {
    "mmrec": SplitMethod(
        "a fifth of each user's at random, the smaller half for validation, as in MMRec",
        partial(_by_user, partial(_hold_out_a_fifth, smaller=VALID)),
    ),
    "lattice": SplitMethod(
        "a fifth of each user's at random, the smaller half for test, as in LATTICE and MMSSL",
        partial(_by_user, partial(_hold_out_a_fifth, smaller=TEST)),
    ),
    "leave-one-out": SplitMethod(
        "each user's last for test and the one before for validation; at random without times or among equal ones",
        partial(_by_user, _leave_one_out),
        times="used",
    ),
    "time": SplitMethod("the last tenth of all for test and the tenth before for validation", _time, times="needed"),
    "cold-items": SplitMethod(
        "all interactions of a tenth of the items for test, of another tenth for validation", _hold_out_items
    ),
    "validation": SplitMethod(
        "a tenth of each user's training interactions for validation; test stays",
        partial(_by_user, _tenth_of_train),
        keeps_test=True,
    ),
}
"""The split methods by name. Methods that split by user keep all interactions of users with fewer than 3 in train;
`validation` does so only for users with 1."""


def draw(seed: int, *keys: Int[np.ndarray, " rows"]) -> UInt64[np.ndarray, " rows"]:
    """Return one pseudo-random number per row by applying SplitMix64's output function to the keys in turn.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), with Stafford's
    constants.
    """
    state = _mix(np.array([seed % 2**64], np.uint64))
    for key in keys:
        state = _mix(state + key.astype(np.uint64))
    return state


def _mix(words: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    words = words + np.uint64(0x9E3779B97F4A7C15)  # wraps around, like all arrays of unsigned integers
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))


def _random_order(pool: Pool) -> Numbers:
    """Return an order of the interactions: by user, and random within each user."""
    draws = draw(pool.seed, *pool.pairs) >> np.uint64(32)
    return np.argsort(pool.pairs.users.astype(np.uint64) << np.uint64(32) | draws, kind="stable")


def rank_within_users(users: Numbers, order: Numbers) -> tuple[Numbers, Numbers]:
    """Return for each interaction the number of its user's interactions, and its rank among them.

    `users` must be sorted. `order` has the indices of interactions by user, then rank.
    """
    users = users - (users[0] if len(users) else 0)
    counts = np.bincount(users)
    ranks = np.empty(len(users), np.int64)
    ranks[order] = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    return counts[users], ranks


def as_parts(valid: Bool[np.ndarray, " interactions"], held_out: Bool[np.ndarray, " interactions"]) -> Parts:
    """Return `VALID` or `TEST` for held-out interactions, and `TRAIN` for the others."""
    return np.where(held_out, np.where(valid, np.int8(VALID), np.int8(TEST)), np.int8(TRAIN))
