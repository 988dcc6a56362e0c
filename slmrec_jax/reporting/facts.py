"""Gathers what a report says of each system and run; nothing here knows how it will look."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from slmrec_jax.config import Config, to_json
from slmrec_jax.data import Dataset
from slmrec_jax.errors import setting
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.analysis import Difference, Interval, alignment, bootstrap, paired_bootstrap, uniformity
from slmrec_jax.evaluation.groups import Group, Side, evaluate_by_degree
from slmrec_jax.evaluation.protocol import Evaluation
from slmrec_jax.reporting.items import (
    ItemMap,
    Vectors,
    agreements,
    choose_items,
    clusters,
    item_map,
    item_vectors,
    neighbour_ids,
    sample,
)
from slmrec_jax.reporting.masking import Masking, mask_modalities
from slmrec_jax.reporting.systems import System, find_systems
from slmrec_jax.studies.significance import mean_per_user, p_values
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.training.run import Run, load_run
from slmrec_jax.training.storage.folder import DATA, ENVIRONMENT, NO_RUN, Description, read_config
from slmrec_jax.training.storage.records import read_json

TRAINED = "trained"
"""What the table of a run's own embeddings is called beside the modalities."""

NUM_NEIGHBOURS = 5

_RULES = ("candidates", "mask_valid_at_test", "drop_new_users", "ndcg", "score")
"""The switches of a protocol that its figures depend on; runs may have changed one and kept the protocol's name."""


class Trained(NamedTuple):
    """A run of a system, without its embeddings."""

    folder: Path
    config: Config
    result: Mapping[str, Any]
    dataset: Dataset


class SystemFacts(NamedTuple):
    """What a system's runs measured, averaged over their seeds."""

    label: str
    """Short, and different for each system."""
    runs: Sequence[Trained]
    """By ascending seed; none for a ranking that is not trained."""
    users: Int[np.ndarray, " users"]
    per_user: Mapping[str, Float[np.ndarray, " users"]]
    """Test metrics of each user, averaged over seeds."""
    by_seed: Mapping[str, Sequence[float]]
    """Test metrics of each seed, averaged over users."""
    metrics: Mapping[str, Interval]
    """Of `per_user`."""
    groups: Mapping[Side, Sequence[Group]]
    """Averaged over seeds."""


class RunFacts(NamedTuple):
    """What is said of a single run: the one with its system's first seed."""

    label: str
    """Its system's, with the seed where that has several."""
    run: Run
    masking: Masking
    alignment: float
    uniformity_users: float
    uniformity_items: float
    agreement: Mapping[tuple[str, str], float]
    """Of neighbourhoods, by pairs of modalities and `TRAINED`."""
    map: ItemMap
    clusters: Mapping[str, Int[np.ndarray, " items"]]
    """By modality."""
    items: Sequence[str]
    """Raw ids of those whose neighbours are listed."""
    neighbours: Mapping[str, Sequence[Sequence[str]]]
    """By modality and `TRAINED`, for each of `items`."""
    config: Mapping[str, Any]
    environment: Mapping[str, Any]


class Contrast(NamedTuple):
    """A system beside the best one on the same users."""

    best: str
    label: str
    metric: str
    difference: Difference
    """Of the best from this one."""
    holm: float
    """p of the paired t-test after Holm's correction for all systems."""


class Facts(NamedTuple):
    """All that a report says."""

    systems: Sequence[SystemFacts]
    runs: Sequence[RunFacts]
    """One of each system that is trained."""
    metric: str
    """The one that figures show where they show one."""
    metrics: Sequence[str]
    """Those at test that all runs have."""
    shown: Sequence[str]
    """Of these: recall and NDCG at the first two cut-offs, and `metric`."""
    contrasts: Sequence[Contrast]
    caveats: Sequence[str]
    """Why the systems cannot be compared, where that is so."""
    notes: Sequence[str]
    """What was left out, or could not be put together."""


