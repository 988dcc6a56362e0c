"""The training of a run: epochs, validation, early stopping, checkpoints, resuming and recovery."""

import time
from contextlib import nullcontext
from pathlib import Path

from slmrec_jax import processes
from slmrec_jax.errors import Diverged, Interrupted
from slmrec_jax.evaluation.protocol import EvaluationPlan, evaluate
from slmrec_jax.signals import stop_requests
from slmrec_jax.training.events import Callback, Event, epoch_event, message
from slmrec_jax.training.method_checks import check_step
from slmrec_jax.training.recovery import all_finite, finite_terms, recover, restart_advice
from slmrec_jax.training.selection import finished, make_record
from slmrec_jax.training.session import (
    Position,
    Session,
    place_of,
    restored,
    save,
    scheduled,
    start,
    take_steps,
)
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage.folder import EVENTS, RESULT
from slmrec_jax.training.storage.saver import open_saver
from slmrec_jax.training.tensorboard import open_tensorboard
from slmrec_jax.types import Embeddings

SEGMENT_SECONDS = 1.0
"""The approximate duration of one call of the compiled program, and so how long a signal waits for the current
steps."""


def fit(
    setup: Setup, plan: EvaluationPlan, folder: Path, tell: Callback, *, resume: bool, copies: bool = True
) -> Position:
    """Train until early stopping or the config's last epoch, and return the final position.

    Args:
        setup: The setup to train, with compiled programs.
        plan: The plan of the evaluation that selects the best epoch.
        folder: The run's folder, locked by this process; records and checkpoints are written to it.
        tell: Receives events.
        resume: Whether to continue from the newest checkpoint. The result is bitwise identical to an uninterrupted run.
        copies: Whether checkpoints are copied and written while training continues. Otherwise training waits for them.

    Raises:
        UserError: Training diverged (`Diverged`), no checkpoint can be resumed, or the last checkpoint could not be
            saved.
        Interrupted: A signal requested a stop. The current steps were finished and saved.
    """

    def say(text: str) -> None:
        tell(message(text))

    first = processes.is_first()
    with (
        open_saver(folder, say, copies=copies) as saver,
        open_tensorboard(folder / EVENTS, say) if first else nullcontext(_unwritten) as write_tensorboard,
        stop_requests() as received,
    ):

        def agreed_stop() -> int | None:
            return max(processes.gathered(received() or 0)) or None

        session = Session(setup, folder, saver, tell)
        position, length = _resumed(session) if resume else start(session), 1
        if first and _continues(session, position):  # a result for fewer epochs would name deleted checkpoints
            (folder / RESULT).unlink(missing_ok=True)
        while _continues(session, position):
            position, length = _segment(session, position, length)
            place = place_of(session, position.step)
            saving = place == scheduled(session, place) or agreed_stop() is not None
            means = position.progress.means.values
            if not finite_terms(means) or (saving and not all_finite(position.progress.state)):
                position, saving = recover(session, position), False
            if position.step == (len(position.history) + 1) * setup.loop.steps_per_epoch:
                position, embeddings = _evaluated(session, position, plan)
                save(session, position, embeddings)
                event = epoch_event(position.history[-1])
                write_tensorboard(event)
                tell(event)
                saving = True
            elif saving:
                save(session, position)
            asked = agreed_stop() if saving else None  # ask again, since an evaluation takes time
            if asked is not None and _continues(session, position):
                saver.finish()
                raise Interrupted(asked, folder)
        saver.finish()
    return position


def _unwritten(event: Event) -> None:
    """Ignore an event, in processes that write no TensorBoard file."""


def _resumed(session: Session) -> Position:
    position = restored(session)
    place = place_of(session, position.step)
    session.saver.rewind(place, position.history)
    session.tell(message(f"resumed after {place.words()}"))
    return position


def _continues(session: Session, position: Position) -> bool:
    config = session.setup.config
    return len(position.history) < config.epochs and not finished(position.history, config.eval)


def _segment(session: Session, position: Position, length: int) -> tuple[Position, int]:
    """Take at most `length` steps, stopping where a checkpoint or a new order is due; also return the next length."""
    loop, every, step = session.setup.loop, session.setup.config.checkpoint_every_steps, position.step
    within = step % loop.steps_per_epoch
    stop = min(step + length, loop.boundary(step))
    if every:
        stop = min(stop, step - within % every + every)  # the next checkpoint within the epoch
    start = time.perf_counter()
    progress = take_steps(session, position.progress, step, stop, position.tally.rollbacks)
    check_step(progress, stop)  # waits for the result
    seconds = time.perf_counter() - start
    tally = position.tally._replace(seconds=position.tally.seconds + seconds)
    after = position._replace(step=stop, progress=progress, tally=tally)
    return after, processes.agreed(max(1, int(SEGMENT_SECONDS * (stop - step) / seconds)))


def _evaluated(session: Session, position: Position, plan: EvaluationPlan) -> tuple[Position, Embeddings]:
    """Evaluate a finished epoch and return the position with its record, and the embeddings that were ranked."""
    number, start, means = len(position.history) + 1, time.perf_counter(), position.progress.means
    setup = session.setup
    embeddings = setup.embed(position.progress.state, setup.inputs)
    if not int(means.rows) or not all_finite(embeddings):
        session.saver.wait()
        skipped = f"all steps of epoch {number} were skipped, since none had a finite result"
        overflowed = f"the embeddings after epoch {number} are not finite, although its losses are"
        cause = overflowed if int(means.rows) else skipped
        raise processes.raised_by_all(Diverged(f"{cause}; {restart_advice()}"))
    record = make_record(
        position.history,
        setup.config.eval,
        {name: float(value) for name, value in means.values.items()},
        lambda: evaluate(plan, embeddings),
        position.tally.seconds,
        start,
    )
    tally = position.tally._replace(seconds=0.0)
    return position._replace(history=(*position.history, record), tally=tally, base=None), embeddings
