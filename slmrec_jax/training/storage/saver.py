"""Checkpoints and records written in the background, whatever the disk says meanwhile.

Training never waits for the disk: of what comes while a checkpoint is written, the newest is written next, and what
must be kept. What the disk refuses is said, kept in memory and tried again with the next one.

Writing takes processors from the steps beside it, a tenth of an epoch that lasts half a second. So the writer rests
after it has written what there is, in proportion: an epoch that lasts longer than twenty checkpoints is on disk before
the next one ends.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.storage import checkpoint as checkpoints
from slmrec_jax.training.storage.checkpoint import Checkpoint, Place
from slmrec_jax.training.storage.folder import CHECKPOINTS, Record, append_records, write_history

KEPT = 2
"""How many of the newest checkpoints stay, so that there is one to go back to; more are kept where they are needed."""

REST = 19.0
"""How long the writer rests, in times that it wrote or was refused: it is at work for a twentieth of the time at most.
What a process had not written when it is killed, it trains again: on TikTok, what it did in about three seconds."""

MOST_REST = 30.0
"""Seconds: a disk that hangs for once is no reason to wait for minutes."""


class Saver(NamedTuple):
    """Puts a run on disk."""

    save: Callable[[Checkpoint, Sequence[Record], frozenset[Place]], None]
    """`(checkpoint, history, needed)`: takes copies and returns. The epochs' records are on disk before the
    checkpoint; those of `needed` stay beside it."""
    wait: Callable[[], None]
    """Waits until nothing is under way, without rests."""
    finish: Callable[[], None]
    """Waits until all is on disk that must be; a `UserError` says that it cannot."""
    rewind: Callable[[Place, Sequence[Record]], None]
    """`(place, history)`: deletes what is later than a place, to go on from there."""


@contextmanager
def open_saver(folder: Path, say: Callable[[str], None]) -> Iterator[Saver]:
    """Writes to a run's folder while the block runs; on leaving, nothing is under way.

    Args:
        folder: of the run, held by this process.
        say: told what the disk refuses.
    """
    place_of_all = folder / CHECKPOINTS
    guard = Lock()
    owed: dict[Place, tuple[Checkpoint, Sequence[Record]]] = {}
    needed: frozenset[Place] = frozenset()
    jobs: list[Future[None]] = []
    hurry = Event()
    recorded: int | None = None  # how many lines are known to be on disk and whole

    def save(checkpoint: Checkpoint, history: Sequence[Record], needed_now: frozenset[Place]) -> None:
        nonlocal needed
        with guard:
            needed = needed_now | {checkpoint.place}
            for place in owed.keys() - needed:
                del owed[place]
        # The next steps take the buffers over while these are written.
        copies = checkpoint._replace(progress=jax.tree.map(jnp.copy, checkpoint.progress))
        with guard:
            owed[checkpoint.place] = copies, tuple(history)
        submit()

    def submit() -> None:
        for job in [job for job in jobs if job.done()]:
            jobs.remove(job)
            job.result()
        if len(jobs) < 2:  # the second has not begun, and will see what is owed now
            jobs.append(executor.submit(write_owed))

    def write_owed() -> None:
        """Until nothing is owed, or the disk refuses something."""
        accepted = True
        while accepted and owed and not stopped:
            start = time.perf_counter()
            with guard:
                places = sorted(owed)
            accepted = all(written(place) for place in places)
            hurry.wait(min(MOST_REST, REST * (time.perf_counter() - start)))

    def written(place: Place) -> bool:
        """Whether a checkpoint is on disk, or no longer wanted there."""
        with guard:
            if place not in owed or stopped:
                return True
            checkpoint, history = owed[place]
        try:
            record(history)
            checkpoints.write(place_of_all, checkpoint)
        except OSError as error:
            say(
                f"WARNING: the checkpoint of {place.words()} could not be saved ({error.strerror or error}); the "
                f"run goes on, and tries again with the next one"
            )
            return False
        with guard:
            owed.pop(place, None)
        try:
            retire()
        except OSError as error:
            say(f"WARNING: old checkpoints in {place_of_all} could not be deleted ({error.strerror or error})")
        return True

    def record(history: Sequence[Record]) -> None:
        nonlocal recorded
        known, recorded = recorded, None
        if known is None:
            write_history(folder, history)
        elif known < len(history):
            append_records(folder, history[known:])
        recorded = max(known or 0, len(history))

    def retire() -> None:
        there = checkpoints.places(place_of_all)
        with guard:
            kept = needed | set(there[-KEPT:])
        checkpoints.remove(place_of_all, [place for place in there if place not in kept])

    def wait() -> None:
        hurry.set()
        while jobs:
            jobs.pop(0).result()
        hurry.clear()

    def finish() -> None:
        wait()
        if owed:
            submit()
            wait()
        if owed:
            there = checkpoints.places(place_of_all)
            last = f"the last checkpoint is of {there[-1].words()}" if there else "there is no checkpoint"
            raise UserError(
                f"{place_of_all}: the checkpoint of {max(owed).words()} could not be saved; {last}: fix what the "
                f"warnings name, then go on with {setting('resume', True)}"
            )

    def rewind(place: Place, history: Sequence[Record]) -> None:
        nonlocal recorded
        wait()
        owed.clear()
        later = [each for each in checkpoints.places(place_of_all) if each > place]
        checkpoints.remove(place_of_all, later)
        recorded = None
        record(history)

    executor, stopped = ThreadPoolExecutor(1, "saver"), False
    try:
        yield Saver(save, wait, finish, rewind)
    except KeyboardInterrupt:
        stopped = True
        raise
    finally:
        hurry.set()
        executor.shutdown(wait=True, cancel_futures=stopped)
