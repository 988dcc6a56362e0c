"""Data sets: what training reads, from a community's files or made from a seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, Feature, Words, check, make_dataset
from slmrec_jax.data.formats import find_format, refuse_columns
from slmrec_jax.data.readers.opening import check_entries, unreadable
from slmrec_jax.data.selection import check_choice, select
from slmrec_jax.data.split import SPLITS, Unsplit, split_dataset
from slmrec_jax.data.store import write_store
from slmrec_jax.data.synthetic import demo
from slmrec_jax.errors import UserError, check_type, setting, shown
from slmrec_jax.forms import fault, words

__all__ = [
    "SPLITS",
    "Dataset",
    "Feature",
    "Source",
    "Unsplit",
    "Words",
    "check",
    "demo",
    "load",
    "load_source",
    "make_dataset",
    "read",
    "write_store",
]


def load(
    data: str | Path,
    *,
    format: str | None = None,
    split: str | None = None,
    split_seed: int = 0,
    min_rating: float | None = None,
    k_core: int = 0,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        data: `"demo"` for the embedded default (`"./demo"` for a folder of that name), else a folder.
        format: The name of the folder's format; detected by default.
        split: How to divide the interactions, a key of `SPLITS`. Data that are not divided need it; others are divided
            again.
        split_seed: Seed of a random split.
        min_rating: Leave out rows with a lower rating before the interactions are divided.
        k_core: Keep users and items with at least so many interactions, repeated until all have them, before the
            interactions are divided.
        user_column: The column of users, where it has none of the known names; or its number (`"1"`), where the table
            has no header.
        item_column: The column of items, likewise.
        time_column: The column of times, likewise.
        rating_column: The column of ratings, likewise.

    Raises:
        UserError: There is no such folder, its format is not known, something in it is malformed, or the data cannot
            be split so.
    """
    check_type("data", data, (str, Path), "the path of a folder, or 'demo'")
    columns = (user_column, item_column, time_column, rating_column)
    where = data if isinstance(data, str) else str(data.absolute())  # a path is never the word `demo`
    source = Source(where, format, split, split_seed, min_rating, k_core, *columns)
    for name, hint in get_type_hints(Source).items():
        if fault(getattr(source, name), hint) is not None:
            raise UserError(f"{setting(name)} is {shown(getattr(source, name))}: give {words(hint)}")
    return load_source(source)


def load_source(source: Source) -> Dataset:
    """Load a data set that is described by one value; see `load`. The data set remembers where it came from."""
    with _refusing(source.data):
        dataset = replace(split_dataset(read(source)[0], source.split, source.split_seed))  # a reader may keep its own
    whole_path = source.data if source.data == "demo" else str(Path(source.data).resolve())
    object.__setattr__(dataset, "source", replace(source, data=whole_path))  # a frozen field that only loading sets
    return dataset


def read(source: Source) -> tuple[Dataset | Unsplit, str]:
    """Read what is to be divided, or is divided already, and say which format it has; see `load`."""
    check_choice(source)
    if source.data == "demo" and source.format is None:
        refuse_columns("the demo data", source)
        return select(demo(), source), "made by this program"
    folder = Path(source.data)
    with _refusing(source.data):
        if not folder.exists():
            raise UserError(f"{folder}: there is no such folder; give one that holds a data set, or demo")
        if not folder.is_dir():
            raise UserError(f"{folder}: a file; give the folder that holds the data set")
        check_entries(folder)
        found = find_format(folder, source)
        return select(found.read(folder, source), source), found.name


@contextmanager
def _refusing(source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = source if error.filename is None else error.filename
        raise unreadable(Path(where), error) from error
