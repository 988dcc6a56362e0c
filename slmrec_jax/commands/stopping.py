"""Handle Ctrl-C and SIGTERM: the first ends a command with clean-up of temporary files, a second at once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from slmrec_jax.signals import on_first_stop


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block on Ctrl-C, and `SystemExit` on SIGTERM."""
    received: list[int] = []

    def stop(number: int) -> NoReturn:
        received.append(number)
        _end(number)

    try:
        with on_first_stop(stop):
            yield
    finally:
        if received:  # DuckDB turns an exception of `stop` in a query into a RuntimeError
            if received[0] == signal.SIGTERM:
                print("slmrec-jax: stopped", file=sys.stderr)
            _end(received[0])


def _end(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
