"""Where a data set is read from."""

from typing import NamedTuple


class Source(NamedTuple):
    """Where a data set is read from, and how: enough to read it again."""

    data: str
    """`demo`, or the folder."""
    format: str | None = None
    """The folder's format; `None` detects it."""
    split: str | None = None
    """How the interactions are divided; `None` takes them as the folder has them."""
    split_seed: int = 0
    """Seed of a random split."""
    min_rating: float | None = None
    """Rows with a lower rating are left out before the interactions are divided."""
    k_core: int = 0
    """Users and items with at least so many interactions are kept, repeated until all have them, before the
    interactions are divided."""
    user_column: str | None = None
    """The column of users, where its name is none of the known ones; or its number, where the table has no header."""
    item_column: str | None = None
    time_column: str | None = None
    rating_column: str | None = None
