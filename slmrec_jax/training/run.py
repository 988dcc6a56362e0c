"""A trained run: its embeddings, metrics and history, and methods that rank, evaluate and export."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slmrec_jax.config import Config
from slmrec_jax.config.protocols import PROTOCOLS, Candidates, Side, Split
from slmrec_jax.data import Dataset, Feature, Words
from slmrec_jax.data.new_items import NewItems
from slmrec_jax.errors import UserError, check_choice, check_type
from slmrec_jax.evaluation import groups
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.methods import make_method
from slmrec_jax.serving.exports import write_export
from slmrec_jax.serving.recommendations import Recommendations, SimilarItems
from slmrec_jax.serving.served import Served, recommend, served_of, similar_items, with_history, with_new_items
from slmrec_jax.training.cold_items import cold_item_rows, features_of
from slmrec_jax.training.events import epoch_event
from slmrec_jax.training.setup import MakeMethod
from slmrec_jax.training.storage.folder import (
    Record,
    environment,
)
from slmrec_jax.types import Embeddings


@dataclass(frozen=True)
class Run:
    """A run with its best epoch and its results."""

    config: Config
    """The complete configuration, with the model's defaults filled in."""
    dataset: Dataset
    """The data that it was trained on, with users and items numbered by degree."""
    embeddings: Embeddings
    """The user and item rows of the best epoch, which are used for ranking. After training on a mesh, they are on the
    host."""
    result: dict[str, Any]
    """The content of `result.json`: metrics by split, times, memory, the best epoch."""
    history: list[Record]
    """One record per epoch, as in `metrics.jsonl`."""
    folder: Path
    """The run's folder."""

    @property
    def finished(self) -> bool:
        """True if training is complete. Otherwise the best epoch is the best of those saved so far."""
        return "seconds" in self.result

    @property
    def test(self) -> Mapping[str, float]:
        """The test metrics of the best epoch by name, such as `recall@20`; empty if they were not measured."""
        measured: Mapping[str, float] = self.result.get("test", {})
        return measured

    @property
    def curves(self) -> dict[str, list[int | float]]:
        """The losses and metrics of all epochs by name, such as `loss/loss` and `valid/recall@20`.

        The entry `epoch` has the epoch numbers. Metrics of an epoch that was not evaluated are NaN.
        """
        events = [epoch_event(record).values for record in self.history]
        names = dict.fromkeys(name for values in events for name in values)
        curves = {name: [values.get(name, math.nan) for values in events] for name in names}
        return {"epoch": [record["epoch"] for record in self.history], **curves}

    @property
    def served(self) -> Served:
        """The parts of the run that answer queries."""
        return served_of(self.dataset, self.embeddings, self.config.eval.score)

    def recommend(
        self,
        users: Any = None,
        k: int = 20,
        *,
        history: Any = None,
        new_items: NewItems | None = None,
        only_new: bool = False,
        method: MakeMethod = make_method,
    ) -> Recommendations:
        """Rank for each user the items that they have not interacted with in any split.

        Args:
            users: Raw user ids, or a single id (a string is one id). By default all users.
            k: The number of items per user. If fewer exist, all are returned.
            history: Used instead of `users`: the raw item ids of a new user, or a mapping from names of new users to
                their item ids. The row of a new user is the mean of the rows of their items (`fold_in`).
            new_items: Items that training did not see (`read_new_items`). They are ranked together with the others, by
                their features.
            only_new: Whether to rank only the new items.
            method: Makes the method that was trained, if it is your own. It is needed only for new items.

        Raises:
            UserError: A user or a history item is unknown, k is below 1, or the system cannot rank new items.
        """
        check_type("k", k, (int, np.integer), "the number of items that each user gets")
        check_type("new_items", new_items, (NewItems, type(None)), "what slm.read_new_items returns")
        if only_new and new_items is None:
            raise UserError("only_new=True needs new_items: what slm.read_new_items returns")
        served = with_history(self.served, users, history)
        if new_items is not None:
            rows = self._place(new_items.features, len(new_items.ids), method)
            served = with_new_items(served, new_items.ids, rows, alone=only_new)
        return recommend(served, users, k)

    def similar(self, items: Any, k: int = 20) -> SimilarItems:
        """Find the items most similar to each given item, by the cosine similarity of their trained rows.

        Args:
            items: Raw ids, or a single one.
            k: The number of similar items, not counting the item itself.

        Raises:
            UserError: An item is unknown, or k is below 1.
        """
        check_type("k", k, (int, np.integer), "the number of similar items")
        return similar_items(self.served, items, k)

    def export(self, folder: Path | str, *, faiss: bool = False, onnx: bool = False) -> None:
        """Write the embeddings to a new folder for other programs (`serving.exports`).

        Args:
            folder: The folder to make.
            faiss: Whether to add a faiss inner-product index of the items.
            onnx: Whether to add ranking models for ONNX runtimes.

        Raises:
            UserError: The folder exists or cannot be written, or a required library is not installed.
        """
        check_type("folder", folder, (str, Path), "the path of a new folder")
        about = {
            "model": self.config.model,
            "protocol": self.config.protocol,
            **{name: self.result.get(name) for name in ("best_epoch", "seed", "test")},
            "finished": self.finished,
            "fingerprint": self.dataset.fingerprint,
            "versions": environment()["packages"],
        }
        write_export(self.served._replace(about=about), Path(folder), faiss=faiss, onnx=onnx)

    def report(self, page: Path | str) -> None:
        """Write an HTML report of the run, with its pictures and tables in a folder next to it.

        Args:
            page: The file to write. The folder next to it has the same name with `_files` appended.

        Raises:
            UserError: The page exists already or cannot be written.
        """
        from slmrec_jax.reporting.facts import gather_facts  # imported here because reporting depends on training
        from slmrec_jax.reporting.report import check_page_is_new, write_report

        check_type("page", page, (str, Path), "the path of an HTML file")
        check_page_is_new(Path(page), "page")
        loaded = {self.dataset.fingerprint: self.dataset}
        write_report(gather_facts([self.folder], loaded=loaded), Path(page))

    def plan(
        self,
        split: Split = "test",
        protocol: str | None = None,
        candidates: Candidates | None = None,
    ) -> evaluation.EvaluationPlan:
        """Return the plan that `evaluate` runs, for callers that rank once and measure several things.

        Args:
            split: `"valid"` or `"test"`.
            protocol: The name of a protocol; by default the run's own.
            candidates: The items to rank, as for `evaluate`.

        Raises:
            UserError: An argument is not one of these, or there are no users to evaluate.
        """
        check_choice("split", split, get_args(Split))
        check_choice("protocol", protocol, (None, *PROTOCOLS))
        check_choice("candidates", candidates, (None, *get_args(Candidates)))
        own = self.config.eval
        rules = (PROTOCOLS[protocol] if protocol else own)._replace(
            candidates=candidates or own.candidates, metric=None, users=own.users, test_users=own.test_users
        )
        # Use the cut-offs of the protocol and of `config.ks` that do not exceed the number of items to rank.
        count = evaluation.num_candidates(self.dataset, rules)
        cutoffs = tuple(k for k in (*rules.cutoffs, *self.config.ks) if k <= count) or (count,)
        return evaluation.final_plan(self.dataset, split, rules._replace(cutoffs=cutoffs), (), self.config.seed)

    def evaluate(
        self,
        split: Split = "test",
        protocol: str | None = None,
        candidates: Candidates | None = None,
    ) -> evaluation.Evaluation:
        """Measure the best epoch on a split, with the run's own protocol and candidates or with others.

        The cut-offs are those of the run and the protocol that do not exceed the number of items to rank.

        Args:
            split: `"valid"` or `"test"`.
            protocol: The name of a protocol; by default the run's own.
            candidates: The items to rank: `"all"`, or `"cold"` for items without training interactions. By default as
                in the run.

        Returns:
            The means, such as `means["recall@20"]`, and the metrics of every user. A run with `eval.users` or
            `eval.test_users` ranks the same sample of users again, and `half_widths` has the half widths of the
            intervals of the means.

        Raises:
            UserError: An argument is not one of these, or there are no users to evaluate.
        """
        return evaluation.evaluate(self.plan(split, protocol, candidates), self.embeddings)

    def evaluate_by(
        self,
        side: Side,
        split: Split = "test",
        protocol: str | None = None,
        candidates: Candidates | None = None,
    ) -> list[groups.Group]:
        """Evaluate groups of users or items separately, grouped by their number of training interactions.

        Args:
            side: What to group: `"users"` or `"items"`.
            split: `"valid"` or `"test"`.
            protocol: The name of a protocol; by default the run's own.
            candidates: The items to rank, as for `evaluate`.

        Returns:
            A record for each non-empty group, with its label, its size and its means.

        Raises:
            UserError: An argument is not one of these, or there are no users to evaluate.
        """
        return [measured.group for measured in self.measure_by(side, split, protocol, candidates)]

    def measure_by(
        self,
        side: Side,
        split: Split = "test",
        protocol: str | None = None,
        candidates: Candidates | None = None,
    ) -> list[groups.MeasuredGroup]:
        """Evaluate like `evaluate_by`, and also return the metrics of each user (`groups.measure_by_degree`).

        Args:
            side: What to group: `"users"` or `"items"`.
            split: `"valid"` or `"test"`.
            protocol: The name of a protocol; by default the run's own.
            candidates: The items to rank, as for `evaluate`.

        Returns:
            A record for each non-empty group, with the metrics of its users.

        Raises:
            UserError: An argument is not one of these, or there are no users to evaluate.
        """
        check_choice("side", side, get_args(Side))
        plan = self.plan(split, protocol, candidates)
        return groups.measure_by_degree(plan, self.embeddings, self.dataset.train, side)

    def with_content(self, method: MakeMethod = make_method) -> "Run":
        """Return a copy of the run in which items without training interactions get rows computed from their features.

        Otherwise these items still have their random initial id rows.

        Args:
            method: Makes the method that was trained, if it is your own.

        Raises:
            UserError: The system cannot compute rows from features.
        """
        items = evaluation.cold_items(self.dataset)
        if len(items) == 0:
            return self
        placed = self._place(features_of(self.dataset, items), len(items), method)
        return replace(
            self, embeddings=self.embeddings._replace(items=jnp.asarray(self.embeddings.items).at[items].set(placed))
        )

    def _place(
        self, features: Mapping[str, Feature | Words], count: int, method: MakeMethod
    ) -> Float[Array, "items dim"]:
        epoch = self.result["best_epoch"]
        return cold_item_rows(self.config, self.dataset, self.folder, epoch, features, count, method)
