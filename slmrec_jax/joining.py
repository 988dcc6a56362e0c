"""Join the processes that train one run, and end all of them if one fails."""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from slmrec_jax.errors import Interrupted, UserError, one_line, setting

HEARTBEAT_SECONDS = 10
"""The time in seconds after which a silent process is considered dead."""

JOIN_SECONDS = 120
"""The time in seconds that processes wait for each other at the start."""

AUTO = "auto"
"""Used instead of an address: take it from the scheduler or the cloud."""

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

_joined: list[tuple[int, int]] = []
"""The index of this process and the number of processes, once joined."""

_kept: list[object] = []
"""Objects that C code may still call."""


@contextmanager
def joined(coordinator: str = AUTO, num_processes: int | None = None, process_id: int | None = None) -> Iterator[None]:
    """Join several processes within the block.

    An error in the block ends this process, so that the others do not wait for it; they end within about
    `HEARTBEAT_SECONDS`. JAX's devices must not have been used before.

    Args:
        coordinator: `HOST:PORT` of the first process, with a free port; or `auto`, to ask Slurm, Open MPI, Kubernetes
            or a Cloud TPU.
        num_processes: The number of processes; not needed with `auto`.
        process_id: The index of this process, from 0; not needed with `auto`.

    Raises:
        UserError: The other processes do not come.
    """
    quiet_jaxlib()
    join(coordinator, num_processes, process_id)
    try:
        yield
    except Interrupted:  # raised in all processes
        raise
    except BaseException as error:
        end_with(error, wait=isinstance(error, Exception) and not isinstance(error, UserError))


def quiet_jaxlib() -> None:
    """Prevent jaxlib from printing its stack when another process ends; a single line reports it instead.

    jaxlib reads the log level when it is imported.
    """
    if "jaxlib" not in sys.modules and os.environ.get(_LEVEL, "3") == "3":
        os.environ[_LEVEL] = "4"


def join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Join the other processes; see `joined`.

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
        raise UserError(f"the processes of the run are unknown ({error}): give {names}") from None
    except RuntimeError as error:
        raise UserError(
            f"this process cannot join {place} ({one_line(error)}): start all within {JOIN_SECONDS} s, and "
            "check the host, port and firewall"
        ) from None
    _joined.append((jax.process_index(), jax.process_count()))
    _end_in_one_line()
    try:
        processes.wait_for_all()
    except (ValueError, RuntimeError) as error:  # errors of transfers between devices, not of the coordinator
        raise UserError(
            f"it found {place}, but not their devices ({one_line(error)}): each host's name must resolve "
            "on the others, and no firewall may separate them"
        ) from None


def prefix() -> str:
    """Return the prefix of this process's log lines; empty for a single process."""
    return f"process {_joined[0][0]} of {_joined[0][1]}: " if _joined else ""


def reports() -> bool:
    """Return whether this process reports to the user on behalf of all."""
    return not _joined or _joined[0][0] == 0


def end_now(status: int) -> None:
    """Exit at once if this is one of several processes, since a normal exit would wait for the others."""
    if _joined:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end_with(error: BaseException, *, wait: bool = True) -> NoReturn:
    """Exit after an error. If another process caused it by ending, JAX ends this process during the wait."""
    if _joined:
        if wait:
            time.sleep(1.5 * HEARTBEAT_SECONDS)
        traceback.print_exception(error)
        print(f"slmrec-jax: {prefix()}{type(error).__name__}", file=sys.stderr)
        end_now(1)
    raise error


def _end_in_one_line() -> None:
    """Report in one line that JAX ends this process, which it does with SIGABRT when another process has ended."""
    line = (
        f"slmrec-jax: {prefix()}stopped by JAX, most likely because another process has ended or cannot be reached; "
        f"the run can be resumed, with any number of processes ({_LEVEL}=0 shows JAX's own message)\n"
    ).encode()

    def say(number: int) -> None:
        os.write(sys.stderr.fileno(), line)
        os._exit(1)

    # Python's `signal` is not used, since its handlers run in the main thread, and abort() does not wait for it.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(say)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _kept.append(handler)
