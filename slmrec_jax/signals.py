"""Handle signals. One that is ignored stays ignored, such as those of `nohup` or of a shell's background jobs."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def heeded(*numbers: int) -> list[int]:
    """Return the signals that a handler may be installed for."""
    # `None` is a handler that was not installed from Python and cannot be restored.
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@contextmanager
def on_first_stop(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with the number of the first SIGINT (Ctrl-C) or SIGTERM within the block.

    Signals after it, of either kind, have the effect that they had before the block, so a second one stops at once.
    Outside of the main thread, where Python allows no handlers, nothing is changed.
    """
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        act(number)

    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.getsignal(number) for number in heeded(signal.SIGINT, signal.SIGTERM)}
    try:
        for number in previous:
            signal.signal(number, handle)
        yield
    finally:
        restore()


@contextmanager
def stop_requests() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the number of the signal that requested a stop, or `None`."""
    received: list[int] = []
    with on_first_stop(received.append):
        yield lambda: received[0] if received else None
