"""Runs of several processes: how the command joins them, and how it ends if another process has ended."""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from slmrec_jax.errors import UserError

HEARTBEAT_SECONDS = 10
"""A process that is silent for so long has ended."""

JOIN_SECONDS = 120
"""How long processes wait for each other at the start."""

AUTO = "auto"

_joined: list[tuple[int, int]] = []
"""The index of this process and the number of processes, once they are joined."""


@dataclass(frozen=True)
class ClusterFlags:
    """The flags by which processes of one run find each other."""

    coordinator: str | None = None
    """Run as one of several processes: HOST:PORT of the first, where a port is free; or auto, what Slurm, Open MPI,
    Kubernetes or a Cloud TPU says."""
    num_processes: int | None = None
    """Their number."""
    process_id: int | None = None
    """The index of this one, from 0."""


def quiet_jaxlib(arguments: Sequence[str]) -> None:
    """Keep jaxlib from printing its stack when another process has ended, which is said in one line instead.

    It reads the level when it is imported, which for some flags is before they are parsed.
    """
    level = "TF_CPP_MIN_LOG_LEVEL"
    joins = any(argument.startswith("--coordinator") for argument in arguments)
    if joins and "jaxlib" not in sys.modules and os.environ.get(level, "3") == "3":
        os.environ[level] = "4"


def join_processes(flags: ClusterFlags) -> None:
    """Join the processes of a run, if the flags say that there are several. Nothing may have used JAX's devices before.

    Raises:
        UserError: The flags contradict each other, or the other processes do not come.
    """
    coordinator, num_processes, process_id = flags.coordinator, flags.num_processes, flags.process_id
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise UserError("--num-processes and --process-id need --coordinator: give HOST:PORT of the first process")
        return
    if coordinator != AUTO:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isascii() or not port.isdigit():
            raise UserError(f"--coordinator is {coordinator!r}: give HOST:PORT, such as localhost:1234, or auto")
        if num_processes is None or process_id is None:
            raise UserError("--coordinator HOST:PORT needs --num-processes and --process-id")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process-id is {process_id}: give 0 to {num_processes - 1}, below --num-processes")
    import jax

    try:
        jax.distributed.initialize(
            None if coordinator == AUTO else coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=JOIN_SECONDS,
        )
    except ValueError as error:
        raise UserError(
            f"--coordinator auto: nothing says which processes there are ({error}); give all three"
        ) from None
    except RuntimeError as error:
        raise UserError(
            f"process {process_id} cannot join the others at {coordinator} ({str(error).splitlines()[0]}): start all "
            f"{num_processes} within {JOIN_SECONDS} s, and check host, port and firewall"
        ) from None
    _joined.append((jax.process_index(), jax.process_count()))
    _end_in_one_line()
    from slmrec_jax import processes

    try:
        processes.wait_for_all()
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"it found the others at {coordinator}, but not their devices ({str(error).splitlines()[0]}): each host's "
            "name must lead the others to it, and no firewall may be between them"
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


def end_with(error: Exception) -> NoReturn:
    """End after an unexpected error. If another process has caused it by ending, JAX ends this one meanwhile."""
    if _joined:
        time.sleep(2 * HEARTBEAT_SECONDS)
        traceback.print_exception(error)
        print(f"slmrec-jax: {prefix()}{type(error).__name__}", file=sys.stderr)
        end_now(1)
    raise error


def _end_in_one_line() -> None:
    """Say in one line why JAX ends this process, which it does by SIGABRT when another one has ended."""
    line = (
        f"slmrec-jax: {prefix()}stopped, because another process has ended or cannot be reached; continue with "
        "--resume, with as many processes or fewer\n"
    ).encode()

    def say(number: int) -> None:
        os.write(sys.stderr.fileno(), line)
        os._exit(1)

    # Not by Python's `signal`: its handlers run in the main thread, and abort() does not wait for that.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(say)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _kept.append(handler)


_kept: list[object] = []
"""What C code may still call."""
