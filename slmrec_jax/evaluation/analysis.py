"""What embeddings and per-user metrics say beyond their means: geometry, neighbourhoods, and how sure a figure is.

Everything here is a pure function of arrays on the host, and of a seed where something is drawn.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from slmrec_jax.evaluation.ranking import Ranking, prepare, rank
from slmrec_jax.types import Embeddings, Interactions

_BLOCK_BYTES = 2**25


class Interval(NamedTuple):
    """A mean over users and the ends of its bootstrap interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """How much larger one metric is than another on the same users."""

    interval: Interval
    p_value: float


def alignment(
    users: Float[np.ndarray, "users dim"],
    items: Float[np.ndarray, "items dim"],
    pairs: Interactions,
    *,
    exponent: float = 2.0,
) -> float:
    """Mean over pairs (u, i) of |x_u - x_i|^exponent, rows scaled to length 1 (Wang & Isola, ICML 2020, section 4).

    From 0, where every user lies upon their items, to 2^exponent. Lower is better, at the same uniformity.

    Args:
        users: embeddings, by row.
        items: embeddings, by row.
        pairs: who belongs together, at least one; repeats count as often as they stand there.
        exponent: 2 in the paper's experiments.
    """
    users, items = _unit(users), _unit(items)
    total = 0.0
    for rows in _blocks(len(pairs.users), users.shape[1]):
        squares = np.sum((users[pairs.users[rows]] - items[pairs.items[rows]]) ** 2, axis=1, dtype=np.float64)
        total += float(np.sum(squares ** (exponent / 2)))
    return total / len(pairs.users)


def uniformity(rows: Float[np.ndarray, "rows dim"], *, scale: float = 2.0) -> float:
    """Log of the mean over pairs of different rows of exp(-scale |x - y|²), rows scaled to length 1 (same paper).

    0 where all rows are one point; lower is better. All pairs are taken, in blocks: time grows with the square of the
    rows, memory does not.

    Args:
        rows: embeddings.
        scale: t of the paper, 2 in its experiments.

    Returns:
        nan where there are fewer than two rows, and so no pair.
    """
    if len(rows) < 2:
        return math.nan
    x = _unit(rows)
    total = 0.0
    for block in _blocks(len(x), len(x)):
        closeness = np.exp(-scale * np.maximum(2 - 2 * (x[block] @ x.T), 0))
        places = np.arange(block.start, block.stop)
        closeness[places - block.start, places] = 0  # a row is no pair with itself
        total += float(closeness.sum(dtype=np.float64))
    return float(np.log(total / (len(x) * (len(x) - 1))))


def neighbours(
    table: Float[np.ndarray, "items columns"],
    items: Int[np.ndarray, " chosen"],
    k: int,
    *,
    present: Bool[np.ndarray, " items"] | None = None,
) -> Ranking:
    """The k other items of largest cosine to each of some items, best first; equal cosines in the order of ids.

    Computed in chunks, so that memory is bounded. An item that lacks the feature is no neighbour, and has none.

    Args:
        table: feature vectors or embeddings of all items.
        items: whose neighbours; any order.
        k: how many, at least 1; where there are fewer others, -1 with score -inf fills up.
        present: which items have the feature; all by default.
    """
    there = np.arange(len(table)) if present is None else np.flatnonzero(present)
    place = np.full(len(table), -1, np.int32)
    place[there] = np.arange(len(there), dtype=np.int32)
    asked = place[items]
    found = Ranking(np.full((len(items), k), -1, np.int32), np.full((len(items), k), -np.inf, np.float32))
    own = asked[asked >= 0]
    if len(own) == 0:
        return found
    depth = min(k, len(there))
    itself = Interactions(np.arange(len(there), dtype=np.int32), np.arange(len(there), dtype=np.int32))
    rows = jnp.asarray(_unit(table[there]))
    ranked = rank(prepare(own, [itself], len(there), depth), Embeddings(rows, rows))
    found.items[asked >= 0, :depth] = np.where(ranked.items >= 0, there[ranked.items], -1)
    found.scores[asked >= 0, :depth] = ranked.scores
    return found


