"""Selects the interactions that count, before they are divided."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, take_rows
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions


def select(data: Dataset | Unsplit, source: Source) -> Dataset | Unsplit:
    """Return the k-core of data that are not divided; rows with low ratings were left out when they were read."""
    if isinstance(data, Unsplit):
        return k_core(data, source.k_core) if source.k_core > 1 else data
    if source.min_rating is not None or source.k_core > 1:
        name = setting("min_rating" if source.min_rating is not None else "k_core")
        raise UserError(
            f"data set {data.name}: it is divided into splits already, and {name} chooses what is divided; leave it out"
        )
    return data


def k_core(data: Unsplit, k: int) -> Unsplit:
    """Return the largest part of the data in which every user and every item has at least k interactions."""
    dataset, times = data.dataset, data.times
    kept = _in_core(dataset.train, k)
    if not kept.any():
        raise UserError(f"data set {dataset.name}: the {k}-core is empty; give a smaller {setting('k_core')}")
    users, items = np.unique(dataset.train.users[kept]), np.unique(dataset.train.items[kept])
    note = (
        f"{k}-core: left out users {dataset.num_users - len(users)} of {dataset.num_users}, items "
        f"{dataset.num_items - len(items)} of {dataset.num_items}, interactions {(~kept).sum()} of {len(kept)}"
    )
    core = replace(take_rows(dataset, users, items), notes=(*dataset.notes, note))
    return data._replace(dataset=core, times=None if times is None else lambda: times()[kept])


def _in_core(pairs: Interactions, k: int) -> Bool[np.ndarray, " interactions"]:
    kept = np.ones(len(pairs.users), np.bool_)
    left = np.arange(len(pairs.users))
    while len(left):
        users, items = pairs.users[left], pairs.items[left]
        few = (np.bincount(users)[users] < k) | (np.bincount(items)[items] < k)
        if not few.any():
            break
        kept[left[few]] = False
        left = left[~few]
    return kept
