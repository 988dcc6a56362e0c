"""Where a data set is read from."""

from dataclasses import dataclass
from typing import Annotated

from slmrec_jax.forms import at_least


@dataclass(frozen=True)
class Source:
    """Where a data set is read from, and how: enough to read it again. Every `Config` has these fields."""

    data: str = "demo"
    """`demo`, or the folder of a data set."""
    format: str | None = None
    """The folder's format, where its files leave that open."""
    split: str | None = None
    """How to divide the interactions: required for data that are not divided; data that are get divided again."""
    split_seed: Annotated[int, at_least(0)] = 0
    """The seed of a random split; it is separate from --seed, so that all seeds train on the same data."""
    min_rating: float | None = None
    """Leave out rows with a lower rating before the interactions are divided."""
    k_core: Annotated[int, at_least(0)] = 0
    """Keep users and items with at least this many interactions, repeated until all have them, before the interactions
    are divided; 0 keeps all."""
    since: str | None = None
    """Leave out rows before this time, which is written as the data have it: a number, or a date such as 2025-05-31."""
    until: str | None = None
    """Leave out rows at this time and after it, likewise."""
    user_column: str | None = None
    """The column of users, if it has none of the known names; or its number, if the table has no header."""
    item_column: str | None = None
    """The column of items, likewise."""
    time_column: str | None = None
    """The column of times, likewise."""
    rating_column: str | None = None
    """The column of ratings, likewise."""
