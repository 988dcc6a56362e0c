"""Where training stops being finite: which step, which term, and whose interactions.

Nothing is looked at in the hot path but what a segment leaves. Where that is not finite, the steps since the last
checkpoint are taken again one by one, to the same bits.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from slmrec_jax.errors import Diverged, UserError, setting
from slmrec_jax.training.loop import Progress
from slmrec_jax.training.session import At, Session, place_of, restored
from slmrec_jax.training.steps import Steps
from slmrec_jax.training.storage.folder import NOT_FINITE
from slmrec_jax.training.storage.records import write_json

MAX_ROLLBACKS = 10
"""Training that diverges this often will not be saved by other draws."""

SHOWN = 5
"""How many ids of a batch stand in a line."""


def advice() -> str:
    """Say what a user can do about divergence."""
    return (
        f"lower {setting('optimizer.learning_rate')} or raise the temperature, or go on by {setting('resume', True)} "
        f"{setting('on_nan', 'skip')}"
    )


class NotFinite(NamedTuple):
    """The first step that is not finite."""

    step: int
    """How many steps were done before it."""
    before: Progress
    """What it started from."""
    terms: tuple[str, ...]
    """The parts of the loss that are not finite; `gradient` where all are and what they led to is not."""
    users: Int[np.ndarray, " rows"]
    items: Int[np.ndarray, " rows"]


def recover(session: Session, at: At) -> At:
    """Finds the step that made training not finite, and does what `--on-nan` says.

    Args:
        session: of the run.
        at: what is not finite.

    Returns:
        Where to go on: after that step, which changed nothing but the number of steps; or at the last scheduled
        checkpoint, from which what follows is drawn differently.

    Raises:
        Diverged: training is to stop, or was rolled back too often.
        UserError: it is finite when the same steps are taken again.
    """
    session.saver.wait()
    base = at.base or restored(session)
    found = first_not_finite(session.steps, base.progress, at.step, at.tally.rollbacks)
    if found is None:
        raise UserError(
            "training is not finite, but it is when the same steps are taken again: the device does not compute the "
            f"same each time; {setting('resume', True)} goes on from the last checkpoint"
        )
    account = _account(session, found)
    on_nan, rollbacks = session.config.on_nan, at.tally.rollbacks
    if on_nan == "stop" or (on_nan == "rollback" and rollbacks == MAX_ROLLBACKS):
        path = session.folder / NOT_FINITE
        write_json(path, account)
        after = f", after {rollbacks} rollbacks" if rollbacks else ""
        raise Diverged(f"{_line(account)}{after}; the whole batch is in {path}; {advice()}")
    if on_nan == "skip":
        session.report.say(f"WARNING: {_line(account)}; the step is left out")
        return _without(session, found, base, at)
    session.saver.finish()
    back = restored(session, only_scheduled=True)
    place = place_of(session, back.step)
    session.saver.rewind(place, back.history)
    session.report.say(f"WARNING: {_line(account)}; going back to {place.words()}, and on with other draws")
    return back._replace(tally=back.tally._replace(rollbacks=rollbacks + 1))


def finite_terms(values: Mapping[str, Array]) -> bool:
    """Whether all means of an epoch so far are finite; once one is not, it stays so."""
    return all(np.isfinite(value) for value in jax.device_get(values).values())


@jax.jit
def all_finite(arrays: PyTree) -> Bool[Array, ""]:
    """Whether every float of a state or of embeddings is finite."""
    floats = [x for x in jax.tree.leaves(arrays) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


def first_not_finite(steps: Steps, progress: Progress, stop: int, rollbacks: int) -> NotFinite | None:
    """Takes steps again, one by one, up to the first that is not finite.

    Args:
        steps: what runs.
        progress: the last that is known to be finite; its buffers are used up.
        stop: how far to look.
        rollbacks: of the run.
    """
    for step in range(int(progress.state.step), stop):
        before = _copied(steps.begin(progress, step))
        progress = steps.run(progress, step, step + 1, rollbacks)
        if finite_terms(progress.means.values) and all_finite(progress.state):
            continue
        batch = steps.batch(step, rollbacks)
        real = np.asarray(batch.mask)
        users, items = np.asarray(batch.users)[real], np.asarray(batch.items)[real]
        return NotFinite(step, before, _named(progress.means.values), users, items)
    return None


def _named(values: Mapping[str, Array]) -> tuple[str, ...]:
    """Terms rather than their parts, and parts rather than the total."""
    bad = [name for name, value in jax.device_get(values).items() if not np.isfinite(value)]
    terms = [name for name in bad if name != "loss" and "/" not in name]
    return tuple(terms or [name for name in bad if name != "loss"] or bad or ["gradient"])


def _without(session: Session, found: NotFinite, base: At, at: At) -> At:
    """After the step, with all as before it but for the number of steps."""
    state = found.before.state
    after = At(
        found.step + 1,
        found.before._replace(state=state.replace(step=jnp.asarray(state.step) + 1)),
        at.history[: found.step // session.steps.per_epoch],
        base.tally._replace(skipped_steps=base.tally.skipped_steps + 1, seconds=at.tally.seconds),
        session.steps.embed(state) if session.config.eval.stale_embeddings else None,
    )
    return after._replace(base=after._replace(progress=_copied(after.progress)))


def _copied(progress: Progress) -> Progress:
    """In buffers of its own."""
    copy: Progress = jax.tree.map(jnp.copy, progress)
    return copy


def _account(session: Session, found: NotFinite) -> dict[str, Any]:
    """What was not finite, in people's numbers and raw ids."""
    place = place_of(session, found.step)
    return {
        "epoch": place.epochs + 1,
        "step": place.steps + 1,
        "terms": list(found.terms),
        "users": session.dataset.user_ids[found.users].tolist(),
        "items": session.dataset.item_ids[found.items].tolist(),
    }


def _line(account: Mapping[str, Any]) -> str:
    users, items = (", ".join(map(str, account[side][:SHOWN])) for side in ("users", "items"))
    more = f" and {len(account['users']) - SHOWN} more" if len(account["users"]) > SHOWN else ""
    return (
        f"{' and '.join(account['terms'])} not finite in epoch {account['epoch']}, at its step {account['step']} of "
        f"users {users}{more} with items {items}{more}"
    )
