"""Test measurements of each system over its seeds: accuracy, catalogue metrics, and accuracy by degree.

A single ranking yields all of them. Metrics other than overall accuracy have keys such as `coverage@20` and `recall@20
users 0-9`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int, Shaped

from slmrec_jax.config import Config
from slmrec_jax.config.protocols import Side
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.evaluation import catalogue
from slmrec_jax.evaluation.groups import MeasuredGroup, measure_ranked_by_degree
from slmrec_jax.evaluation.metrics import PerUser
from slmrec_jax.evaluation.protocol import Evaluation, EvaluationPlan, evaluate_ranked
from slmrec_jax.studies.significance import mean_and_deviation, mean_per_user, p_values
from slmrec_jax.training.storage.folder import Record

FEW_BELOW = 10
"""The number of training interactions from which users and items count as having many; below it, few."""

CATALOGUE = ("coverage", "gini", "novelty", "popularity")
"""The catalogue metrics, which are measured at the cut-off of the main metric."""

LOWER_IS_BETTER = ("gini", "popularity")


class Measured(NamedTuple):
    """The measurements of one ranking."""

    seed: int | None
    """The seed; `None` for a ranking without training."""
    user_ids: Shaped[np.ndarray, " all_users"]
    """The raw user ids by internal id."""
    test: Evaluation
    catalogue: Mapping[str, float]
    """The metrics in `CATALOGUE`, by key."""
    recommended: PerUser
    """The catalogue metrics that exist per user: novelty and popularity."""
    groups: Mapping[str, MeasuredGroup]
    """The groups of users and items with few and with many training interactions, by name, such as `users 0-9` and
    `items 10+`."""
    group_metrics: tuple[str, ...]
    """The accuracy metrics that are reported for groups."""

    @property
    def values(self) -> dict[str, float]:
        """Every metric, by key."""
        of_groups = {key: float(each.mean()) for key, each in self._of_groups().items()}
        return {**self.test.means, **self.catalogue, **of_groups}

    @property
    def per_user(self) -> PerUser:
        """Every metric that exists per user. Metrics of a group cover only its users."""
        return {**self.test.per_user, **self.recommended, **self._of_groups()}

    def _of_groups(self) -> dict[str, Float[np.ndarray, " users"]]:
        return {
            f"{metric} {name}": group.per_user[metric]
            for metric in self.group_metrics
            for name, group in self.groups.items()
        }


class Measurements(NamedTuple):
    """The measurements of several systems, from which tables, files and curves are made."""

    title: str
    """The split, the data and the protocol."""
    systems: Mapping[str, Sequence[Measured]]
    """The measurements by system, one per seed."""
    histories: Mapping[str, Sequence[Sequence[Record]]]
    """The epoch records by trained system, one sequence per seed."""
    metrics: tuple[str, ...]
    """The accuracy metrics to show."""
    main: str
    """The accuracy metric to show if there is room for only one. Its cut-off is also that of `CATALOGUE`."""
    comparable: bool = True
    """Whether all systems were tested on the same data and users under the same rules."""


class SystemScore(NamedTuple):
    """The value of one metric of one system."""

    system: str
    metric: str
    mean: float
    deviation: float | None
    """The sample standard deviation over seeds; `None` for a single seed."""
    seeds: int
    """The number of rankings averaged; 1 for a ranking without training."""
    p_value: float | None
    """The p-value of the difference from the best system (`significance.p_values`). `None` for the best system, for a
    metric that does not exist per user, and for systems that cannot be compared."""
    rank: int | None
    """The rank; 1 is the best. Tied systems share a rank, and the following ranks are skipped. `None` for systems that
    cannot be compared."""


def main_metric(metrics: Sequence[str], config: Config) -> str:
    """Return the selecting metric, or recall at the largest cut-off."""
    if config.eval.metric in metrics:
        return str(config.eval.metric)
    return max((key for key in metrics if key.startswith("recall@")), key=cutoff_of)


def cutoff_of(metric: str) -> int:
    """Return the K of a metric such as `recall@20` or `recall@20 users 0-9`."""
    return int(re.split(r"[@ ]", metric)[1])


def measure_ranking(
    plan: EvaluationPlan, ranked: Int[np.ndarray, "users ranks"], dataset: Dataset, main: str, seed: int | None
) -> Measured:
    """Measure a result of `rank` for the users of the plan, at the cut-off of the main metric."""
    cutoff = cutoff_of(main)
    first, (of_users, of_items) = ranked[:, :cutoff], dataset.degrees()
    candidates = plan.ranking.candidates
    exposures = catalogue.exposure(first, dataset.num_items)
    exposures = exposures if candidates is None else exposures[candidates]
    recommended = {
        f"novelty@{cutoff}": catalogue.novelty(first, of_items, int(np.count_nonzero(of_users))),
        f"popularity@{cutoff}": catalogue.mean_popularity(first, of_items),
    }
    means = {key: float(values.mean()) for key, values in recommended.items()}
    of_all = {f"coverage@{cutoff}": catalogue.coverage(exposures), f"gini@{cutoff}": catalogue.gini(exposures)}
    groups = {
        f"{side} {found.group.label.replace(' or more', '+')}": found
        for side in get_args(Side)
        for found in measure_ranked_by_degree(plan, ranked, dataset.train, side, (0, FEW_BELOW))
    }
    return Measured(
        seed,
        dataset.user_ids,
        evaluate_ranked(plan, ranked),
        {**of_all, **means},
        recommended,
        groups,
        tuple(dict.fromkeys([main, f"recall@{cutoff}", f"ndcg@{cutoff}"])),
    )


def scores_of(measurements: Measurements) -> list[SystemScore]:
    """Return the scores of all systems for every metric that all of them have, metric by metric."""
    values = {name: [each.values for each in found] for name, found in measurements.systems.items()}
    first, *others = (each for found in values.values() for each in found)
    scores: list[SystemScore] = []
    for metric in first:
        if all(metric in other for other in others):
            by_seed = {name: [each[metric] for each in found] for name, found in values.items()}
            scores += _scores_by(metric, by_seed, measurements)
    return scores


def is_lower_better(metric: str) -> bool:
    """Return whether smaller values of a metric rank first."""
    return metric.partition("@")[0] in LOWER_IS_BETTER


def _scores_by(metric: str, by_seed: Mapping[str, Sequence[float]], measurements: Measurements) -> list[SystemScore]:
    sign = -1.0 if is_lower_better(metric) else 1.0
    averages = {name: mean_and_deviation(values) for name, values in by_seed.items()}
    tested: dict[str, float] = {}
    if measurements.comparable and all(metric in found[0].per_user for found in measurements.systems.values()):
        users = {name: [each.per_user[metric] for each in found] for name, found in measurements.systems.items()}
        tested = p_values({name: sign * mean_per_user(runs) for name, runs in users.items()})
    scores = []
    for name, (mean, deviation) in averages.items():
        num_seeds, num_better = len(by_seed[name]), sum(sign * other > sign * mean for other, _ in averages.values())
        rank = 1 + num_better if measurements.comparable else None
        scores.append(
            SystemScore(name, metric, mean, deviation if num_seeds > 1 else None, num_seeds, tested.get(name), rank)
        )
    return scores
