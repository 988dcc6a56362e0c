"""Selection of interactions before splitting."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, take_rows
from slmrec_jax.data.formats.windows import has_window
from slmrec_jax.data.pairs import count_ids, pair_blocks
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions


def select(data: Dataset | Unsplit, source: Source) -> Dataset | Unsplit:
    """Return the k-core of unsplit data. Other selections are applied when the data are read."""
    if isinstance(data, Unsplit):
        return k_core(data, source.k_core) if source.k_core > 1 else data
    of_core = setting("min_rating" if source.min_rating is not None else "k_core")
    if source.min_rating is not None or source.k_core > 1 or has_window(source):
        name = has_window(source) or of_core
        raise UserError(
            f"data set {data.name}: it is already split, but {name} selects the data to split; leave it out"
        )
    return data


def k_core(data: Unsplit, k: int) -> Unsplit:
    """Return the largest subset of the data in which every user and every item has at least k interactions."""
    dataset, times = data.dataset, data.times
    kept = _in_core(dataset.train, k, dataset.num_users, dataset.num_items)
    if not kept.any():
        raise UserError(f"data set {dataset.name}: the {k}-core is empty; give a smaller {setting('k_core')}")
    users = np.flatnonzero(count_ids(dataset.train.users[kept], dataset.num_users))
    items = np.flatnonzero(count_ids(dataset.train.items[kept], dataset.num_items))
    note = (
        f"{k}-core: left out users {dataset.num_users - len(users)} of {dataset.num_users}, items "
        f"{dataset.num_items - len(items)} of {dataset.num_items}, interactions {(~kept).sum()} of {len(kept)}"
    )
    core = replace(take_rows(dataset, users, items), notes=(*dataset.notes, note))
    return data._replace(dataset=core, times=None if times is None else lambda: times()[kept])


def _in_core(pairs: Interactions, k: int, num_users: int, num_items: int) -> Bool[np.ndarray, " interactions"]:
    kept = np.ones(len(pairs.users), np.bool_)
    users, items = count_ids(pairs.users, num_users), count_ids(pairs.items, num_items)
    left = len(kept) + 1
    while np.count_nonzero(kept) < left:
        left = int(np.count_nonzero(kept))
        few_users, few_items = users < k, items < k
        for block in pair_blocks(len(kept)):
            of_users, of_items = pairs.users[block], pairs.items[block]
            few = kept[block] & (few_users[of_users] | few_items[of_items])
            kept[block] &= ~few
            users -= np.bincount(of_users[few], minlength=num_users)
            items -= np.bincount(of_items[few], minlength=num_items)
    return kept
