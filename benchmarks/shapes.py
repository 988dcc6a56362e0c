"""The data sets of the benchmarks: files, and data of the size of the SLMRec paper's TikTok, generated from a seed."""

import numpy as np

from slmrec_jax import data
from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.data.making import make_dataset
from slmrec_jax.types import Interactions

PAPER = "paper"
PAPER_TIMES_TEN = "paper times ten"
PAPER_SIZES = 36_638, 71_494, 451_000
"""Users, items and training interactions of the SLMRec paper's TikTok."""
PAPER_COLUMNS = {"visual": 256, "acoustic": 128, "textual": 128}
SIZES = {
    name: dict(zip(("num_users", "num_items", "num_interactions"), (times * size for size in PAPER_SIZES), strict=True))
    for name, times in ((PAPER, 1), (PAPER_TIMES_TEN, 10))
}
"""The sizes of generated data sets."""


def dataset(name: str) -> Dataset:
    """Return generated data of the paper's size or ten times that, or else what `slmrec_jax.load` finds."""
    return power_law(name, **SIZES[name]) if name in SIZES else data.load(name)


def power_law(
    name: str = PAPER,
    *,
    num_users: int = PAPER_SIZES[0],
    num_items: int = PAPER_SIZES[1],
    num_interactions: int = PAPER_SIZES[2],
    columns: dict[str, int] | None = None,
    exponent: float = 0.8,
    seed: int = 0,
) -> Dataset:
    """Generate distinct pairs whose degrees fall as rank^-exponent on both sides; ids are shuffled, features normal.

    Args:
        name: The name of the data set.
        num_users: U.
        num_items: I.
        num_interactions: Training interactions. Each held-out split has a hundredth of them in addition.
        columns: The width of each modality; those of the paper's TikTok by default.
        exponent: The exponent of the power law.
        seed: The seed of everything.
    """
    rng = np.random.default_rng(seed)
    held_out = num_interactions // 100
    wanted = num_interactions + 2 * held_out
    weights = [np.arange(1, count + 1) ** -exponent for count in (num_users, num_items)]
    ids = [rng.permutation(count) for count in (num_users, num_items)]
    pairs = np.empty(0, np.int64)
    while len(pairs) < wanted:
        drawn = [rng.choice(len(w), 2 * wanted, p=w / w.sum()) for w in weights]
        found = ids[0][drawn[0]].astype(np.int64) * num_items + ids[1][drawn[1]]
        pairs = np.unique(np.concatenate([pairs, found]))
    pairs = rng.permutation(pairs)[:wanted]
    users, items = (pairs // num_items).astype(np.int32), (pairs % num_items).astype(np.int32)
    parts = np.split(np.arange(wanted), [num_interactions, num_interactions + held_out])
    widths = PAPER_COLUMNS if columns is None else columns
    return make_dataset(
        name,
        *(Interactions(users[part], items[part]) for part in parts),
        num_users=num_users,
        num_items=num_items,
        features={
            name: Feature(rng.standard_normal((num_items, width), np.float32), np.ones(num_items, bool))
            for name, width in widths.items()
        },
    )


EDGES_PER_USER, EDGES_PER_ITEM = 20, 200
"""Of `many`."""


def many(num_interactions: int, columns: dict[str, int] | None = None, seed: int = 0) -> Dataset:
    """Generate any number of interactions quickly, numbered by degree and without held-out splits.

    Users' degrees fall as rank^-1/2; each item is drawn with the square of a uniform number. A pair that is drawn twice
    counts once, so that there are a few interactions less. Features are normal, in half precision.
    """
    num_users, num_items = num_interactions // EDGES_PER_USER, num_interactions // EDGES_PER_ITEM
    rng = np.random.default_rng(seed)
    shares = np.arange(1, num_users + 1) ** -0.5
    degrees = np.floor(shares / shares.sum() * num_interactions).astype(np.int64)
    degrees[: num_interactions - degrees.sum()] += 1
    items = (num_items * rng.random(num_interactions, dtype=np.float32) ** 2).astype(np.int64)
    keys = np.repeat(np.arange(num_users), degrees) * num_items + np.minimum(items, num_items - 1)
    keys.sort()
    keys = keys[np.diff(keys, prepend=-1) > 0]
    train = Interactions((keys // num_items).astype(np.int32), (keys % num_items).astype(np.int32))
    features = {}
    for name, width in (columns or {}).items():
        values = rng.standard_normal((num_items, width), np.float32).astype(np.float16)
        features[name] = Feature(values, np.ones(num_items, np.bool_))
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    ids = np.arange(num_users), np.arange(num_items)
    return Dataset(
        f"{num_interactions} interactions", num_users, num_items, train, none, none, features, *ids
    ).by_degree()
