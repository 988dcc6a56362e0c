"""The progress display of a run: a bar on a terminal or in a notebook, plain lines elsewhere."""

import html
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slmrec_jax.errors import escaped
from slmrec_jax.training.events import Callback, Event

_BAR_COLUMNS = 12


@contextmanager
def telling(progress: bool | None, epochs: int, callbacks: Sequence[Callback]) -> Iterator[Callback]:
    """Yield a function that passes each event to a display and to the callbacks.

    Args:
        progress: Whether to show a display; by default only on a terminal or in a notebook.
        epochs: The maximum number of epochs.
        callbacks: Functions that receive each event after the display, in this order.
    """
    if progress is None:
        progress = sys.stderr.isatty() or _in_notebook()
    if not progress:
        yield lambda event: _pass_on(event, callbacks)
        return
    with display(epochs) as show:
        yield lambda event: _pass_on(event, (show, *callbacks))


@contextmanager
def display(epochs: int) -> Iterator[Callback]:
    """Yield a function that shows events on standard error, or below the cell of a notebook.

    It may be used for several runs, one after another, each of at most `epochs` epochs.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if _in_notebook():
        yield _notebook_bar(epochs)
    elif console.is_terminal:
        with _terminal_bar(console, epochs) as show:
            yield _unless_refused(show)
    else:
        yield _unless_refused(lambda event: console.print(escaped(event.text), markup=False))


def short_line(event: Event) -> str:
    """Format an epoch's loss and selecting metric, with a star if the epoch is the best so far."""
    loss = f"loss {event.values['loss/loss']:.4f}"
    if event.metric is None:
        return loss
    name = event.metric.partition("/")[2]
    return f"{loss}  {name} {event.values[event.metric]:.4f}{'*' if event.improved else ' '}"


def _pass_on(event: Event, callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        try:
            callback(event)
        except OSError as error:  # do not mistake it for an error of the run's own files
            raise RuntimeError(f"the callback {callback!r} failed: {error}") from error


@contextmanager
def _terminal_bar(console: Console, epochs: int) -> Iterator[Callback]:
    columns = TextColumn("epoch"), MofNCompleteColumn(), BarColumn(_BAR_COLUMNS), TextColumn("{task.fields[text]}")
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(compact=True), console=console) as bar:
        task, shown = bar.add_task("", total=epochs, text="compiling"), 0

        def show(event: Event) -> None:
            nonlocal shown
            if event.kind != "epoch":
                bar.console.print(escaped(event.text), markup=False, soft_wrap=False)
                return
            if event.epoch != shown + 1:  # another run or a resumed one, whose speed is not known yet
                bar.reset(task, completed=event.epoch - 1)
            shown = event.epoch
            bar.update(task, completed=shown, text=short_line(event))

        yield show


def _notebook_bar(epochs: int) -> Callback:
    """Return a display below the current cell that needs no widgets."""
    from IPython.display import HTML
    from IPython.display import display as show_in_cell

    begun, first = time.monotonic(), 0

    def page(done: int, text: str) -> Any:
        nonlocal begun, first
        if not first and done:  # the time before the first epoch includes compilation
            begun, first = time.monotonic(), done
        seconds = time.monotonic() - begun
        left = f", {seconds / (done - first) * (epochs - done):.0f} s left" if done > first else ""
        bar = f'<progress value="{done}" max="{epochs}"></progress>'
        return HTML(f"epoch {done}/{epochs} {bar} {html.escape(text)} ({seconds:.0f} s{left})")

    handle = show_in_cell(page(0, "compiling"), display_id=True)

    def show(event: Event) -> None:
        if event.kind == "epoch":
            handle.update(page(event.epoch, short_line(event)))
        else:
            print(escaped(event.text))

    return show


def _in_notebook() -> bool:
    """Return True in a notebook kernel. IPython on a terminal has no kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _unless_refused(show: Callback) -> Callback:
    """Return a function that ignores errors of writing to standard error, so that a full disk does not end training."""

    def shown(event: Event) -> None:
        with suppress(OSError):
            show(event)

    return shown
