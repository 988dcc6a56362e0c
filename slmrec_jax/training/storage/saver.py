"""Background writing of checkpoints and records. Disk errors do not end training.

If memory has room for copies, training does not wait for the disk. Of the checkpoints that arrive while one is being
written, only the newest and those that must be kept are written. A checkpoint that cannot be written is reported, kept
in memory, and retried with the next one.

Writing takes CPU time from training: a tenth of an epoch that lasts half a second. So the writer rests after each
round, in proportion to the round's duration. An epoch that takes as long as twenty checkpoints is on disk before the
next one ends.

Several processes write collectively, in their training threads, once the first process has rested. Without room for
copies, training waits while its own arrays are written. In both cases a disk error ends the run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock

import jax
import jax.numpy as jnp

from slmrec_jax import processes
from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.memory import trim_memory
from slmrec_jax.training.storage import checkpoint as checkpoints
from slmrec_jax.training.storage.checkpoint import Checkpoint, Place
from slmrec_jax.training.storage.folder import CHECKPOINTS, Record, append_records, write_history

KEPT = 2
"""The number of newest checkpoints kept in addition to needed ones, so that there is one to fall back to."""

REST = 19.0
"""The writer's rest as a multiple of its writing time, so that it is active at most a twentieth of the time. After a
kill, training repeats what had not been written: about three seconds on TikTok."""

MOST_REST = 30.0
"""The longest rest in seconds, so that one slow write does not delay the next by minutes."""


@contextmanager
def open_saver(folder: Path, say: Callable[[str], None], *, copies: bool = True) -> Iterator["Saver"]:
    """Yield a saver that writes in the background to a run's folder, which this process must hold.

    Leaving the block waits for all writing to end. Pending checkpoints are written first, except after Ctrl-C. `say`
    receives a line for each disk error. Without `copies`, each checkpoint is on disk when `save` returns.
    """
    saver, at_once = Saver(folder, say, copies=copies), False
    try:
        yield saver
    except KeyboardInterrupt:
        at_once = True
        raise
    finally:
        saver.close(at_once=at_once)


class Saver:
    """The writer of a run's checkpoints and records: a thread, or all processes of the run together."""

    def __init__(self, folder: Path, say: Callable[[str], None], *, copies: bool) -> None:
        self._folder, self._say, self._copies = folder, say, copies
        self._guard = Lock()
        self._owed: dict[Place, tuple[Checkpoint, Sequence[Record]]] = {}
        self._needed: frozenset[Place] = frozenset()
        self._jobs: list[Future[None]] = []
        self._hurry = Event()
        self._stopped = False
        self._recorded: int | None = None  # number of records known to be on disk; `None` if unknown
        self._together, self._rested = processes.count() > 1, 0.0
        self._executor = ThreadPoolExecutor(1, "saver")

    def save(self, checkpoint: Checkpoint, history: Sequence[Record], needed: frozenset[Place]) -> None:
        """Copy a checkpoint and its records and return before they are written; without copies, write them now.

        The records are on disk before the checkpoint is. The checkpoints in `needed` are kept as well.
        """
        with self._guard:
            self._needed = needed | {checkpoint.place}
            for place in self._owed.keys() - self._needed:
                del self._owed[place]
        # The next steps reuse the buffers while the copy is written.
        copied = checkpoint.progress if not self._copies else jax.tree.map(jnp.copy, checkpoint.progress)
        with self._guard:
            self._owed[checkpoint.place] = checkpoint._replace(progress=copied), tuple(history)
        if self._copies:
            self._submit()
        else:
            self._write_round()
            trim_memory()  # frees a tenth of what was written, which the next steps need

    def wait(self) -> None:
        """Wait until nothing is being written, skipping rests."""
        if self._together:
            self._write_round()
        self._hurry.set()
        while self._jobs:
            self._jobs.pop(0).result()
        self._hurry.clear()

    def finish(self) -> None:
        """Wait until all pending checkpoints are on disk; raise a `UserError` if one cannot be written."""
        self.wait()
        if self._owed:
            self._submit()
            self.wait()
        if self._owed:
            folder = self._folder / CHECKPOINTS
            there = checkpoints.places(folder)
            last = f"the last checkpoint is of {there[-1].words()}" if there else "there is no checkpoint"
            raise UserError(
                f"{folder}: the checkpoint of {max(self._owed).words()} could not be saved; {last}: fix the cause that "
                f"the warnings name, then continue with {setting('resume', True)}"
            )

    def rewind(self, place: Place, history: Sequence[Record]) -> None:
        """Delete the checkpoints and records after a place, so that training can continue from there."""
        self.wait()
        self._owed.clear()
        folder = self._folder / CHECKPOINTS

        def cut_off() -> None:
            checkpoints.remove(folder, [each for each in checkpoints.places(folder) if each > place])
            self._recorded = None
            self._record(history)

        processes.in_first(cut_off)

    def close(self, *, at_once: bool) -> None:
        """End the writer thread after it has written all pending checkpoints or, if `at_once`, only the current one."""
        self._stopped = at_once
        self._hurry.set()
        self._executor.shutdown(wait=True, cancel_futures=at_once)

    def _submit(self) -> None:
        if self._together:
            if processes.agreed(time.monotonic() >= self._rested):
                start = time.monotonic()
                self._write_round()
                self._rested = time.monotonic() + min(MOST_REST, REST * (time.monotonic() - start))
            return
        for job in [job for job in self._jobs if job.done()]:
            self._jobs.remove(job)
            job.result()
        if len(self._jobs) < 2:  # the second one has not begun, and will see this checkpoint
            self._jobs.append(self._executor.submit(self._write_owed))

    def _write_owed(self) -> None:
        """Write until nothing is pending or a write fails."""
        accepted = True
        while accepted and self._owed and not self._stopped:
            start = time.perf_counter()
            accepted = self._write_round()
            self._hurry.wait(min(MOST_REST, REST * (time.perf_counter() - start)))

    def _write_round(self) -> bool:
        """Write all checkpoints that are pending now; return whether that succeeded."""
        with self._guard:
            places = sorted(self._owed)
        return all(self._write(place) for place in places)

    def _write(self, place: Place) -> bool:
        """Write a checkpoint if it is still pending; return whether that succeeded."""
        with self._guard:
            if place not in self._owed or self._stopped:
                return True
            checkpoint, history = self._owed[place]
        folder = self._folder / CHECKPOINTS
        first = processes.is_first()
        try:
            if first:
                self._record(history)
            checkpoints.write_checkpoint(folder, checkpoint)
        except OSError as error:
            # Other processes are waiting in the middle of the write; without a copy, the next steps reuse the arrays.
            if self._together or not self._copies:
                raise
            self._say(
                f"WARNING: the checkpoint of {place.words()} could not be saved ({error.strerror or error}); the "
                f"run goes on, and tries again with the next one"
            )
            return False
        with self._guard:
            self._owed.pop(place, None)
        try:
            if first:
                self._retire(folder)
        except OSError as error:
            self._say(f"WARNING: old checkpoints in {folder} could not be deleted ({error.strerror or error})")
        return True

    def _record(self, history: Sequence[Record]) -> None:
        known, self._recorded = self._recorded, None  # unknown if the next lines fail
        if known is None:
            write_history(self._folder, history)
        elif known < len(history):
            append_records(self._folder, history[known:])
        self._recorded = max(known or 0, len(history))

    def _retire(self, folder: Path) -> None:
        there = checkpoints.places(folder)
        with self._guard:
            kept = self._needed | set(there[-KEPT:])
        checkpoints.remove(folder, [place for place in there if place not in kept])
