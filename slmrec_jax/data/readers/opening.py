"""Checks that a path is a readable file, so that no reader blocks on a pipe, and error messages for failures."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slmrec_jax.data.readers.refusals import Malformed
from slmrec_jax.durable import reason
from slmrec_jax.errors import UserError, escaped

_TEXT = {".csv", ".inter", ".item", ".itememb", ".json", ".test", ".train", ".tsv", ".txt", ".user"}
_ENDINGS = _TEXT | {".npy", ".parquet", ".pkl", ".pt", ".safetensors"}
"""The suffixes of data files of all formats."""
_FILE_TYPES = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def check_file(path: Path, expected: str) -> None:
    """Reject a path that is not a regular file or cannot be opened. Links are followed.

    In all readers, `expected` describes the expected content of the file, for error messages.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe blocks until another program writes to it
            found = _FILE_TYPES.get(stat.S_IFMT(mode), "a device")
            raise UserError(f"{path}: not a regular file but {found}; expected {expected}")
        path.open("rb").close()
    except FileNotFoundError:
        missing = "a link to a file that does not exist" if path.is_symlink() else "there is no such file"
        raise UserError(f"{path}: {missing}; expected {expected}") from None
    except OSError as error:
        raise unreadable(path, error) from error


def check_entries(folder: Path) -> None:
    """Reject a folder that contains a pipe, socket, device or broken link, or a folder with a data file's suffix.

    Formats look only for files that they know, and would ignore a validation split that is a broken link.
    """
    for entry in sorted(folder.iterdir()):
        if entry.is_file() or entry.name.startswith(".") or (entry.is_dir() and entry.suffix not in _ENDINGS):
            continue
        if not entry.name.isprintable():  # error lines name it
            raise UserError(f"{folder}: {entry.name!a} is not a regular file; remove it")
        check_file(entry, "a data file, or nothing of that name")


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Check a file before the block reads it, and turn an `OSError` in the block into a `UserError`."""
    check_file(path, expected)
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


@contextmanager
def reading_untrusted(path: Path, expected: str, fix: str = "save it again from a source you trust") -> Iterator[None]:
    """Act like `reading`, for a file format that could contain code; also turn damage into a `UserError`."""
    with reading(path, expected):
        try:
            yield
        except Malformed as fault:
            raise UserError(f"{path}: {fault}; nothing in it was run; expected {expected}: {fix}") from None


def check_name(file: Path) -> None:
    """Reject a file whose name has control characters, since error messages name it."""
    if not file.name.isprintable():
        raise UserError(f"{file.parent}: the file {file.name!a} has control characters in its name; rename it")


def unreadable(path: Path, error: OSError) -> UserError:
    """Make the error for a file that the system cannot read."""
    return UserError(f"{path}: cannot be read ({escaped(reason(error))}); check the path and its permissions")
