"""Says which files of a folder are not read."""

from collections.abc import Iterable
from pathlib import Path

_MAX_NOT_READ = 100


def not_read(folder: Path, read: Iterable[Path]) -> list[str]:
    """Return a note that names every file and folder not among those that are read, or no note if there are none.

    Files whose name begins with a dot are not mentioned.
    """
    known = set(read)
    places = {file.parent for file in known} - {folder}
    left = [
        f"{str(entry.relative_to(folder)) + '/' * entry.is_dir()!r}"
        for place in (folder, *sorted(places))
        for entry in sorted(place.iterdir())
        if entry not in known and entry not in places and not entry.name.startswith(".")
    ]
    more = f" and {len(left) - _MAX_NOT_READ} more" if len(left) > _MAX_NOT_READ else ""
    return [f"not read: {', '.join(left[:_MAX_NOT_READ])}{more}"] if left else []
