"""The tables and pictures of the paper's experiments."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from paper import METRICS, NAMES, PaperTask
from sweep import Flags, TaskFlags, load, run

from slmrec_jax import Config, Run
from slmrec_jax.config import with_settings
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.durable import write_whole
from slmrec_jax.figures import draw_lines
from slmrec_jax.studies.significance import mean_and_deviation

Figures = Mapping[PaperTask, Sequence[float | None]]
"""The paper's test metrics by task, in the order of `METRICS`; `None` where it gives none."""


class Axis(NamedTuple):
    """The setting that a figure varies."""

    setting: str
    """The name of its flag."""
    label: str
    """Its name in tables and run folders."""
    title: str
    """Its name in the picture."""
    values: Sequence[float]


def curves(name: str, title: str, axis: Axis, config: Config, flags: TaskFlags, figures: Figures, note: str) -> None:
    """Train each task with each value of a setting; write a table, and draw each task's curve of test recall@10.

    The paper's figures are drawn as dashed lines; the note is a sentence under the table.
    """
    dataset, points, places = load(flags), {}, {}
    for task, value in product(flags.tasks, axis.values):
        point = with_settings(config, {"task": task, axis.setting: value})
        label = f"{task}{'' if config.main_weight else ' alone'} {axis.label} {value:g}"
        if point == replace(config, task=task) and config.main_weight:
            label = NAMES[task]  # Table III's, so that both use the same run
        points[label], places[label] = point, (task, value)
    found = run(points, dataset, flags)
    rows = [
        {"task": task, axis.label: value, **measured(found[label], flags, figures.get(task))}
        for label, (task, value) in places.items()
    ]
    write(name, rows, dataset, flags, note)
    lines: dict[str, dict[float, tuple[float, float]]] = {}
    for label, (task, value) in places.items():
        if found[label]:
            lines.setdefault(task.upper(), {})[float(value)] = on_test(found[label], METRICS[0])
    draw_lines(
        lines,
        flags.out / f"{name}.png",
        f"{title}, {dataset.name}",
        x=axis.title,
        y=f"test {METRICS[0]}",
        log=True,
        levels={task.upper(): level for task, (level, *_) in figures.items() if level is not None},
    )


def on_test(runs: Sequence[Run], metric: str) -> tuple[float, float]:
    """Return the mean and standard deviation of a test metric over seeds."""
    return mean_and_deviation([run.result["test"][metric] for run in runs])


def diverged(runs: Sequence[Run], flags: Flags) -> str:
    """Return the seeds of a point that have no run, for a cell of a table."""
    there = {run.config.seed for run in runs}
    return " ".join(str(seed) for seed in flags.seeds if seed not in there)


def measured(runs: Sequence[Run], flags: Flags, figures: Sequence[float | None] | None) -> dict[str, Any]:
    """Return the columns of a row: each metric, its deviation and the paper's figure, and the chosen settings.

    The paper's `figures` are in the order of `METRICS`, `None` where it gives none.
    """
    row: dict[str, Any] = {}
    for metric, figure in zip(METRICS, figures or (None,) * len(METRICS), strict=True):
        row[metric], row[f"{metric} sd"] = on_test(runs, metric) if runs else (None, None)
        row[f"paper {metric}"] = figure
    optimizer = runs[0].config.optimizer if runs else None
    return row | {
        "learning rate": optimizer and optimizer.learning_rate,
        "weight decay": optimizer and optimizer.weight_decay,
        "best epochs": " ".join(str(run.result["best_epoch"]) for run in runs),
        "diverged": diverged(runs, flags),
    }


def means(found: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return mean and deviation of each metric by name, for a picture; names that have no run are left out."""
    return {name: {metric: on_test(runs, metric) for metric in METRICS} for name, runs in found.items() if runs}


def about_figures(flags: Flags) -> str:
    """Return the sentence about the columns of the paper's figures."""
    if flags.paper is None:
        return "No figures of the paper: name its data set by --paper where this is one of them."
    return f"The paper's figures are those of its Tables II and III on {flags.paper}."


def write(name: str, rows: Sequence[Mapping[str, Any]], dataset: Dataset, flags: Flags, note: str) -> None:
    """Write a table as CSV and Markdown with a note under it, and print it; `None` is a missing value."""
    columns = list(rows[0])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _digits(value) for column, value in row.items()} for row in rows)
    title = (
        f"{dataset.name}, fingerprint {dataset.fingerprint[:12]}, preset {flags.preset}, "
        f"at most {flags.epochs} epochs, seeds {' '.join(map(str, flags.seeds))}"
    )
    lines = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    table = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    markdown = "\n".join([title, "", *table, "", note])
    write_whole(flags.out / f"{name}.csv", text.getvalue())
    write_whole(flags.out / f"{name}.md", markdown + "\n")
    print(markdown)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return str(_digits(value))


def _digits(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
