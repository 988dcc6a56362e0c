"""Selection of interactions, with memory bounded by the size of the selection, not by all interactions.

Ids are processed in blocks, since NumPy copies index arrays as 64-bit integers.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Int

from slmrec_jax.data.pairs import pair_blocks
from slmrec_jax.types import Interactions


def presence(ids: Int[np.ndarray, " ids"], count: int) -> Bool[np.ndarray, " count"]:
    """Mark which of 0..count-1 are among the ids."""
    found = np.zeros(count, np.bool_)
    for block in pair_blocks(len(ids)):
        found[ids[block]] = True
    return found


def positions_of(chosen: Bool[np.ndarray, " count"], ids: Int[np.ndarray, " ids"]) -> Int[np.ndarray, " places"]:
    """Return the positions of the chosen ids. Ids of `count` and above are not chosen."""
    places = [np.empty(0, np.int64)]
    for block in pair_blocks(len(ids)):
        within = np.flatnonzero(ids[block] < len(chosen))
        places.append(within[chosen[ids[block][within]]] + block.start)
    return np.concatenate(places)


def pairs_at(pairs: Interactions, places: Int[np.ndarray, " places"]) -> Interactions:
    """Return the pairs at the given positions."""
    return Interactions(pairs.users[places], pairs.items[places])


def contains_all(pairs: Interactions, others: Interactions) -> bool:
    """Return whether `pairs`, sorted by user and then item, contain all others; stop at the first block with a gap."""
    return all(
        _contained(pairs, Interactions(others.users[block], others.items[block])).all()
        for block in pair_blocks(len(others.users))
    )


def known_matrix(
    users: Int[np.ndarray, " users"], known: Sequence[Interactions], num_items: int
) -> scipy.sparse.csr_array:
    """Build a sparse matrix with a row for each of `users` and an entry for each known item."""
    asked, rows = np.unique(users, return_inverse=True)
    row_of = np.full(1 + int(asked.max(initial=0)), -1, np.int32)
    row_of[asked] = np.arange(len(asked), dtype=np.int32)
    owners, items = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for pairs in known:
        for block in pair_blocks(len(pairs.users)):
            places = positions_of(row_of >= 0, pairs.users[block])
            owners.append(row_of[pairs.users[block][places]])
            items.append(pairs.items[block][places])
    coordinates = np.concatenate(owners), np.concatenate(items)
    del owners, items
    entries = np.ones(len(coordinates[0]), np.int8)
    matrix = scipy.sparse.csr_array((entries, coordinates), shape=(len(asked), num_items))
    return matrix if np.array_equal(asked, users) else matrix[rows]


def _contained(pairs: Interactions, others: Interactions) -> Bool[np.ndarray, " others"]:
    """Mark which of `others` are among the sorted pairs, by binary search."""
    if not len(pairs.users):
        return np.zeros(len(others.users), np.bool_)
    low, end = (np.searchsorted(pairs.users, others.users, side) for side in ("left", "right"))
    high, last = end.copy(), len(pairs.users) - 1
    while (open_ := low < high).any():
        middle = (low + high) // 2
        below = pairs.items[np.minimum(middle, last)] < others.items
        low = np.where(open_ & below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    found: np.ndarray = (low < end) & (pairs.items[np.minimum(low, last)] == others.items)
    return found
