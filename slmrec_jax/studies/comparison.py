"""Comparison of systems on the same data over seeds: a table with significance tests, a picture, and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from rich.table import Table
from rich.text import Text

from slmrec_jax import data, figures
from slmrec_jax.config import Config, check_config, relevant, source_of, with_defaults, with_system
from slmrec_jax.durable import writing
from slmrec_jax.errors import UserError, escaped, setting
from slmrec_jax.evaluation.metrics import METRIC_NAMES
from slmrec_jax.evaluation.protocol import final_plan
from slmrec_jax.evaluation.ranking import rank
from slmrec_jax.methods import METHODS
from slmrec_jax.studies.measurements import Measured, Measurements, main_metric, measure_ranking
from slmrec_jax.studies.runs import check_runs, finish_run, make_folder
from slmrec_jax.studies.significance import LEVEL, mean_and_deviation, mean_per_user, p_values
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.training.events import Callback, message
from slmrec_jax.training.small_data import fit_cutoffs
from slmrec_jax.training.storage.folder import Record
from slmrec_jax.training.storage.records import write_json
from slmrec_jax.types import Embeddings

COMPARISON_JSON, COMPARISON_PNG = "comparison.json", "comparison.png"


class Recorded(TypedDict):
    """The content of `comparison.json`."""

    fingerprint: str
    protocol: str
    seeds: list[int]
    systems: Mapping[str, list[Mapping[str, float]]]
    """Test metrics by system, one entry per seed; a single entry for a ranking that is not trained."""
    p_values: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, list[Mapping[str, Any]]]
    """Settings by system, one entry per seed; none for a ranking that is not trained."""


class Comparison(NamedTuple):
    """Test metrics of several systems."""

    rows: Mapping[str, Mapping[str, tuple[float, float]]]
    """Mean and standard deviation over seeds, by system and metric."""
    metrics: tuple[str, ...]
    """The metrics of the table and the picture."""
    p_values: Mapping[str, Mapping[str, float]]
    """The p-value of each system's difference from the best one, by metric and system. The best one has none."""
    title: str
    measurements: Measurements
    """The measurements that the table and the files are made from."""

    def table(self) -> Table:
        """Return a table with one row per system; best values are bold, and `≈` marks those not shown to be worse."""
        caption = f"≈ not shown to differ from the best (paired t-test over users, Holm, p ≥ {LEVEL})"
        title = Text(escaped(self.title), "table.title")  # rich would parse brackets in a string as markup
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
        table.add_column("system")
        for metric in self.metrics:
            table.add_column(metric, justify="right")
        for name, values in self.rows.items():
            table.add_row(name, *(self._cell(name, metric, *values[metric]) for metric in self.metrics))
        return table

    def _cell(self, name: str, metric: str, mean: float, deviation: float) -> str:
        text = f"{mean:.4f} ± {deviation:.4f}" if deviation else f"{mean:.4f}"
        if name not in self.p_values[metric]:
            return f"[bold]{text}[/bold]  "
        return f"{text} ≈" if self.p_values[metric][name] >= LEVEL else f"{text}  "


def compare(config: Config, systems: Sequence[str], seeds: Sequence[int], out: Path, tell: Callback) -> Comparison:
    """Train each system with each seed, unless `out` holds its finished run, and test it.

    Args:
        config: The settings of all systems. Missing ones are filled in with each model's defaults (`BASE`).
        systems: Names in `UNTRAINED` or of models. A name such as `slmrec:fd` includes a preset, which wins over
            `config`.
        seeds: At least one seed.
        out: The folder of the runs, `comparison.json` and `comparison.png`.
        tell: Receives the events of all runs.

    Raises:
        UserError: A system is unknown, the data lack something it needs, or `out` holds a run of another config.
    """
    check_config(config)
    for name in systems:
        _runs_of_system(config, name, seeds, out)  # rejects unknown names before the data are read
    whole = data.load_source(source_of(config)).by_degree()  # runs take the whole data set and record its source
    dataset = whole.with_modalities(config.modalities)
    config, notes = fit_cutoffs(config, dataset)
    runs = {name: _runs_of_system(config, name, seeds, out) for name in systems}
    for of_system in runs.values():
        check_runs(of_system, dataset)
    test = final_plan(dataset, "test", config.eval, config.ks, config.seed)
    main = main_metric([f"{metric}@{k}" for metric in METRIC_NAMES for k in test.cutoffs], config)

    def measure(embeddings: Embeddings, seed: int | None) -> Measured:
        return measure_ranking(test, rank(test.ranking, embeddings).items, dataset, main, seed)

    untrained = {name: [measure(UNTRAINED[name](config, dataset), None)] for name in systems if name in UNTRAINED}
    make_folder(out)
    for line in notes:
        tell(message(line))
    measured: dict[str, list[Measured]] = {}
    histories: dict[str, list[Sequence[Record]]] = {}
    for name, of_system in runs.items():
        measured[name] = untrained.get(name, [])
        for folder, run_config in of_system.items():
            run = finish_run(run_config, whole, folder, tell)  # one at a time, to free its tables
            measured[name].append(measure(run.embeddings, run.config.seed))
            histories.setdefault(name, []).append(run.history)
    of_seeds = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    title = f"test, {dataset.name}, protocol {config.protocol}, {of_seeds}"
    comparison = _summarize(Measurements(title, measured, histories, _shown_metrics(config), main))
    record: Recorded = {
        "fingerprint": dataset.fingerprint,
        "protocol": config.protocol,
        "seeds": list(seeds),
        "systems": {name: [dict(each.test.means) for each in found] for name, found in measured.items()},
        "p_values": comparison.p_values,
        "settings": {name: [relevant(each) for each in of_system.values()] for name, of_system in runs.items()},
    }
    with writing(out, f"give another {setting('out')}; the same command does not repeat finished runs"):
        write_json(out / COMPARISON_JSON, record)
        figures.draw_comparison(comparison.rows, comparison.metrics, out / COMPARISON_PNG, comparison.title)
    return comparison


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Return the folder of one run of a comparison."""
    return out / f"{name.replace(':', '-')}-seed{seed}"


def _runs_of_system(config: Config, name: str, seeds: Sequence[int], out: Path) -> dict[Path, Config]:
    """Return a system's configs by run folder, with the model's defaults; empty for an untrained ranking."""
    if name in UNTRAINED:
        return {}
    if name.partition(":")[0] not in METHODS:
        raise UserError(f"there is no system {name!r}: give some of {', '.join((*UNTRAINED, *METHODS))}")
    of_system = with_defaults(with_system(config, name))
    return {run_folder(out, name, seed): replace(of_system, seed=seed) for seed in seeds}


def _shown_metrics(config: Config) -> tuple[str, ...]:
    return tuple(f"{metric}@{k}" for k in sorted(config.ks)[:2] for metric in ("recall", "ndcg"))


def _summarize(measurements: Measurements) -> Comparison:
    systems, shown = measurements.systems, measurements.metrics
    rows = {
        name: {
            metric: mean_and_deviation([each.test.means[metric] for each in found]) for metric in found[0].test.means
        }
        for name, found in systems.items()
    }
    tests = {
        metric: p_values(
            {name: mean_per_user([each.test.per_user[metric] for each in found]) for name, found in systems.items()}
        )
        for metric in shown
    }
    return Comparison(rows, shown, tests, measurements.title, measurements)
