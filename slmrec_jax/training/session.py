"""A run's position in training, and how it is saved and restored."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slmrec_jax import processes
from slmrec_jax.errors import UserError
from slmrec_jax.training.events import Callback, message
from slmrec_jax.training.loop import Progress
from slmrec_jax.training.selection import best_epoch
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage import checkpoint as checkpoints
from slmrec_jax.training.storage.checkpoint import Checkpoint, Place, Tally
from slmrec_jax.training.storage.folder import CHECKPOINTS, Record, read_history
from slmrec_jax.training.storage.saver import Saver
from slmrec_jax.types import Embeddings


class Session(NamedTuple):
    """The parts of a run that stay constant while it trains."""

    setup: Setup
    """The setup, with compiled programs."""
    folder: Path
    saver: Saver
    tell: Callback


class Position(NamedTuple):
    """A point in training."""

    step: int
    """The number of steps taken so far."""
    progress: Progress
    history: tuple[Record, ...]
    tally: Tally = Tally()
    base: "Position | None" = None
    """After a step was skipped and until the epoch ends, a copy of the position right after it. The search for the next
    non-finite step starts here."""


def take_steps(session: Session, progress: Progress, step: int, stop: int, rollbacks: int) -> Progress:
    """Take the steps from `step`, where `progress` is, to `stop`, within one epoch and one pass.

    The buffers of `progress` are donated.
    """
    loop, inputs = session.setup.loop, session.setup.inputs
    drawn, keys = session.setup.draw(step // loop.steps_per_pass, rollbacks)
    return loop.run(progress, drawn, inputs, keys, np.int32(stop - step))


def place_of(session: Session, step: int) -> Place:
    """Convert a number of steps into whole epochs and remaining steps."""
    return Place(*divmod(step, session.setup.loop.steps_per_epoch))


def scheduled(session: Session, place: Place) -> Place:
    """Return the last place, at or before this one, where a checkpoint is due."""
    every = session.setup.config.checkpoint_every_steps
    return Place(place.epochs, place.steps - place.steps % every if every else 0)


def save(session: Session, position: Position, embeddings: Embeddings | None = None) -> None:
    """Hand a checkpoint to the saver, which also keeps those of the best epoch and the last scheduled place."""
    place = place_of(session, position.step)
    needed = frozenset({scheduled(session, place), Place(best_epoch(position.history))})
    session.saver.save(Checkpoint(place, position.progress, position.tally, embeddings), position.history, needed)


def start(session: Session) -> Position:
    """Return the position before the first step."""
    setup = session.setup
    return Position(0, setup.loop.init(setup.keys()), ())


def restored(session: Session, *, only_scheduled: bool = False) -> Position:
    """Restore the newest usable checkpoint; without checkpoints, return the start.

    A checkpoint is usable if it is intact and the checkpoint of the best epoch up to it is intact too.

    Args:
        session: The session of the run.
        only_scheduled: Whether to ignore checkpoints that were made because a signal requested a stop.

    Raises:
        UserError: Checkpoints exist, but none is usable.
    """
    folder, loop = session.folder / CHECKPOINTS, session.setup.loop

    def objection(place: Place) -> str | None:
        try:
            best = Place(best_epoch(read_history(session.folder, place.epochs)))
        except UserError as error:
            return str(error)
        wrong = None if best in (Place(0), place) else checkpoints.damage(folder, best)
        return wrong and f"that of the best epoch up to it, {best}: {wrong}"

    candidates: Sequence[Place] = [
        place for place in checkpoints.places(folder) if not only_scheduled or place == scheduled(session, place)
    ]

    def say(text: str) -> None:
        session.tell(message(text))

    chosen = processes.in_first(lambda: checkpoints.newest_good(folder, candidates, say, objection))
    place = processes.agreed(chosen)
    if place is None:
        return start(session)
    found = checkpoints.restore(folder, Place(*place), loop.shapes())
    step = found.place.epochs * loop.steps_per_epoch + found.place.steps
    return Position(step, found.progress, tuple(read_history(session.folder, found.place.epochs)), found.tally)
