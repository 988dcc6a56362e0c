"""The command as a program of its own: what JAX reads from the environment is set before JAX is loaded."""

import os
import stat
import sys
from pathlib import Path

from slmrec_jax.errors import escaped

CACHE = "JAX_COMPILATION_CACHE_DIR"


def main() -> int:
    """Run `slmrec-jax`; compiled programs are kept in the user's cache folder for the next run."""
    _keep_programs()
    from slmrec_jax.commands.main import main as command

    return command()


def _keep_programs() -> None:
    """Choose the folder of compiled programs. User settings win, but for a folder that others may write to.

    What lies there is run as it is. Where there is no place to write, nothing is kept.
    """
    # XLA logs an error for each program it reads back, about tuning hints that are no features of the processor.
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
    """Say why someone else could have put a program into the folder, or could yet; `None` where no one could."""
    # As it is named, since a link on the way may be replaced, and where that leads.
    for above in {*list(folder.absolute().parents)[:-1], *list(folder.resolve().parents)[:-1]}:
        held = above.stat()
        if held.st_uid not in (os.getuid(), 0) or held.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"others may replace what lies in {above}; choose another folder by {CACHE}"
    found = os.lstat(folder)
    wrong = _wrong(folder, found, stat.S_ISDIR(found.st_mode), shut=False)
    shut = not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    for entry in folder.rglob("*"):
        entry_found = entry.lstat()
        regular = stat.S_ISREG(entry_found.st_mode) or stat.S_ISDIR(entry_found.st_mode)
        wrong = wrong or _wrong(entry, entry_found, regular, shut=shut)
    return wrong


def _wrong(path: Path, found: os.stat_result, regular: bool, *, shut: bool) -> str | None:
    """Say what is wrong with a folder or an entry.

    Args:
        path: What is looked at.
        found: What the system says of it, links not followed.
        regular: Whether it is of the kind it should be.
        shut: Whether it lies in a folder that only its owner can enter: a umask of 002 lets JAX write entries that the
            group may write to.
    """
    others = stat.S_IWOTH if shut else stat.S_IWOTH | stat.S_IWGRP
    if not regular:
        return f"{path} is a symbolic link or a special file; remove it"
    if found.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user; remove it, or choose another folder by {CACHE}"
    if found.st_mode & others:
        return f"others may write to {path}; remove it, or run chmod go-w {path} if you trust what it holds"
    return None


if __name__ == "__main__":
    sys.exit(main())
