"""Small graphs with corner cases."""

import numpy as np


def random_interactions(seed, num_users, num_items, num_interactions):
    """Distinct pairs; the last user and the last two items have none."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice((num_users - 1) * (num_items - 2), num_interactions, replace=False)
    return (pairs // (num_items - 2)).astype(np.int32), (pairs % (num_items - 2)).astype(np.int32)


GRAPHS = {
    "random": (23, 31, *random_interactions(0, 23, 31, 150)),
    "one edge": (3, 4, np.array([1], np.int32), np.array([2], np.int32)),
    "hub": (40, 5, np.r_[np.arange(40), 7].astype(np.int32), np.r_[np.zeros(40), 3].astype(np.int32)),
    "one item": (6, 1, np.arange(6, dtype=np.int32), np.zeros(6, np.int32)),
    "isolated": (9, 8, np.array([0, 0, 4], np.int32), np.array([1, 2, 2], np.int32)),
}
"""Corner cases by name: the number of users, the number of items, and the interactions."""
