"""Ctrl-C and SIGTERM ask a run to stop after the steps at hand; a second one stops it at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop, and has saved."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        """Remembers by which signal, and which run."""
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.folder = folder


@contextmanager
def stop_requests() -> Iterator[Callable[[], int | None]]:
    """Yields a function that tells which signal asked to stop, if any did."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in numbers:  # the second one means it, whichever it is
            signal.signal(each, previous[each])

    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():  # elsewhere Python allows no handlers
        yield lambda: None
        return
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number in numbers:
            signal.signal(number, previous[number])
