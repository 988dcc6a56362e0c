"""Atomic writing of files and folders, which are on disk when the call returns.

All output is written here: files and folders that the user names (`whole_file`, `whole_folder`), and files in a folder
that this process holds (`write_whole`, `append`, `move_folder`). Libraries write to a Python file object or to memory
first, so that every disk error is an `OSError`, which `writing` turns into a one-line message.
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
"""The suffix of unfinished files and folders, and the prefix of temporary folders that hold one.

They are never read, and the process that holds the folder may delete them.
"""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The error codes of a full disk."""

_MAX_BUFFER = 2**26
"""The bytes of output to a device or a pipe that are buffered in memory. More is buffered in a temporary file."""


@contextmanager
def writing(path: Path, fix: str) -> Iterator[None]:
    """Turn an `OSError` within the block into a one-line `UserError` that ends with the fix."""
    try:
        yield
    except OSError as error:
        room = "free some space, or " if error.errno in FULL else ""
        raise UserError(f"cannot write {path}: {reason(error)}; {room}{fix}") from error


def reason(error: OSError) -> str:
    """Return the system's message for an error, without text that a library added."""
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file whose content appears at a path, atomically, when the block ends.

    An existing regular file is replaced, keeping its permissions. A device or pipe is never replaced: the content is
    written to it when the block ends. A symbolic link to a file is rejected, because replacing it would break the link,
    and writing through it could leave a partial file.

    Raises:
        OSError: The content could not be written. An old file is unchanged.
        UserError: The path is a symbolic link to a file, or to nothing.
    """
    try:
        is_special = not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        is_special = False
    if is_special:
        with tempfile.SpooledTemporaryFile(_MAX_BUFFER) as waiting:
            yield waiting
            _pour(waiting, path)
        return
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link to {os.readlink(path)}: give the path of the file itself")
    with _part_beside(path) as part:
        with part.open("xb") as file:
            yield file
        with suppress(FileNotFoundError):
            os.chmod(part, stat.S_IMODE(path.stat().st_mode))
        sync(part)
        os.replace(part, path)
        sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder whose content appears at a path, atomically, when the block ends.

    Raises:
        OSError: The folder could not be written. Nothing is left of it.
        UserError: The path exists.
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} already exists: give another folder, or remove this one")
    with _part_beside(path) as part:
        part.mkdir()
        yield part
        move_folder(part, path)


def write_whole(path: Path, text: str) -> None:
    """Write a file in a folder that this process holds. After an `OSError`, an old file is unchanged."""
    part = path.with_name(path.name + PART)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(f"{path} is not a regular file")
    try:
        part.unlink(missing_ok=True)  # it may be a link, which must not be followed
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
        sync(part)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def append(path: Path, text: str) -> None:
    """Append text to an existing file. After an `OSError`, part of the text may have been written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def move_folder(part: Path, place: Path) -> None:
    """Sync all content of a folder to disk, then move the folder to its place."""
    for inside in sorted(part.rglob("*")):
        sync(inside)
    sync(part)
    os.rename(part, place)
    sync(place.parent)


def remove_folder(place: Path) -> None:
    """Delete a folder. A crash never leaves a folder that looks complete."""
    part = place if place.name.endswith(PART) else place.with_name(place.name + PART)
    if part != place:
        if part.exists():
            shutil.rmtree(part)
        os.rename(place, part)
        sync(part.parent)
    shutil.rmtree(part)


def check_room(folder: Path, size: int) -> None:
    """Reserve and release bytes, so that a full disk raises an `OSError` before a library begins to write."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in FULL:
                raise


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of entries, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pour(content: IO[bytes], path: Path) -> None:
    """Write to a device or pipe, without creating, truncating or replacing anything."""
    content.seek(0)
    with io.FileIO(os.open(path, os.O_WRONLY), "w") as raw, io.BufferedWriter(raw) as target:
        if stat.S_ISREG(os.fstat(target.fileno()).st_mode):
            raise OSError(f"{path} was replaced by a regular file")
        while block := content.read(2**20):
            target.write(block)


@contextmanager
def _part_beside(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary sibling folder. If the block fails, no new folder is left."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=PART) as beside:
            yield Path(beside) / path.name
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise
