"""Where a run stands, and how it gets there from a checkpoint and into one."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError
from slmrec_jax.training.loop import Progress
from slmrec_jax.training.progress import Listener
from slmrec_jax.training.selection import best_epoch
from slmrec_jax.training.steps import Steps
from slmrec_jax.training.storage import checkpoint as checkpoints
from slmrec_jax.training.storage.checkpoint import Checkpoint, Place, Tally
from slmrec_jax.training.storage.folder import CHECKPOINTS, Record, read_history
from slmrec_jax.training.storage.saver import Saver
from slmrec_jax.types import Embeddings


class Session(NamedTuple):
    """What stays the same while a run trains."""

    config: Config
    dataset: Dataset
    """Whose ids stand in messages."""
    folder: Path
    steps: Steps
    saver: Saver
    report: Listener


class At(NamedTuple):
    """Where training stands."""

    step: int
    """How many were done since the start."""
    progress: Progress
    history: tuple[Record, ...]
    tally: Tally = Tally()
    ranked: Embeddings | None = None
    """Those before an epoch's last step, where the protocol evaluates these."""
    base: "At | None" = None
    """Where a step was left out, in a copy: later ones are looked for from here, until the epoch ends."""


def place_of(session: Session, step: int) -> Place:
    """The epochs that so many steps make, and the steps beyond."""
    return Place(*divmod(step, session.steps.per_epoch))


def scheduled(session: Session, place: Place) -> Place:
    """The last place, up to this one, where a checkpoint is due."""
    every = session.config.checkpoint_every_steps
    return Place(place.epochs, place.steps - place.steps % every if every else 0)


def save(session: Session, at: At, embeddings: Embeddings | None = None) -> None:
    """Hands a checkpoint to the saver; the best epoch's, and the last scheduled one, stay beside it."""
    place = place_of(session, at.step)
    needed = frozenset({scheduled(session, place), Place(best_epoch(at.history))})
    session.saver.save(Checkpoint(place, at.progress, at.tally, embeddings), at.history, needed)


def restored(session: Session, *, only_scheduled: bool = False) -> At:
    """The newest checkpoint that is whole, as is that of the best epoch before it; the start where there is none.

    Args:
        session: of the run.
        only_scheduled: leaves out those that were made because a signal asked to stop.

    Raises:
        UserError: there are checkpoints, but none can be used.
    """
    folder, steps = session.folder / CHECKPOINTS, session.steps

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
    found = checkpoints.restore_newest(folder, candidates, steps.shapes, session.report.say, objection)
    if found is None:
        return At(0, steps.init(), ())
    step = found.place.epochs * steps.per_epoch + found.place.steps
    return At(step, found.progress, tuple(read_history(session.folder, found.place.epochs)), found.tally)
