"""The facts of a report about a single run: modalities, embedding geometry, items and their neighbours."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from slmrec_jax.evaluation.analysis import alignment, uniformity
from slmrec_jax.reporting.items import (
    ItemMap,
    ItemVectors,
    agreements,
    choose_items,
    clusters,
    item_map,
    item_names,
    modality_vectors,
    neighbour_names,
    sample,
)
from slmrec_jax.reporting.masking import Masking, mask_modalities
from slmrec_jax.training.run import Run
from slmrec_jax.training.storage.folder import ENVIRONMENT, NO_RUN
from slmrec_jax.training.storage.records import read_json

TRAINED = "trained"
"""The name of a run's own item embeddings among the modalities."""

NUM_NEIGHBOURS = 5


class RunFacts(NamedTuple):
    """Facts about a system's run with the first seed."""

    label: str
    """The label of the system, with the seed if there are several."""
    run: Run
    masking: Masking
    alignment: float
    uniformity_users: float
    uniformity_items: float
    agreement: Mapping[tuple[str, str], float]
    """The agreement of neighbourhoods, by pair of modalities and `TRAINED`."""
    map: ItemMap
    clusters: Mapping[str, Int[np.ndarray, " items"]]
    """The clusters of items by modality."""
    items: Sequence[str]
    """The items whose neighbours are listed, formatted by `item_names`."""
    neighbours: Mapping[str, Sequence[Sequence[str]]]
    """The neighbours of each of `items`, by modality and `TRAINED`."""
    environment: Mapping[str, Any]


def describe_run(run: Run, label: str, metric: str, items: Any) -> RunFacts:
    """Measure a finished run: `metric` with each modality masked, and neighbours of `items` (`choose_items`)."""
    vectors = modality_vectors(run)
    users, rows = (np.asarray(table, np.float32) for table in run.embeddings)
    tables = {**vectors, TRAINED: ItemVectors(rows, np.ones(len(rows), np.bool_))}
    names, chosen = item_names(run.dataset), choose_items(run.dataset, items)
    return RunFacts(
        label=label,
        run=run,
        masking=mask_modalities(run, metric),
        alignment=alignment(users, rows, run.dataset.train),
        uniformity_users=uniformity(users[sample(len(users))]),
        uniformity_items=uniformity(rows[sample(len(rows))]),
        agreement=agreements(tables),
        map=item_map(rows),
        clusters={name: clusters(table) for name, table in vectors.items()},
        items=[names[item] for item in chosen],
        neighbours={name: neighbour_names(table, chosen, names, NUM_NEIGHBOURS) for name, table in tables.items()},
        environment=read_json(run.folder / ENVIRONMENT, Mapping[str, Any], NO_RUN),
    )
