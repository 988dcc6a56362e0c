"""Reading of item pictures, only from within the folder of the data set."""

from pathlib import Path

KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
"""The media types of picture formats that cannot contain scripts, by suffix."""

MOST_BYTES = 2**24


def may_be_picture(text: str) -> bool:
    """Return whether an item's `image` text is the path of a picture. URLs are never fetched."""
    return "://" not in text and Path(text).suffix.lower() in KINDS


def read_picture(folder: Path | None, text: str) -> tuple[str, bytes] | None:
    """Read a picture, and return its type and content.

    Return `None` unless it is within the folder after following all links and has at most `MOST_BYTES`.
    """
    if folder is None or not may_be_picture(text):
        return None
    try:
        inside, path = folder.resolve(), (folder / text).resolve()
        if not path.is_relative_to(inside) or path.suffix.lower() not in KINDS or not path.is_file():
            return None
        if path.stat().st_size > MOST_BYTES:
            return None
        return KINDS[path.suffix.lower()], path.read_bytes()
    except (OSError, ValueError):  # it is missing, or the name is invalid
        return None
