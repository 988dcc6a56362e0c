"""Blends: several trained runs that rank together, by a weighted sum of their scores.

Systems score on different scales, so each run's scores are first divided by their standard deviation over the items,
user by user. Their means do not matter, because adding a constant to all scores of a user changes no ranking. A sum of
inner products is the inner product of the joined rows, so a blend ranks, is evaluated and is exported like any run.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slmrec_jax.config.protocols import Split
from slmrec_jax.data.dataset import has_same_interactions
from slmrec_jax.errors import UserError, check_type, setting
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.serving.exports import write_export
from slmrec_jax.serving.recommendations import Recommendations
from slmrec_jax.serving.served import Served, recommend, served_of
from slmrec_jax.training.run import Run
from slmrec_jax.types import Embeddings

ROUNDS = 20
"""The number of times that a run is added when weights are chosen, so that weights are multiples of about 5 %."""


@dataclass(frozen=True)
class Blend:
    """Runs that rank together by a weighted sum of their standardised scores; made by `blend`."""

    runs: tuple[Run, ...]
    """The runs, which were trained on the same data."""
    weights: tuple[float, ...]
    """The weight of each run; they sum to 1."""
    embeddings: Embeddings
    """The runs' scaled rows side by side. Inner products are the blend's scores, up to a constant for each user."""

    @property
    def served(self) -> Served:
        """The parts of the blend that answer queries."""
        return served_of(self.runs[0].dataset, self.embeddings, "dot")

    def evaluate(self, split: Split = "test") -> evaluation.Evaluation:
        """Measure the blend on a split, with the protocol of its runs (`Run.evaluate`).

        Args:
            split: `"valid"` or `"test"`.

        Raises:
            UserError: There is no such split, or there are no users to evaluate.
        """
        return evaluation.evaluate(self.runs[0].plan(split), self.embeddings)

    def recommend(self, users: Any = None, k: int = 20) -> Recommendations:
        """Rank for each user the items that they have not interacted with in any split (`Run.recommend`).

        Args:
            users: Raw user ids, or a single id (a string is one id). By default all users.
            k: The number of items per user. If fewer exist, all are returned.

        Raises:
            UserError: A user is unknown, or k is below 1.
        """
        check_type("k", k, (int, np.integer), "the number of items that each user gets")
        return recommend(self.served, users, k)

    def export(self, folder: Path | str, *, faiss: bool = False, onnx: bool = False) -> None:
        """Write the embeddings to a new folder, as `Run.export` does.

        Args:
            folder: The folder to make.
            faiss: Whether to add a faiss inner-product index of the items.
            onnx: Whether to add ranking models for ONNX runtimes.

        Raises:
            UserError: The folder exists or cannot be written, or a required library is not installed.
        """
        check_type("folder", folder, (str, Path), "the path of a new folder")
        about = {
            "model": "blend",
            "protocol": self.runs[0].config.protocol,
            "blend": [
                {"run": run.folder.resolve().name, "model": run.config.model, "seed": run.config.seed, "weight": weight}
                for run, weight in zip(self.runs, self.weights, strict=True)
            ],
            "fingerprint": self.runs[0].dataset.fingerprint,
        }
        write_export(self.served._replace(about=about), Path(folder), faiss=faiss, onnx=onnx)


def blend(runs: Sequence[Run], weights: Sequence[float | int] | None = None) -> Blend:
    """Blend trained runs: rank by the sum of weight · score / deviation of the user's scores over all items.

    By default, weights are chosen on validation: runs are added one at a time, each time the one that makes the blend
    best, also again (Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004). The shares of the best
    of `ROUNDS` rounds are the weights. Best is the largest mean of the recalls at all cut-offs, which is less noisy
    than a single one.

    Args:
        runs: At least two runs on the same data, under the same protocol.
        weights: A weight for each run, at least 0, instead of those chosen on validation. Only their ratios matter.

    Raises:
        UserError: The runs differ in their data or protocol, a weight is invalid, or no validation interactions exist
            to choose weights by.
    """
    _check_runs(runs)
    parts = [_standardized(run.embeddings) for run in runs]
    chosen = _chosen_weights(runs[0], parts) if weights is None else _checked_weights(weights, len(runs))
    return Blend(tuple(runs), tuple(chosen.tolist()), _joined(parts, chosen))


def _check_runs(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise UserError("a blend needs at least two runs")
    first, *others = runs
    for run in others:
        if not has_same_interactions(first.dataset, run.dataset):
            raise UserError(
                f"{first.folder} and {run.folder} have different users, items or splits: blend runs on the same data"
            )
        if run.config.eval != first.config.eval:
            raise UserError(
                f"{first.folder} and {run.folder} were evaluated by different rules: blend runs with the same "
                f"{setting('protocol')}"
            )
    folders = [run.folder.resolve() for run in runs]
    for run in runs:
        if folders.count(run.folder.resolve()) > 1:
            raise UserError(f"{run.folder} is named twice: name each run once, and give {setting('weights')} instead")


def _checked_weights(weights: Sequence[float | int], count: int) -> Float[np.ndarray, " runs"]:
    if len(weights) != count:
        raise UserError(f"{setting('weights')} has {len(weights)} values for {count} runs: give one for each run")
    for weight in weights:
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{setting('weights')}: {weight} is not a weight: give numbers of at least 0")
    if not any(weights):
        raise UserError(f"{setting('weights')} are all 0: give at least one run a larger weight")
    return np.asarray(weights, np.float64) / math.fsum(weights)


def _chosen_weights(run: Run, parts: Sequence[Embeddings]) -> Float[np.ndarray, " runs"]:
    """Choose weights by validation; `run` has the data and the rules."""
    if len(run.dataset.valid.users) == 0:
        raise UserError(
            f"{run.dataset.name} has no validation interactions to choose weights by: give {setting('weights')}"
        )
    plan = run.plan("valid")

    def value(counts: Float[np.ndarray, " runs"]) -> float:
        means = evaluation.evaluate(plan, _joined(parts, counts / counts.sum())).means
        return statistics.fmean(means[f"recall@{k}"] for k in plan.cutoffs)

    counts, tried = np.zeros(len(parts)), []
    for _ in range(ROUNDS):
        longer = counts + np.eye(len(parts))
        values = [value(each) for each in longer]
        counts = longer[int(np.argmax(values))]
        tried.append((max(values), counts))
    _, best = max(tried, key=lambda found: found[0])
    return np.asarray(best / best.sum())


def _standardized(embeddings: Embeddings) -> Embeddings:
    """Scale users so that each one's scores have deviation 1 over the items, and items to a common spread.

    The spread makes the runs' shares alike in inner products of items, too, for new users and similar items. A user
    whose scores are all equal keeps them.
    """
    users, items = (np.asarray(table, np.float32) for table in embeddings)
    centred = items - items.mean(axis=0, dtype=np.float64)
    covariance = centred.T @ centred / len(items)
    spread = np.sqrt(np.trace(covariance)) or 1.0
    deviations = np.sqrt(np.maximum(np.sum((users @ covariance.astype(np.float32)) * users, axis=1), 0))[:, None]
    scale = np.where(deviations > 0, spread / np.where(deviations > 0, deviations, 1), 1)
    return Embeddings(jnp.asarray(users * scale, jnp.float32), jnp.asarray(items / spread, jnp.float32))


def _joined(parts: Sequence[Embeddings], weights: Float[np.ndarray, " runs"]) -> Embeddings:
    """Join rows so that an inner product is the weighted sum of those of the parts."""
    roots = [float(root) for root in np.sqrt(weights)]
    return Embeddings(
        *(
            jnp.concatenate([root * table for root, table in zip(roots, tables, strict=True)], axis=1)
            for tables in zip(*parts, strict=True)
        )
    )
