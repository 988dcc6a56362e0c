"""Blends: trained runs, and rankings without training, that rank together by a weighted sum of their scores.

Systems score on different scales, so each one's scores are first divided by their standard deviation over the items,
user by user. A sum of inner products is the inner product of the joined rows, so a blend is again a pair of tables.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from slmrec_jax.config.protocols import Split
from slmrec_jax.data.dataset import has_same_interactions
from slmrec_jax.errors import Diverged, UserError, check_type, setting
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.serving.exports import write_export
from slmrec_jax.serving.recommendations import Recommendations, SimilarItems
from slmrec_jax.serving.served import Served, recommend, served_of, similar_items, with_history
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.training.run import Run
from slmrec_jax.training.storage.folder import environment
from slmrec_jax.types import Embeddings

ADDITIONS = 20
"""The number of times that a ranking is added when weights are chosen, the largest denominator of a weight."""

_LEAST_DEVIATION = 1e-5
"""The deviation of a user's scores, as a share of the largest possible one, below which it is rounding."""


class _Part(NamedTuple):
    """The scaled rows of a ranking, on the host."""

    users: Float[np.ndarray, "users dim"]
    items: Float[np.ndarray, "items dim"]


class Ranked(NamedTuple):
    """A ranking that is part of a blend."""

    name: str
    """The folder of a run, or the name of a ranking without training."""
    embeddings: Embeddings


@dataclass(frozen=True)
class Blend:
    """Rankings that together rank by a weighted sum of their standardised scores; made by `blend`."""

    runs: tuple[Run, ...]
    """The runs. The first one's rules hold for the blend: protocol, cut-offs, sampled users."""
    untrained: Mapping[str, Embeddings]
    """The rankings without training, by name."""
    weights: tuple[float, ...]
    """The weight of each run, then of each ranking without training; they sum to 1."""
    embeddings: Embeddings
    """The scaled rows of those with a weight above 0, side by side. An inner product is the blend's score, up to a
    constant for each user."""

    @property
    def members(self) -> tuple[Ranked, ...]:
        """The runs, then the rankings without training, in the order of the weights."""
        return _members(self.runs, self.untrained)

    @property
    def served(self) -> Served:
        """The parts of the blend that answer queries."""
        return served_of(self.runs[0].dataset, self.embeddings, "dot")

    def plan(self, split: Split = "test") -> evaluation.EvaluationPlan:
        """Return the plan that `evaluate` runs, for measuring other embeddings of the same data by the same rules.

        Args:
            split: `"valid"` or `"test"`.

        Raises:
            UserError: There is no such split, or there are no users to evaluate.
        """
        return _by_dot(self.runs[0]).plan(split)

    def evaluate(self, split: Split = "test") -> evaluation.Evaluation:
        """Measure the blend on a split by the rules of its first run, except that scores are always inner products.

        Args:
            split: `"valid"` or `"test"`. If weights were chosen on validation, its metrics are too optimistic.

        Raises:
            UserError: There is no such split, or there are no users to evaluate.
        """
        return evaluation.evaluate(self.plan(split), self.embeddings)

    def recommend(self, users: Any = None, k: int = 20, *, history: Any = None) -> Recommendations:
        """Rank for each user the items that they have not interacted with in any split (`Run.recommend`).

        Args:
            users: Raw user ids, or a single id (a string is one id). By default all users.
            k: The number of items per user. If fewer exist, all are returned.
            history: Used instead of `users`: the raw item ids of a new user, or a mapping from names of new users to
                their item ids.

        Raises:
            UserError: A user or a history item is unknown, or k is below 1.
        """
        check_type("k", k, (int, np.integer), "the number of items that each user gets")
        return recommend(with_history(self.served, users, history), users, k)

    def similar(self, items: Any, k: int = 20) -> SimilarItems:
        """Find the items most similar to each given item, by the cosine similarity of their joined rows.

        Args:
            items: Raw ids, or a single one.
            k: The number of similar items, not counting the item itself.

        Raises:
            UserError: An item is unknown, or k is below 1.
        """
        check_type("k", k, (int, np.integer), "the number of similar items")
        return similar_items(self.served, items, k)

    def export(self, folder: Path | str, *, faiss: bool = False, onnx: bool = False) -> None:
        """Write the embeddings to a new folder, as `Run.export` does. Its `meta.json` lists the runs, the rankings
        without training, and the weights.

        Args:
            folder: The folder to make.
            faiss: Whether to add a faiss inner-product index of the items.
            onnx: Whether to add ranking models for ONNX runtimes.

        Raises:
            UserError: The folder exists or cannot be written, or a required library is not installed.
        """
        check_type("folder", folder, (str, Path), "the path of a new folder")
        first = self.runs[0]
        about = {
            "model": "blend",
            "protocol": first.config.protocol,
            "test": dict(self.evaluate().means) if len(first.dataset.test.users) else None,
            "finished": all(run.finished for run in self.runs),
            "fingerprint": first.dataset.fingerprint,
            "versions": environment()["packages"],
            "runs": [
                {
                    "folder": run.folder.resolve().name,
                    "model": run.config.model,
                    "seed": run.config.seed,
                    "best_epoch": run.result["best_epoch"],
                    "weight": weight,
                }
                for run, weight in zip(self.runs, self.weights, strict=False)
            ],
            "untrained": dict(zip(self.untrained, self.weights[len(self.runs) :], strict=True)),
        }
        write_export(self.served._replace(about=about), Path(folder), faiss=faiss, onnx=onnx)


