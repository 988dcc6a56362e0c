"""One or two runs on the same data, in host memory, for answering the page's requests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, Shaped

from slmrec_jax.config.protocols import Score
from slmrec_jax.data.dataset import Dataset, has_same_interactions
from slmrec_jax.errors import Diverged, UserError
from slmrec_jax.evaluation.analysis import unit_rows
from slmrec_jax.evaluation.interactions import known_matrix
from slmrec_jax.reporting.items import ItemVectors, modality_vectors, plane_of, sample
from slmrec_jax.reporting.masking import embedder, ignores_modalities
from slmrec_jax.training.run import Run
from slmrec_jax.types import Embeddings


class HostTables(NamedTuple):
    """Embeddings in host memory."""

    users: Float[np.ndarray, "users dim"]
    items: Float[np.ndarray, "items dim"]


class ExploredRun(NamedTuple):
    """A run, ready to rank and to show the contribution of each modality."""

    name: str
    facts: Mapping[str, str]
    """The facts shown on the page, by name."""
    embeddings: HostTables
    score: Score
    whole: HostTables
    """The tables to compare `without` to: `embeddings`, unless the protocol ranks with stale embeddings."""
    without: Mapping[str, HostTables]
    """The embeddings as if no item had a modality, by modality."""
    reason: str = ""
    """The reason why `without` is empty, if it is."""


class Names(NamedTuple):
    """The raw ids of users or items as text, with data for searching them."""

    ids: Sequence[str]
    rows: Mapping[str, int]
    """The row of each id."""
    searched: Sequence[str]
    """The text of each row that is searched, case-folded."""


class Places(NamedTuple):
    """A map of a run's items in the unit square."""

    places: Float[np.ndarray, "items 2"]
    shares: tuple[float, float]
    """The share of the variance along each axis."""


class Explored(NamedTuple):
    """The content of the page."""

    name: str
    """The name of the data set."""
    runs: Sequence[ExploredRun]
    users: Names
    items: Names
    item_texts: Mapping[str, Shaped[np.ndarray, " items"]]
    histories: Mapping[str, scipy.sparse.csr_array]
    """Interactions by split: one row per user, with an entry for each item."""
    tables: Mapping[str, ItemVectors]
    """Unit vectors by which items are compared: those of each modality, then the trained rows of each run."""
    maps: Sequence[Places]
    """The maps, one per run."""
    pictures: Path | None
    """The folder that may contain pictures of items."""


def explored_of(
    dataset: Dataset, runs: Sequence[ExploredRun], vectors: Mapping[str, ItemVectors], pictures: Path | None = None
) -> Explored:
    """Prepare the content of the page.

    Args:
        dataset: The data of all runs.
        runs: One or two runs.
        vectors: Item vectors by modality.
        pictures: The folder that may contain pictures of items.

    Raises:
        Diverged: A run's embeddings are not finite, so items cannot be ranked.
    """
    for run in runs:
        tables = (run.embeddings, run.whole, *run.without.values())
        if not all(np.isfinite(table).all() for each in tables for table in each):
            raise Diverged(f"{run.name}: the embeddings hold NaN or infinite values: training has diverged")
    trained = {
        f"trained: {run.name}": ItemVectors(run.embeddings.items, np.ones(dataset.num_items, np.bool_)) for run in runs
    }
    everyone = np.arange(dataset.num_users)
    return Explored(
        dataset.name,
        runs,
        _names(dataset.user_ids),
        _names(dataset.item_ids, dataset.item_texts.get("title")),
        dataset.item_texts,
        {split: known_matrix(everyone, [pairs], dataset.num_items) for split, pairs in dataset.splits.items()},
        {name: table._replace(values=unit_rows(table.values)) for name, table in {**vectors, **trained}.items()},
        [_places(run.embeddings.items) for run in runs],
        pictures,
    )


def explore(runs: Sequence[Run], pictures: Path | None = None) -> Explored:
    """Prepare one or two loaded runs. Each is embedded again without each modality.

    Raises:
        UserError: The runs are on different data.
    """
    first, *others = runs
    for run in others:
        if not _is_same_data(first.dataset, run.dataset):
            raise UserError(
                f"{first.folder} and {run.folder} have different users, items, splits or features: explore each on "
                "its own"
            )
    names = _distinct_names(runs)
    vectors: dict[str, ItemVectors] = {}
    for run in runs:
        if not run.dataset.features.keys() <= vectors.keys():
            vectors = {**modality_vectors(run), **vectors}
    shown = [_explored_run(run, name) for run, name in zip(runs, names, strict=True)]
    return explored_of(first.dataset, shown, vectors, pictures)


def _explored_run(run: Run, name: str) -> ExploredRun:
    embeddings = _on_host(run.embeddings)
    whole, without, reason = embeddings, {}, ""
    try:
        if run.dataset.features:
            embed = embedder(run)
            whole = _on_host(embed(None))
            masked = {modality: _on_host(embed(modality)) for modality in run.dataset.features}
            without = {
                modality: tables
                for modality, tables in masked.items()
                if not all(np.array_equal(*pair) for pair in zip(whole, tables, strict=True))
            }
            reason = "" if without else ignores_modalities(run)
        else:
            reason = f"{run.dataset.name} has no modalities"
    except UserError as error:  # a user's own method
        reason = str(error)
    return ExploredRun(name, _facts(run), embeddings, run.config.eval.score, whole, without, reason)


def _facts(run: Run) -> dict[str, str]:
    config = run.config
    facts = {
        "model": config.model,
        **({"task": config.task} if config.model == "slmrec" else {}),
        "protocol": str(config.protocol),
        "best epoch": str(run.result["best_epoch"]),
    }
    wanted = "recall@20" if "recall@20" in run.test else next(iter(run.test), "")
    return facts | ({f"test {wanted}": f"{run.test[wanted]:.4f}"} if wanted else {})


def _distinct_names(runs: Sequence[Run]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [f"{place}: {name}" for place, name in enumerate(names, 1)]


def _is_same_data(first: Dataset, other: Dataset) -> bool:
    return has_same_interactions(first, other) and all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for name in first.features.keys() & other.features.keys()
        for a, b in zip(first.features[name], other.features[name], strict=True)
    )


def _names(raw_ids: Shaped[np.ndarray, " rows"], titles: Shaped[np.ndarray, " rows"] | None = None) -> Names:
    ids = [str(raw) for raw in raw_ids.tolist()]
    shown = ids if titles is None else [f"{each}\n{title}" for each, title in zip(ids, titles, strict=True)]
    return Names(ids, {each: row for row, each in enumerate(ids)}, [each.casefold() for each in shown])


def _places(items: Float[np.ndarray, "items dim"]) -> Places:
    """Project items to the plane of a `sample`'s principal components, scaled to the unit square."""
    shown: Int[np.ndarray, " sampled"] = sample(len(items))
    plane = plane_of(items[shown])
    places = (items - plane.centre) @ plane.axes.T
    low, high = places[shown].min(axis=0), places[shown].max(axis=0)
    unit = (places - low) / np.where(high > low, high - low, 1)
    return Places(np.clip(unit, 0, 1).astype(np.float32), plane.shares)


def _on_host(embeddings: Embeddings) -> HostTables:
    return HostTables(*(np.asarray(table, np.float32) for table in embeddings))
