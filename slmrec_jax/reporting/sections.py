"""What a report says and in which order: headings over paragraphs, tables and pictures."""

import json
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from matplotlib.figure import Figure

from slmrec_jax.data.dataset import SPLITS
from slmrec_jax.evaluation.groups import Side
from slmrec_jax.reporting import charts
from slmrec_jax.reporting.facts import TRAINED, Facts, RunFacts, SystemFacts
from slmrec_jax.reporting.items import SAMPLE
from slmrec_jax.reporting.tables import NONE, Cell, Table
from slmrec_jax.studies.significance import LEVEL

_SAMPLED = f"Of more than {SAMPLE:,} rows, so many are drawn."
SIDES: tuple[Side, ...] = ("users", "items")


class Picture(NamedTuple):
    """A figure with its words."""

    name: str
    """Of its files, without the suffix."""
    caption: str
    figure: Figure


class Details(NamedTuple):
    """Text that is folded away."""

    title: str
    text: str


Block: TypeAlias = str | Table | Picture | Details
"""A string is a paragraph."""


class Section(NamedTuple):
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


def title(facts: Facts) -> str:
    """Of the page."""
    return ", ".join(each.label for each in facts.systems)


def sections(facts: Facts) -> list[Section]:
    """All of a report."""
    return [
        Section("Runs", _runs(facts)),
        Section("Test metrics", _metrics(facts)),
        *([Section("Differences", _differences(facts))] if facts.contrasts else []),
        Section("Training", _training(facts)),
        Section("By number of training interactions", _by_degree(facts)),
        Section("What each modality contributes", _modalities(facts)),
        Section("The space of items", _space(facts)),
        Section("Nearest neighbours", _neighbours(facts)),
        Section("Settings and environment", _settings(facts)),
    ]


def _runs(facts: Facts) -> list[Block]:
    columns = ("system", "run", "model", "task", "seed", "protocol", "best epoch", "epochs", "train seconds", "step ms")
    rows: list[tuple[Cell, ...]] = []
    for each in facts.systems:
        if not each.runs:
            rows.append((each.label, *[NONE] * (len(columns) - 1)))
        for run in each.runs:
            config, result = run.config, run.result
            task = config.task if config.model == "slmrec" else NONE
            seconds, step = (f"{float(value):.1f}" for value in (result["seconds"]["train"], result["step_ms"]))
            epochs = int(result["best_epoch"]), int(result["epochs"])
            folder = run.folder.resolve().name
            rows.append((each.label, folder, config.model, task, config.seed, config.protocol, *epochs, seconds, step))
    data: list[tuple[Cell, ...]] = [
        (
            each.label,
            each.run.dataset.name,
            each.run.dataset.num_users,
            each.run.dataset.num_items,
            *(len(getattr(each.run.dataset, split).users) for split in SPLITS),
            ", ".join(each.run.dataset.features) or "none",
            each.run.dataset.fingerprint[:12],
        )
        for each in facts.runs
    ]
    blocks: list[Block] = [f"Not comparable: {caveat}." for caveat in facts.caveats]
    blocks += [f"{note}." for note in facts.notes]
    if _several(facts):
        blocks.append(
            "Runs whose settings differ in nothing but the seed are one system. Metrics, differences and groups are "
            "averages over its seeds; curves, modalities, items and settings are those of its first seed."
        )
    return [
        *blocks,
        Table("runs", "The systems and how their runs were trained; a dash where nothing is.", columns, rows),
        Table(
            "data",
            "Their data: users, items, interactions by split, modalities, and the start of the fingerprint.",
            ("run", "data", "users", "items", *SPLITS, "modalities", "fingerprint"),
            data,
        ),
    ]


def _several(facts: Facts) -> bool:
    """Whether a system has more than one seed."""
    return any(len(each.runs) > 1 for each in facts.systems)


