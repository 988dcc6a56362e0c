"""Notes on how to make vectors of items' texts and pictures, if the data set has none."""

import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from slmrec_jax.data.readers.columns import is_text
from slmrec_jax.data.readers.dataset_folders import column_kinds, vector_columns
from slmrec_jax.data.readers.folders import visible_entries
from slmrec_jax.data.readers.headers import column_names
from slmrec_jax.data.readers.refusals import listed

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes of picture files, in lower case."""

_TEXTS = ("title", "name", "description", "text", "caption", "summary")
"""Names of text columns that may be embedded, in lower case."""


def notes_on_content(folder: Path, items: Path | None, modalities: Collection[str]) -> list[str]:
    """Return notes about texts and pictures for which there are no vectors.

    Args:
        folder: The folder of the data set.
        items: The table of items.
        modalities: The modalities that have vectors.
    """
    notes = []
    texts = [] if items is None else [name for name in column_names(items) if name.lower() in _TEXTS]
    if items is not None and texts and "textual" not in modalities:
        notes.append(_note_on_texts(folder, items, texts))
    if "visual" not in modalities and (pictures := _folder_of_pictures(folder)) is not None:
        listing = "" if items is not None else "list the items in items.csv, in a column item, and "
        command = _command(folder, items or folder / "items.csv", f"--images {shlex.quote(str(pictures))}")
        notes.append(f"{pictures.name}/: pictures without vectors; {listing}make them with {command}")
    return notes


def content_columns(place: Path) -> tuple[list[str], list[str]] | None:
    """Return the text columns and the picture columns of a folder of `datasets`; `None` if it has neither."""
    kinds = column_kinds(place)
    texts = [name for name, kind in kinds.items() if name.lower() in _TEXTS and is_text(kind)]
    pictures = [name for name, kind in kinds.items() if _is_picture(kind)]
    return (texts, pictures) if texts or pictures else None


def notes_on_columns(folder: Path, place: Path, key: str | None, modalities: Collection[str]) -> list[str]:
    """Return notes on a folder of `datasets`: how to embed its texts and pictures, or its columns besides vectors.

    `key` is its column of raw ids; the others are as in `notes_on_content`.
    """
    if vectors := vector_columns(place).values():
        others = [name for name in column_kinds(place) if name not in vectors and name != key]
        return [f"{place.name}: columns that are not read: {listed(others)}"] if others else []
    texts, pictures = content_columns(place) or ([], [])
    notes = [_note_on_texts(folder, place, texts)] if texts and "textual" not in modalities else []
    if pictures and "visual" not in modalities:
        command = _command(folder, place, "--images PICTURES")
        notes.append(
            f"{place.name}: no vectors for the pictures in {listed(pictures)}; save them in a folder PICTURES, each "
            f"named after its item, and make vectors with {command}"
        )
    return notes


def _is_picture(kind: Any) -> bool:
    """Return whether a column holds pictures, as `datasets` stores them."""
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _note_on_texts(folder: Path, items: Path, texts: Sequence[str]) -> str:
    what = "column" if len(texts) == 1 else "columns"
    command = _command(folder, items, f"--text {shlex.quote(','.join(texts))}")
    return f"{items.name}: no vectors for the {what} {listed(texts)}; make them with {command}"


def _command(folder: Path, items: Path, what: str) -> str:
    place, out = shlex.quote(str(items)), shlex.quote(str(folder / "features"))
    return f"slmrec-jax data embed {place} {what} --model MODEL --out {out}"


def _folder_of_pictures(folder: Path) -> Path | None:
    """Return the first subfolder that contains a picture."""
    for place in filter(Path.is_dir, visible_entries(folder)):
        try:
            with os.scandir(place) as entries:
                names = (entry.name.lower() for entry in entries if not entry.name.startswith("."))
                if any(name.endswith(PICTURE_SUFFIXES) for name in names):
                    return place
        except PermissionError:
            continue
    return None
