"""The dataset formats that can be read, and how a folder's is found.

A new format is one file beside this one with `LOOKS_FOR`, `recognises` and `read`, and a line in `FORMATS`.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from slmrec_jax.config.source import Source
from slmrec_jax.data import store
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.formats import diffmm, lightgcn, mmgcn, mmrec, mmssl, neurec, plain, recbole
from slmrec_jax.data.formats.roles import COLUMN_FIELDS, columns_of_tables
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError, setting

_PACKED = (".7z", ".rar", ".tar", ".tar.bz2", ".tar.gz", ".tgz", ".xz", ".zip")
_SHOWN = 8


class Format(NamedTuple):
    """A way in which a community keeps a data set in a folder."""

    name: str
    looks_for: str
    """What it is recognised by, in words."""
    recognises: Callable[[Path, Source], bool]
    read: Callable[[Path, Source], Dataset | Unsplit]


def _fixed(name: str, module: ModuleType) -> Format:
    """A format whose columns are always called the same, or have no names."""

    def recognises(folder: Path, source: Source) -> bool:
        return bool(module.recognises(folder))

    def read(folder: Path, source: Source) -> Dataset | Unsplit:
        refuse_columns(f"{folder}: format {name}", source)
        found: Dataset | Unsplit = module.read(folder)
        return found

    return Format(name, module.LOOKS_FOR, recognises, read)


FORMATS = (
    _fixed("diffmm", diffmm),
    _fixed("lightgcn", lightgcn),
    _fixed("mmrec", mmrec),
    Format("recbole", recbole.LOOKS_FOR, recbole.recognises, recbole.read),
    _fixed("neurec", neurec),
    Format("plain", plain.LOOKS_FOR, plain.recognises, plain.read),
    _fixed("mmgcn", mmgcn),
    _fixed("mmssl", mmssl),
    _fixed("slmrec", store),
)


def refuse_columns(what: str, source: Source) -> None:
    """Reject names of columns for data in which columns cannot be named.

    Raises:
        UserError: With the first name that was given.
    """
    for role, field in COLUMN_FIELDS.items():
        if getattr(source, field) is not None:
            raise UserError(f"{what} says itself what is the {role}; leave out {setting(field)}")


def find_format(folder: Path, source: Source, formats: tuple[Format, ...] = FORMATS) -> Format:
    """The format that the source names, or the only one that recognises the folder.

    Raises:
        UserError: No format has that name; none, or more than one, recognises the folder.
    """
    if source.format is not None:
        named = [each for each in formats if each.name == source.format]
        if not named:
            there = ", ".join(each.name for each in formats)
            raise UserError(f"there is no format {source.format!r}; there is: {there}")
        return named[0]
    fitting = [each for each in formats if each.recognises(folder, source)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(each.name for each in fitting)
        raise UserError(f"{folder}: looks like {names}; say which it is with {setting('format', fitting[0].name)}")
    tables = columns_of_tables(folder)
    if tables:
        raise UserError(
            f"{folder}: no known table of interactions; {'; '.join(tables)}: name the columns of users and items by "
            f"{setting('user_column')} and {setting('item_column')}"
        )
    entries = sorted(entry.name for entry in folder.iterdir())
    if packed := next((entry for entry in entries if entry.lower().endswith(_PACKED)), None):
        raise UserError(f"{folder}: no known data set; {packed!a} is packed: unpack it, or pack tables by gzip")
    found = ", ".join(ascii(entry) for entry in entries[:_SHOWN]) + (", …" if len(entries) > _SHOWN else "")
    wanted = "; ".join(f"{each.looks_for} ({each.name})" for each in formats)
    raise UserError(f"{folder}: no known data set; looked for {wanted}; found {found or 'an empty folder'}")
