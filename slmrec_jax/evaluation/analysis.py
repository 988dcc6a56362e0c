"""Analysis of embeddings (geometry and neighbourhoods), and bootstrap intervals of metrics.

All functions are pure functions of host arrays, and of a seed if they draw samples.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from slmrec_jax.evaluation.ranking import Ranking, plan_ranking, rank
from slmrec_jax.types import Embeddings, Interactions

_BLOCK_BYTES = 2**25


class Interval(NamedTuple):
    """A mean over users and its bootstrap interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """The mean difference of a metric between two systems, on the same users."""

    interval: Interval
    p_value: float


def alignment(
    users: Float[np.ndarray, "users dim"], items: Float[np.ndarray, "items dim"], pairs: Interactions
) -> float:
    """Compute the mean of |x_u - x_i|² over positive pairs (u, i), at least one, with rows scaled to norm 1.

    The range is from 0, if every user coincides with their items, to 4. Lower is better at equal uniformity. Repeated
    pairs count each time. Source: Wang & Isola, ICML 2020, section 4, with exponent 2 as in the paper's experiments.
    """
    users, items = unit_rows(users), unit_rows(items)
    total = 0.0
    for rows in _blocks(len(pairs.users), users.shape[1]):
        total += float(np.sum((users[pairs.users[rows]] - items[pairs.items[rows]]) ** 2, dtype=np.float64))
    return total / len(pairs.users)


def uniformity(rows: Float[np.ndarray, "rows dim"]) -> float:
    """Compute log mean exp(-2 |x - y|²) over pairs of different rows, scaled to norm 1; NaN for fewer than two rows.

    The value is 0 if all rows coincide; lower is better. Time is quadratic in the number of rows; memory is bounded,
    since pairs are processed in blocks. Source: Wang & Isola, ICML 2020, section 4, with t = 2 as in the paper's
    experiments.
    """
    if len(rows) < 2:
        return math.nan
    x = unit_rows(rows)
    total = 0.0
    for block in _blocks(len(x), len(x)):
        closeness = np.exp(-2 * np.maximum(2 - 2 * (x[block] @ x.T), 0))
        places = np.arange(block.start, block.stop)
        closeness[places - block.start, places] = 0  # not a pair of different rows
        total += float(closeness.sum(dtype=np.float64))
    return float(np.log(total / (len(x) * (len(x) - 1))))


def neighbours(
    table: Float[np.ndarray, "items columns"],
    items: Int[np.ndarray, " chosen"],
    k: int,
    *,
    present: Bool[np.ndarray, " items"] | None = None,
) -> Ranking:
    """Find the k other items with the largest cosine for each of `items`, best first, with ties in id order.

    `table` holds the feature vectors or embeddings of all items, and `present` marks the items that have the feature
    (by default all). An item without the feature is no one's neighbour and has no neighbours. Missing neighbours are -1
    with score -inf. Memory is bounded.
    """
    there = np.arange(len(table)) if present is None else np.flatnonzero(present)
    places = np.arange(len(there), dtype=np.int32)
    answered = np.isin(items, there)
    found = Ranking(np.full((len(items), k), -1, np.int32), np.full((len(items), k), -np.inf, np.float32))
    if answered.any():
        depth = min(k, len(there))
        queries = np.searchsorted(there, items[answered])
        rows = jnp.asarray(unit_rows(table[there]))
        plan = plan_ranking(queries, [Interactions(places, places)], len(there), depth)  # leaves out each item itself
        ranked = rank(plan, Embeddings(rows, rows))
        found.items[answered, :depth] = np.where(ranked.items >= 0, there[ranked.items], -1)
        found.scores[answered, :depth] = ranked.scores
    return found


def modality_agreement(
    first: Float[np.ndarray, "items first"], second: Float[np.ndarray, "items second"], k: int = 10
) -> float:
    """Compute the mean share of an item's k nearest neighbours that two tables have in common.

    The value is 1 for equal neighbourhoods and k / (items - 1) in expectation for unrelated ones. The tables hold
    vectors of the same items, at least two, and are compared by cosine. k >= 1 is limited to the number of other items.
    """
    count = len(first)
    k = min(k, count - 1)
    places = np.arange(count, dtype=np.int32)
    # Encode each (item, neighbour) pair as one number, so that a single sort finds the shared pairs.
    of_first, of_second = (
        (places[:, None] * np.int64(count) + neighbours(table, places, k).items).ravel() for table in (first, second)
    )
    return len(np.intersect1d(of_first, of_second, assume_unique=True)) / (k * count)


def bootstrap(
    per_user: Mapping[str, Float[np.ndarray, " users"]], *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Compute the mean of each metric and its percentile bootstrap interval over users.

    The interval shows how the mean varies with the choice of users from the same population, not with the training
    seed. All metrics must have the same users; they share the resampled users. `draws` is the number of resamples, and
    `level` in (0, 1) is the coverage of the interval.
    """
    values = np.stack(list(per_user.values()), axis=1)
    ends = np.quantile(_resampled_means(values, draws, seed), [(1 - level) / 2, (1 + level) / 2], axis=0)
    columns = zip(per_user, values.mean(axis=0).tolist(), *ends.tolist(), strict=True)
    return {key: Interval(mean, low, high) for key, mean, low, high in columns}


def paired_bootstrap(
    first: Float[np.ndarray, " users"],
    second: Float[np.ndarray, " users"],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compute the mean of first - second over users, its bootstrap interval and a two-sided p-value.

    Both arrays hold the same metric of two systems for the same users; for the options, see `bootstrap`. The p-value is
    the share of draws whose mean is at least as far from the observed mean as the observed mean is from 0. The observed
    mean counts as one draw: the smallest value is 1 / (draws + 1), and equal systems have 1.
    """
    differences = first - second
    mean = float(differences.mean())
    drawn = _resampled_means(differences[:, None], draws, seed)[:, 0]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    # The factor allows for rounding, since sums in different orders differ in the last bit.
    as_far = int(np.sum(np.abs(drawn - mean) >= abs(mean) * (1 - 1e-12)))
    return Difference(Interval(mean, float(low), float(high)), (1 + as_far) / (1 + draws))


def _resampled_means(
    values: Float[np.ndarray, "users metrics"], draws: int, seed: int
) -> Float[np.ndarray, "draws metrics"]:
    """Compute the means of bootstrap samples, each represented by the count of each user."""
    rng, count = np.random.default_rng(seed), len(values)
    means = np.empty((draws, values.shape[1]))
    for rows in _blocks(draws, count):
        drawn = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(rows.start, rows.stop)]
        means[rows] = np.stack(drawn) @ values / count
    return means


def unit_rows(rows: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Scale rows to norm 1. A row of zeros stays unchanged."""
    rows = np.asarray(rows, np.float32)
    squares = np.einsum("rc,rc->r", rows, rows, dtype=np.float64)  # float32 squares overflow beyond 1e19
    norms = np.maximum(np.sqrt(squares), 1e-12)
    unit: np.ndarray = np.divide(rows, norms[:, None], out=np.empty_like(rows), casting="same_kind")
    return unit


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Iterate over slices of rows whose float32 blocks have at most `_BLOCK_BYTES`."""
    step = max(1, _BLOCK_BYTES // (4 * columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