def modality_agreement(
    first: Float[np.ndarray, "items first"],
    second: Float[np.ndarray, "items second"],
    k: int = 10,
    *,
    present: Bool[np.ndarray, " items"] | None = None,
) -> float:
    """Mean over items of the share of an item's k nearest neighbours that two tables have in common.

    1 where neighbourhoods are the same, and k / (items - 1) on average where they have nothing to do with each other.

    Args:
        first: vectors of all items, compared by cosine.
        second: likewise.
        k: the size of a neighbourhood, at least 1; no more than there are other items.
        present: the items to compare, at least two: those that have both features.
    """
    chosen = np.arange(len(first)) if present is None else np.flatnonzero(present)
    k = min(k, len(chosen) - 1)
    places = np.arange(len(chosen), dtype=np.int32)
    # As numbers of (item, neighbour) pairs, so that one sort finds what is common.
    of_first, of_second = (
        (places[:, None] * np.int64(len(chosen)) + neighbours(table[chosen], places, k).items).ravel()
        for table in (first, second)
    )
    return len(np.intersect1d(of_first, of_second, assume_unique=True)) / (k * len(chosen))


def bootstrap(
    per_user: Mapping[str, Float[np.ndarray, " users"]], *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """The mean of each metric with its percentile bootstrap interval over users, who are drawn alike for all metrics.

    It says how the mean would vary with other users of the same kind, and not with other seeds of training.

    Args:
        per_user: values by user, such as those of `Evaluation`; the same users in each.
        draws: how many samples of as many users, with repetition.
        level: how often the interval should hold the mean, in (0, 1).
        seed: what is drawn.
    """
    values = np.stack(list(per_user.values()), axis=1)
    ends = np.quantile(_resampled_means(values, draws, seed), [(1 - level) / 2, (1 + level) / 2], axis=0)
    means = values.mean(axis=0)
    return {
        key: Interval(float(means[place]), float(ends[0, place]), float(ends[1, place]))
        for place, key in enumerate(per_user)
    }


def paired_bootstrap(
    first: Float[np.ndarray, " users"],
    second: Float[np.ndarray, " users"],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The mean of first - second over users with its bootstrap interval, and a two-sided p-value.

    The p-value is the share of draws whose mean lies as far from the observed one as that lies from 0, or farther,
    the observed one counted among them: 1 / (draws + 1) at the least, 1 where the two never differ.

    Args:
        first: a metric by user.
        second: the same metric of another system, the same users in the same order.
        draws: as for `bootstrap`, and `level` and `seed` likewise.
        level: of the interval.
        seed: what is drawn.
    """
    differences = first - second
    mean = float(differences.mean())
    drawn = _resampled_means(differences[:, None], draws, seed)[:, 0]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    # Equal distances may differ in the last bit, as sums are taken in different orders.
    as_far = int(np.sum(np.abs(drawn - mean) >= abs(mean) * (1 - 1e-12)))
    return Difference(Interval(mean, float(low), float(high)), (1 + as_far) / (1 + draws))


def _resampled_means(
    values: Float[np.ndarray, "users metrics"], draws: int, seed: int
) -> Float[np.ndarray, "draws metrics"]:
    """Means over samples of as many users; a sample is how often it holds each."""
    rng, count = np.random.default_rng(seed), len(values)
    means = np.empty((draws, values.shape[1]))
    for rows in _blocks(draws, count):
        drawn = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(rows.start, rows.stop)]
        means[rows] = np.stack(drawn) @ values / count
    return means


def _unit(rows: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Rows of length 1; a row of zeros stays."""
    rows = np.asarray(rows, np.float32)
    squares = np.einsum("rc,rc->r", rows, rows, dtype=np.float64)  # in float32, those of values beyond 1e19 overflow
    norms = np.maximum(np.sqrt(squares), 1e-12)
    unit: np.ndarray = np.divide(rows, norms[:, None], out=np.empty_like(rows), casting="same_kind")
    return unit


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows whose float32 block of so many columns stays within bounds."""
    step = max(1, _BLOCK_BYTES // (4 * columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
