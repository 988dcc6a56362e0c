"""What the paper's experiments share: flags, runs that are taken up again, tables and the way they end.

An experiment is a mapping of names to configs. Each is trained for every seed; where several learning rates or weight
decays are given, the first seed's validation chooses among them for each name, and tables show the chosen alone: what
test says of the others, whose runs are tested too, is not looked at. A seed that diverges is left out of its row, which
says so. Runs lie in `OUT/runs`, which experiments with the same --out share; an interrupted one goes on when called
again.
"""

import csv
import io
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro
from paper import METRICS, NAMES, PaperData, PaperTask, Switches, settings

from slmrec_jax import Config, Run, UserError, data
from slmrec_jax.config import check_config, with_defaults, with_settings
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.durable import write_whole
from slmrec_jax.errors import Diverged
from slmrec_jax.figures import draw_lines
from slmrec_jax.methods import make_method
from slmrec_jax.studies.runs import check_unchanged, finish, make_folder
from slmrec_jax.training.inputs import make_spec
from slmrec_jax.training.progress import Listener, console_report
from slmrec_jax.training.signals import Interrupted

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Flags:
    """What to train on, and how long."""

    data: str
    """`demo`, or the folder of a data set."""
    paper: PaperData | None = None
    """Which of the paper's data sets this is: its figures then stand beside ours."""
    format: str | None = None
    """The folder's format, where it is not clear from what lies there."""
    split: str | None = None
    """How to divide the interactions; `mmrec` divides each user's 8:1:1."""
    preset: Switches = "reference"
    """SLMRec as its published code computes it, or as the paper says."""
    seeds: tuple[int, ...] = (0,)
    epochs: int = 1000
    """At most; early stopping ends most runs sooner."""
    learning_rates: tuple[float, ...] = (1e-2,)
    """The published code's; the paper searches 1e-4 1e-3 1e-2 1e-1."""
    weight_decays: tuple[float, ...] = (1e-4,)
    """The published code's; the paper searches 1e-4 1e-3 1e-2 1e-1."""
    out: Path = Path("runs/paper")
    """The folder for runs, tables and pictures."""


Parsed = TypeVar("Parsed", bound=Flags)


