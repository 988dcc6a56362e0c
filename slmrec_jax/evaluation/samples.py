"""Samples of a split's users, and intervals for means over a sample."""

import math

import numpy as np
from jaxtyping import Int

from slmrec_jax.evaluation.metrics import PerUser

TEST_SEED = 0
"""The seed of every sample of test users, so that runs with different seeds are tested on the same users."""

_STREAM = 0x5EED
"""Separates these draws from others with the same seed."""
_NORMAL_95 = 1.959963984540054


def sample_users(users: Int[np.ndarray, " users"], count: int | None, seed: int) -> Int[np.ndarray, " sample"]:
    """Draw `count` of the users without replacement, in ascending order; return all users if there are no more.

    The sample is a pure function of the arguments.
    """
    if count is None or count >= len(users):
        return users
    rng = np.random.default_rng([seed, _STREAM])
    return users[np.sort(rng.choice(len(users), count, replace=False, shuffle=False))]


def half_widths(per_user: PerUser, share: float) -> dict[str, float]:
    """Compute the half width of the 95 % interval of each mean of a sample; empty if all users were ranked.

    It is 1.96 · sqrt(s² / n · (1 - n/N)): the normal approximation with finite population correction, for a simple
    random sample of n of N users in which the metric has variance s². The mean over all N users is within the interval
    for about 95 % of samples. The interval covers only sampling error, not the variation between other users or
    training seeds. It is too narrow if nearly all users of the sample have the same value. For a single user, the half
    width is 1.

    Args:
        per_user: The metrics of each user of the sample.
        share: n / N; 1 for all users.
    """
    if share >= 1:
        return {}
    return {key: _half_width(values, share) for key, values in per_user.items()}


def _half_width(values: np.ndarray, share: float) -> float:
    if len(values) < 2:
        return 1.0
    return _NORMAL_95 * math.sqrt(float(values.var(ddof=1)) / len(values) * (1 - share))
