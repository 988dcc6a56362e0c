"""Processes that train one run together: how one joins the others, and how it ends if it fails or another has ended."""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from slmrec_jax.errors import Interrupted, UserError, setting

HEARTBEAT_SECONDS = 10
"""A process that is silent for this long is considered dead."""

JOIN_SECONDS = 120
"""How long processes wait for each other at the start."""

AUTO = "auto"
"""In place of an address: what the scheduler or the cloud says."""

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

_joined: list[tuple[int, int]] = []
"""The index of this process and the number of processes, once they are joined."""

_kept: list[object] = []
"""What C code may still call."""


@contextmanager
def joined(coordinator: str = AUTO, num_processes: int | None = None, process_id: int | None = None) -> Iterator[None]:
    """Be one of several processes within the block.

    An error in the block ends this process, so that the others do not wait for it: they end within `HEARTBEAT_SECONDS`
    or so. Nothing may have used JAX's devices before.

    Args:
        coordinator: `HOST:PORT` of the first process, where a port is free; or `auto`, what Slurm, Open MPI,
            Kubernetes or a Cloud TPU says.
        num_processes: The number of processes; `auto` knows it.
        process_id: The index of this one, from 0; `auto` knows it.

    Raises:
        UserError: The other processes do not come.
    """
    quiet_jaxlib()
    join(coordinator, num_processes, process_id)
    try:
        yield
    except Interrupted:  # in all of them
        raise
    except BaseException as error:
        end_with(error, wait=isinstance(error, Exception) and not isinstance(error, UserError))


def quiet_jaxlib() -> None:
    """Keep jaxlib from printing its stack when another process has ended, which is said in one line instead.

    It reads the level when it is imported.
    """
    if "jaxlib" not in sys.modules and os.environ.get(_LEVEL, "3") == "3":
        os.environ[_LEVEL] = "4"


def join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Join the other processes, as for `joined`.

    Raises:
        UserError: The other processes do not come.
    """
    import jax

    from slmrec_jax import processes

    place = "the others" if coordinator == AUTO else f"the others at {coordinator}"
    try:
        jax.distributed.initialize(
            None if coordinator == AUTO else coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=JOIN_SECONDS,
        )
    except ValueError as error:
        names = ", ".join(map(setting, ("coordinator", "num_processes", "process_id")))
        raise UserError(f"nothing says which processes there are ({error}): give {names}") from None
    except RuntimeError as error:
        raise UserError(
            f"this process cannot join {place} ({str(error).splitlines()[0]}): start all within {JOIN_SECONDS} s, and "
            "check host, port and firewall"
        ) from None
    _joined.append((jax.process_index(), jax.process_count()))
    _end_in_one_line()
    try:
        processes.wait_for_all()
    except (ValueError, RuntimeError) as error:  # of the transfers between devices, not of the coordinator
        raise UserError(
            f"it found {place}, but not their devices ({str(error).splitlines()[0]}): each host's name must lead the "
            "others to it, and no firewall may be between them"
        ) from None


def prefix() -> str:
    """Return what a line of this process begins with, if there are several."""
    return f"process {_joined[0][0]} of {_joined[0][1]}: " if _joined else ""


def reports() -> bool:
    """Return whether this process tells the user what all of them do."""
    return not _joined or _joined[0][0] == 0


def end_now(status: int) -> None:
    """End this process at once if it is one of several: the usual end of a program would wait for the others."""
    if _joined:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end_with(error: BaseException, *, wait: bool = True) -> NoReturn:
    """End after an error. If another process has caused it by ending, JAX ends this one in the time that it waits."""
    if _joined:
        if wait:
            time.sleep(1.5 * HEARTBEAT_SECONDS)
        traceback.print_exception(error)
        print(f"slmrec-jax: {prefix()}{type(error).__name__}", file=sys.stderr)
        end_now(1)
    raise error


def _end_in_one_line() -> None:
    """Say in one line why JAX ends this process, which it does by SIGABRT when another one has ended."""
    line = (
        f"slmrec-jax: {prefix()}stopped by JAX, most likely because another process has ended or cannot be reached; "
        f"the run can be resumed, with as many processes or others ({_LEVEL}=0 shows JAX's own words)\n"
    ).encode()

    def say(number: int) -> None:
        os.write(sys.stderr.fileno(), line)
        os._exit(1)

    # Not by Python's `signal`: its handlers run in the main thread, and abort() does not wait for that.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(say)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _kept.append(handler)
