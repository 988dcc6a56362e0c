"""The command as a program of its own: what JAX reads from the environment is set before JAX is loaded."""

import os
import sys
from pathlib import Path

CACHE = "JAX_COMPILATION_CACHE_DIR"


def main() -> int:
    """Runs `slmrec-jax`; compiled programs are kept in the user's cache folder for the next run."""
    _keep_programs()
    from slmrec_jax.cli import main as command

    return command()


def _keep_programs() -> None:
    """Who has set these variables has decided otherwise; where there is no place to write, nothing is kept."""
    # XLA logs an error for each program it reads back, about tuning hints that are no features of the processor.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if CACHE in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slmrec_jax"
    try:
        # What lies here is run as it is, so nobody else may write to it.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return
    if folder.stat().st_uid != os.getuid() or not os.access(folder, os.W_OK):
        return
    os.environ[CACHE] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


if __name__ == "__main__":
    sys.exit(main())
