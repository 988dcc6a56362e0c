"""Files that are there whole or not at all, and that are on disk when the call returns."""

import os
import shutil
from pathlib import Path

PART = ".part"
"""What is under way ends with this; nobody reads it, and whoever holds the folder may delete it."""


def write_whole(path: Path, text: str) -> None:
    """Writes a file beside its place and moves it there.

    Raises:
        OSError: the old file, if any, is still there.
    """
    part = path.with_name(path.name + PART)
    part.write_text(text)
    sync(part)
    os.replace(part, path)
    sync(path.parent)


def append(path: Path, text: str) -> None:
    """Adds to a file that is there.

    Raises:
        OSError: any part of the text may be there.
    """
    with path.open("a") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def move_folder(part: Path, place: Path) -> None:
    """Puts a folder with all that is in it in its place.

    Raises:
        OSError: it is not there.
    """
    for inside in sorted(part.rglob("*")):
        sync(inside)
    sync(part)
    os.rename(part, place)
    sync(place.parent)


def remove_folder(place: Path) -> None:
    """Deletes a folder; whoever is killed meanwhile leaves what nobody takes for the whole."""
    part = place if place.name.endswith(PART) else place.with_name(place.name + PART)
    if part != place:
        if part.exists():
            shutil.rmtree(part)
        os.rename(place, part)
        sync(part.parent)
    shutil.rmtree(part)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
