"""The first signal asks for a stop, the second has its usual effect, and ignored signals stay ignored."""

import os
import signal
import threading

import pytest

from slmrec_jax.commands import launch
from slmrec_jax.commands.launch import LaunchFlags, run_launch
from slmrec_jax.commands.stopping import ending_on_signals
from slmrec_jax.signals import stop_requests

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def handlers():
    """Return a function that installs handlers until the test ends, by default those of a foreground program."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    yield lambda handler: [signal.signal(number, handler) for number in SIGNALS]
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_stops_at_once():
    with stop_requests() as asked:
        assert asked() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("handlers")
def test_handlers_last_as_long_as_the_block():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_requests():
        assert [signal.getsignal(number) for number in SIGNALS[:2]] != before[:2]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_ignored_signals_stay_ignored(handlers, monkeypatch):
    handlers(signal.SIG_IGN)
    with stop_requests() as asked, ending_on_signals():
        for number in SIGNALS:
            os.kill(os.getpid(), number)
        assert asked() is None
    monkeypatch.setattr(launch, "_start", lambda *_: None)
    monkeypatch.setattr(launch, "_status", lambda started: [os.kill(os.getpid(), number) for number in SIGNALS] and 0)
    with pytest.raises(SystemExit):
        run_launch(LaunchFlags(1, ("train",)))
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * 3


def test_outside_of_the_main_thread_no_handler_is_installed():
    found = []

    def look():
        before = signal.getsignal(signal.SIGTERM)
        with stop_requests() as asked, ending_on_signals():
            found.append((asked(), signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [(None, True)]
