"""Divides interactions into training, validation and test: as other tools do it, by time, or by items.

Whatever is random follows from the seed by integer arithmetic of this file, so that it is the same on every machine
and under every version of NumPy, and does not depend on the order in which interactions were read.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int, Shaped, UInt64

from slmrec_jax.data.dataset import Dataset, distinct
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions

Times: TypeAlias = Shaped[np.ndarray, " interactions"]
Parts: TypeAlias = Int[np.ndarray, " interactions"]
"""Where each interaction goes: `TRAIN`, `VALID` or `TEST`."""
Numbers: TypeAlias = Int[np.ndarray, " interactions"]
"""One for each interaction."""

TRAIN, VALID, TEST = range(3)

_ODD = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1


class Unsplit(NamedTuple):
    """A data set as a reader found it undivided: all interactions are in `train`, the other splits are empty."""

    dataset: Dataset
    times: Callable[[], Times] | None = None
    """When each interaction of `train` took place, in any unit (`first_times`); called where a split asks for it."""
    of_one_user: bool = False
    """Whether these times say nothing of the interactions of different users: they are places in a user's list."""


class Pool(NamedTuple):
    """What a split divides."""

    pairs: Interactions
    """Sorted by user."""
    times: Times
    """All 0 where they are not known, or not used."""
    seed: int


class Split(NamedTuple):
    """A way to divide interactions."""

    summary: str
    divide: Callable[[Pool], Parts]
    times: Literal["unused", "used", "needed"] = "unused"
    """Whether it looks at when interactions took place: where that is known, or always."""
    keeps_test: bool = False
    """Whether only training interactions are divided, and test stays what it is."""


def split_dataset(data: Dataset | Unsplit, name: str | None, seed: int = 0) -> Dataset:
    """Divides a data set by the split of that name; one that is divided already is divided again.

    Args:
        data: What a reader returned.
        name: A key of `SPLITS`; `None` leaves a divided data set as it is.
        seed: What everything random follows from.

    Raises:
        UserError: An undivided data set without a name, a name that is none, a split by time without times, or one
            that leaves nothing to train on.
    """
    dataset, times, of_one_user = data if isinstance(data, Unsplit) else (data, None, False)
    if name is None:
        if isinstance(data, Unsplit):
            choices = "; ".join(f"{name} ({split.summary})" for name, split in SPLITS.items())
            raise UserError(
                f"data set {dataset.name}: it is not split; say how with {setting('split', 'NAME')}: {choices}"
            )
        return dataset
    if name not in SPLITS:
        raise UserError(f"there is no split {name!r}; there is: {', '.join(SPLITS)}")
    split = SPLITS[name]
    if split.times == "needed" and (times is None or of_one_user):
        have = "have only the order of each user's" if of_one_user else "do not have"
        raise UserError(
            f"data set {dataset.name}: the split {name!r} needs the time of each interaction, and these data {have}; "
            f"choose another"
        )
    if split.keeps_test and len(dataset.valid.users):
        raise UserError(
            f"data set {dataset.name}: it has a validation split already; leave out {setting('split', name)}"
        )
    pairs, merged = (dataset.train, 0) if split.keeps_test or isinstance(data, Unsplit) else _all_pairs(dataset)
    notes = [f"split by {name!r} with seed {seed}"]
    if split.times == "used" and times is None:
        notes.append("no times: the order of each user's interactions is random")
    if merged:
        notes.append(f"interactions that were in two splits, merged: {merged}")
    known = None if times is None or split.times == "unused" else times()
    parts = split.divide(Pool(pairs, np.zeros(len(pairs.users), np.int64) if known is None else known, seed))
    train, valid, test = (Interactions(pairs.users[parts == part], pairs.items[parts == part]) for part in range(3))
    if len(train.users) == 0:
        raise UserError(f"data set {dataset.name}: the split {name!r} leaves nothing to train on; choose another")
    test = dataset.test if split.keeps_test else test
    new = np.zeros(dataset.num_users, np.bool_)
    new[valid.users], new[test.users] = True, True
    new[train.users] = False
    if new.any():
        notes.append(f"users with held-out interactions but none to train on: {np.count_nonzero(new)}")
    return replace(dataset, train=train, valid=valid, test=test, notes=(*dataset.notes, *notes))


def first_times(pairs: Interactions, times: Times, num_items: int) -> Shaped[np.ndarray, " distinct"]:
    """For each interaction of `distinct(pairs)`, the first of the times at which it is there."""
    keys = pairs.users.astype(np.int64) * num_items + pairs.items
    order = np.argsort(keys)
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1) > 0)
    return np.asarray(np.minimum.reduceat(times[order], starts) if len(starts) else times)


