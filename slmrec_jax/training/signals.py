"""Handling of Ctrl-C and SIGTERM: the first one stops a run after the current steps, a second one at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the number of the signal that requested a stop, or `None`."""
    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers elsewhere
        yield lambda: None
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()  # so that a second signal, of either kind, stops at once

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()
