"""Says how texts and pictures of items that have no vectors become vectors."""

import os
import shlex
from collections.abc import Collection
from pathlib import Path

from slmrec_jax.data.readers.headers import column_names
from slmrec_jax.data.readers.refusals import listed

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes of pictures, in lower case."""

_TEXTS = ("title", "name", "description", "text", "caption", "summary")
"""Names of columns that may be embedded, in lower case."""


def notes_on_content(folder: Path, items: Path | None, modalities: Collection[str]) -> list[str]:
    """Return a note for each of text and pictures that there are without vectors.

    Args:
        folder: The data set.
        items: Its table of items.
        modalities: What it has vectors of.
    """
    notes = []
    texts = [] if items is None else [name for name in column_names(items) if name.lower() in _TEXTS]
    if items is not None and texts and "textual" not in modalities:
        what = "column" if len(texts) == 1 else "columns"
        command = _command(folder, items, f"--text {shlex.quote(','.join(texts))}")
        notes.append(f"{items.name}: no vectors of the {what} {listed(texts)}; make them by {command}")
    if "visual" not in modalities and (pictures := _folder_of_pictures(folder)) is not None:
        listing = "" if items is not None else "list the items in items.csv, in a column item, and "
        command = _command(folder, items or folder / "items.csv", f"--images {shlex.quote(str(pictures))}")
        notes.append(f"{pictures.name}/: pictures without vectors; {listing}make them by {command}")
    return notes


def _command(folder: Path, items: Path, what: str) -> str:
    place, out = shlex.quote(str(items)), shlex.quote(str(folder / "features"))
    return f"slmrec-jax data embed {place} {what} --model MODEL --out {out}"


def _folder_of_pictures(folder: Path) -> Path | None:
    """Return the first folder in a folder that has a picture in it."""
    for place in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        try:
            with os.scandir(place) as entries:
                if any(entry.name.lower().endswith(PICTURE_SUFFIXES) for entry in entries):
                    return place
        except PermissionError:
            continue
    return None
