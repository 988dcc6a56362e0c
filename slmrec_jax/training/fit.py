"""From a method and its inputs to its best epoch: validation, early stopping, checkpoints, resumption, recovery."""

import statistics
import time
from pathlib import Path
from typing import NamedTuple

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import Diverged
from slmrec_jax.evaluation.protocol import EvaluationPlan, evaluate
from slmrec_jax.training.events import open_events
from slmrec_jax.training.memory import give_back
from slmrec_jax.training.progress import Listener
from slmrec_jax.training.recovery import advice, all_finite, finite_terms, recover
from slmrec_jax.training.selection import best_epoch, finished, improves
from slmrec_jax.training.session import At, Session, place_of, restored, save, scheduled
from slmrec_jax.training.signals import Interrupted, stop_requests
from slmrec_jax.training.steps import Steps
from slmrec_jax.training.storage.checkpoint import Tally
from slmrec_jax.training.storage.folder import EVENTS, RESULT, Record
from slmrec_jax.training.storage.saver import open_saver
from slmrec_jax.types import Embeddings

SEGMENT_SECONDS = 1.0
"""About how long a signal waits for the steps under way."""


class Fitted(NamedTuple):
    """What training leaves besides its checkpoints."""

    history: list[Record]
    best_epoch: int
    step_ms: float
    """Median over the epochs of training time by step."""
    tally: Tally


def fit(
    steps: Steps,
    plan: EvaluationPlan,
    config: Config,
    dataset: Dataset,
    folder: Path,
    report: Listener,
    *,
    resume: bool,
) -> Fitted:
    """Trains until the protocol's early stopping or the config's last epoch.

    Args:
        steps: what trains.
        plan: the evaluation that selects.
        config: of the run.
        dataset: whose ids stand in messages.
        folder: of the run, held by this process; records and checkpoints come there.
        report: where progress goes.
        resume: goes on from the newest checkpoint, to the same bits as if there had been no break.

    Raises:
        UserError: training is no longer finite (`Diverged`), nothing can be resumed, or the end could not be saved.
        Interrupted: a signal asked to stop; the segment at hand was finished and saved.
    """
    with (
        open_saver(folder, report.say) as saver,
        open_events(folder / EVENTS, report.say) as add_events,
        stop_requests() as stop_requested,
    ):
        session = Session(config, dataset, folder, steps, saver, report)
        at, length = _resumed(session) if resume else At(0, steps.init(), ()), 1
        if _going_on(session, at):  # a result of fewer epochs would name checkpoints that will be deleted
            (folder / RESULT).unlink(missing_ok=True)
        while _going_on(session, at):
            at, length = _segment(session, at, length)
            place = place_of(session, at.step)
            saving = place == scheduled(session, place) or stop_requested() is not None
            if not finite_terms(at.progress.means.values) or (saving and not all_finite(at.progress.state)):
                at, saving = recover(session, at), False
            if at.step == (len(at.history) + 1) * steps.per_epoch:
                at, embeddings = _evaluated(session, at, plan)
                save(session, at, embeddings)
                add_events(len(at.history), _scalars(at.history[-1]))
                report.epoch(at.history[-1])
                saving = True
            elif saving:
                save(session, at)
            asked = stop_requested()  # once more, since an evaluation takes its time
            if asked is not None and saving and _going_on(session, at):
                saver.finish()
                raise Interrupted(asked, folder)
        saver.finish()
    step_ms = statistics.median(1e3 * record["train_seconds"] / steps.per_epoch for record in at.history)
    return Fitted(list(at.history), best_epoch(at.history), step_ms, at.tally)


def _resumed(session: Session) -> At:
    at = restored(session)
    place = place_of(session, at.step)
    session.saver.rewind(place, at.history)
    session.report.say(f"resumed after {place.words()}")
    return at


def _going_on(session: Session, at: At) -> bool:
    return len(at.history) < session.config.epochs and not finished(at.history, session.config.eval)


def _segment(session: Session, at: At, length: int) -> tuple[At, int]:
    """Takes at most so many steps, fewer up to where something is due; and how many the next segment may have."""
    steps, every, stale = session.steps, session.config.checkpoint_every_steps, session.config.eval.stale_embeddings
    epoch, within = place_of(session, at.step)
    end = (epoch + 1) * steps.per_epoch
    due = at.step - within % every + every if every else end
    # An epoch's last step stands alone where the embeddings before it are wanted: no other step pays for a copy.
    before_last = end - 1 if stale and at.step < end - 1 else end
    stop = min(at.step + length, due, before_last)
    start = time.perf_counter()
    ranked = steps.embed(at.progress.state) if stale and at.step == end - 1 else None
    progress = steps.run(at.progress, at.step, stop, at.tally.rollbacks)
    int(progress.means.rows)  # which waits for it
    seconds = time.perf_counter() - start
    tally = at.tally._replace(seconds=at.tally.seconds + seconds)
    after = at._replace(step=stop, progress=progress, tally=tally, ranked=ranked)
    return after, max(1, int(SEGMENT_SECONDS * (stop - at.step) / seconds))


def _evaluated(session: Session, at: At, plan: EvaluationPlan) -> tuple[At, Embeddings]:
    """The end of an epoch with its record, and what it ranked with."""
    number, protocol, start = len(at.history) + 1, session.config.eval, time.perf_counter()
    embeddings = session.steps.embed(at.progress.state) if at.ranked is None else at.ranked
    if not int(at.progress.means.rows) or not all_finite(embeddings):
        raise Diverged(
            f"epoch {number} leaves nothing that ranks: all its steps were left out, or its embeddings are not "
            f"finite; {advice()}"
        )
    due = (number - 1) % protocol.evaluate_every == 0
    values = evaluate(plan, embeddings).means if due else {}
    if due:
        give_back()  # what ranking took
    selected = {protocol.metric: values[protocol.metric]} if due and protocol.metric else {}
    record: Record = {
        "epoch": number,
        "losses": {name: float(value) for name, value in at.progress.means.values.items()},
        "split": protocol.split,
        "selected": selected,
        "metrics": values,
        "improved": improves(at.history, number, selected, protocol),
        "train_seconds": at.tally.seconds,
        "evaluate_seconds": time.perf_counter() - start,
    }
    tally = at.tally._replace(seconds=0.0)
    return at._replace(history=(*at.history, record), tally=tally, ranked=None, base=None), embeddings


def _scalars(record: Record) -> dict[str, float]:
    losses = {f"loss/{name}": value for name, value in record["losses"].items()}
    return losses | {f"{record['split']}/{name}": value for name, value in record["metrics"].items()}
