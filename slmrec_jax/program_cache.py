"""The persistent cache of compiled programs, which saves later processes from compiling again.

JAX runs cached programs without checks, so a folder that other users may write to is not used.
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
"""JAX settings that also cache small programs."""
_LOG_LEVEL, _ABOVE_ERRORS = "TF_CPP_MIN_LOG_LEVEL", "3"
_quieted: list[bool] = []
"""Not empty once `quiet_xla` has taken effect."""


def quiet_xla() -> None:
    """Silence the spurious errors about CPU features that XLA logs for each cached program that it loads.

    The errors are about tuning hints, which are not features. XLA reads the log level when JAX is imported, so this
    function has no effect afterwards.
    """
    if "jaxlib" not in sys.modules:
        os.environ.setdefault(_LOG_LEVEL, _ABOVE_ERRORS)
        _quieted.append(True)


def set_environment() -> None:
    """Set the environment variables that JAX reads on import. Variables set by the user win.

    Without a safe folder, no programs are cached, and a line on standard error gives the reason.
    """
    chosen = os.environ.get(CACHE)
    if chosen == "" or (chosen and "://" in chosen):  # disabled, or not a local folder
        return
    folder = _safe_folder(chosen)
    if folder is None:
        os.environ.pop(CACHE, None)
    elif chosen is None:
        os.environ[CACHE] = folder
        for name, value in _EVERY_PROGRAM.items():
            os.environ.setdefault(name.upper(), str(value))


def keep_programs() -> list[str]:
    """Cache all programs compiled from now on, like the command line does, unless the user configured JAX's cache.

    Returns:
        A log line about why programs are not cached, if the user can change that.
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
    compilation_cache.reset_cache()  # JAX decides at its first compilation whether to cache programs
    return []


@contextmanager
def without_cache() -> Iterator[None]:
    """Disable the cache within the block, since JAX cannot load programs of devices that are not attached."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings: Any = jax.config
    before = settings.jax_enable_compilation_cache
    try:
        settings.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX decides only once whether it has a cache
        yield
    finally:
        settings.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _safe_folder(chosen: str | None) -> str | None:
    """Return the chosen or default folder, creating it if needed; `None` if it cannot be used safely."""
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
    """Describe how another user could have written to the folder or still could; `None` if no other user can."""
    # Check the parents of the given path, where a link may be replaced, and the parents of its target.
    for parent in {*list(folder.absolute().parents)[:-1], *list(folder.resolve().parents)[:-1]}:
        status = parent.stat()
        if status.st_uid not in (os.getuid(), 0) or status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"others may replace what is in {parent}; choose another folder with {CACHE}"
    status = os.lstat(folder)
    found = _unsafe(folder, status, stat.S_ISDIR(status.st_mode), private=False)
    private = not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    for entry in folder.rglob("*"):
        status = entry.lstat()
        ordinary = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        found = found or _unsafe(entry, status, ordinary, private=private)
    return found


def _unsafe(path: Path, status: os.stat_result, ordinary: bool, *, private: bool) -> str | None:
    """Describe why a folder or file is unsafe; `None` if it is safe.

    Args:
        path: The folder or file.
        status: The status, without following links.
        ordinary: Whether the path has the expected type.
        private: Whether the path is in a folder that only its owner can enter. With a umask of 002, JAX creates
            group-writable files.
    """
    writable = stat.S_IWOTH if private else stat.S_IWOTH | stat.S_IWGRP
    if not ordinary:
        return f"{path} is a symbolic link or a special file; remove it"
    if status.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user; remove it, or choose another folder with {CACHE}"
    if status.st_mode & writable:
        return f"others may write to {path}; remove it, or run chmod go-w {path} if you trust its content"
    return None
