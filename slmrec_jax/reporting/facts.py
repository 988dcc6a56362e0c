"""The facts of a report about systems, independent of their presentation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from slmrec_jax.config import Config
from slmrec_jax.config.protocols import Side
from slmrec_jax.data import Dataset
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.analysis import Difference, Interval, bootstrap, paired_bootstrap
from slmrec_jax.evaluation.groups import MeasuredGroup, measure_ranked_by_degree
from slmrec_jax.evaluation.ranking import rank
from slmrec_jax.reporting.run_facts import RunFacts, describe_run
from slmrec_jax.reporting.systems import System, find_systems
from slmrec_jax.studies.measurements import Measured, Measurements, main_metric, measure_ranking
from slmrec_jax.studies.significance import mean_per_user, p_values
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.training.loading import load_sharing
from slmrec_jax.training.run import Run
from slmrec_jax.training.storage.folder import Record, read_config

SIDES: tuple[Side, ...] = get_args(Side)


class TrainedRun(NamedTuple):
    """A run of a system, without its embeddings."""

    folder: Path
    config: Config
    result: Mapping[str, Any]


class GroupFacts(NamedTuple):
    """A metric of a system for users or items of similar degree, averaged over seeds."""

    label: str
    """The range of degrees (`Group.label`)."""
    num_nodes: int
    """The number of evaluated users or held-out items."""
    num_interactions: int
    interval: Interval
    """The mean over the users with such held-out interactions."""


class SystemFacts(NamedTuple):
    """Measurements of a system, averaged over its seeds."""

    label: str
    """A short label that is unique in the report."""
    runs: Sequence[TrainedRun]
    """The runs by ascending seed; empty for a ranking without training."""
    users: Int[np.ndarray, " users"]
    per_user: Mapping[str, Float[np.ndarray, " users"]]
    """Test metrics by user, averaged over seeds."""
    by_seed: Mapping[str, Sequence[float]]
    """Test metrics by seed, averaged over users."""
    metrics: Mapping[str, Interval]
    """Means and intervals of `per_user`."""
    groups: Mapping[Side, Sequence[GroupFacts]]
    """The report's main metric by degree."""


class Contrast(NamedTuple):
    """A comparison of a system with the best one on the same users."""

    best: str
    label: str
    metric: str
    difference: Difference
    """The best system minus this one."""
    holm: float
    """The p-value of a paired t-test, with Holm's correction over all systems."""


class Facts(NamedTuple):
    """The content of a report."""

    systems: Sequence[SystemFacts]
    runs: Sequence[RunFacts]
    """One run of each trained system."""
    metric: str
    """The metric of figures that show a single metric."""
    metrics: Sequence[str]
    """The test metrics that all runs have."""
    shown: Sequence[str]
    """The metrics to emphasise: recall and NDCG at the first two cut-offs, and `metric`."""
    contrasts: Sequence[Contrast]
    caveats: Sequence[str]
    """Reasons why the systems cannot be compared."""
    notes: Sequence[str]
    """Runs that were left out or could not be averaged."""
    measurements: Measurements
    """The content of the files for a paper."""


