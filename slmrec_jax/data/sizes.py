"""A stand-in for a data set of which only the sizes are known, for planning but not for training."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import Interactions

EXPONENT = 0.8
"""The exponent of the power law by which degrees fall with rank, typical of recommendation data."""


def sized_dataset(num_users: int, num_items: int, num_interactions: int, columns: Mapping[str, int]) -> Dataset:
    """Make a data set with given sizes, power-law degrees, and features of zeros that take no memory.

    Args:
        num_users: The number of users.
        num_items: The number of items.
        num_interactions: The number of training interactions. Each user also has one interaction in validation and one
            in test.
        columns: The dimension of each modality.

    Raises:
        UserError: A number is not positive or is above 2³¹ - 1, or there are more interactions than pairs.
    """
    sizes = {"users": num_users, "items": num_items, "interactions": num_interactions}
    for name, size in {**sizes, **{setting("modalities", each): width for each, width in columns.items()}}.items():
        if not 1 <= size < 2**31:
            raise UserError(f"{setting(name) if name in sizes else name} is {size}: give 1 to {2**31 - 1}")
    if num_interactions > num_users * num_items:
        raise UserError(f"{setting('interactions', num_interactions)}: there are {num_users * num_items} pairs")
    users = _ids(num_users, num_items, num_interactions)
    items = np.random.default_rng(0).permutation(_ids(num_items, num_users, num_interactions))
    features = {
        name: Feature(np.broadcast_to(np.float32(0), (num_items, width)), np.broadcast_to(np.bool_(True), num_items))
        for name, width in columns.items()
    }
    everyone = Interactions(np.arange(num_users, dtype=np.int32), np.zeros(num_users, np.int32))
    return Dataset(
        f"{num_users} users × {num_items} items × {num_interactions} interactions",
        num_users,
        num_items,
        train=Interactions(users, items),
        valid=everyone,
        test=everyone,
        features=features,
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
    )


def _ids(count: int, most: int, num_interactions: int) -> Int[np.ndarray, " interactions"]:
    """Return ascending ids of interactions, with power-law degrees of at most `most`."""
    weights = np.arange(1, count + 1) ** -EXPONENT
    degrees = np.full(count, num_interactions)
    scale = 1.0
    for _ in range(30):  # the excess above the limit goes to the others
        degrees = np.minimum(np.floor(scale * weights * num_interactions / weights.sum()), most).astype(np.int64)
        scale *= num_interactions / max(1, degrees.sum())
    missing = num_interactions - int(degrees.sum())
    while missing:
        room = np.flatnonzero(degrees < most)[: abs(missing)] if missing > 0 else np.flatnonzero(degrees > 0)[missing:]
        degrees[room] += np.sign(missing)
        missing = num_interactions - int(degrees.sum())
    return np.repeat(np.arange(count, dtype=np.int32), degrees)
