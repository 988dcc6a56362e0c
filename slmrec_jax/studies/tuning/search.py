"""A hyperparameter search: its trials, their table and picture, and the config file and test of the best trial."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from slmrec_jax import data, figures
from slmrec_jax.config import Config, check_config, first_change, relevant, source_of, with_defaults, with_settings
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.durable import write_whole, writing
from slmrec_jax.errors import Interrupted, UserError, escaped, setting
from slmrec_jax.evaluation.protocol import EvaluationPlan, final_plan
from slmrec_jax.signals import stop_requests
from slmrec_jax.studies.runs import check_runs, finish_run, make_folder
from slmrec_jax.studies.tuning.config_file import config_source
from slmrec_jax.studies.tuning.seeds import fit_seeds
from slmrec_jax.studies.tuning.space import Point, Sampler, Space, grid
from slmrec_jax.studies.tuning.trials import Search, Trial, best_trial, open_search, run_trial, trials
from slmrec_jax.training.canary import check_jax
from slmrec_jax.training.events import Callback, epoch_event, message
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.run import Run
from slmrec_jax.training.selection import check_epochs, finished
from slmrec_jax.training.setup import outline, with_inputs
from slmrec_jax.training.small_data import batch_warnings, fit_cutoffs
from slmrec_jax.training.storage.folder import Record
from slmrec_jax.training.storage.lock import LOCK, locked
from slmrec_jax.training.storage.records import read_json, write_json

SEARCH_JSON, TRIALS_CSV, TRIALS_PNG, BEST_CONFIG = "study.json", "trials.csv", "tuning.png", "best.py"

TPE_TRIALS = 50
"""The default number of trials of `tpe`."""

NUM_SHOWN = 10
"""The number of trials in the table."""


class Tuned(NamedTuple):
    """The result of a search."""

    trials: Sequence[Trial]
    best: Trial
    runs: Sequence[Run]
    """The best config's runs, one per seed: the only ones that were tested."""

    def table(self, metric: str) -> Table:
        """Return a table of the best trials."""
        ranked = sorted(self.trials, key=lambda trial: (trial.state == "complete", trial.value), reverse=True)
        names = [escaped(name) for name in self.best.point]
        table = Table(title=Text("best trials", "table.title"))
        table.add_column("trial", justify="right")
        for name in names:
            table.add_column(name)
        for name in (f"valid {metric}", "best epochs"):
            table.add_column(name, justify="right")
        table.add_column("")
        for trial in ranked[:NUM_SHOWN]:
            epochs = " ".join(map(str, trial.best_epochs))
            note = "" if trial.state == "complete" else trial.state
            values = (Text(escaped(_format_value(value))) for value in trial.point.values())
            table.add_row(str(trial.number), *values, f"{trial.value:.4f}", epochs, note)
        return table


def tune(
    config: Config,
    space: Space,
    sampler: Sampler,
    seeds: Sequence[int],
    num_trials: int | None,
    out: Path,
    tell: Callback,
) -> Tuned:
    """Start a search, or continue the one in `out`, and train the best config.

    Trials are compared only on validation. The test split is used at the end, for the best config.

    Args:
        config: The settings that do not vary.
        space: The settings that vary.
        sampler: `grid` tries every point; `tpe` learns from finished trials and stops bad ones early.
        seeds: Each trial trains all seeds and is judged by their mean.
        num_trials: The total number of trials, including earlier calls; by default all points of a grid, or
            `TPE_TRIALS`.
        out: The folder for the journal, `study.json`, `best.py`, `trials.csv`, `tuning.png` and the best runs. The runs
            are named after their trial, because more trials may find a better one. Only one process at a time may hold
            the folder.
        tell: Receives the events of trials and runs.

    Raises:
        UserError: The settings, the data or the folder are unusable, or JAX computes wrong results.
        Interrupted: A signal requested a stop. The current trial is not counted; the same call continues the search.
    """
    check_jax()
    _check_searchable(config, seeds)
    whole = data.load_source(source_of(config)).by_degree()  # runs take the whole data set and record its source
    dataset = whole.with_modalities(config.modalities)
    config, notes = fit_cutoffs(config, dataset)
    for line in notes:
        tell(message(line))
    valid = final_plan(dataset, "valid", config.eval, config.ks, config.seed)
    final_plan(dataset, "test", config.eval, config.ks, config.seed)  # fails now, not after the search
    wanted = num_trials or TPE_TRIALS
    if sampler == "grid":
        num_points = len(grid(space))
        wanted = min(num_trials or num_points, num_points)
    make_folder(out)
    if not (out / SEARCH_JSON).exists() and {path.name for path in out.iterdir()} - {LOCK}:
        raise UserError(f"{out} holds something other than a search: give another {setting('out')}")
    with locked(out), writing(out, f"give another {setting('out')}; the same command continues where it stopped"):
        _record_search(out, space, sampler, seeds, config, dataset)
        search = open_search(out, space, sampler, seeds)
        done = trials(search)
        if done:
            tell(message(f"{len(done)} trial{'s' if len(done) > 1 else ''} finished before"))
        if len(done) < wanted:
            done = _run_trials(search, wanted, config, dataset, valid, out, tell)
        best = best_trial(done)
        chosen = with_defaults(with_settings(config, best.point))
        _write_findings(out, replace(chosen, seed=seeds[0]), done, best)
        runs = {out / f"best-trial{best.number}-seed{seed}": replace(chosen, seed=seed) for seed in seeds}
        check_runs(runs, dataset)
        return Tuned(done, best, [finish_run(each, whole, folder, tell) for folder, each in runs.items()])


