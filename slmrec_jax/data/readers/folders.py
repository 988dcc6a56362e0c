"""Says which files of a folder are not read."""

from collections.abc import Iterable
from pathlib import Path

_SHOWN = 100


def not_read(folder: Path, read: Iterable[Path]) -> list[str]:
    """A note that names every file and folder that is not among those that are read; none where there is none.

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
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return [f"not read: {', '.join(left[:_SHOWN])}{more}"] if left else []
