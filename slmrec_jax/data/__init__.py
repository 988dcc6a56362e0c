"""Data sets, read from files in the field's formats or made from a seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from slmrec_jax.config.checks import check_fields
from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.data.formats import read_folder, refuse_columns
from slmrec_jax.data.formats.windows import time_text
from slmrec_jax.data.making import check_dataset, make_dataset
from slmrec_jax.data.readers.engine import limited_memory
from slmrec_jax.data.readers.opening import check_entries, unreadable
from slmrec_jax.data.selection import select
from slmrec_jax.data.split import SPLIT_METHODS, Unsplit, split_dataset
from slmrec_jax.data.store import write_store
from slmrec_jax.data.synthetic import demo
from slmrec_jax.errors import UserError, check_type

__all__ = [
    "SPLIT_METHODS",
    "Dataset",
    "Feature",
    "Source",
    "Unsplit",
    "Words",
    "check_dataset",
    "demo",
    "load",
    "load_source",
    "make_dataset",
    "read_source",
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
    since: object = None,
    until: object = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
    memory_limit: str | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        data: A folder, or `"demo"` for the embedded data set (`"./demo"` for a folder of that name).
        format: The name of the folder's format; detected by default.
        split: How to split the interactions, a key of `SPLIT_METHODS`. It is required for data without splits; existing
            splits are replaced.
        split_seed: The seed of a random split.
        min_rating: Drop rows with a lower rating before splitting.
        k_core: Keep only users and items with at least this many interactions, repeatedly until all have them, before
            splitting.
        since: Drop rows before this time, before splitting: a number or a date, as in the data, such as `1700000000`,
            `"2025-05-31"`, or a `datetime`. Times without a zone are UTC.
        until: Drop rows at or after this time, likewise.
        user_column: The name of the column of users, if it is not one of the known names; or its number (`"1"`), if the
            table has no header.
        item_column: The column of items, likewise.
        time_column: The column of times, likewise.
        rating_column: The column of ratings, likewise.
        memory_limit: The memory limit for reading tables of interactions, such as `"4GB"`; the rest of a larger table
            is stored in a temporary folder. By default half of the free memory. The data set itself and its features
            need additional memory.

    Raises:
        UserError: The folder does not exist, its format is unknown, something in it is malformed, or the data cannot be
            split in this way.
    """
    check_type("data", data, (str, Path), "the path of a folder, or 'demo'")
    window = time_text(since), time_text(until)
    columns = (user_column, item_column, time_column, rating_column)
    where = data if isinstance(data, str) else str(data.absolute())  # a path is never the word `demo`
    with limited_memory(memory_limit):
        return load_source(Source(where, format, split, split_seed, min_rating, k_core, *window, *columns))


def load_source(source: Source) -> Dataset:
    """Load the data set that a source describes (see `load`), and record the source in it."""
    data, _ = read_source(source)
    with _naming_what_cannot_be_read(source.data):  # times are read only when a split needs them
        dataset = replace(split_dataset(data, source.split, source.split_seed))  # a reader may return its own splits
    found = source if _is_embedded(source) else replace(source, data=str(Path(source.data).resolve()))
    object.__setattr__(dataset, "source", found)  # a frozen field that is set only by loading
    return dataset


def load_copy(folder: Path, source: Source | None) -> Dataset:
    """Load a copy, made by `write_store`, of the data set that a source describes. `None` means made in memory."""
    dataset = load_source(Source(str(folder)))
    object.__setattr__(dataset, "source", source)
    return dataset


def read_source(source: Source) -> tuple[Dataset | Unsplit, str]:
    """Read the data of a source before they are split by `source.split`; also return the name of their format."""
    check_fields(source)
    if _is_embedded(source):
        refuse_columns("the demo data", source)
        return select(demo(), source), "made by this program"
    folder = Path(source.data)
    with _naming_what_cannot_be_read(source.data):
        if not folder.exists():
            raise UserError(f"{folder}: there is no such folder; give one that holds a data set, or demo")
        if not folder.is_dir():
            raise UserError(f"{folder}: a file; give the folder that holds the data set")
        check_entries(folder)
        found, format = read_folder(folder, source)
        return select(found, source), format


def _is_embedded(source: Source) -> bool:
    return source.data == "demo" and source.format is None  # only folders have a format


@contextmanager
def _naming_what_cannot_be_read(data: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(Path(data if error.filename is None else error.filename), error) from error
