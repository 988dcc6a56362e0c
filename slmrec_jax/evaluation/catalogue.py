"""Metrics of the recommended items, independent of relevance: coverage, exposure, novelty and popularity.

Their inputs are the items of each user's list, where -1 is an empty place, and counts of training interactions.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

_USERS_AT_ONCE = 2**15
"""The number of users processed at a time, so that memory does not grow with users × places."""


def exposure(ranked: Int[np.ndarray, "users places"], num_items: int) -> Int[np.ndarray, " items"]:
    """Count the lists that contain each item of 0..num_items-1."""
    counts = np.zeros(num_items, np.int64)
    for rows in _blocks(len(ranked)):
        block = ranked[rows]
        counts += np.bincount(block[block >= 0], minlength=num_items)
    return counts


def coverage(exposures: Int[np.ndarray, " items"]) -> float:
    """Compute catalogue coverage: the share, from 0 to 1, of items (at least one) that are in any list."""
    return float(np.count_nonzero(exposures) / len(exposures))


def gini(exposures: Int[np.ndarray, " items"]) -> float:
    """Compute the Gini index of exposure: 0 if all items are in equally many lists, 1 - 1 / n if one item is in all.

    G = Σ_i (2 i - n - 1) e_i / (n Σ_i e_i) over the n items (at least one), sorted by ascending exposure e_i, i = 1..n.
    It is 0 if no item has any exposure. Source: Fleder & Hosanagar, Management Science 2009.
    """
    count, total = len(exposures), int(exposures.sum())
    weights = 2.0 * np.arange(1, count + 1) - count - 1
    return float(weights @ np.sort(exposures) / (count * total)) if total else 0.0


def novelty(
    ranked: Int[np.ndarray, "users places"], degrees: Int[np.ndarray, " items"], num_users: int
) -> Float[np.ndarray, " users"]:
    """Compute the mean self-information of each user's items in bits: the mean of -log2(degree / num_users).

    Source: Zhou et al., PNAS 2010. Departure: an item without training interactions counts as having one, because its
    self-information would be infinite. An empty list has novelty 0.

    Args:
        ranked: Item ids; -1 is an empty place.
        degrees: The number of training interactions of each item.
        num_users: The number of users with training interactions.
    """
    return _mean_over_places(ranked, np.log2(num_users) - np.log2(np.maximum(degrees, 1)))


def mean_popularity(
    ranked: Int[np.ndarray, "users places"], degrees: Int[np.ndarray, " items"]
) -> Float[np.ndarray, " users"]:
    """Compute the mean number of training interactions of each user's items; 0 for an empty list.

    Source: Yin et al., VLDB 2012 (average recommendation popularity).
    """
    return _mean_over_places(ranked, degrees.astype(np.float64))


def _mean_over_places(
    ranked: Int[np.ndarray, "users places"], values: Float[np.ndarray, " items"]
) -> Float[np.ndarray, " users"]:
    means = np.empty(len(ranked))
    for rows in _blocks(len(ranked)):
        block = ranked[rows]
        filled = block >= 0
        sums = np.where(filled, values[block], 0.0).sum(axis=1)
        means[rows] = sums / np.maximum(filled.sum(axis=1), 1)
    return means


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _USERS_AT_ONCE) for start in range(0, count, _USERS_AT_ONCE))
