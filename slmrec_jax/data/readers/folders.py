"""Detection of a format's files in a folder, and notes about files that are not read."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from slmrec_jax.data.readers.headers import first_row
from slmrec_jax.data.readers.opening import check_name
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.errors import UserError, setting

_MAX_NOT_READ = 100
_MISSING_KEYS = ("__HIVE_DEFAULT_PARTITION__", "NULL")


def visible_entries(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted, without names that begin with a dot, such as `._x.npy` of macOS."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def with_suffix(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a folder with one of the given suffixes, compressed or not."""
    return [file for file in visible_entries(folder) if uncompressed(file).suffix in suffixes]


def inter_files(folder: Path, is_header: Callable[[Sequence[str]], bool]) -> list[Path]:
    """Return the `.inter` files whose first row is a header according to `is_header`."""
    return [file for file in with_suffix(folder, (".inter",)) if is_header(first_row(file, "\t", is_header))]


def file_of_split(folder: Path, split: str, names: Sequence[str]) -> Path:
    """Return the file with one of the given names. There must be exactly one."""
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise UserError(f"{folder}: the {split} split is missing; expected {' or '.join(names)}")
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise UserError(f"{folder}: {names} both exist for the {split} split; keep one")
    return found[0]


def choose_file(folder: Path, files: Sequence[Path], what: str) -> Path:
    """Return the only file or, among several, the one named like the folder. There must be such a file.

    `what` describes the file with an article or `one`.
    """
    if not files:
        raise UserError(f"{folder}: expected {what}, found none; add it, or leave out {setting('format')}")
    named = [file for file in files if uncompressed(file).stem == folder.resolve().name]
    if len(files) > 1 and len(named) != 1:
        found = listed([file.name for file in files])
        raise UserError(f"{folder}: expected {what}, found several ({found}); keep one")
    file = files[0] if len(files) == 1 else named[0]
    check_name(file)
    return file


def partition_keys(file: Path, root: Path) -> list[tuple[str, str | None]]:
    """Return the key and the value of each folder `key=value` between a folder and a file below it.

    A value that stands for a missing value becomes `None`.
    """
    keys: list[tuple[str, str | None]] = []
    for part in file.relative_to(root).parent.parts:
        key, sign, value = part.partition("=")
        if not key or not sign:
            continue
        try:
            text = unquote(value.encode().decode(), errors="strict")
        except UnicodeError:
            raise UserError(f"{root}: the folder {part!a} has a name that is not UTF-8; rename it") from None
        keys.append((key, None if value in _MISSING_KEYS else text))
    return keys


def not_read(folder: Path, read: Iterable[Path]) -> list[str]:
    """Return a note that names all files and folders that are not read, or no note if there are none.

    The note includes entries of subfolders that contain files that are read. Files whose names begin with a dot are not
    mentioned.
    """
    known = set(read)
    parents = {file.parent for file in known}
    places = {place for parent in parents for place in (parent, *parent.parents) if folder in place.parents}
    left = [
        f"{str(entry.relative_to(folder)) + '/' * entry.is_dir()!r}"
        for place in (folder, *sorted(places))
        for entry in visible_entries(place)
        if entry not in known and entry not in places
    ]
    more = f" and {len(left) - _MAX_NOT_READ} more" if len(left) > _MAX_NOT_READ else ""
    return [f"not read: {', '.join(left[:_MAX_NOT_READ])}{more}"] if left else []
