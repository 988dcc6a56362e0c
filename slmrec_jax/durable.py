"""Write files and folders whole or not at all, on disk when the call returns.

Everything the program leaves is written here: what a person names (`whole_file`, `whole_folder`), and what lies in a
folder that this process holds (`write_whole`, `append`, `move_folder`). Libraries get a Python file to write to, or
write to memory first, so that whatever the disk refuses arrives as an `OSError`; `writing` makes one line of it.
"""

import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from slmrec_jax.errors import UserError

PART = ".part"
"""What is under way ends with this; no one reads it, and the process that holds the folder may delete it."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk answers that takes no more."""

_IN_MEMORY = 2**26
"""Bytes for a device or a pipe that wait in memory; more go through a temporary file."""


@contextmanager
def writing(path: Path, fix: str) -> Iterator[None]:
    """Turn what the disk refuses within the block into one line for the person.

    Args:
        path: what is being written.
        fix: what to do about it, such as `give another --out`.

    Raises:
        UserError: an `OSError` was raised within the block.
    """
    try:
        yield
    except OSError as error:
        room = "free some space, or " if error.errno in FULL else ""
        raise UserError(f"cannot write {path}: {reason(error)}; {room}{fix}") from error


def reason(error: OSError) -> str:
    """Return the system's own words for an error, without what a library put around them."""
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file whose content stands at a path when the block ends, or not at all.

    A regular file that stands there is replaced and its permissions stay. A device or a pipe is never replaced: it
    gets the content when the block ends. A symbolic link to a file is refused, because replacing it would cut it off
    and writing through it could leave half a file.

    Raises:
        OSError: the content could not be written; what stood there before still does.
        UserError: the path is a symbolic link to a file, or to nothing.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as waiting:
                yield waiting
                _pour(waiting, path)
            return
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link to {os.readlink(path)}: give the path of the file itself")
    made = _make_parents(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=PART) as beside:
            part = Path(beside) / path.name
            with part.open("xb") as file:
                yield file
            with suppress(FileNotFoundError):
                os.chmod(part, stat.S_IMODE(path.stat().st_mode))
            sync(part)
            os.replace(part, path)
            sync(path.parent)
    except BaseException:
        _remove_empty(made)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder whose content stands at a path when the block ends, or not at all.

    Raises:
        OSError: it could not be written, and nothing is left of it.
        UserError: something stands there already.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} is there already: give another folder, or remove this one")
    made = _make_parents(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=PART) as beside:
            part = Path(beside) / path.name
            part.mkdir()
            yield part
            move_folder(part, path)
    except BaseException:
        _remove_empty(made)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a file of a folder that this process holds, beside its place first.

    Raises:
        OSError: the old file, if any, is still there.
    """
    part = path.with_name(path.name + PART)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(f"{path} is not a regular file")
    try:
        part.unlink(missing_ok=True)  # not written through, since it may be a link
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
        sync(part)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def append(path: Path, text: str) -> None:
    """Add to a file that is there.

    Raises:
        OSError: any part of the text may be there.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def move_folder(part: Path, place: Path) -> None:
    """Put a folder with all that is in it in its place.

    Raises:
        OSError: it is not there.
    """
    for inside in sorted(part.rglob("*")):
        sync(inside)
    sync(part)
    os.rename(part, place)
    sync(place.parent)


def remove_folder(place: Path) -> None:
    """Delete a folder; a crash never leaves one that looks complete."""
    part = place if place.name.endswith(PART) else place.with_name(place.name + PART)
    if part != place:
        if part.exists():
            shutil.rmtree(part)
        os.rename(place, part)
        sync(part.parent)
    shutil.rmtree(part)


def check_room(folder: Path, size: int) -> None:
    """Reserve so many bytes and give them back, so that a full disk refuses before a library begins to write.

    Raises:
        OSError: they cannot be reserved: the disk or the quota is full, or files may not be so large.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in FULL:
                raise


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pour(content: IO[bytes], path: Path) -> None:
    """Write to what is no regular file, without creating, truncating or replacing anything."""
    content.seek(0)
    with io.FileIO(os.open(path, os.O_WRONLY), "w") as raw, io.BufferedWriter(raw) as target:
        if stat.S_ISREG(os.fstat(target.fileno()).st_mode):
            raise OSError(f"{path} has become a regular file meanwhile")
        while block := content.read(2**20):
            target.write(block)


def _make_parents(path: Path) -> list[Path]:
    """Make the folders that lead to a path, and return those that were not there, the deepest first."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        _remove_empty(missing)
        raise
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
