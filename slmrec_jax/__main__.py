"""The command as a program: sets what JAX reads from the environment before JAX is imported."""

import os
import stat
import sys
from pathlib import Path

from slmrec_jax.errors import escaped

CACHE = "JAX_COMPILATION_CACHE_DIR"


def main() -> int:
    """Run `slmrec-jax`, with compiled programs kept in the user's cache folder."""
    _set_program_cache()
    from slmrec_jax.commands.main import main as command

    return command()


def _set_program_cache() -> None:
    """Choose the folder of compiled programs. User settings win, except for a folder that others may write to.

    JAX runs the programs in it unchecked. Without a safe folder, none are kept.
    """
    # XLA logs an error for each program it reads back, about tuning hints that are not processor features.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    chosen = os.environ.get(CACHE)
    if chosen == "" or (chosen and "://" in chosen):  # switched off, or not a folder of this machine
        return
    folder = Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slmrec_jax")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        objection = _distrust(folder)
    except OSError as error:
        objection = f"cannot use {folder} ({error.strerror})" if chosen else ""
    if objection is None:
        if chosen is None:
            os.environ[CACHE] = str(folder)
            os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
            os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        return
    os.environ.pop(CACHE, None)
    if objection:
        print(f"slmrec-jax: compiled programs are not kept or read: {escaped(objection)}", file=sys.stderr)


def _distrust(folder: Path) -> str | None:
    """Return why another user could have written to the folder or still could, or `None` if no other user can."""
    # The parents of the given path, on which a link may be replaced, and those of its target.
    for parent in {*list(folder.absolute().parents)[:-1], *list(folder.resolve().parents)[:-1]}:
        status = parent.stat()
        if status.st_uid not in (os.getuid(), 0) or status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"others may replace what is in {parent}; choose another folder by {CACHE}"
    status = os.lstat(folder)
    fault = _fault(folder, status, stat.S_ISDIR(status.st_mode), private=False)
    private = not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    for entry in folder.rglob("*"):
        status = entry.lstat()
        ordinary = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        fault = fault or _fault(entry, status, ordinary, private=private)
    return fault


def _fault(path: Path, status: os.stat_result, ordinary: bool, *, private: bool) -> str | None:
    """Return what makes a folder or a file unsafe, or `None`.

    Args:
        path: The folder or file.
        status: Its status, with links not followed.
        ordinary: Whether it is of the expected type.
        private: Whether it is in a folder that only its owner can enter: with a umask of 002, JAX writes files that the
            group may write to.
    """
    writable = stat.S_IWOTH if private else stat.S_IWOTH | stat.S_IWGRP
    if not ordinary:
        return f"{path} is a symbolic link or a special file; remove it"
    if status.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user; remove it, or choose another folder by {CACHE}"
    if status.st_mode & writable:
        return f"others may write to {path}; remove it, or run chmod go-w {path} if you trust its content"
    return None


if __name__ == "__main__":
    sys.exit(main())