def command(flags: type[Parsed], experiment: Callable[[Parsed], None], arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, runs the experiment, and returns the exit status."""
    try:
        experiment(tyro.cli(flags, args=arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"stopped by {stop} and saved; the same command goes on", file=sys.stderr)
        return 128 + stop.signal_number
    return 0


def load(flags: Flags) -> Dataset:
    """The data set, divided as the flags say."""
    return data.load(flags.data, format=flags.format, split=flags.split)


def base(flags: Flags) -> Config:
    """The paper's settings with what the flags say."""
    where = flags.data if flags.data == "demo" else str(Path(flags.data).resolve())
    config = settings(flags.preset)
    return replace(config, data=where, format=flags.format, split=flags.split, epochs=flags.epochs)


def run(points: Mapping[str, Config], dataset: Dataset, flags: Flags) -> dict[str, list[Run]]:
    """The finished runs of each point, a seed each, without those that diverged.

    Raises:
        UserError: a config does not go with the data, a folder holds another run, a point diverges in every setting
            that it could choose, or all runs diverge.
        Interrupted: a signal asked to stop; call again to go on.
    """
    if not flags.seeds or not flags.learning_rates or not flags.weight_decays:
        raise UserError("--seeds, --learning-rates and --weight-decays each need at least one number")
    candidates = {name: _candidates(config, flags) for name, config in points.items()}
    for name, of_point in candidates.items():
        for place, config in of_point.items():
            check_config(config)
            make_method(config, make_spec(config, dataset))
            check_unchanged(_seeds(name, place, config, flags))
    make_folder(flags.out)
    with console_report(flags.epochs) as report:
        found = {}
        for name, of_point in candidates.items():
            place = _choose(name, of_point, dataset, flags, report) if len(of_point) > 1 else next(iter(of_point))
            folders = _seeds(name, place, of_point[place], flags)
            runs = [_finished(config, dataset, folder, report) for folder, config in folders.items()]
            found[name] = [each for each in runs if each is not None]
    if not any(found.values()):
        raise UserError("every run diverges: give lower --learning-rates")
    return found


def _finished(config: Config, dataset: Dataset, folder: Path, report: Listener) -> Run | None:
    """`finish`; where training diverges, that is said."""
    try:
        return finish(config, dataset, folder, report)
    except Diverged as error:
        report.say(f"{folder.name}: {error}")
        return None


def _candidates(config: Config, flags: Flags) -> dict[str, Config]:
    return {
        f"lr{rate:g}-wd{decay:g}": with_defaults(
            replace(config, optimizer=replace(config.optimizer, learning_rate=rate, weight_decay=decay))
        )
        for rate, decay in product(flags.learning_rates, flags.weight_decays)
    }


def _seeds(name: str, place: str, config: Config, flags: Flags) -> dict[Path, Config]:
    stem = f"{name.replace(' ', '-')}-{place}"
    return {flags.out / "runs" / f"{stem}-seed{seed}": replace(config, seed=seed) for seed in flags.seeds}


def _choose(name: str, candidates: Mapping[str, Config], dataset: Dataset, flags: Flags, report: Listener) -> str:
    """The setting that is best on validation with the first seed; one that diverges is passed over."""
    values = {}
    for place, config in candidates.items():
        folder, first = next(iter(_seeds(name, place, config, flags).items()))
        done = _finished(first, dataset, folder, report)
        if done is not None:
            values[place] = done.result["valid"][config.eval.metric]
    if not values:
        raise UserError(f"{name} diverges with every setting: give lower --learning-rates")
    return max(values, key=lambda place: values[place])


class Axis(NamedTuple):
    """What a figure varies."""

    setting: str
    """By the name of its flag."""
    label: str
    """In tables and run folders."""
    title: str
    """Under the picture."""
    values: Sequence[float]


def curves(
    name: str,
    title: str,
    axis: Axis,
    tasks: Sequence[PaperTask],
    config: Config,
    flags: Flags,
    figures: Mapping[PaperTask, tuple[float | None, ...]],
    note: str,
) -> None:
    """Trains each task with each value of a setting, and writes test recall@10 as a table and a curve a task.

    Args:
        name: of the files.
        title: of the picture.
        axis: the setting and its values.
        tasks: of SLMRec.
        config: what does not vary.
        flags: of the experiment.
        figures: the paper's for a task, in the order of `METRICS`; drawn as dashed lines.
        note: a sentence under the table.
    """
    dataset = load(flags)
    points = {
        (task, value): with_settings(config, {"task": task, axis.setting: value})
        for task in tasks
        for value in axis.values
    }
    names = {place: _point(place, point, config, axis) for place, point in points.items()}
    found = run({names[place]: point for place, point in points.items()}, dataset, flags)
    rows = [
        {"task": task, axis.label: value, **measured(found[names[task, value]], flags, figures.get(task))}
        for task, value in points
    ]
    write(name, rows, dataset, flags, note)
    metric = METRICS[0]
    lines = {
        task.upper(): {
            float(row[axis.label]): (row[metric], row[f"{metric} sd"])
            for row in rows
            if row["task"] == task and row[metric] is not None
        }
        for task in tasks
    }
    draw_lines(
        {name: points for name, points in lines.items() if points},
        flags.out / f"{name}.png",
        f"{title}, {dataset.name}",
        x=axis.title,
        y=f"test {metric}",
        log=True,
        levels={task.upper(): level for task, (level, *_) in figures.items() if level is not None},
    )


def _point(place: tuple[PaperTask, float], point: Config, config: Config, axis: Axis) -> str:
    """Its name, by which run folders go: where nothing differs from Table III, the one it has there."""
    task, value = place
    if point == replace(config, task=task) and config.main_weight:
        return NAMES[task]
    return f"{task}{'' if config.main_weight else ' alone'} {axis.label} {value:g}"


def over_seeds(runs: Sequence[Run], metric: str) -> tuple[float, float]:
    """Mean and standard deviation of a test metric."""
    values = [run.result["test"][metric] for run in runs]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def diverged(runs: Sequence[Run], flags: Flags) -> str:
    """The seeds of a point that have no run, for a cell of a table."""
    there = {run.config.seed for run in runs}
    return " ".join(str(seed) for seed in flags.seeds if seed not in there)


def measured(runs: Sequence[Run], flags: Flags, figures: Sequence[float | None] | None) -> dict[str, Any]:
    """The columns of a row: each metric, its deviation and the paper's figure, and the settings that were chosen.

    Args:
        runs: a seed each, without those that diverged.
        flags: of the experiment.
        figures: the paper's, in the order of `METRICS`; none where it gives none.
    """
    row: dict[str, Any] = {}
    for metric, figure in zip(METRICS, figures or (None,) * len(METRICS), strict=True):
        row[metric], row[f"{metric} sd"] = over_seeds(runs, metric) if runs else (None, None)
        row[f"paper {metric}"] = figure
    optimizer = runs[0].config.optimizer if runs else None
    return row | {
        "learning rate": optimizer and optimizer.learning_rate,
        "weight decay": optimizer and optimizer.weight_decay,
        "best epochs": " ".join(str(run.result["best_epoch"]) for run in runs),
        "diverged": diverged(runs, flags),
    }


def means(found: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each name mean and deviation of each metric, for a picture; what diverged with every seed is not in it."""
    return {name: {metric: over_seeds(runs, metric) for metric in METRICS} for name, runs in found.items() if runs}


def of_paper(flags: Flags) -> str:
    """What the columns of the paper's figures hold."""
    if flags.paper is None:
        return "No figures of the paper: name its data set by --paper where this is one of them."
    return f"The paper's figures are those of its Tables II and III on {flags.paper}."


def write(name: str, rows: Sequence[Row], dataset: Dataset, flags: Flags, note: str) -> None:
    """Writes the table as CSV and Markdown, and shows it.

    Args:
        name: of the files.
        rows: all with the same columns; `None` is a figure that the paper does not give, or that is not to be had.
        dataset: what it was measured on.
        flags: of the experiment.
        note: a sentence under the table.
    """
    columns = list(rows[0])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    seeds = " ".join(map(str, flags.seeds))
    title = (
        f"{dataset.name}, fingerprint {dataset.fingerprint[:12]}, preset {flags.preset}, "
        f"at most {flags.epochs} epochs, seeds {seeds}"
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
    return f"{value:.6g}" if isinstance(value, float) else str(value)