def blend(runs: Sequence[Run], weights: Sequence[float | int] | None = None, *, untrained: Sequence[str] = ()) -> Blend:
    """Blend trained runs: rank by the sum of weight · score / deviation of the user's scores over all items.

    By default, weights are chosen on validation: rankings are added one at a time, each time the one that improves the
    blend most; one may be added several times (Caruana et al., "Ensemble Selection from Libraries of Models", ICML
    2004). The weights are the shares of the rankings after the best of `ADDITIONS` additions. Best is the largest mean
    of the recalls at all cut-offs, which is less noisy than a single one. It takes up to `ADDITIONS` evaluations for
    each ranking, and the memory of all tables three times.

    Args:
        runs: Runs with the same users, items and splits.
        weights: A weight for each run, then for each of `untrained`, at least 0, instead of those chosen on validation.
            Only their ratios matter.
        untrained: The rankings without training to add, of those that `compare` knows (`UNTRAINED`). They are computed
            from the data and settings of the first run.

    Raises:
        UserError: There are not at least two rankings, one of them a run. The runs differ in their data, a run has
            diverged, a weight is invalid, a ranking without training is unknown, is named twice or cannot be computed,
            or no validation interactions exist to choose weights by.
    """
    check_type("runs", runs, (list, tuple), "a list of what load_run returns")
    for run in runs:
        check_type("one of runs", run, Run, "what load_run returns")
    _check_names(untrained)
    _check_data(runs, untrained)
    given = None if weights is None else _checked_weights(weights, len(runs) + len(untrained))
    if given is None and len(runs[0].dataset.valid.users) == 0:
        raise UserError(
            f"{runs[0].dataset.name} has no validation interactions to choose weights by: give {setting('weights')}"
        )
    rankings = {name: UNTRAINED[name](runs[0].config, runs[0].dataset) for name in untrained}
    parts = [_standardized(member) for member in _members(runs, rankings)]
    chosen = _chosen_weights(runs[0], parts) if given is None else given
    return Blend(tuple(runs), rankings, tuple(chosen.tolist()), _joined(parts, chosen))


def _members(runs: Sequence[Run], untrained: Mapping[str, Embeddings]) -> tuple[Ranked, ...]:
    of_runs = (Ranked(str(run.folder), run.embeddings) for run in runs)
    return (*of_runs, *(Ranked(*each) for each in untrained.items()))


def _check_names(untrained: Sequence[str]) -> None:
    check_type("untrained", untrained, (list, tuple), "a list of names")
    for name in untrained:
        check_type("one of untrained", name, str, f"one of {', '.join(UNTRAINED)}")
        if name not in UNTRAINED:
            raise UserError(f"{setting('untrained', name)}: give some of {', '.join(UNTRAINED)}")
        if untrained.count(name) > 1:
            raise UserError(f"{setting('untrained', name)}: named twice; give {setting('weights')} instead")