def gather_facts(
    folders: Sequence[Path],
    *,
    items: Any = None,
    data: str | None = None,
    force: bool = False,
    loaded: Mapping[str, Dataset] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Facts:
    """Load finished runs and measure them.

    Args:
        folders: Folders of runs or of comparisons, at least one.
        items: Raw ids of the items whose neighbours are listed, or a single id; by default a few items.
        data: The current path of the runs' data set, if it was moved.
        force: Whether to accept runs on different data, under different protocols or tested by different rules.
        loaded: Data sets that are in memory, by fingerprint.
        say: Receives a line for each run.

    Raises:
        UserError: A run cannot be read, the runs are not comparable and `force` is false, they have no metric in
            common, or an item is unknown.
    """
    found = find_systems(folders, force=force, say=say)
    tests = [row["test"] for row in found.results.rows]
    metrics = [key for key in tests[0] if all(key in test for test in tests)]
    if not metrics:
        raise UserError(
            f"the runs have no test metric in common: report on runs with a common cut-off ({setting('ks')})"
        )
    main = main_metric(metrics, read_config(found.systems[0].folders[0]))
    datasets = dict(loaded or {})
    systems, runs, measured, histories = [], [], {}, {}
    for system in found.systems:
        seeds: list[_SeedFacts] = []
        for folder in system.folders:
            say(f"{system.label}: measuring" if system.untrained else f"{system.label}: reading and measuring {folder}")
            run = load_sharing(folder, datasets, data)
            if system.untrained:
                run = replace(run, embeddings=UNTRAINED[system.untrained](run.config, run.dataset))
            elif not seeds:
                label = f"{system.label}, seed {run.config.seed}" if len(system.folders) > 1 else system.label
                runs.append(describe_run(run, label, main, items))
            seeds.append(_measure_run(run, main, trained=not system.untrained))
        systems.append(_average_seeds(system, seeds, main))
        measured[system.label] = [seed.measured for seed in seeds]
        if not system.untrained:
            histories[system.label] = [seed.history for seed in seeds]
    caveats = found.results.differences or _caveats(systems)
    cutoffs = sorted({int(key.split("@")[1]) for key in metrics})[:2]
    shown = list(dict.fromkeys([*(f"{name}@{k}" for k in cutoffs for name in ("recall", "ndcg")), main]))
    contrasts = [] if caveats else _contrasts(systems, shown)
    title = "; ".join(dict.fromkeys(f"test, {row['data']}, protocol {row['protocol']}" for row in found.results.rows))
    measurements = Measurements(title, measured, histories, tuple(shown), main, comparable=not caveats)
    return Facts(systems, runs, main, metrics, shown, contrasts, caveats, found.notes, measurements)


class _SeedFacts(NamedTuple):
    run: TrainedRun
    history: Sequence[Record]
    measured: Measured
    groups: Mapping[Side, Sequence[MeasuredGroup]]


def _measure_run(run: Run, main: str, *, trained: bool) -> _SeedFacts:
    """Rank once for the test users, and measure the ranking."""
    plan = run.plan("test")
    ranked = rank(plan.ranking, run.embeddings).items
    groups = {side: measure_ranked_by_degree(plan, ranked, run.dataset.train, side) for side in SIDES}
    measured = measure_ranking(plan, ranked, run.dataset, main, run.config.seed if trained else None)
    return _SeedFacts(TrainedRun(run.folder, run.config, run.result), run.history, measured, groups)


def _average_seeds(system: System, seeds: Sequence[_SeedFacts], main: str) -> SystemFacts:
    """Average the seeds of a system, which all rank for the same users."""
    tests = [seed.measured.test for seed in seeds]
    per_user = {metric: mean_per_user([test.per_user[metric] for test in tests]) for metric in tests[0].per_user}
    return SystemFacts(
        label=system.label,
        runs=[] if system.untrained else [seed.run for seed in seeds],
        users=tests[0].users,
        per_user=per_user,
        by_seed={metric: [test.means[metric] for test in tests] for metric in per_user},
        metrics=bootstrap(per_user),
        groups={
            side: [_average_groups(groups, main) for groups in zip(*(seed.groups[side] for seed in seeds), strict=True)]
            for side in SIDES
        },
    )


def _average_groups(seeds: Sequence[MeasuredGroup], metric: str) -> GroupFacts:
    """Average the seeds of a group, which all have the same users."""
    group, per_user = seeds[0].group, np.mean([seed.per_user[metric] for seed in seeds], axis=0)
    interval = bootstrap({metric: per_user})[metric]
    return GroupFacts(group.label, group.num_nodes, group.num_interactions, interval)


def _contrasts(systems: Sequence[SystemFacts], metrics: Sequence[str]) -> list[Contrast]:
    found = []
    for metric in metrics:
        per_user = {each.label: each.per_user[metric] for each in systems}
        best = max(per_user, key=lambda label: per_user[label].mean())
        corrected = p_values(per_user)
        found += [
            Contrast(best, label, metric, paired_bootstrap(per_user[best], values), corrected[label])
            for label, values in per_user.items()
            if label != best
        ]
    return found


def _caveats(systems: Sequence[SystemFacts]) -> list[str]:
    """Return the reasons why the systems are not comparable although their data and rules are the same."""
    for each in systems[1:]:
        if not np.array_equal(each.users, systems[0].users):
            return [f"{each.label} was tested on different users from {systems[0].label}"]
    return []