def gather(
    folders: Sequence[Path],
    *,
    items: Any = None,
    data: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Facts:
    """Load finished runs and measure them.

    Args:
        folders: of the runs, or those that `compare` made; at least one.
        items: raw ids whose neighbours are listed, or a single one; some by default.
        data: where the runs' data set is now, if it was moved.
        force: also takes runs on different data, or under different protocols.
        say: told of each run.

    Raises:
        UserError: a run cannot be read, the runs cannot be compared and `force` is not given, or an item is not known.
    """
    found = find_systems(folders, force=force, say=say)
    tests = [row["test"] for row in found.results.rows]
    metrics = [key for key in tests[0] if all(key in test for test in tests)]
    main = _main_metric(metrics, read_config(found.systems[0].folders[0]))
    loaded: dict[str, Dataset] = {}

    def opened(folder: Path) -> Run:
        """Load a run; runs on the same data share them in memory."""
        fingerprint = read_json(folder / DATA, Description, NO_RUN)["fingerprint"]
        run = load_run(folder, loaded.get(fingerprint), data=data)
        loaded.setdefault(run.dataset.fingerprint, run.dataset)
        return run

    systems, runs = [], []
    for system in found.systems:
        if system.untrained:
            say(f"{system.label}: measuring")
            systems.append(_measure_untrained(system, opened(system.folders[0])))
            continue
        seeds: list[_Seed] = []
        for folder in system.folders:
            say(f"{system.label}: reading and measuring {folder}")
            run = opened(folder)
            seeds.append(_measure(run))
            if len(seeds) == 1:
                several = len(system.folders) > 1
                label = f"{system.label}, seed {run.config.seed}" if several else system.label
                runs.append(_describe(run, label, main, items))
        systems.append(_averaged(system.label, seeds))
    comparable, caveats = _comparable(systems, found.results.differences)
    shown = _shown(metrics, main)
    contrasts = _contrasts(systems, shown) if comparable else []
    return Facts(systems, runs, main, metrics, shown, contrasts, caveats, found.notes)


class _Seed(NamedTuple):
    """What one run of a system measured."""

    trained: Trained | None
    test: Evaluation
    groups: Mapping[Side, Sequence[Group]]


def _measure(run: Run) -> _Seed:
    groups: dict[Side, Sequence[Group]] = {"users": run.evaluate_by("users"), "items": run.evaluate_by("items")}
    return _Seed(Trained(run.folder, run.config, run.result, run.dataset), run.evaluate("test"), groups)


def _measure_untrained(system: System, run: Run) -> SystemFacts:
    """Measure a ranking that needs no training by the rules of a run, and on its data."""
    embeddings = UNTRAINED[system.untrained](run.config, run.dataset)
    plan = evaluation.plan(run.dataset, "test", run.config.eval, run.config.ks)
    groups: dict[Side, Sequence[Group]] = {
        side: evaluate_by_degree(plan, embeddings, run.dataset.train, side) for side in get_args(Side)
    }
    return _averaged(system.label, [_Seed(None, evaluation.evaluate(plan, embeddings), groups)])


def _averaged(label: str, seeds: Sequence[_Seed]) -> SystemFacts:
    """Put the seeds of a system together; all of them rank for the same users."""
    first = seeds[0]
    per_user = {metric: mean_per_user([seed.test for seed in seeds], metric) for metric in first.test.per_user}
    groups: dict[Side, Sequence[Group]] = {
        side: [_mean_group([seed.groups[side][place] for seed in seeds]) for place in range(len(first.groups[side]))]
        for side in first.groups
    }
    return SystemFacts(
        label=label,
        runs=[seed.trained for seed in seeds if seed.trained is not None],
        users=first.test.users,
        per_user=per_user,
        by_seed={metric: [seed.test.means[metric] for seed in seeds] for metric in per_user},
        metrics=bootstrap(per_user),
        groups=groups,
    )


def _mean_group(groups: Sequence[Group]) -> Group:
    means = {metric: statistics.fmean(group.means[metric] for group in groups) for metric in groups[0].means}
    return groups[0]._replace(means=means)


def _describe(run: Run, label: str, metric: str, items: Any) -> RunFacts:
    vectors = item_vectors(run)
    users, rows = (np.asarray(table, np.float32) for table in run.embeddings)
    tables = {**vectors, TRAINED: Vectors(rows, np.ones(len(rows), np.bool_))}
    chosen = choose_items(run.dataset, items)
    return RunFacts(
        label=label,
        run=run,
        masking=mask_modalities(run, metric),
        alignment=alignment(users, rows, run.dataset.train),
        uniformity_users=uniformity(users[sample(len(users))]),
        uniformity_items=uniformity(rows[sample(len(rows))]),
        agreement=agreements(tables),
        map=item_map(rows),
        clusters={name: clusters(table) for name, table in vectors.items()},
        items=[str(run.dataset.item_ids[item]) for item in chosen],
        neighbours={
            name: neighbour_ids(table, chosen, run.dataset.item_ids, NUM_NEIGHBOURS) for name, table in tables.items()
        },
        config=to_json(run.config),
        environment=read_json(run.folder / ENVIRONMENT, Mapping[str, Any], NO_RUN),
    )


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


def _comparable(systems: Sequence[SystemFacts], differences: Sequence[str]) -> tuple[bool, list[str]]:
    if differences:
        return False, list(differences)
    first, *others = (run for each in systems for run in each.runs)
    for run in others:
        for rule in _RULES:
            found, expected = (getattr(each.config.eval, rule) for each in (run, first))
            if found != expected:
                return False, [f"{run.folder} was tested with {setting(f'eval.{rule}', found)}, not {expected}"]
    for each in systems[1:]:
        if not np.array_equal(each.users, systems[0].users):
            return False, [f"{each.label} was tested on other users than {systems[0].label}"]
    return len(systems) > 1, []


def _main_metric(metrics: Sequence[str], config: Config) -> str:
    """What selected, or recall at the largest cut-off."""
    recalls = [key for key in metrics if key.startswith("recall@")]
    largest: str = max(recalls, key=lambda key: int(key.split("@")[1]))
    selecting = config.eval.metric
    return selecting if selecting is not None and selecting in metrics else largest


def _shown(metrics: Sequence[str], main: str) -> list[str]:
    cutoffs = sorted({int(key.split("@")[1]) for key in metrics})[:2]
    return list(dict.fromkeys([*(f"{name}@{k}" for k in cutoffs for name in ("recall", "ndcg")), main]))
