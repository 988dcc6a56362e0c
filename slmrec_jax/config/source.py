"""The source of a data set."""

from dataclasses import dataclass
from typing import Annotated

from slmrec_jax.forms import at_least


@dataclass(frozen=True)
class Source:
    """The source of a data set and how to read it, enough to read it again. Every `Config` has these fields."""

    data: str = "demo"
    """`demo`, or the folder of a data set."""
    format: str | None = None
    """Format of the folder, if its files do not determine it."""
    split: str | None = None
    """How to split the interactions; required for data without a split. Existing splits are replaced."""
    split_seed: Annotated[int, at_least(0)] = 0
    """Seed of a random split; it is separate from --seed, so that all seeds train on the same data."""
    min_rating: float | None = None
    """Drop rows with a lower rating before splitting."""
    k_core: Annotated[int, at_least(0)] = 0
    """Keep only users and items with at least this many interactions, repeatedly until all have them, before splitting;
    0 keeps all."""
    since: str | None = None
    """Drop rows before this time, which is written as in the data: a number, or a date such as 2025-05-31."""
    until: str | None = None
    """Drop rows at or after this time, likewise."""
    user_column: str | None = None
    """Name of the column of users, if it is not one of the known names; or its number, if the table has no header."""
    item_column: str | None = None
    """Name or number of the column of items, likewise."""
    time_column: str | None = None
    """Name or number of the column of times, likewise."""
    rating_column: str | None = None
    """Name or number of the column of ratings, likewise."""
