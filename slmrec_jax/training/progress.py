"""The display of a run: a live line on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slmrec_jax.errors import escaped
from slmrec_jax.training.storage.folder import Record


class Listener(NamedTuple):
    """Functions that receive a run's messages and its epochs."""

    say: Callable[[str], None]
    epoch: Callable[[Record], None]


SILENT = Listener(lambda line: None, lambda record: None)


@contextmanager
def console_report(epochs: int) -> Iterator[Listener]:
    """Report to standard error; `epochs` is the most that will be trained."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield Listener(
            _unless_refused(lambda line: console.print(escaped(line), markup=False)),
            _unless_refused(lambda record: console.print(epoch_line(record))),
        )
        return
    columns = TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=console) as progress:
        task = progress.add_task("", total=epochs, text="compiling")
        yield Listener(
            _unless_refused(lambda line: progress.console.print(escaped(line), markup=False)),
            _unless_refused(lambda record: progress.update(task, completed=record["epoch"], text=epoch_line(record))),
        )


def epoch_line(record: Record) -> str:
    """Return an epoch as one line: losses, the metric that selects (starred if it is the best so far), seconds."""
    losses = "  ".join(f"{name} {value:.4f}" for name, value in record["losses"].items() if "/" not in name)
    metrics = "".join(f"  {record['split']} {name} {value:.4f}" for name, value in record["selected"].items())
    best = " *" if record["improved"] else ""
    return f"epoch {record['epoch']:>4}  {losses}{metrics}{best}  {record['train_seconds']:.2f} s"


def _unless_refused(tell: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a function that ignores what standard error refuses: a full disk behind it does not end training."""

    def told(words: Any) -> None:
        with suppress(OSError):
            tell(words)

    return told
