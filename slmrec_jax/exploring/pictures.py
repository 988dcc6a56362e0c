"""Read item pictures, only from within the folder of the data set."""

from pathlib import Path

KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
"""The media types of picture formats that cannot contain scripts, by suffix."""

MOST_BYTES = 2**24


def find_picture(folder: Path | None, text: str) -> Path | None:
    """Return the picture that an item's `image` text names. URLs are never fetched.

    Return `None` unless it is within the folder after following all links and has at most `MOST_BYTES`.
    """
    if folder is None or not text:
        return None
    try:
        inside, path = folder.resolve(), (folder / text).resolve()
        is_picture = path.is_relative_to(inside) and path.suffix.lower() in KINDS and path.is_file()
        return path if is_picture and path.stat().st_size <= MOST_BYTES else None
    except (OSError, ValueError, RuntimeError):  # it cannot be read, its name is invalid, or links form a loop
        return None


def read_picture(folder: Path | None, text: str) -> tuple[str, bytes] | None:
    """Read the picture that an item's `image` text names, and return its type and content."""
    path = find_picture(folder, text)
    try:
        return None if path is None else (KINDS[path.suffix.lower()], path.read_bytes())
    except OSError:  # it is removed by now, or may not be read
        return None
