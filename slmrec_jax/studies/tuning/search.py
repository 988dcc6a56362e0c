"""A search from its settings to the best config: trials, a file that trains it, a table, a picture, and its test."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from slmrec_jax import data, figures
from slmrec_jax.config import Config, check_config, first_change, relevant, source_of, with_defaults, with_settings
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.durable import write_whole, writing
from slmrec_jax.errors import UserError, escaped, setting
from slmrec_jax.evaluation.protocol import EvaluationPlan, plan
from slmrec_jax.studies.runs import check_unchanged, finish, make_folder
from slmrec_jax.studies.tuning import study
from slmrec_jax.studies.tuning.config_file import config_source
from slmrec_jax.studies.tuning.seeds import best_value, fit_seeds
from slmrec_jax.studies.tuning.space import Point, Sampler, Space, grid
from slmrec_jax.training.canary import check_jax
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.progress import Listener
from slmrec_jax.training.run import Run
from slmrec_jax.training.selection import best_epoch, finished
from slmrec_jax.training.setup import outline, with_inputs
from slmrec_jax.training.signals import Interrupted, stop_requests
from slmrec_jax.training.small_data import fit_cutoffs
from slmrec_jax.training.storage.folder import Record
from slmrec_jax.training.storage.lock import LOCK, locked
from slmrec_jax.training.storage.records import read_json, write_json

STUDY, TABLE, PICTURE, BEST = "study.json", "trials.csv", "tuning.png", "best.py"

TPE_TRIALS = 50


class Tuned(NamedTuple):
    """What a search has found."""

    trials: Sequence[study.Trial]
    best: study.Trial
    runs: Sequence[Run]
    """Of the best config, a seed each; the only ones whose test was read."""

    def table(self, metric: str, rows: int = 10) -> Table:
        """The best trials."""
        ranked = sorted(self.trials, key=lambda trial: (trial.state == "complete", trial.value), reverse=True)
        names = [escaped(name) for name in self.best.point]
        table = Table("trial", *names, f"valid {metric}", "best epochs", "", title="best trials")
        for trial in ranked[:rows]:
            epochs = " ".join(map(str, trial.best_epochs))
            note = "" if trial.state == "complete" else trial.state
            values = (Text(escaped(_short(value))) for value in trial.point.values())
            table.add_row(str(trial.number), *values, f"{trial.value:.4f}", epochs, note)
        return table


def tune(
    config: Config,
    space: Space,
    sampler: Sampler,
    seeds: Sequence[int],
    num_trials: int | None,
    out: Path,
    report: Listener,
) -> Tuned:
    """Searches, or goes on with the search in `out`, and trains the best config.

    Trials are judged by validation alone. Test is read at the end, for the best config.

    Args:
        config: what does not vary.
        space: what does.
        sampler: `grid` tries every point in turn; `tpe` proposes by what it has seen, and stops bad trials early.
        seeds: each trial trains all of them and counts with their mean.
        num_trials: how many in all, those of earlier calls among them; by default all points of a grid, or 50.
        out: holds the journal, `study.json`, and in the end `best.py`, `trials.csv`, `tuning.png` and the best runs,
            named after their trial, since more trials may find a better one. One process at a time holds it.
        report: where progress goes.

    Raises:
        UserError: something in settings, data or folder cannot be used, or JAX computes wrongly.
        Interrupted: a signal asked to stop; the trial at hand is not counted, and the same call goes on.
    """
    check_jax()
    for seed in seeds:
        check_config(replace(config, seed=seed))
    if config.eval.split != "valid" or config.eval.metric is None or config.eval.stale_embeddings:
        raise UserError(
            f"tune selects on validation, by the embeddings after an epoch, and protocol {config.protocol} does not: "
            f"take {setting('protocol', 'strict')} or mmrec"
        )
    whole = data.load_source(source_of(config))  # what runs are given: they record where it came from
    dataset = whole.with_modalities(config.modalities)
    config, left_out = fit_cutoffs(config, dataset)
    for line in left_out:
        report.say(line)
    evaluation = plan(dataset, "valid", config.eval, config.ks)
    plan(dataset, "test", config.eval, config.ks)  # what the end needs is refused now
    points = grid(space) if sampler == "grid" else None
    wanted = min(num_trials or len(points), len(points)) if points else num_trials or TPE_TRIALS
    make_folder(out)
    if not (out / STUDY).exists() and {path.name for path in out.iterdir()} - {LOCK}:
        raise UserError(f"{out} holds something else than a search: give another {setting('out')}")
    with locked(out), writing(out, f"give another {setting('out')}; the same command goes on where it stopped"):
        _write_or_check(out, space, sampler, seeds, config, dataset)
        search = study.open_search(out, space, sampler, seeds)
        done = study.trials(search)
        if done:
            report.say(f"{len(done)} trial{'s' if len(done) > 1 else ''} finished before")
        if len(done) < wanted:
            done = _searched(search, wanted, config, dataset, evaluation, out, report)
        best = study.best_trial(done)
        chosen = with_defaults(with_settings(config, best.point))
        _write_findings(out, replace(chosen, seed=seeds[0]), done, best)
        runs = {out / f"best-trial{best.number}-seed{seed}": replace(chosen, seed=seed) for seed in seeds}
        check_unchanged(runs)
        return Tuned(done, best, [finish(each, whole, folder, report) for folder, each in runs.items()])


def _searched(
    search: study.Search,
    wanted: int,
    config: Config,
    dataset: Dataset,
    evaluation: EvaluationPlan,
    out: Path,
    report: Listener,
) -> list[study.Trial]:
    """All trials, once there are as many as wanted."""
    done = study.trials(search)
    inputs = make_inputs(dataset, config.missing)
    with stop_requests() as stop_requested:

        def train(point: Point) -> Iterator[study.Progress]:
            of_trial = with_defaults(with_settings(config, point))
            histories = fit_seeds(with_inputs(outline(of_trial, dataset), inputs), evaluation, search.seeds)
            return _progress(histories, of_trial, out, stop_requested, report)

        while len(done) < wanted:
            done.append(study.run_trial(search, train))
            report.say(_line(done, wanted, config.eval.metric))
            asked = stop_requested()
            if asked is not None:
                raise Interrupted(asked, out)
    return done


def _progress(
    histories: Iterator[list[list[Record]]],
    config: Config,
    out: Path,
    stop_requested: Callable[[], int | None],
    report: Listener,
) -> Iterator[study.Progress]:
    """What each epoch has come to; a request to stop ends a trial that has epochs to go."""
    for of_seeds in histories:
        latest = max((history[-1] for history in of_seeds), key=lambda record: record["epoch"])
        report.epoch(latest)
        values = tuple(best_value(history) for history in of_seeds)
        yield study.Progress(latest["epoch"], values, tuple(best_epoch(history) for history in of_seeds))
        ended = latest["epoch"] == config.epochs or all(finished(history, config.eval) for history in of_seeds)
        asked = stop_requested()
        if asked is not None and not ended:
            raise Interrupted(asked, out)


def _write_or_check(
    out: Path, space: Space, sampler: Sampler, seeds: Sequence[int], config: Config, dataset: Dataset
) -> None:
    """Says in `study.json` what is searched; a folder that says something else is refused."""
    record = {
        "fingerprint": dataset.fingerprint,
        "sampler": sampler,
        "seeds": seeds,
        "space": {name: {type(values).__name__.lower(): values} for name, values in space.items()},
        **relevant(with_defaults(config)),
    }
    now: dict[str, Any] = json.loads(json.dumps(record))  # tuples are lists there
    path = out / STUDY
    if not path.exists():
        write_json(path, now)
        return
    advice = f"start a new search with another {setting('out')}"
    change = first_change(read_json(path, Mapping[str, Any], advice), now)
    if change:
        raise UserError(
            f"{out} is a search with another {change}: go on with it as it was, or give another {setting('out')}"
        )


def _write_findings(out: Path, chosen: Config, done: Sequence[study.Trial], best: study.Trial) -> None:
    metric = f"{chosen.eval.split} {chosen.eval.metric}"
    seeds = len(best.values)
    lines = [
        f"The best of {len(done)} trials of `slmrec-jax tune`: {metric} {best.value:.6f}, "
        f"mean over {seeds} seed{'s' if seeds > 1 else ''}.",
        "",
        f"Command:  slmrec-jax train --config {BEST}",
    ]
    write_whole(out / BEST, config_source(chosen, lines))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", *best.point, metric, "by seed", "best epochs", "seconds"])
    for trial in done:
        by_seed, epochs = (" ".join(map(str, values)) for values in (trial.values, trial.best_epochs))
        writer.writerow(
            [trial.number, trial.state, *trial.point.values(), trial.value, by_seed, epochs, round(trial.seconds, 2)]
        )
    write_whole(out / TABLE, text.getvalue())
    figures.draw_search(
        [trial.value for trial in done],
        {name: [trial.point[name] for trial in done] for name in best.point},
        [trial.state == "complete" for trial in done],
        out / PICTURE,
        metric,
    )


def _line(done: Sequence[study.Trial], wanted: int, metric: str | None) -> str:
    trial = done[-1]
    complete = [each for each in done if each.state == "complete"]
    best = max(complete, key=lambda each: each.value, default=None)
    so_far = f"; best {best.value:.4f}, trial {best.number}" if best else ""
    point = ", ".join(f"{name} {_short(value)}" for name, value in trial.point.items())
    state = "" if trial.state == "complete" else f" ({trial.state})"
    return f"trial {trial.number}, {len(done)} of {wanted}: {point}: valid {metric} {trial.value:.4f}{state}{so_far}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
