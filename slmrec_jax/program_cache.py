"""The folder of compiled programs, where later processes find them instead of compiling again.

JAX runs the programs in it unchecked, so a folder that others may write to is not used.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slmrec_jax.errors import escaped

CACHE = "JAX_COMPILATION_CACHE_DIR"
_EVERY_PROGRAM = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": -1}
"""Settings of JAX that keep small programs too."""
_LOG_LEVEL, _ABOVE_ERRORS = "TF_CPP_MIN_LOG_LEVEL", "3"
_quieted: list[bool] = []
"""Not empty once `quiet_xla` has had its effect."""


def quiet_xla() -> None:
    """Silence what XLA logs for each program it reads back on a CPU: errors about tuning hints that are no features.

    XLA reads the level when JAX is imported, so this has no effect after it.
    """
    if "jaxlib" not in sys.modules:
        os.environ.setdefault(_LOG_LEVEL, _ABOVE_ERRORS)
        _quieted.append(True)


def set_environment() -> None:
    """Set the variables that JAX reads when it is imported; those that the user has set win.

    Without a safe folder, no programs are kept, and a line on standard error says why.
    """
    chosen = os.environ.get(CACHE)
    if chosen == "" or (chosen and "://" in chosen):  # switched off, or not a folder of this machine
        return
    folder = _safe_folder(chosen)
    if folder is None:
        os.environ.pop(CACHE, None)
    elif chosen is None:
        os.environ[CACHE] = folder
        for name, value in _EVERY_PROGRAM.items():
            os.environ.setdefault(name.upper(), str(value))


def keep_programs() -> list[str]:
    """Keep what this process compiles from now on, as the command does, unless the user has configured JAX's cache.

    Returns:
        A line on why programs are not kept, if the user can change that.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from slmrec_jax.devices import on_cpu

    settings: Any = jax.config
    if CACHE in os.environ or settings.jax_compilation_cache_dir is not None:
        return []
    if on_cpu() and not _quieted:
        return ["compiled programs are not kept, because XLA would then log errors: import slmrec_jax before jax"]
    folder = _safe_folder(None)
    if folder is None:
        return []
    settings.update("jax_compilation_cache_dir", folder)
    for name, value in _EVERY_PROGRAM.items():
        if name.upper() not in os.environ:
            settings.update(name, value)
    compilation_cache.reset_cache()  # JAX decides at its first compilation whether to keep programs
    return []


@contextmanager
def without_cache() -> Iterator[None]:
    """Neither keep nor read programs within the block: JAX cannot read those of devices that are not attached."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings: Any = jax.config
    before = settings.jax_enable_compilation_cache
    try:
        settings.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX decides once whether it has a cache
        yield
    finally:
        settings.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _safe_folder(chosen: str | None) -> str | None:
    """Return the chosen or default folder, which is made if absent; `None` if it cannot be used safely."""
    folder = Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slmrec_jax")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        objection = _distrust(folder)
    except OSError as error:
        objection = f"cannot use {folder} ({error.strerror})" if chosen else ""
    if objection is None:
        return str(folder)
    if objection:
        print(f"slmrec-jax: compiled programs are not kept or read: {escaped(objection)}", file=sys.stderr)
    return None


def _distrust(folder: Path) -> str | None:
    """Return why another user could have written to the folder or still could, or `None` if no other user can."""
    # The parents of the given path, on which a link may be replaced, and those of its target.
    for parent in {*list(folder.absolute().parents)[:-1], *list(folder.resolve().parents)[:-1]}:
        status = parent.stat()
        if status.st_uid not in (os.getuid(), 0) or status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"others may replace what is in {parent}; choose another folder by {CACHE}"
    status = os.lstat(folder)
    found = _unsafe(folder, status, stat.S_ISDIR(status.st_mode), private=False)
    private = not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    for entry in folder.rglob("*"):
        status = entry.lstat()
        ordinary = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        found = found or _unsafe(entry, status, ordinary, private=private)
    return found


def _unsafe(path: Path, status: os.stat_result, ordinary: bool, *, private: bool) -> str | None:
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