def _metrics(facts: Facts) -> list[Block]:
    labels = [each.label for each in facts.systems]
    blocks: list[Block] = [
        "Means over the test users at the best epoch, with 95 % bootstrap intervals: they tell how a figure would vary "
        "with other users of the same kind, not with other seeds of training.",
        Picture(
            "metrics",
            "Test metrics with 95 % bootstrap intervals over users.",
            charts.metric_intervals({each.label: each.metrics for each in facts.systems}, facts.shown),
        ),
        Table(
            "metrics",
            "All metrics that the systems share, mean [95 % interval].",
            ("metric", *labels),
            [(metric, *(each.metrics[metric] for each in facts.systems)) for metric in facts.metrics],
        ),
    ]
    if _several(facts):
        rows = [_over_seeds(each, metric) for metric in facts.shown for each in facts.systems]
        caption = "How far seeds of a system lie apart: mean, standard deviation, least and largest."
        columns = ("metric", "system", "seeds", "mean", "deviation", "least", "largest")
        blocks.append(Table("seeds", caption, columns, rows))
    return blocks


def _over_seeds(system: SystemFacts, metric: str) -> tuple[Cell, ...]:
    values = system.by_seed[metric]
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    seeds: Cell = len(system.runs) or NONE
    return metric, system.label, seeds, statistics.fmean(values), deviation, min(values), max(values)


def _differences(facts: Facts) -> list[Block]:
    rows = [
        (each.metric, each.best, each.label, each.difference.interval, each.difference.p_value, each.holm)
        for each in facts.contrasts
    ]
    counts = {len(each.runs) for each in facts.systems if each.runs}
    text = (
        "The system with the best mean beside each other one, user by user. Two tests that should agree: a paired "
        "bootstrap, and a paired t-test with Holm's correction for all systems. "
        f"Below {LEVEL} a difference counts as shown. The best system is chosen by the same figures, which neither "
        "test knows of: take values near the level for more."
    )
    if counts == {1}:
        text += " One run a system says nothing of other seeds."
    else:
        text += " A user's values are first averaged over the seeds of a system."
    if len(counts) > 1:
        text += " Systems have different numbers of seeds here, and an average over more of them varies less."
    return [
        text,
        Table(
            "differences",
            "Best minus other, mean [95 % interval], and how likely such a distance were without a difference.",
            ("metric", "best", "other", "difference", "p (bootstrap)", "p (t-test, Holm)"),
            rows,
        ),
    ]


def _training(facts: Facts) -> list[Block]:
    histories = {each.label: each.run.history for each in facts.runs}
    blocks: list[Block] = [Picture("loss", "Training loss by epoch.", charts.losses(histories))]
    if any(record["selected"] for history in histories.values() for record in history):
        caption = "The metric that selected, by epoch; the point is the epoch that was kept."
        blocks.append(Picture("selection", caption, charts.selection(histories)))
    return blocks


def _by_degree(facts: Facts) -> list[Block]:
    metric = facts.metric
    blocks: list[Block] = []
    for side in SIDES:
        whose = {each.label: each.groups[side] for each in facts.systems}
        caption = f"{metric} at test by the training interactions of {side}."
        blocks.append(Picture(f"degree-{side}", caption, charts.degrees(whose, metric, side)))
    for side in SIDES:
        rows = [
            (each.label, group.label, group.num_nodes, group.num_interactions, group.means[metric])
            for each in facts.systems
            for group in each.groups[side]
        ]
        columns = ("system", "training interactions", side, "held out", metric)
        caption = f"{metric} by the training interactions of {side}."
        blocks.append(_without_name(len(facts.systems), Table(f"degree-{side}", caption, columns, rows)))
    return blocks


