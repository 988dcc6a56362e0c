"""Arithmetic on the interactions of a data set, block by block, with little memory beyond the result."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from slmrec_jax.types import Interactions

_BLOCK = 2**22
"""The number of interactions per block."""

_SAMPLED = 2**22
"""The number of interactions above which shares are estimated from a sample."""


def pair_blocks(count: int) -> Iterator[slice]:
    """Yield slices that cover `count` entries."""
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def blocks_of_users(users: Int[np.ndarray, " interactions"]) -> Iterator[slice]:
    """Yield slices that cover sorted users. Each slice has all interactions of its users."""
    start = 0
    while start < len(users):
        end = min(start + _BLOCK, len(users))
        if end < len(users) and users[end] == users[end - 1]:
            end = int(np.searchsorted(users, users[end]))
            if end <= start:
                end = int(np.searchsorted(users, users[start], side="right"))
        yield slice(start, end)
        start = end


def count_ids(ids: Int[np.ndarray, " entries"], count: int) -> Int[np.ndarray, " ids"]:
    """Count the occurrences of each id below `count`."""
    counts = np.zeros(count, np.int64)
    for block in pair_blocks(len(ids)):
        counts += np.bincount(ids[block], minlength=count)
    return counts


def popularity_hit_rate(train: Interactions, num_items: int, k: int = 20) -> float:
    """Compute the share of interactions whose item is among the k most popular, leaving out the user's other items.

    Equally popular items are ranked by id. For more than `_SAMPLED` interactions, only those of every n-th user count.
    Without interactions, the result is 0.
    """
    places = np.empty(num_items, np.int64)
    places[np.argsort(-count_ids(train.items, num_items), kind="stable")] = np.arange(num_items)
    stride = max(1, -(-len(train.users) // _SAMPLED))
    of_sample = [
        block.start + np.flatnonzero(train.users[block] % stride == 0) for block in pair_blocks(len(train.users))
    ]
    taken = np.concatenate([np.zeros(0, np.int64), *of_sample])
    users, ranks = train.users[taken], places[train.items[taken]]
    if len(users) == 0:
        return 0.0
    order = np.lexsort((ranks, users))
    users, ranks = users[order], ranks[order]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    lengths = np.diff(np.r_[starts, len(users)])
    more_popular = np.arange(len(users)) - np.repeat(starts, lengths)  # number of more popular items of the same user
    return float(np.mean(ranks - more_popular < k))


def are_unique(pairs: Interactions) -> bool:
    """Return whether interactions are sorted by user, then item, without duplicates, and int32."""
    users, items = pairs
    if users.dtype != np.int32 or items.dtype != np.int32:
        return False
    for block in pair_blocks(len(users) - 1):
        after = slice(block.start + 1, block.stop + 1)
        same = users[after] == users[block]
        if not ((users[after] > users[block]) | (same & (items[after] > items[block]))).all():
            return False
    return True


def unique_pairs(pairs: Interactions, num_items: int) -> Interactions:
    """Convert interactions to the form that a data set stores: int32, sorted by user, then item, without duplicates."""
    if are_unique(pairs):
        return pairs
    keys = np.sort(pair_keys(pairs, num_items))
    keys = keys[np.diff(keys, prepend=-1) > 0]  # np.unique hashes, which takes several times as long
    return _from_keys(keys, num_items)


def renumbered(
    pairs: Interactions,
    users: Int[np.ndarray, " users"],
    item_rows: Int[np.ndarray, " items"],
    num_users: int,
    num_items: int,
) -> Interactions:
    """Select and renumber interactions by users and items, in the form that a data set stores.

    Args:
        pairs: The interactions, in the form that a data set stores.
        users: The old id of each new user.
        item_rows: The new id of each old item; -1 for items to drop.
        num_users: The number of old users.
        num_items: The number of new items.
    """
    pairs = unique_pairs(pairs, len(item_rows))
    degrees = count_ids(pairs.users, num_users)
    starts, counts = (np.cumsum(degrees) - degrees)[users], degrees[users]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    found = Interactions(np.empty(total, np.int32), np.empty(total, np.int32))
    first = size = 0
    while first < len(users):
        done = int(ends[first] - counts[first])
        last = max(first + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        taken = counts[first:last]
        offsets = np.cumsum(taken) - taken
        places = np.repeat(starts[first:last] - offsets, taken) + np.arange(taken.sum())
        items = item_rows[pairs.items[places]]
        keys = np.repeat(np.arange(first, last, dtype=np.int64), taken) * num_items + items
        keys = np.sort(keys[items >= 0])
        found.users[size : size + len(keys)], found.items[size : size + len(keys)] = _from_keys(keys, num_items)
        first, size = last, size + len(keys)
    if size == total:
        return found
    return Interactions(found.users[:size].copy(), found.items[:size].copy())


def pair_keys(pairs: Interactions, num_items: int) -> Int[np.ndarray, " interactions"]:
    """Return an int64 key for each pair. Keys sort by user, then item."""
    return np.asarray(pairs.users.astype(np.int64) * num_items + pairs.items.astype(np.int64))


def _from_keys(keys: Int[np.ndarray, " pairs"], num_items: int) -> Interactions:
    users = keys // num_items
    return Interactions(users.astype(np.int32), (keys - users * num_items).astype(np.int32))
