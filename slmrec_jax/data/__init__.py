"""Data sets: what training reads, from a community's files or made from a seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slmrec_jax.data.dataset import Dataset, Feature, Source, Words, check, make_dataset
from slmrec_jax.data.formats import find_format
from slmrec_jax.data.split import SPLITS, Unsplit, split_dataset
from slmrec_jax.data.store import write_store
from slmrec_jax.data.synthetic import demo
from slmrec_jax.errors import UserError, check_type

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


def load(data: str | Path, *, format: str | None = None, split: str | None = None, split_seed: int = 0) -> Dataset:
    """Load a data set.

    Args:
        data: `"demo"` for the embedded default (`"./demo"` for a folder of that name), else a folder.
        format: The name of the folder's format; detected by default.
        split: How to divide the interactions, a key of `SPLITS`. Data that are not divided need it; others are divided
            again.
        split_seed: Seed of a random split.

    Raises:
        UserError: There is no such folder, its format is not known, something in it is malformed, or the data cannot
            be split so.
    """
    check_type("data", data, (str, Path), "the path of a folder, or 'demo'")
    for name, value in {"format": format, "split": split}.items():
        check_type(name, value, (str, type(None)), "a name")
    check_type("split_seed", split_seed, int, "a whole number")
    return load_source(Source(str(data), format, split, split_seed))


def load_source(source: Source) -> Dataset:
    """Load a data set that is described by one value; see `load`. The data set remembers where it came from."""
    with _refusing(source.data):
        dataset = split_dataset(read(source.data, source.format)[0], source.split, source.split_seed)
    whole_path = source.data if source.data == "demo" else str(Path(source.data).resolve())
    object.__setattr__(dataset, "source", source._replace(data=whole_path))  # a frozen field that only loading sets
    return dataset


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
        found = find_format(folder, format)
        return found.read(folder), found.name


@contextmanager
def _refusing(source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = source if error.filename is None else error.filename
        raise UserError(f"{where}: cannot be read ({error.strerror}); check the path and its permissions") from error
