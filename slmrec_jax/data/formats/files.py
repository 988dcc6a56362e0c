"""Finds the files of a format in its folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from slmrec_jax.data.readers.headers import first_row
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.errors import UserError


def file_of_split(folder: Path, split: str, names: Sequence[str]) -> Path:
    """Return the only file with one of these names.

    Raises:
        UserError: There is none, or more than one.
    """
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise UserError(f"{folder}: the {split} split is missing; expected {' or '.join(names)}")
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise UserError(f"{folder}: {names} are both there for the {split} split; keep one")
    return found[0]


def inter_files(folder: Path, is_header: Callable[[Sequence[str]], bool]) -> list[Path]:
    """Return the `.inter` files whose first row is such a header."""
    files = [file for file in sorted(folder.iterdir()) if uncompressed(file).suffix == ".inter"]
    return [file for file in files if is_header(first_row(file, "\t", is_header))]