def _check_searchable(config: Config, seeds: Sequence[int]) -> None:
    for seed in seeds:
        check_config(replace(config, seed=seed))
    if config.eval.split != "valid" or config.eval.metric is None or config.eval.stale_embeddings:
        raise UserError(
            f"tune selects on validation, with the embeddings after an epoch, but protocol {config.protocol} does not: "
            f"use {setting('protocol', 'strict')} or mmrec"
        )
    check_epochs(config)


def _record_search(
    out: Path, space: Space, sampler: Sampler, seeds: Sequence[int], config: Config, dataset: Dataset
) -> None:
    """Record the search in `study.json`, and reject a folder whose `study.json` differs."""
    record = {
        "fingerprint": dataset.fingerprint,
        "sampler": sampler,
        "seeds": seeds,
        "space": {name: {type(values).__name__.lower(): values} for name, values in space.items()},
        **relevant(with_defaults(config)),
    }
    now: dict[str, Any] = json.loads(json.dumps(record))  # tuples become lists in JSON
    path = out / SEARCH_JSON
    if not path.exists():
        write_json(path, now)
        return
    advice = f"start a new search with another {setting('out')}"
    if change := first_change(read_json(path, Mapping[str, Any], advice), now):
        raise UserError(
            f"{out} is a search with another {change}: continue it as it was, or give another {setting('out')}"
        )


def _run_trials(
    search: Search, wanted: int, config: Config, dataset: Dataset, valid: EvaluationPlan, out: Path, tell: Callback
) -> list[Trial]:
    """Run trials until there are `wanted` of them, and return all trials.

    A stop request interrupts a trial before its last epoch, or the search after it.
    """
    done, said = trials(search), set[str]()
    inputs = make_inputs(dataset, config.missing)
    with stop_requests() as stop_requested:

        def train(point: Point) -> Iterator[list[list[Record]]]:
            planned = outline(with_settings(config, point), dataset)
            for line in batch_warnings(planned.method, planned.config, dataset):
                if line not in said:  # most settings do not change the batches
                    tell(message(line))
                    said.add(line)
            for histories in fit_seeds(with_inputs(planned, inputs), valid, search.seeds):
                longest = max(histories, key=len)
                tell(epoch_event(longest[-1]))
                yield histories
                if len(longest) < config.epochs and not all(finished(each, config.eval) for each in histories):
                    check_stop()

        def check_stop() -> None:
            if (asked := stop_requested()) is not None:
                raise Interrupted(asked, out)

        while len(done) < wanted:
            done.append(run_trial(search, train))
            tell(message(_trial_line(done, wanted, config.eval.metric)))
            check_stop()
    return done


def _write_findings(out: Path, chosen: Config, done: Sequence[Trial], best: Trial) -> None:
    metric = f"{chosen.eval.split} {chosen.eval.metric}"
    seeds = len(best.values)
    head = [
        f"The best of {len(done)} trials of `slmrec-jax tune`: {metric} {best.value:.6f}, "
        f"mean over {seeds} seed{'s' if seeds > 1 else ''}.",
        "",
        f"Command:  slmrec-jax train --config {BEST_CONFIG}",
    ]
    write_whole(out / BEST_CONFIG, config_source(chosen, head))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", *best.point, metric, "by seed", "best epochs", "seconds"])
    for trial in done:
        values, epochs = (" ".join(map(str, map(_csv_value, each))) for each in (trial.values, trial.best_epochs))
        cells = (*trial.point.values(), trial.value, values, epochs, round(trial.seconds, 2))
        writer.writerow([trial.number, trial.state, *map(_csv_value, cells)])
    write_whole(out / TRIALS_CSV, text.getvalue())
    figures.draw_search(
        [trial.value for trial in done],
        {name: [trial.point[name] for trial in done] for name in best.point},
        [trial.state == "complete" for trial in done],
        out / TRIALS_PNG,
        metric,
    )


def _trial_line(done: Sequence[Trial], wanted: int, metric: str | None) -> str:
    """Describe the last trial and the best one so far in one line."""
    trial = done[-1]
    best = max((each for each in done if each.state == "complete"), key=lambda each: each.value, default=None)
    so_far = f"; best {best.value:.4f}, trial {best.number}" if best else ""
    point = ", ".join(f"{name} {_format_value(value)}" for name, value in trial.point.items())
    state = "" if trial.state == "complete" else f" ({trial.state})"
    return f"trial {trial.number}, {len(done)} of {wanted}: {point}: valid {metric} {trial.value:.4f}{state}{so_far}"


def _csv_value(value: Any) -> Any:
    """Format a value for `trials.csv`. The journal and `best.py` have full precision."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
