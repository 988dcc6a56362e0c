"""The command `slmrec-jax launch`, which starts several processes on this machine, to try out multi-process runs."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Annotated

import tyro

from slmrec_jax.errors import UserError
from slmrec_jax.signals import heeded

_PR_SET_PDEATHSIG = 1
"""The option PR_SET_PDEATHSIG of Linux's prctl(2)."""

GRACE_SECONDS = 5.0
"""The time in seconds that the other processes have to exit by themselves after one has failed."""

STOP_SECONDS = 60.0
"""The time in seconds that they have after one has stopped in an orderly way."""


@dataclass(frozen=True)
class LaunchFlags:
    """Run a command as several processes on this machine: launch -n 4 -- train --data demo."""

    num_processes: Annotated[int, tyro.conf.arg(aliases=["-n"])]
    """The number of processes."""
    command: tyro.conf.Positional[tuple[str, ...]]
    """After --: train and its flags."""


def run_launch(flags: LaunchFlags) -> None:
    """Start the processes, forward signals to them, and end all when one dies."""
    if flags.num_processes < 1:
        raise UserError(f"--num-processes is {flags.num_processes}: give at least 1")
    if flags.command[:1] != ("train",):
        raise UserError("launch runs train as several processes: launch -n 4 -- train --data demo")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    for number in heeded(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    for index in range(flags.num_processes):  # one by one, so that a signal in between reaches those already running
        process = _start(flags.command, address, index, flags.num_processes)
        started.append(process)
    raise SystemExit(_status(started))


def _start(command: Sequence[str], address: str, index: int, count: int) -> "subprocess.Popen[bytes]":
    joined = "--coordinator", address, "--num-processes", str(count), "--process-id", str(index)
    # One GPU per process. In its own session, a process gets Ctrl-C only from here, once.
    environment = os.environ | {"JAX_LOCAL_DEVICE_IDS": os.environ.get("JAX_LOCAL_DEVICE_IDS", str(index))}
    program = [sys.executable, "-m", "slmrec_jax", *command, *joined]
    return subprocess.Popen(  # noqa: S603 (the user's own command)
        program, env=environment, start_new_session=True, preexec_fn=_end_with_launcher
    )


def _end_with_launcher() -> None:
    """Let Linux stop this process in an orderly way when its parent ends, for whatever reason."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _status(started: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Wait for all processes or until one fails, which ends the others; return the exit status."""
    while True:
        statuses = [process.poll() for process in started]
        failed = next((index for index, status in enumerate(statuses) if status), None)
        if failed is not None:
            return _end(started, failed)
        if None not in statuses:
            return 0
        time.sleep(0.05)


def _end(started: Sequence["subprocess.Popen[bytes]"], failed: int) -> int:
    status = started[failed].returncode
    in_order = status > 128
    end = time.monotonic() + (STOP_SECONDS if in_order else GRACE_SECONDS)
    while time.monotonic() < end and any(process.poll() is None for process in started):
        time.sleep(0.05)
    for process in started:
        if process.poll() is None:
            process.kill()
    if status < 0:
        name = signal.Signals(-status).name
        print(
            f"slmrec-jax: process {failed} of {len(started)} was ended by {name}, so all were stopped", file=sys.stderr
        )
    return int(128 - status if status < 0 else status)
