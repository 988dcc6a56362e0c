"""The sections of a report, including those about systems: runs, test metrics, differences, curves and groups."""

import math
import statistics
from collections.abc import Mapping, Sequence

from slmrec_jax.data.dataset import SPLITS
from slmrec_jax.reporting import charts
from slmrec_jax.reporting.charts import History
from slmrec_jax.reporting.facts import SIDES, Facts, SystemFacts, TrainedRun
from slmrec_jax.reporting.page import Block, Downloads, Picture, Section
from slmrec_jax.reporting.paper import RESULTS_CSV, RESULTS_MD, RESULTS_TEX, USERS, result_parts
from slmrec_jax.reporting.run_facts import RunFacts
from slmrec_jax.reporting.run_sections import item_space_blocks, modality_blocks, neighbour_blocks, setting_blocks
from slmrec_jax.reporting.tables import NONE, Cell, ReportTable, cell_text, without_single_name
from slmrec_jax.studies.measurements import scores_of
from slmrec_jax.studies.significance import LEVEL


def report_title(facts: Facts) -> str:
    """Return the title of the page."""
    return ", ".join(each.label for each in facts.systems)


def report_summary(facts: Facts) -> str:
    """Summarise in one sentence which system is best and by how much."""
    if facts.caveats:
        return f"No system is called best, because they cannot be compared: {facts.caveats[0]}."
    metric = facts.metric
    best = max(facts.systems, key=lambda each: each.metrics[metric].mean)
    of_seeds = f", mean of {len(best.runs)} seeds" if len(best.runs) > 1 else ""
    value = f"test {metric} {cell_text(best.metrics[metric])}{of_seeds}"
    contrasts = [each for each in facts.contrasts if each.metric == metric]
    if not contrasts:
        return f"{best.label} has {value}; there is no other system here to compare it with, and so no p-value."
    second = min(contrasts, key=lambda each: each.difference.interval.mean)
    difference = second.difference.interval.mean
    p_value = "p < 0.001" if second.holm < 0.001 else f"p = {second.holm:.2g}"
    test = f"{p_value}, paired t-test over users with Holm's correction"
    if difference == 0:
        return f"{best.label} and {second.label} are level: {value} ({test})."
    base = best.metrics[metric].mean - difference
    more = (
        f"{cell_text(difference)}{f' ({difference / base:.1%})' if base > 0 else ''} more than {second.label}, the next"
    )
    if second.holm < LEVEL:
        return f"{best.label} is best: {value}, which is {more} ({test})."
    return f"{best.label} is best, but not shown to be: {value}, which is {more}, and may be chance ({test})."


def report_sections(facts: Facts) -> list[Section]:
    """Return the content of the page."""
    return [
        Section("Runs", _run_blocks(facts)),
        Section("Test metrics", _metric_blocks(facts)),
        *([Section("Differences", _difference_blocks(facts))] if facts.contrasts else []),
        Section("Beyond accuracy", _beyond_blocks(facts)),
        Section("Training", _training_blocks(facts.measurements.histories)),
        Section("By number of training interactions", _degree_blocks(facts)),
        Section("Contribution of each modality", modality_blocks(facts.runs, facts.metric)),
        Section("Item space", item_space_blocks(facts.runs)),
        Section("Nearest neighbours", neighbour_blocks(facts.runs)),
        Section("Settings and environment", setting_blocks(facts.runs)),
    ]


def _run_blocks(facts: Facts) -> list[Block]:
    columns = ("system", "run", "model", "task", "seed", "protocol", "best epoch", "epochs", "train seconds", "step ms")
    rows: list[tuple[Cell, ...]] = []
    for each in facts.systems:
        rows += [(each.label, *_run_cells(run)) for run in each.runs]
        if not each.runs:
            rows.append((each.label, *[NONE] * (len(columns) - 1)))
    blocks: list[Block] = [f"Not comparable: {caveat}." for caveat in facts.caveats]
    blocks += [f"{note}." for note in facts.notes]
    blocks += [note for each in facts.runs for note in _sample_notes(each)]
    if _has_several_seeds(facts):
        blocks.append(
            "Runs whose settings differ only in the seed are one system. Metrics, differences and groups are averages "
            "over its seeds, and so are curves; modalities, items and settings are those of its first seed."
        )
    return [
        *blocks,
        ReportTable("runs", "The systems and their runs; a ranking without training has none.", columns, rows),
        ReportTable(
            "data",
            "The data of each run: users, items, interactions by split, modalities, and the start of the fingerprint.",
            ("run", "data", "users", "items", *SPLITS, "modalities", "fingerprint"),
            [(each.label, *_data_cells(each)) for each in facts.runs],
        ),
    ]


def _run_cells(run: TrainedRun) -> tuple[Cell, ...]:
    config, result = run.config, run.result
    task = config.task if config.model == "slmrec" else NONE
    epochs = int(result["best_epoch"]), int(result["epochs"])
    times = (f"{float(value):.1f}" for value in (result["seconds"]["train"], result["step_ms"]))
    return run.folder.resolve().name, config.model, task, config.seed, config.protocol, *epochs, *times


def _sample_notes(facts: RunFacts) -> list[str]:
    """Return sentences about the samples of users with which a run was selected and tested."""
    run, notes = facts.run, []
    best = run.history[run.result["best_epoch"] - 1]
    widths = best.get("half_widths", {})
    for name, value in best["selected"].items():
        if name in widths:
            notes.append(
                f"{facts.label}: its best epoch was selected by {best['split']} {name} {value:.4f} ± "
                f"{widths[name]:.4f} of a sample of {run.config.eval.users:,} users (95 % interval of the sampling)."
            )
    if "test" in run.result.get("sampled", {}):
        sampled = run.result["sampled"]["test"]
        notes.append(f"{facts.label}: {sampled['users']:,} of {sampled['of']:,} test users were sampled and ranked.")
    return notes


