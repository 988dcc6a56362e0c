"""Data sets: what training reads, from a community's files or made from a seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slmrec_jax.data.dataset import Dataset, Feature, Words, check, make_dataset
from slmrec_jax.data.formats import find_format
from slmrec_jax.data.opening import check_entries, unreadable
from slmrec_jax.data.split import SPLITS, Unsplit, split_dataset
from slmrec_jax.data.store import write_store
from slmrec_jax.data.synthetic import demo
from slmrec_jax.errors import UserError

__all__ = [
    "SPLITS",
    "Dataset",
    "Feature",
    "Unsplit",
    "Words",
    "check",
    "demo",
    "load",
    "make_dataset",
    "read",
    "write_store",
]


def load(source: str, format: str | None = None, split: str | None = None, seed: int = 0) -> Dataset:
    """Loads a data set.

    Args:
        source: `"demo"` for the embedded default (`./demo` for a folder of that name), else a folder.
        format: The name of the folder's format, where it should not be detected.
        split: How to divide the interactions, a key of `SPLITS`: data that are not divided need it, others are divided
            anew.
        seed: What a random split follows from.

    Raises:
        UserError: There is no such folder, its format is not known, something in it is malformed, or the data cannot
            be split so.
    """
    with _refusing(source):
        return split_dataset(read(source, format)[0], split, seed)


def read(source: str, format: str | None = None) -> tuple[Dataset | Unsplit, str]:
    """Reads a data set as it is, divided or not, and says which format it has; see `load`."""
    if source == "demo" and format is None:
        return demo(), "made by this program"
    folder = Path(source)
    with _refusing(source):
        if not folder.exists():
            raise UserError(f"{source}: there is no such folder; give one that holds a data set, or demo")
        if not folder.is_dir():
            raise UserError(f"{source}: a file; give the folder that holds the data set")
        check_entries(folder)
        found = find_format(folder, format)
        return found.read(folder), found.name


@contextmanager
def _refusing(source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = source if error.filename is None else error.filename
        raise unreadable(Path(where), error) from error
