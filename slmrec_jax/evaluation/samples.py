"""Samples of the users of a split, and the intervals that sampling gives to means over them."""

import math

import numpy as np
from jaxtyping import Int

from slmrec_jax.evaluation.metrics import PerUser

TEST_SEED = 0
"""The seed of every sample of test users, so that runs with different seeds are tested on the same users."""

_STREAM = 0x5EED
"""Keeps the draws apart from others that take the same seed."""
_NORMAL_95 = 1.959963984540054


def sample_users(users: Int[np.ndarray, " users"], count: int | None, seed: int) -> Int[np.ndarray, " sample"]:
    """Return `count` of the users, ascending, drawn without replacement; all of them if there are no more.

    The sample is a pure function of the arguments.
    """
    if count is None or count >= len(users):
        return users
    rng = np.random.default_rng([seed, _STREAM])
    return users[np.sort(rng.choice(len(users), count, replace=False, shuffle=False))]


def half_widths(per_user: PerUser, share: float) -> dict[str, float]:
    """Return for each mean of a sample the half width of its 95 % interval; nothing if all users were ranked.

    1.96 · sqrt(s² / n · (1 - n/N)): the normal approximation with the finite population correction, for a simple random
    sample of n of N users in which the metric has the variance s². The mean over all N users is within the interval for
    about 95 % of samples. The interval covers what sampling adds, and neither other users nor other training seeds. It
    is too narrow if nearly all users of the sample have the same value; one user alone says nothing, and has 1.

    Args:
        per_user: The metrics of each user of the sample.
        share: n / N, 1 for all users.
    """
    if share >= 1:
        return {}
    return {key: _half_width(values, share) for key, values in per_user.items()}


def _half_width(values: np.ndarray, share: float) -> float:
    if len(values) < 2:
        return 1.0
    return _NORMAL_95 * math.sqrt(float(values.var(ddof=1)) / len(values) * (1 - share))