def _modalities(facts: Facts) -> list[Block]:
    masked = {each.label: each.masking.changes for each in facts.runs if each.masking.changes}
    blocks: list[Block] = [
        "A trained system is tested again as if no item had the modality; its parameters stay. A system that was "
        "trained without it might do better than this."
    ]
    if masked:
        blocks.append(
            Picture(
                "modalities",
                f"Change of {facts.metric} at test when a modality is masked, 95 % interval.",
                charts.contributions(masked, facts.metric),
            )
        )
        rows = [
            (label, name, change.interval, change.p_value)
            for label, changes in masked.items()
            for name, change in changes.items()
        ]
        caption = f"{facts.metric} without the modality minus with all, mean [95 % interval]."
        table = Table("modalities", caption, ("run", "masked", "change", "p (bootstrap)"), rows)
        blocks.append(_by_run(facts, table))
    blocks += [f"{each.label}: not measured: {each.masking.reason}." for each in facts.runs if each.masking.reason]
    agreement = [
        (each.label, first, second, share) for each in facts.runs for (first, second), share in each.agreement.items()
    ]
    if agreement:
        caption = (
            "How far neighbourhoods agree: the mean share of an item's 10 nearest that two tables have in common; "
            "tables that have nothing to do with each other share 10 / (items − 1). "
            f"“{TRAINED}” are the run's own item embeddings. {_SAMPLED}"
        )
        table = Table("agreement", caption, ("run", "table", "other table", "shared"), agreement)
        blocks.append(_by_run(facts, table))
    return blocks


def _space(facts: Facts) -> list[Block]:
    geometry = [(each.label, each.alignment, each.uniformity_users, each.uniformity_items) for each in facts.runs]
    pictures = [
        Picture(
            f"map-{place}-{number}",
            f"{each.label}: trained item embeddings, coloured by clusters of {name}.",
            charts.item_space(each.map, labels, name),
        )
        for place, each in enumerate(facts.runs, 1)
        for number, (name, labels) in enumerate(each.clusters.items(), 1)
    ]
    return [
        "The map shows the first two principal components of the trained item embeddings. It is a shadow: items that "
        "lie together in it may be far apart. Colours are k-means clusters of a modality's features; colours that lie "
        "apart show that training kept what this modality knows.",
        *pictures,
        _by_run(
            facts,
            Table(
                "geometry",
                f"Alignment of training pairs and uniformity (Wang & Isola, 2020); lower is better. {_SAMPLED}",
                ("run", "alignment", "uniformity of users", "uniformity of items"),
                geometry,
            ),
        ),
    ]


def _neighbours(facts: Facts) -> list[Block]:
    blocks: list[Block] = [
        "The nearest items by cosine, in raw ids, under each modality and under the trained embeddings."
    ]
    for place, each in enumerate(facts.runs, 1):
        rows = [
            (item, name, *found[row], *[""] * (len(_ranks(each)) - len(found[row])))
            for row, item in enumerate(each.items)
            for name, found in each.neighbours.items()
        ]
        columns = ("item", "table", *_ranks(each))
        blocks.append(Table(f"neighbours-{place}", f"{each.label}: nearest neighbours.", columns, rows))
    return blocks


def _by_run(facts: Facts, table: Table) -> Table:
    return _without_name(len(facts.runs), table)


def _without_name(count: int, table: Table) -> Table:
    """Return a table whose first column names one of several; without that column where there is only one."""
    if count > 1:
        return table
    return table._replace(columns=table.columns[1:], rows=[row[1:] for row in table.rows])


def _ranks(each: RunFacts) -> list[str]:
    depth = max(len(row) for found in each.neighbours.values() for row in found)
    return [str(rank) for rank in range(1, depth + 1)]


def _settings(facts: Facts) -> list[Block]:
    blocks: list[Block] = []
    for each in facts.runs:
        blocks += [
            f"{each.label}: fingerprint {each.run.dataset.fingerprint}",
            Details(f"{each.label}: settings", json.dumps(each.config, indent=2)),
            Details(f"{each.label}: environment of training", json.dumps(each.environment, indent=2)),
        ]
    return blocks