def _all_pairs(dataset: Dataset) -> tuple[Interactions, int]:
    """All interactions, and how many are in more than one split."""
    splits = (dataset.train, dataset.valid, dataset.test)
    users, items = (np.concatenate(columns) for columns in zip(*splits, strict=True))
    pairs = distinct(Interactions(users, items), dataset.num_items)
    return pairs, len(users) - len(pairs.users)


def _mmrec(pool: Pool) -> Parts:
    return _hold_out_a_fifth(pool, lambda held: held // 2)


def _lattice(pool: Pool) -> Parts:
    return _hold_out_a_fifth(pool, lambda held: held - held // 2)


def _hold_out_a_fifth(pool: Pool, num_valid: Callable[[Numbers], Numbers]) -> Parts:
    counts, ranks = _within_users(pool, _random_order(pool))
    held = np.where(counts < 10, np.where(counts < 3, 0, 2), counts // 5)
    return _parts(ranks < num_valid(held), ranks < held)


def _leave_one_out(pool: Pool) -> Parts:
    draws = draw(pool.seed, *pool.pairs)
    counts, ranks = _within_users(pool, np.lexsort((draws, pool.times, pool.pairs.users)))
    return _parts(ranks == counts - 2, (ranks >= counts - 2) & (counts > 2))


def _time(pool: Pool) -> Parts:
    ordered = np.sort(pool.times)
    from_valid, from_test = ordered[len(ordered) * 8 // 10], ordered[len(ordered) * 9 // 10]
    return _parts(pool.times < from_test, pool.times >= from_valid)


def _cold_items(pool: Pool) -> Parts:
    items, places = np.unique(pool.pairs.items, return_inverse=True)
    ranks = np.empty(len(items), np.int64)
    ranks[np.argsort(draw(pool.seed, items), kind="stable")] = np.arange(len(items))
    each = len(items) // 10 or int(len(items) > 2)
    return _parts(ranks < each, ranks < 2 * each)[places]


def _tenth_of_train(pool: Pool) -> Parts:
    counts, ranks = _within_users(pool, _random_order(pool))
    held = np.where(counts > 1, np.maximum(1, counts // 10), 0)
    return _parts(ranks < held, ranks < held)


SPLITS: Mapping[str, Split] = {
    "mmrec": Split("a fifth of each user's at random, the smaller half for validation, as MMRec", _mmrec),
    "lattice": Split("a fifth of each user's at random, the smaller half for test, as LATTICE and MMSSL", _lattice),
    "leave-one-out": Split(
        "each user's last for test and the one before for validation; without times, random ones",
        _leave_one_out,
        times="used",
    ),
    "time": Split("the last tenth of all for test and the tenth before for validation", _time, times="needed"),
    "cold-items": Split(
        "all interactions of a tenth of the items for test, of another tenth for validation", _cold_items
    ),
    "validation": Split(
        "a tenth of each user's training interactions for validation; test stays", _tenth_of_train, keeps_test=True
    ),
}
"""Users with fewer than 3 interactions have them all in train, where a split is by user."""


def draw(seed: int, *keys: Int[np.ndarray, " rows"]) -> UInt64[np.ndarray, " rows"]:
    """A number for each row that looks random: the keys one after the other through SplitMix64's output function.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014); the constants are Stafford's.
    """
    state = _mix(np.array([seed & _WORD], np.uint64))
    for key in keys:
        state = _mix(state + key.astype(np.uint64))
    return state


def _mix(words: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    words = words + np.uint64(_ODD)  # wraps around, as arrays of unsigned integers do
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))


def _random_order(pool: Pool) -> Numbers:
    """The order of interactions by user, and at random for each user."""
    draws = draw(pool.seed, *pool.pairs) >> np.uint64(32)
    return np.argsort(pool.pairs.users.astype(np.uint64) << np.uint64(32) | draws, kind="stable")


def _within_users(pool: Pool, order: Numbers) -> tuple[Numbers, Numbers]:
    """For each interaction, how many its user has, and how many of these come before it in an order by user."""
    users = pool.pairs.users
    counts = np.bincount(users)
    ranks = np.empty(len(users), np.int64)
    ranks[order] = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    return counts[users], ranks


def _parts(valid: Shaped[np.ndarray, " interactions"], held_out: Shaped[np.ndarray, " interactions"]) -> Parts:
    return np.where(held_out, np.where(valid, VALID, TEST), TRAIN)
