"""The data set formats that can be read, and the detection of a folder's format.

A new format needs a module in this package with `LOOKS_FOR`, `recognises` and `read`, and an entry in `FORMATS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from slmrec_jax.config.source import Source
from slmrec_jax.data import store
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.formats import diffmm, lightgcn, mmgcn, mmrec, mmssl, neurec, plain, recbole
from slmrec_jax.data.formats.roles import COLUMN_FIELDS, named_columns, refuse_tables
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError, setting

_PACKED = (".7z", ".rar", ".tar", ".tar.bz2", ".tar.gz", ".tgz", ".xz", ".zip")
_ENTRIES_SHOWN = 8


class Format(Protocol):
    """A format in which a folder stores a data set."""

    LOOKS_FOR: str
    """The files that identify the format, in words."""

    def recognises(self, folder: Path, source: Source, /) -> bool:
        """Return True if the folder has this format."""

    def read(self, folder: Path, source: Source, /) -> Dataset | Unsplit:
        """Read the folder. A file that is missing, malformed or inconsistent with others raises `UserError`."""


FORMATS: Mapping[str, Format] = {
    "diffmm": diffmm,
    "lightgcn": lightgcn,
    "mmrec": mmrec,
    "recbole": recbole,
    "neurec": neurec,
    "plain": plain,
    "mmgcn": mmgcn,
    "mmssl": mmssl,
    "slmrec": store,
}
_WITH_NAMED_COLUMNS = ("recbole", "plain")


def read_folder(folder: Path, source: Source) -> tuple[Dataset | Unsplit, str]:
    """Read a folder in the format that the source names or that is detected; also return the format's name."""
    name = find_format(folder, source)
    if name not in _WITH_NAMED_COLUMNS:
        refuse_columns(f"{folder}: format {name}", source)
    return FORMATS[name].read(folder, source), name


def refuse_columns(what: str, source: Source) -> None:
    """Reject column names given by the user for data whose columns have fixed names or none."""
    for role in named_columns(source):
        raise UserError(f"{what}: its columns are fixed; leave out {setting(COLUMN_FIELDS[role])}")


def find_format(folder: Path, source: Source) -> str:
    """Return the format that the source names, or the only one that recognises the folder."""
    if source.format is not None:
        if source.format not in FORMATS:
            raise UserError(f"there is no format {source.format!r}: give one of {', '.join(FORMATS)}")
        return source.format
    fitting = [name for name, each in FORMATS.items() if each.recognises(folder, source)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choice = setting("format", fitting[0])
        raise UserError(f"{folder}: looks like {' and '.join(fitting)}; say which it is with {choice}")
    refuse_tables(folder, plain.folders_of_parts(folder))
    entries = sorted(entry.name for entry in folder.iterdir())
    if packed := next((entry for entry in entries if entry.lower().endswith(_PACKED)), None):
        raise UserError(
            f"{folder}: no known data set; {packed!a} is compressed: unpack it, or compress tables with gzip"
        )
    more = ", …" if len(entries) > _ENTRIES_SHOWN else ""
    found = ", ".join(map(ascii, entries[:_ENTRIES_SHOWN])) + more or "an empty folder"
    wanted = "; ".join(f"{each.LOOKS_FOR} ({name})" for name, each in FORMATS.items())
    raise UserError(f"{folder}: no known data set; looked for {wanted}; found {found}")
