"""Chooses which interactions count, before they are divided."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, take_rows
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions


def check_choice(source: Source) -> None:
    """Reject a threshold or a core that cannot be meant.

    Raises:
        UserError: With the name of the argument and what it takes.
    """
    rating, core = source.min_rating, source.k_core
    if rating is not None and not (isinstance(rating, int | float) and math.isfinite(rating)):
        raise UserError(f"min_rating is {rating!r}: give a number")
    if not isinstance(core, int) or isinstance(core, bool) or core < 0:
        raise UserError(f"k_core is {core!r}: give a whole number, at least 0")


def select(data: Dataset | Unsplit, source: Source) -> Dataset | Unsplit:
    """Keep the k-core; rows with low ratings were left out when they were read.

    Raises:
        UserError: The data are divided already, or nothing is left.
    """
    if isinstance(data, Unsplit):
        return k_core(data, source.k_core) if source.k_core > 1 else data
    if source.min_rating is not None or source.k_core > 1:
        name = setting("min_rating" if source.min_rating is not None else "k_core")
        raise UserError(
            f"data set {data.name}: it is divided into splits already, and {name} chooses what is divided; leave it out"
        )
    return data


def k_core(data: Unsplit, k: int) -> Unsplit:
    """The largest part of the data in which every user and every item has at least k interactions.

    Users and items outside it are left out, with their features.

    Raises:
        UserError: There is no such part.
    """
    dataset, times = data.dataset, data.times
    kept = _core(dataset.train, k)
    if not kept.any():
        raise UserError(f"data set {dataset.name}: the {k}-core is empty; give a smaller {setting('k_core')}")
    users, items = np.unique(dataset.train.users[kept]), np.unique(dataset.train.items[kept])
    note = (
        f"{k}-core: left out users {dataset.num_users - len(users)} of {dataset.num_users}, items "
        f"{dataset.num_items - len(items)} of {dataset.num_items}, interactions {(~kept).sum()} of {len(kept)}"
    )
    part = replace(take_rows(dataset, users, items), notes=(*dataset.notes, note))
    return data._replace(dataset=part, times=None if times is None else lambda: times()[kept])


def _core(pairs: Interactions, k: int) -> Bool[np.ndarray, " interactions"]:
    left = np.arange(len(pairs.users))
    while True:
        users, items = pairs.users[left], pairs.items[left]
        few = (np.bincount(users)[users] < k) | (np.bincount(items)[items] < k) if len(left) else np.zeros(0, np.bool_)
        if not few.any():
            break
        left = left[~few]
    kept = np.zeros(len(pairs.users), np.bool_)
    kept[left] = True
    return kept
