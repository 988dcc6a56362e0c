"""A run's folder belongs to one process at a time."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slmrec_jax.errors import UserError, setting

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder; the system lets go of it with the process, however that ends.

    The file stays, because one that is deleted may be held by one process and created again by another.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    try:
        # Neither a link, which may lead to any file, nor a pipe, which may not answer.
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write the run folder {folder}: {error.strerror}; give another {setting('out')}"
        ) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{folder / LOCK} is not a regular file: remove it, or give another {setting('out')}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "not known"
            raise UserError(
                f"{folder} is in use by another run (process {holder}): wait for it, stop it, or give another "
                f"{setting('out')}"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot lock the run folder {folder}: {error.strerror}; give another {setting('out')}"
            ) from None
        with suppress(OSError):  # on a full disk the lock holds all the same; what is written next says so
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
