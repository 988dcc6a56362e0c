"""The dataset formats that can be read, and how a folder's is found.

A new format is one file beside this one with `LOOKS_FOR`, `recognises` and `read`, and a line in `FORMATS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from slmrec_jax.data import store
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.data.formats import diffmm, lightgcn, mmgcn, mmrec, mmssl, neurec, plain, recbole
from slmrec_jax.data.split import Unsplit
from slmrec_jax.errors import UserError, setting

_SHOWN = 8


class Format(NamedTuple):
    """A way in which a community keeps a data set in a folder."""

    name: str
    looks_for: str
    """What it is recognised by, in words."""
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Dataset | Unsplit]


FORMATS = (
    Format("diffmm", diffmm.LOOKS_FOR, diffmm.recognises, diffmm.read),
    Format("lightgcn", lightgcn.LOOKS_FOR, lightgcn.recognises, lightgcn.read),
    Format("mmrec", mmrec.LOOKS_FOR, mmrec.recognises, mmrec.read),
    Format("recbole", recbole.LOOKS_FOR, recbole.recognises, recbole.read),
    Format("neurec", neurec.LOOKS_FOR, neurec.recognises, neurec.read),
    Format("plain", plain.LOOKS_FOR, plain.recognises, plain.read),
    Format("mmgcn", mmgcn.LOOKS_FOR, mmgcn.recognises, mmgcn.read),
    Format("mmssl", mmssl.LOOKS_FOR, mmssl.recognises, mmssl.read),
    Format("slmrec", store.LOOKS_FOR, store.recognises, store.read),
)


def find_format(folder: Path, name: str | None = None, formats: tuple[Format, ...] = FORMATS) -> Format:
    """The format called `name`, or the only one that recognises the folder.

    Raises:
        UserError: No format has that name; none, or more than one, recognises the folder.
    """
    if name is not None:
        named = [each for each in formats if each.name == name]
        if not named:
            raise UserError(f"there is no format {name!r}; there is: {', '.join(each.name for each in formats)}")
        return named[0]
    fitting = [each for each in formats if each.recognises(folder)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(each.name for each in fitting)
        raise UserError(f"{folder}: looks like {names}; say which it is with {setting('format', fitting[0].name)}")
    entries = sorted(entry.name for entry in folder.iterdir())
    found = ", ".join(ascii(entry) for entry in entries[:_SHOWN]) + (", …" if len(entries) > _SHOWN else "")
    wanted = "; ".join(f"{each.looks_for} ({each.name})" for each in formats)
    raise UserError(f"{folder}: no known data set; looked for {wanted}; found {found or 'an empty folder'}")
