"""Metrics averaged over seeds, and tests of the differences between systems."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import scipy.stats
from jaxtyping import Float

LEVEL = 0.05
"""The significance level: a difference with a smaller p-value counts as significant."""

_ROUNDING = 1e-12
"""The relative variation below which differences count as equal."""


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Compute the mean and the sample standard deviation, which is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def mean_per_user(runs: Sequence[Float[np.ndarray, " users"]]) -> Float[np.ndarray, " users"]:
    """Average a metric of each user over the runs of a system, which must have the same users."""
    return np.asarray(np.mean(runs, axis=0))


def p_values(per_user: Mapping[str, Float[np.ndarray, " users"]]) -> dict[str, float]:
    """Test each system's difference from the best one: a paired two-sided t-test over users, with Holm's correction.

    The best system is the one with the highest mean. The correction does not account for this selection, so a value
    just below 0.05 is weak evidence.

    Args:
        per_user: A metric of each user by system, averaged over seeds. All systems must have the same users.

    Returns:
        A p-value for each system except the best; 1 if a system's values equal the best one's.
    """
    best = max(per_user, key=lambda name: per_user[name].mean())
    raw = {}
    for name, values in per_user.items():
        if name != best:
            differences = per_user[best] - values
            if np.ptp(differences) > _ROUNDING * np.abs(differences).max():
                raw[name] = float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)
            else:  # no spread: the test is undefined; two or more users with the same nonzero difference show it
                raw[name] = 0.0 if len(differences) > 1 and differences[0] else 1.0
    ordered = sorted(raw, key=lambda name: raw[name])
    corrected = [min(1.0, (len(raw) - place) * raw[name]) for place, name in enumerate(ordered)]
    return dict(zip(ordered, accumulate(corrected, max), strict=True))
