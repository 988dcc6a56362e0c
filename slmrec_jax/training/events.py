"""TensorBoard's events of a run, written where training stands: no thread of its own that a full disk could block."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """A module that is not loaded yet cannot be imported within the block."""
    loaded = module in sys.modules
    if not loaded:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if not loaded:
            del sys.modules[module]


# tensorboardX takes PyTorch along where it is there: seconds and 200 MiB, for nothing that is written here.
with _hidden("torch"):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

FLUSH_SECONDS = 5.0
"""The least time between two flushes."""

AddScalars = Callable[[int, Mapping[str, float]], None]
"""`(step, values by name)`."""


@contextmanager
def open_events(folder: Path, say: Callable[[str], None]) -> Iterator[AddScalars]:
    """Open a new file of events. One that cannot be written is reported once, then disabled.

    Args:
        folder: where; it is made where there is none.
        say: told if the disk refuses.
    """
    writers: list[EventsWriter] = []
    due = [0.0]

    def given_up(error: OSError) -> None:
        writers.clear()
        say(f"WARNING: no more TensorBoard events can be written to {folder} ({error.strerror}); the run goes on")

    def add(step: int, values: Mapping[str, float]) -> None:
        try:
            for writer in writers:
                for name, value in values.items():
                    summary = scalar(name, value)
                    writer.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
                if time.monotonic() > due[0]:  # each flush waits for the disk
                    writer.flush()
                    due[0] = time.monotonic() + FLUSH_SECONDS
        except OSError as error:
            given_up(error)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        writers.append(EventsWriter(str(folder / "events")))
    except OSError as error:
        given_up(error)
    try:
        yield add
    finally:
        try:
            for writer in writers:
                writer.close()
        except OSError as error:
            given_up(error)
