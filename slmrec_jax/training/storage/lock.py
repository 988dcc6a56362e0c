"""The lock that gives a run's folder to one process at a time."""

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
    """Lock a folder within the block. The system releases the lock when the process ends, for whatever reason.

    The lock file is never deleted: one process could still hold a deleted file while another creates a new one.

    Raises:
        UserError: Another process holds it, or the folder cannot be written.
    """
    fix = f"give another {setting('out')}"
    try:
        # Do not follow a link, which may lead to any file, or block on a pipe.
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}; {fix}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{folder / LOCK} is not a regular file: remove it, or {fix}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{folder} is in use by another run (process {holder}): wait for it, stop it, or {fix}"
            ) from None
        except OSError as error:
            raise UserError(f"cannot lock the run folder {folder}: {error.strerror}; {fix}") from None
        with suppress(OSError):  # a full disk does not weaken the lock, and the next write reports it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
