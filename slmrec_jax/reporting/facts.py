"""Gathers what a report says of each run; nothing here knows how it will look."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from slmrec_jax import results
from slmrec_jax.analysis import Difference, Interval, alignment, bootstrap, paired_bootstrap, uniformity
from slmrec_jax.comparison import p_values
from slmrec_jax.config import IN_MEMORY, Config, source_of, to_json
from slmrec_jax.data import Dataset, Source, load_source
from slmrec_jax.evaluation.groups import Group, Side
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
from slmrec_jax.training.folder import ENVIRONMENT, NO_RUN, read_config
from slmrec_jax.training.records import read_json
from slmrec_jax.training.run import Run, load_run

TRAINED = "trained"
"""What the table of a run's own embeddings is called beside the modalities."""

NUM_NEIGHBOURS = 5

_RULES = ("candidates", "mask_valid_at_test", "drop_new_users", "ndcg", "score")
"""The switches of a protocol that its figures depend on; runs may have changed one and kept the protocol's name."""


class RunFacts(NamedTuple):
    """All that is said of one run."""

    label: str
    """Short, and another one for each run."""
    run: Run
    test: Evaluation
    metrics: Mapping[str, Interval]
    groups: Mapping[Side, Sequence[Group]]
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
    """A run beside the best one on the same users."""

    best: str
    label: str
    metric: str
    difference: Difference
    """Of the best from this one."""
    holm: float
    """p of the paired t-test after Holm's correction for all runs."""


class Facts(NamedTuple):
    """All that a report says."""

    runs: Sequence[RunFacts]
    metric: str
    """The one that figures show where they show one."""
    metrics: Sequence[str]
    """Those at test that all runs have."""
    shown: Sequence[str]
    """Of these: recall and NDCG at the first two cut-offs, and `metric`."""
    contrasts: Sequence[Contrast]
    caveats: Sequence[str]
    """Why the runs cannot be compared, where that is so."""


def gather(
    folders: Sequence[Path],
    *,
    items: Sequence[str] = (),
    data: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Facts:
    """Loads finished runs and measures them.

    Args:
        folders: of the runs, at least one.
        items: raw ids whose neighbours are listed; some by default.
        data: where the runs' data set is now, if it was moved.
        force: also takes runs on different data, or under different protocols.
        say: told of each run.

    Raises:
        UserError: a run cannot be read, the runs cannot be compared and `force` is not given, or an item is not known.
    """
    results_found = results.gather(folders, force=force)
    metrics = [key for key in results_found.rows[0]["test"] if all(key in row["test"] for row in results_found.rows)]
    main = _main_metric(metrics, read_config(folders[0]))
    shown = _shown(metrics, main)
    loaded: dict[Source, Dataset] = {}
    runs: list[RunFacts] = []
    for folder, label in zip(folders, _labels(folders), strict=True):
        say(f"{label}: reading and measuring")
        run = load_run(folder, _dataset(folder, data, loaded))
        runs.append(_measure(run, label, main, items))
    comparable, caveats = _comparable(runs, results_found.differences)
    return Facts(runs, main, metrics, shown, _contrasts(runs, shown) if comparable else [], caveats)


def _measure(run: Run, label: str, metric: str, items: Sequence[str]) -> RunFacts:
    test, vectors = run.evaluate("test"), item_vectors(run)
    users, rows = (np.asarray(table, np.float32) for table in run.embeddings)
    tables = {**vectors, TRAINED: Vectors(rows, np.ones(len(rows), np.bool_))}
    chosen = choose_items(run.dataset, items)
    return RunFacts(
        label=label,
        run=run,
        test=test,
        metrics=bootstrap(test.per_user),
        groups={"users": run.evaluate_by("users"), "items": run.evaluate_by("items")},
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


def _contrasts(runs: Sequence[RunFacts], metrics: Sequence[str]) -> list[Contrast]:
    found = []
    for metric in metrics:
        per_user = {facts.label: facts.test.per_user[metric] for facts in runs}
        best = max(per_user, key=lambda label: per_user[label].mean())
        corrected = p_values(per_user)
        found += [
            Contrast(best, label, metric, paired_bootstrap(per_user[best], values), corrected[label])
            for label, values in per_user.items()
            if label != best
        ]
    return found


def _comparable(runs: Sequence[RunFacts], differences: Sequence[str]) -> tuple[bool, list[str]]:
    if differences:
        return False, list(differences)
    for facts in runs[1:]:
        for rule in _RULES:
            found, expected = (getattr(each.run.config.eval, rule) for each in (facts, runs[0]))
            if found != expected:
                return False, [f"{facts.label} was tested with --eval.{rule.replace('_', '-')} {found}, not {expected}"]
        if not np.array_equal(facts.test.users, runs[0].test.users):
            return False, [f"{facts.label} was tested on other users than {runs[0].label}: no differences are tested"]
    return len(runs) > 1, []


def _main_metric(metrics: Sequence[str], config: Config) -> str:
    """What selected, or recall at the largest cut-off."""
    recalls = [key for key in metrics if key.startswith("recall@")]
    largest: str = max(recalls, key=lambda key: int(key.split("@")[1]))
    selecting = config.eval.metric
    return selecting if selecting is not None and selecting in metrics else largest


def _shown(metrics: Sequence[str], main: str) -> list[str]:
    cutoffs = sorted({int(key.split("@")[1]) for key in metrics})[:2]
    return list(dict.fromkeys([*(f"{name}@{k}" for k in cutoffs for name in ("recall", "ndcg")), main]))


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where these differ, else their whole paths; numbered where a folder stands twice."""
    names = [folder.resolve().name for folder in folders]
    names = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def _dataset(folder: Path, data: str | None, loaded: dict[Source, Dataset]) -> Dataset | None:
    """Read a run's data set once for all runs on it; `None` for one that the run's own folder holds."""
    source = source_of(read_config(folder))
    if data is None and source.data == IN_MEMORY:
        return None
    source = source if data is None else source._replace(data=data)
    if source not in loaded:
        loaded[source] = load_source(source)
    return loaded[source]