def _data_cells(facts: RunFacts) -> tuple[Cell, ...]:
    data = facts.run.dataset
    sizes = data.num_users, data.num_items, *(len(getattr(data, split).users) for split in SPLITS)
    return data.name, *sizes, ", ".join(data.features) or "none", data.fingerprint[:12]


def _has_several_seeds(facts: Facts) -> bool:
    return any(len(each.runs) > 1 for each in facts.systems)


def _metric_blocks(facts: Facts) -> list[Block]:
    blocks: list[Block] = [
        "Means over the test users at the best epoch, with 95 % bootstrap intervals. An interval shows how the mean "
        "varies with other users of the same population, not with other training seeds.",
        Picture(
            "metrics",
            "Test metrics with 95 % bootstrap intervals over users.",
            charts.metric_intervals({each.label: each.metrics for each in facts.systems}, facts.shown),
        ),
        ReportTable(
            "metrics",
            "All metrics that the systems share: mean [95 % interval].",
            ("metric", *(each.label for each in facts.systems)),
            [(metric, *(each.metrics[metric] for each in facts.systems)) for metric in facts.metrics],
        ),
    ]
    if _has_several_seeds(facts):
        rows = [_seed_cells(each, metric) for metric in facts.shown for each in facts.systems]
        caption = "Variation over the seeds of a system: mean, standard deviation, least and largest value."
        columns = ("metric", "system", "seeds", "mean", "deviation", "least", "largest")
        blocks.append(ReportTable("seeds", caption, columns, rows))
    return blocks


def _seed_cells(system: SystemFacts, metric: str) -> tuple[Cell, ...]:
    values = system.by_seed[metric]
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    seeds: Cell = len(system.runs) or NONE
    return metric, system.label, seeds, statistics.fmean(values), deviation, min(values), max(values)


def _difference_blocks(facts: Facts) -> list[Block]:
    rows = [
        (each.metric, each.best, each.label, each.difference.interval, each.difference.p_value, each.holm)
        for each in facts.contrasts
    ]
    text = (
        "The system with the best mean and each other system, compared user by user. Two tests should agree: a paired "
        "bootstrap, and a paired t-test with Holm's correction for all systems. A difference counts as shown if p is "
        f"below {LEVEL}. The same values choose the best system, which neither test corrects for: true p-values are "
        "somewhat larger."
    )
    counts = {len(each.runs) for each in facts.systems if each.runs}
    if counts == {1}:
        text += " With one run for each system, the tests do not cover variation over seeds."
    else:
        text += " The values of a user are first averaged over the seeds of a system."
    if len(counts) > 1:
        text += " The systems have different numbers of seeds; an average over more seeds varies less."
    return [
        text,
        ReportTable(
            "differences",
            "Best minus other: mean [95 % interval], and the p-values of both tests.",
            ("metric", "best", "other", "difference", "p (bootstrap)", "p (t-test, Holm)"),
            rows,
        ),
    ]


def _beyond_blocks(facts: Facts) -> list[Block]:
    scores = scores_of(facts.measurements)
    means = {(score.system, score.metric): score.mean for score in scores}
    blocks: list[Block] = []
    for part in result_parts(facts.measurements, scores)[1:]:  # accuracy has a separate section
        rows: list[tuple[Cell, ...]] = [
            (each.label, *(means[each.label, metric] for metric in part.metrics)) for each in facts.systems
        ]
        blocks.append(ReportTable(part.name, " ".join(part.notes), ("system", *part.metrics), rows))
    text = (
        "For a paper: tables of systems and metrics with deviations over seeds and marks of significance, the same "
        "numbers in full precision, and every user's metrics."
    )
    return [*blocks, Downloads(text, (RESULTS_MD, RESULTS_CSV, RESULTS_TEX, USERS))]


def _training_blocks(systems: Mapping[str, Sequence[History]]) -> list[Block]:
    of_seeds = "; mean and standard deviation over seeds" if any(len(seeds) > 1 for seeds in systems.values()) else ""
    caption = "Training loss by epoch; losses of different objectives or scales have axes of their own"
    if len(systems) == 1:
        caption = "Training loss by epoch: the whole and its terms, each on an axis of its own"
    blocks: list[Block] = [Picture("loss", f"{caption}{of_seeds}.", charts.loss_curves(systems))]
    if any(record["selected"] for seeds in systems.values() for history in seeds for record in history):
        caption = f"The selecting metric by epoch; a point marks the selected epoch{of_seeds}."
        blocks.append(Picture("selection", caption, charts.selection_curves(systems)))
    return blocks


def _degree_blocks(facts: Facts) -> list[Block]:
    pictures: list[Block] = []
    tables: list[Block] = []
    for side in SIDES:
        caption = (
            f"Test {facts.metric} by the training interactions of {side}, with 95 % bootstrap intervals over the users "
            "who have such test interactions."
        )
        groups = {each.label: each.groups[side] for each in facts.systems}
        pictures.append(Picture(f"degree-{side}", caption, charts.degree_bars(groups, facts.metric, side)))
        rows = [
            (label, group.label, group.num_nodes, group.num_interactions, group.interval)
            for label, of_system in groups.items()
            for group in of_system
        ]
        columns = ("system", "training interactions", side, "held out", facts.metric)
        table = ReportTable(f"degree-{side}", caption, columns, rows)
        tables.append(without_single_name(table, len(facts.systems)))
    return [*pictures, *tables]
