"""Handling of Ctrl-C and SIGTERM: the first ends a command with clean-up of temporary files, a second at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block on Ctrl-C, and `SystemExit` on SIGTERM."""
    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers elsewhere
        yield
        return
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        restore()
        _end(number)

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        restore()
        if received:  # DuckDB turns an exception of `stop` in a query into a RuntimeError
            if received[0] == signal.SIGTERM:
                print("slmrec-jax: stopped", file=sys.stderr)
            _end(received[0])


def _end(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
