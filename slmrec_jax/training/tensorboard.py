"""TensorBoard events of a run, written by the training thread, so that a full disk cannot block another thread."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slmrec_jax.training.events import Callback, Event


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Prevent the import of a module within the block, if it is not loaded yet."""
    loaded = module in sys.modules
    if not loaded:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if not loaded:
            del sys.modules[module]


# tensorboardX imports PyTorch if it is installed, which costs seconds and 200 MiB and is not needed here.
with _hidden("torch"):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

FLUSH_SECONDS = 5.0
"""The minimum time between two flushes, since each one waits for the disk."""


@contextmanager
def open_tensorboard(folder: Path, say: Callable[[str], None]) -> Iterator[Callback]:
    """Open a new event file in a folder, creating the folder if needed, and yield a function that writes epochs to it.

    If the file cannot be written, `say` receives one warning and writing is disabled.
    """
    writer: EventsWriter | None = None
    due = 0.0

    @contextmanager
    def given_up_if_refused() -> Iterator[None]:
        nonlocal writer
        try:
            yield
        except OSError as error:
            writer = None
            say(f"WARNING: no more TensorBoard events can be written to {folder} ({error.strerror}); the run goes on")

    def write(event: Event) -> None:
        nonlocal due
        if writer is None or event.kind != "epoch":
            return
        with given_up_if_refused():
            for name, value in event.values.items():
                summary = scalar(name, value)
                writer.write_event(event_pb2.Event(wall_time=time.time(), step=event.epoch, summary=summary))
            if time.monotonic() > due:
                writer.flush()
                due = time.monotonic() + FLUSH_SECONDS

    with given_up_if_refused():
        folder.mkdir(parents=True, exist_ok=True)
        writer = EventsWriter(str(folder / "events"))
    try:
        yield write
    finally:
        if writer is not None:
            with given_up_if_refused():
                writer.close()
