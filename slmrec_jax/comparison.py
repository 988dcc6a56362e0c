"""Several systems on the same data, over seeds: a table, a picture, and the figures as JSON."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import jax.numpy as jnp
from rich.table import Table

from slmrec_jax import data, figures
from slmrec_jax.config import Config, Task, check_config, to_json
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.methods import METHODS
from slmrec_jax.training.folder import CONFIG, RESULT, read_config, write_json
from slmrec_jax.training.progress import Report
from slmrec_jax.training.run import load_run, train
from slmrec_jax.types import Embeddings

TABLE, PICTURE = "comparison.json", "comparison.png"


class Comparison(NamedTuple):
    """Test metrics by system: mean and standard deviation over seeds."""

    rows: Mapping[str, Mapping[str, tuple[float, float]]]
    metrics: tuple[str, ...]
    """Those that table and picture show."""
    title: str

    def table(self) -> Table:
        """A row a system, the best of each column in bold."""
        table = Table(title=self.title, title_justify="left")
        table.add_column("system")
        for metric in self.metrics:
            table.add_column(metric, justify="right")
        best = {metric: max(values[metric][0] for values in self.rows.values()) for metric in self.metrics}
        for name, values in self.rows.items():
            cells = (_cell(*values[metric], bold=values[metric][0] == best[metric]) for metric in self.metrics)
            table.add_row(name, *cells)
        return table


def popularity(dataset: Dataset) -> Embeddings:
    """Ranks items by how many training interactions they have, the same for every user."""
    counts = jnp.bincount(jnp.asarray(dataset.train.items), length=dataset.num_items)
    return Embeddings(jnp.ones((dataset.num_users, 1)), counts[:, None].astype(jnp.float32))


UNTRAINED: Mapping[str, Callable[[Dataset], Embeddings]] = {"popularity": popularity}
"""Rankings that need no training, as a floor."""


def compare(config: Config, systems: Sequence[str], seeds: Sequence[int], out: Path, report: Report) -> Comparison:
    """Trains each system with each seed, unless its finished run lies in `out`, and tests it.

    Args:
        config: for all.
        systems: names of `UNTRAINED` or of models; `slmrec:fd` is SLMRec with that task.
        seeds: at least one.
        out: holds a run folder for each, and `comparison.json` and `comparison.png` in the end.
        report: where progress goes.

    Raises:
        UserError: a system is not known, or a run that lies in `out` is of another config.
    """
    check_config(config)
    runs = {name: _runs(config, name, seeds, out) for name in systems}
    for of_system in runs.values():
        _check_finished(of_system)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the folder {out}: {error.strerror}; give another --out") from None
    dataset = data.load(config.data, config.format).with_modalities(config.modalities)
    results: dict[str, list[Mapping[str, float]]] = {}
    for name, of_system in runs.items():
        results[name] = [_test(run_config, dataset, folder, report) for folder, run_config in of_system.items()]
        if name in UNTRAINED:
            plan = evaluation.plan(dataset, "test", config.eval, config.ks)
            results[name] = [evaluation.evaluate(plan, UNTRAINED[name](dataset)).means]
    rows = {name: _summary(of_seeds) for name, of_seeds in results.items()}
    metrics = tuple(f"{metric}@{k}" for k in sorted(config.ks)[:2] for metric in ("recall", "ndcg"))
    title = f"test, {dataset.name}, protocol {config.protocol}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    write_json(
        out / TABLE,
        {"fingerprint": dataset.fingerprint, "protocol": config.protocol, "seeds": list(seeds), "systems": results},
    )
    figures.draw_comparison(rows, metrics, out / PICTURE, title)
    return Comparison(rows, metrics, title)


def _runs(config: Config, name: str, seeds: Sequence[int], out: Path) -> dict[Path, Config]:
    """The runs of a system by folder; none for one that is not trained."""
    if name in UNTRAINED:
        return {}
    model, _, task = name.partition(":")
    if model not in METHODS:
        raise UserError(f"--models: there is no system {name!r}; there are {', '.join((*UNTRAINED, *METHODS))}")
    if task and (model != "slmrec" or task not in get_args(Task)):
        raise UserError(f"--models: {name!r} is not a task of slmrec; write slmrec:fac, and so on")
    of_system = replace(config, model=model, task=task or config.task)  # type: ignore[arg-type]
    return {out / f"{name.replace(':', '-')}-seed{seed}": replace(of_system, seed=seed) for seed in seeds}


def _check_finished(runs: Mapping[Path, Config]) -> None:
    for folder, config in runs.items():
        if (folder / CONFIG).exists() and to_json(read_config(folder)) != to_json(config):
            raise UserError(f"{folder} is a run of another config: give another --out, or delete it")


def _test(config: Config, dataset: Dataset, folder: Path, report: Report) -> Mapping[str, float]:
    """Test metrics of a run, which is trained, resumed or taken as it lies there."""
    if (folder / RESULT).exists():
        report.say(f"{folder.name}: finished before")
        run = load_run(folder, dataset)
    else:
        report.say(f"{folder.name}:")
        run = train(config, dataset, out=folder, resume=(folder / CONFIG).exists(), report=report)
    test: Mapping[str, float] = run.result["test"]
    return test


def _summary(results: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    columns = {metric: [result[metric] for result in results] for metric in results[0]}
    return {
        metric: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
        for metric, values in columns.items()
    }


def _cell(mean: float, deviation: float, bold: bool) -> str:
    text = f"{mean:.4f} ± {deviation:.4f}" if deviation else f"{mean:.4f}"
    return f"[bold]{text}[/bold]" if bold else text
