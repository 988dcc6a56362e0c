"""Made-up measurements of systems, for tests of what is computed and written from them."""

import numpy as np

from slmrec_jax.evaluation.metrics import means
from slmrec_jax.evaluation.protocol import Evaluation
from slmrec_jax.studies.measurements import Measured, Measurements

USERS = np.array([1, 3, 4, 6], np.int32)
USER_IDS = np.array([f"u{number}" for number in range(8)])
BASE = np.array([0.5, 0.25, 1.0, 0.125])


def measured(recall, *, seed=0, coverage=0.5, novelty=3.0, user_ids=USER_IDS):
    """Return what is measured of a ranking: recall and novelty are by user, or the same for all."""
    per_user = {"recall@20": np.broadcast_to(recall, 4).astype(float)}
    recommended = {"novelty@20": np.broadcast_to(novelty, 4).astype(float)}
    catalogue = {"coverage@20": coverage, "gini@20": 1 - coverage, **means(recommended)}
    test = Evaluation(means(per_user), per_user, USERS, {}, 4)
    return Measured(seed, user_ids, test, catalogue, recommended, {}, ())


def measurements(systems, *, comparable=True, title="test, shop, protocol strict, 2 seeds", histories=None):
    """Return the measurements of systems, by name and seed."""
    return Measurements(title, systems, histories or {}, ("recall@20",), "recall@20", comparable)
