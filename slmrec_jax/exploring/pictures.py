"""Pictures of items, read only from within the folder of the data set."""

from pathlib import Path

KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
"""Types of pictures without scripts, by suffix."""

MOST_BYTES = 2**24


def may_be_picture(text: str) -> bool:
    """Return whether an item's text `image` is the path of a picture, and not an address, which is never fetched."""
    return "://" not in text and Path(text).suffix.lower() in KINDS


def read_picture(folder: Path | None, text: str) -> tuple[str, bytes] | None:
    """Return the type and the content of a picture.

    It must lie within the folder when all links are followed, and have at most `MOST_BYTES`; otherwise `None`.
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
    except (OSError, ValueError):  # it is missing, or its name cannot be one
        return None
