"""From a method and its inputs to its best epoch: validation, early stopping, checkpoints, resumption, recovery."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.protocol import EvaluationPlan, Protocol, evaluate
from slmrec_jax.training import checkpoint as checkpoints
from slmrec_jax.training.checkpoint import Checkpoint, Place, Tally
from slmrec_jax.training.events import open_events
from slmrec_jax.training.folder import CHECKPOINTS, EVENTS, NOT_FINITE, Record, read_history, write_json
from slmrec_jax.training.loop import Progress
from slmrec_jax.training.progress import Report
from slmrec_jax.training.recovery import NotFinite, all_finite, copied, finite_terms, first_not_finite, without_step
from slmrec_jax.training.saver import open_saver
from slmrec_jax.training.signals import Interrupted, stop_requests
from slmrec_jax.training.steps import SEGMENT_SECONDS, compile_steps
from slmrec_jax.types import Embeddings, Inputs, Method

MEND = "lower --optimizer.learning-rate or raise the temperature, or go on by --resume --on-nan skip"
"""What a person can do about divergence."""

SHOWN = 5
"""How many ids of a batch stand in a line."""

MAX_ROLLBACKS = 10
"""Training that diverges this often will not be saved by other draws."""


class Fitted(NamedTuple):
    """What training leaves besides its checkpoints."""

    history: list[Record]
    best_epoch: int
    compile_seconds: float
    step_ms: float
    """Median over the epochs of training time by step."""
    tally: Tally


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
    """Where the last step was left out, in a copy: later ones are looked for from here, until the epoch ends."""


def fit(
    method: Method,
    inputs: Inputs,
    plan: EvaluationPlan,
    config: Config,
    dataset: Dataset,
    folder: Path,
    report: Report,
    *,
    resume: bool,
) -> Fitted:
    """Trains until the protocol's early stopping or the config's last epoch.

    Args:
        method: what trains.
        inputs: as the method prepared them.
        plan: the evaluation that selects.
        config: of the run.
        dataset: whose ids stand in messages.
        folder: of the run, held by this process; records and checkpoints come there.
        report: where progress goes.
        resume: goes on from the newest checkpoint, to the same bits as if there had been no break.

    Raises:
        UserError: training is no longer finite, nothing can be resumed, or the end could not be saved.
        Interrupted: a signal asked to stop; the segment at hand was finished and saved.
    """
    protocol, every = config.eval, config.checkpoint_every_steps
    steps = compile_steps(method, inputs, config)
    saved = folder / CHECKPOINTS

    def place_of(step: int) -> Place:
        return Place(*divmod(step, steps.per_epoch))

    def scheduled(place: Place) -> Place:
        """The last place, up to this one, where a checkpoint is due."""
        return Place(place.epochs, place.steps - place.steps % every if every else 0)

    def going_on(at: At) -> bool:
        return len(at.history) < config.epochs and not finished(at.history, protocol)

    def restored(candidates: Sequence[Place]) -> At:
        """The newest of these that is whole, with the best epoch before it; where there are none, the start."""
        found = checkpoints.restore_newest(saved, candidates, steps.shapes, report.say, accept)
        if found is None:
            return At(0, steps.init(), ())
        step = found.place.epochs * steps.per_epoch + found.place.steps
        return At(step, found.progress, tuple(read_history(folder, found.place.epochs)), found.tally)

    def accept(place: Place) -> str | None:
        best = Place(best_epoch(read_history(folder, place.epochs)))
        wrong = None if best in (Place(0), place) else checkpoints.damage(saved, best)
        return wrong and f"that of the best epoch up to it, {best}: {wrong}"

    with (
        open_saver(folder, report.say) as saver,
        open_events(folder / EVENTS, report.say) as add_events,
        stop_requests() as stop_requested,
    ):

        def save(at: At, embeddings: Embeddings | None = None) -> None:
            place = place_of(at.step)
            needed = frozenset({scheduled(place), Place(best_epoch(at.history))})
            saver.save(Checkpoint(place, at.progress, at.tally, embeddings), at.history, needed)

        def take_segment(at: At, length: int) -> At:
            """At most so many steps; fewer up to where something is due."""
            epoch, within = place_of(at.step)
            last = (epoch + 1) * steps.per_epoch - 1
            before_last = last if protocol.stale_embeddings and at.step < last else last + 1
            due = at.step - within % every + every if every else last + 1
            stop = min(at.step + length, before_last, due)
            ranked = steps.embed(at.progress.state) if protocol.stale_embeddings and at.step == last else None
            start = time.perf_counter()
            progress = steps.run(at.progress, at.step, stop, at.tally.rollbacks)
            int(progress.means.rows)  # which waits for it
            tally = at.tally._replace(seconds=at.tally.seconds + time.perf_counter() - start)
            return at._replace(step=stop, progress=progress, tally=tally, ranked=ranked)

        def end_epoch(at: At) -> At:
            """Evaluates, records and saves."""
            number, start = len(at.history) + 1, time.perf_counter()
            embeddings = steps.embed(at.progress.state) if at.ranked is None else at.ranked
            if not int(at.progress.means.rows) or not all_finite(embeddings):
                raise UserError(
                    f"epoch {number} leaves nothing that ranks: all its steps were left out, or its embeddings are not "
                    f"finite; {MEND}"
                )
            due = (number - 1) % protocol.evaluate_every == 0
            values = evaluate(plan, embeddings).means if due else {}
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
            at = at._replace(
                history=(*at.history, record), tally=at.tally._replace(seconds=0.0), ranked=None, base=None
            )
            save(at, embeddings)
            add_events(number, _scalars(record))
            report.epoch(record)
            return at

        def recover(at: At) -> At:
            """Finds the step that made training not finite, and does what the config says."""
            saver.wait()
            base = at.base or restored(checkpoints.places(saved))
            found = first_not_finite(steps, base.progress, at.step, at.tally.rollbacks)
            if found is None:
                raise UserError(
                    "training is not finite, but it is when the same steps are taken again: the device does not "
                    "compute the same each time; --resume goes on from the last checkpoint"
                )
            line = _line_about(found, place_of(found.step), dataset)
            rollbacks = at.tally.rollbacks
            if config.on_nan == "stop" or rollbacks == MAX_ROLLBACKS:
                write_json(folder / NOT_FINITE, _account(found, place_of(found.step), dataset))
                after = f", after {rollbacks} rollbacks" if rollbacks else ""
                raise UserError(f"{line}{after}; all of the batch is in {folder / NOT_FINITE}; {MEND}")
            if config.on_nan == "skip":
                report.say(f"WARNING: {line}; the step is left out")
                ranked = steps.embed(found.before.state) if protocol.stale_embeddings else None
                after_it = At(
                    found.step + 1,
                    without_step(found),
                    at.history[: found.step // steps.per_epoch],
                    base.tally._replace(skipped_steps=base.tally.skipped_steps + 1, seconds=at.tally.seconds),
                    ranked,
                )
                return after_it._replace(base=after_it._replace(progress=copied(after_it.progress)))
            saver.finish()
            back = restored([place for place in checkpoints.places(saved) if place == scheduled(place)])
            saver.rewind(place_of(back.step), back.history)
            report.say(f"WARNING: {line}; going back to {place_of(back.step).words()}, and on with other draws")
            return back._replace(tally=back.tally._replace(rollbacks=rollbacks + 1))

        at = At(0, steps.init(), ())
        if resume:
            at = restored(checkpoints.places(saved))
            saver.rewind(place_of(at.step), at.history)
            report.say(f"resumed after {place_of(at.step).words()}")
        length = 1
        while going_on(at):
            before = at
            at = take_segment(at, length)
            pace = (at.tally.seconds - before.tally.seconds) / (at.step - before.step)
            length = max(1, int(SEGMENT_SECONDS / pace))
            asked = stop_requested()
            place = place_of(at.step)
            saving = place == scheduled(place) or asked is not None
            if not finite_terms(at.progress.means.values) or (saving and not all_finite(at.progress.state)):
                at, saving = recover(at), False
            if at.step == (len(at.history) + 1) * steps.per_epoch:
                at = end_epoch(at)
                saving = True
            elif saving:
                save(at)
            if asked is not None and saving and going_on(at):
                saver.finish()
                raise Interrupted(asked, folder)
        saver.finish()
    step_ms = statistics.median(1e3 * record["train_seconds"] / steps.per_epoch for record in at.history)
    return Fitted(list(at.history), best_epoch(at.history), steps.compile_seconds, step_ms, at.tally)


def improves(history: Sequence[Record], number: int, selected: dict[str, float], protocol: Protocol) -> bool:
    """Whether an epoch is the best so far; under a protocol that does not select, each one is."""
    if protocol.metric is None:
        return True
    if not selected or (number == 1 and not protocol.first_epoch_counts):
        return False
    best = [record["selected"] for record in history if record["improved"]]
    return not best or _rounded(selected, protocol) > _rounded(best[-1], protocol)


def finished(history: Sequence[Record], protocol: Protocol) -> bool:
    """Whether early stopping ends the run: the last evaluated epoch is too far behind the best."""
    if protocol.patience is None or not history or not history[-1]["selected"]:
        return False
    return bool(history[-1]["epoch"] - best_epoch(history) > protocol.patience)


def best_epoch(history: Sequence[Record]) -> int:
    """The last epoch that was an improvement; 0 if none was."""
    return max((record["epoch"] for record in history if record["improved"]), default=0)


def _rounded(selected: dict[str, float], protocol: Protocol) -> float:
    (value,) = selected.values()
    return value if protocol.round_digits is None else round(value, protocol.round_digits)


def _line_about(found: NotFinite, place: Place, dataset: Dataset) -> str:
    account = _account(found, place, dataset)
    users, items = (", ".join(map(str, account[side][:SHOWN])) for side in ("users", "items"))
    more = f" and {len(found.users) - SHOWN} more" if len(found.users) > SHOWN else ""
    return (
        f"{' and '.join(found.terms)} not finite in epoch {account['epoch']}, at its step {account['step']} of users "
        f"{users}{more} with items {items}{more}"
    )


def _account(found: NotFinite, place: Place, dataset: Dataset) -> dict[str, Any]:
    """What was not finite, in people's numbers and raw ids."""
    return {
        "epoch": place.epochs + 1,
        "step": place.steps + 1,
        "terms": list(found.terms),
        "users": dataset.user_ids[found.users].tolist(),
        "items": dataset.item_ids[found.items].tolist(),
    }


def _scalars(record: Record) -> dict[str, float]:
    losses = {f"loss/{name}": value for name, value in record["losses"].items()}
    return losses | {f"{record['split']}/{name}": value for name, value in record["metrics"].items()}
