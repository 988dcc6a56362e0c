"""Several systems on the same data, over seeds: a table with a test of significance, a picture, and JSON."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

from slmrec_jax import data, figures
from slmrec_jax.config import Config, check_config, relevant, source_of, with_defaults, with_system
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.durable import writing
from slmrec_jax.encoding import features, layers
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.errors import UserError, escaped, setting
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.methods import METHODS
from slmrec_jax.studies.runs import check_unchanged, finish, make_folder
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.progress import Listener
from slmrec_jax.training.setup import build_method
from slmrec_jax.training.small_data import fit_cutoffs
from slmrec_jax.training.storage.records import write_json
from slmrec_jax.types import Embeddings

TABLE, PICTURE = "comparison.json", "comparison.png"

LEVEL = 0.05
"""Below it, a difference counts as shown."""


class Recorded(TypedDict):
    """What `comparison.json` says."""

    fingerprint: str
    protocol: str
    seeds: list[int]
    systems: Mapping[str, list[Mapping[str, float]]]
    """Test metrics of each seed; of a ranking that is not trained, once."""
    p_values: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, list[Mapping[str, Any]]]
    """Of each seed; none for a ranking that is not trained."""


class Comparison(NamedTuple):
    """Test metrics by system: mean and standard deviation over seeds."""

    rows: Mapping[str, Mapping[str, tuple[float, float]]]
    metrics: tuple[str, ...]
    """Those that table and picture show."""
    p_values: Mapping[str, Mapping[str, float]]
    """By metric and system: of the difference from the best system, which is left out."""
    title: str

    def table(self) -> Table:
        """A row a system, the best of each column in bold, with what does not differ from it marked."""
        caption = f"≈ not shown to differ from the best (paired t-test over users, Holm, p ≥ {LEVEL})"
        title = Text(escaped(self.title), "table.title")  # not a string, whose brackets would be read as markup
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


def popularity(config: Config, dataset: Dataset) -> Embeddings:
    """Ranks items by how many training interactions they have, the same for every user."""
    counts = np.bincount(dataset.train.items, minlength=dataset.num_items)
    # At most 1, so that a protocol that ranks sigmoids sees no ties where there are none.
    shares = jnp.asarray(counts / counts.max(), jnp.float32)
    return Embeddings(jnp.ones((dataset.num_users, 1)), shares[:, None])


def item_knn(config: Config, dataset: Dataset) -> Embeddings:
    """Ranks items by the weighted sum of their cosines to the user's items, in each modality: every item a neighbour.

    The weights are those of LightGCN, 1 / sqrt(degree of user · degree of item): an item that everyone has says less.

    Raises:
        UserError: there are no features.
    """
    if not dataset.features:
        raise UserError(f"itemknn ranks by content, and {dataset.name} has no features: leave it out")
    spec, inputs = make_spec(config, dataset), make_inputs(dataset, config.missing)
    tables = [
        # Once more for word means, which `frozen` leaves as they are.
        layers.normalize(features.frozen(inputs.features[name], modality, normalized=True).values)
        for name, modality in spec.modalities.items()
    ]
    items = jnp.concatenate(tables, axis=1)
    return Embeddings(matmul(inputs.graph.adjacency, items), items)


UNTRAINED: Mapping[str, Callable[[Config, Dataset], Embeddings]] = {"popularity": popularity, "itemknn": item_knn}
"""Rankings that need no training, as a floor."""

PerUser = Mapping[str, Float[np.ndarray, " users"]]


def compare(config: Config, systems: Sequence[str], seeds: Sequence[int], out: Path, report: Listener) -> Comparison:
    """Trains each system with each seed, unless its finished run lies in `out`, and tests it.

    Args:
        config: for all; what it leaves open is each model's own (`BASE`).
        systems: names of `UNTRAINED` or of models; `slmrec:fd` and the like name a preset, which wins over `config`.
        seeds: at least one.
        out: holds a run folder for each, and `comparison.json` and `comparison.png` in the end.
        report: where progress goes.

    Raises:
        UserError: a system is not known, or a run that lies in `out` is of another config.
    """
    check_config(config)
    for name in systems:
        _check_system(config, name)
    whole = data.load_source(source_of(config)).by_degree()  # what runs are given: they record where it came from
    dataset = whole.with_modalities(config.modalities)
    config, left_out = fit_cutoffs(config, dataset)
    runs = {name: _runs(config, name, seeds, out) for name in systems}
    for of_system in runs.values():
        check_unchanged(of_system)
    make_folder(out)
    for line in left_out:
        report.say(line)
    # What the data lack is said before the first system trains.
    for of_system in runs.values():
        for run_config in of_system.values():
            build_method(run_config, dataset)
    plan = evaluation.plan(dataset, "test", config.eval, config.ks)
    untrained = {
        name: [evaluation.evaluate(plan, UNTRAINED[name](config, dataset))] for name in systems if name in UNTRAINED
    }
    results = {
        name: untrained.get(name)
        or [finish(run_config, whole, folder, report).evaluate("test") for folder, run_config in of_system.items()]
        for name, of_system in runs.items()
    }
    metrics = tuple(f"{metric}@{k}" for k in sorted(config.ks)[:2] for metric in ("recall", "ndcg"))
    title = f"test, {dataset.name}, protocol {config.protocol}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    comparison = Comparison(
        {name: _summary([result.means for result in of_seeds]) for name, of_seeds in results.items()},
        metrics,
        {metric: p_values({name: over_seeds(found, metric) for name, found in results.items()}) for metric in metrics},
        title,
    )
    record: Recorded = {
        "fingerprint": dataset.fingerprint,
        "protocol": config.protocol,
        "seeds": list(seeds),
        "systems": {name: [dict(result.means) for result in of_seeds] for name, of_seeds in results.items()},
        "p_values": comparison.p_values,
        "settings": {name: [relevant(each) for each in of_system.values()] for name, of_system in runs.items()},
    }
    with writing(out, f"give another {setting('out')}; the same command does not repeat finished runs"):
        write_json(out / TABLE, record)
        figures.draw_comparison(comparison.rows, metrics, out / PICTURE, title)
    return comparison


def p_values(per_user: Mapping[str, Float[np.ndarray, " users"]]) -> dict[str, float]:
    """How likely each system's distance to the best one, or a larger one, were if both were equally good.

    A paired two-sided t-test over users, who are the same for all systems; Holm's correction for testing several. The
    best system is chosen by the same figures, which the correction does not know of: take values near 0.05 for more.

    Args:
        per_user: a metric of each user by system, averaged over seeds.

    Returns:
        A p-value for each system but the best; 1 where a system's values are the best one's.
    """
    best = max(per_user, key=lambda name: per_user[name].mean())
    raw = {}
    for name, values in per_user.items():
        if name != best:
            differences = per_user[best] - values
            if np.ptp(differences) > 0:
                raw[name] = float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)
            else:  # no spread: every user, of whom there must be two, says the same
                raw[name] = 0.0 if len(differences) > 1 and differences[0] else 1.0
    corrected, largest = {}, 0.0
    for place, name in enumerate(sorted(raw, key=lambda name: raw[name])):
        largest = max(largest, min(1.0, (len(raw) - place) * raw[name]))
        corrected[name] = largest
    return corrected


def _check_system(config: Config, name: str) -> None:
    if name in UNTRAINED:
        return
    if name.partition(":")[0] not in METHODS:
        raise UserError(f"there is no system {name!r}; there are {', '.join((*UNTRAINED, *METHODS))}")
    with_system(config, name)


def _runs(config: Config, name: str, seeds: Sequence[int], out: Path) -> dict[Path, Config]:
    """The runs of a system by folder; none for one that is not trained."""
    if name in UNTRAINED:
        return {}
    of_system = with_defaults(with_system(config, name))
    return {run_folder(out, name, seed): replace(of_system, seed=seed) for seed in seeds}


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Return the folder of one run of a comparison."""
    return out / f"{name.replace(':', '-')}-seed{seed}"


def over_seeds(results: Sequence[evaluation.Evaluation], metric: str) -> Float[np.ndarray, " users"]:
    """Return a metric of each user, averaged over the runs of a system."""
    mean: np.ndarray = np.mean([result.per_user[metric] for result in results], axis=0)
    return mean


def _summary(results: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    columns = {metric: [result[metric] for result in results] for metric in results[0]}
    return {
        metric: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
        for metric, values in columns.items()
    }