def _check_data(runs: Sequence[Run], untrained: Sequence[str]) -> None:
    if not runs or len(runs) + len(untrained) < 2:
        raise UserError(f"a blend needs at least two runs, or a run and {setting('untrained')}")
    first, *others = runs
    for run in others:
        if not has_same_interactions(first.dataset, run.dataset):
            raise UserError(
                f"{first.folder} and {run.folder} have different users, items or splits: blend runs on the same data"
            )


def _checked_weights(weights: Sequence[float | int], count: int) -> Float[np.ndarray, " rankings"]:
    check_type("weights", weights, (list, tuple, np.ndarray), "a list of numbers")
    if len(weights) != count:
        raise UserError(f"{setting('weights')}: {len(weights)} given for {count} rankings: give one for each")
    for weight in weights:
        check_type("weights", weight, (int, float, np.number), "numbers")
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{setting('weights')}: {weight} is not a weight: give numbers of at least 0")
    if not any(weights):
        raise UserError(f"{setting('weights')}: all are 0: give at least one positive weight")
    shares = np.asarray(weights, np.float64) / max(weights)
    return np.asarray(shares / shares.sum())


def _chosen_weights(run: Run, parts: Sequence[_Part]) -> Float[np.ndarray, " rankings"]:
    """Choose weights on validation; `run` has the data and the rules."""
    plan = _by_dot(run).plan("valid")
    known: dict[tuple[int, ...], float] = {}

    def value(counts: Int[np.ndarray, " rankings"]) -> float:
        ratio = tuple((counts // np.gcd.reduce(counts)).tolist())
        if ratio not in known:
            means = evaluation.evaluate(plan, _joined(parts, counts / counts.sum())).means
            known[ratio] = statistics.fmean(means[f"recall@{k}"] for k in plan.cutoffs)
        return known[ratio]

    counts, tried = np.zeros(len(parts), np.int64), []
    for _ in range(ADDITIONS):
        counts = max(counts + np.eye(len(parts), dtype=np.int64), key=value)
        tried.append(counts)
    best = max(tried, key=value)
    return np.asarray(best / best.sum())


def _by_dot(run: Run) -> Run:
    """Return the run with inner products as scores, since sigmoids of standardised scores would saturate and tie."""
    return replace(run, config=replace(run.config, eval=run.config.eval._replace(score="dot")))


def _standardized(ranked: Ranked) -> _Part:
    """Scale users so that each one's scores have deviation 1 over the items, and items to a common spread.

    The spread makes the rankings' shares alike in inner products of items, too, for new users and similar items. A user
    whose scores are all equal gets a row of zeros, which leaves the ranking to the others.
    """
    users, items = (np.asarray(table, np.float32) for table in ranked.embeddings)
    if not (np.isfinite(users).all() and np.isfinite(items).all()):
        raise Diverged(f"{ranked.name}: its embeddings hold NaN or infinite values: leave it out of the blend")
    # users · Rᵀ has the norms of the users' scores, less their means, as Q of the items' Q R is orthogonal.
    root = np.asarray(np.linalg.qr(items - items.mean(axis=0), mode="r")).T / np.float32(math.sqrt(len(items)))
    spread = np.linalg.norm(root)
    deviations = np.linalg.norm(users @ root, axis=1, keepdims=True)
    tell_apart = deviations > _LEAST_DEVIATION * spread * np.linalg.norm(users, axis=1, keepdims=True)
    scale = np.where(tell_apart, spread / np.where(tell_apart, deviations, 1), 0).astype(np.float32)
    return _Part(users * scale, items / (spread or np.float32(1)))


def _joined(parts: Sequence[_Part], weights: Float[np.ndarray, " rankings"]) -> Embeddings:
    """Join rows so that an inner product is the weighted sum of those of the parts."""
    used = [(np.float32(math.sqrt(weight)), part) for weight, part in zip(weights, parts, strict=True) if weight > 0]
    return Embeddings(
        jnp.asarray(np.concatenate([root * part.users for root, part in used], axis=1)),
        jnp.asarray(np.concatenate([root * part.items for root, part in used], axis=1)),
    )
