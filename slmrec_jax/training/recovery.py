"""Recovery from non-finite training: find the step, the loss term and the interactions, then stop, skip or roll back.

Training checks only the result of each call of the compiled program. If it is not finite, the steps since the last
checkpoint are repeated one by one, with bitwise identical results.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from slmrec_jax import processes
from slmrec_jax.errors import Diverged, UserError, setting
from slmrec_jax.training.events import message
from slmrec_jax.training.loop import Progress, zero_means
from slmrec_jax.training.session import Position, Session, place_of, restored, take_steps
from slmrec_jax.training.storage.folder import NOT_FINITE
from slmrec_jax.training.storage.records import write_json

MAX_ROLLBACKS = 10
"""The maximum number of rollbacks. Training that diverges more often will not be saved by different random draws."""

SHOWN = 5
"""The number of ids that a message shows of a batch."""


def restart_advice() -> str:
    """Describe how to train again without divergence. A resumed run keeps its learning rate, so this is a new run."""
    return f"start a new run with a lower {setting('optimizer.learning_rate')} or a higher temperature"


class NotFinite(NamedTuple):
    """The first step with a non-finite result."""

    step: int
    """The index of the step: the number of steps before it."""
    before: Progress
    """The progress before the step."""
    terms: tuple[str, ...]
    """The loss terms that are not finite; `gradient` if only the new parameters are not finite."""
    users: Int[np.ndarray, " rows"]
    items: Int[np.ndarray, " rows"]


def recover(session: Session, position: Position) -> Position:
    """Find the step that made training non-finite, and stop, skip or roll back as `on_nan` says.

    Returns:
        The position to continue from: either after the skipped step, or the last scheduled checkpoint with different
        random draws from there on.

    Raises:
        Diverged: `on_nan` is `"stop"`, or there were `MAX_ROLLBACKS` rollbacks already.
        UserError: The steps are finite when repeated, so the device is not deterministic.
    """
    session.saver.wait()
    base = position.base or restored(session)
    found = first_not_finite(session, base.progress, position.step, position.tally.rollbacks)
    if found is None:
        raise processes.raised_by_all(
            UserError(
                "training is not finite, but the same steps are finite when repeated: the device does not always "
                f"compute the same; {setting('resume', True)} continues from the last checkpoint"
            )
        )
    account = _account(session, found)
    on_nan, rollbacks = session.setup.config.on_nan, position.tally.rollbacks
    if on_nan == "stop" or (on_nan == "rollback" and rollbacks == MAX_ROLLBACKS):
        path = session.folder / NOT_FINITE
        processes.in_first(lambda: write_json(path, account))
        after = f", after {rollbacks} rollbacks" if rollbacks else ""
        error = Diverged(
            f"{_line(account)}{after}; the whole batch is in {path}; "
            f"continue with {setting('resume', True)} {setting('on_nan', 'skip')}, or {restart_advice()}"
        )
        raise processes.raised_by_all(error)
    if on_nan == "skip":
        session.tell(message(f"WARNING: {_line(account)}; the step is skipped"))
        return _skipped(session, found, base, position)
    session.saver.finish()
    back = restored(session, only_scheduled=True)
    place = place_of(session, back.step)
    session.saver.rewind(place, back.history)
    session.tell(
        message(f"WARNING: {_line(account)}; going back to {place.words()} to continue with other random draws")
    )
    return back._replace(tally=back.tally._replace(rollbacks=rollbacks + 1))


def finite_terms(values: Mapping[str, Array]) -> bool:
    """Return whether all means of the epoch so far are finite. A mean that is not finite stays so."""
    return all(np.isfinite(value) for value in jax.device_get(values).values())


@jax.jit
def all_finite(arrays: PyTree) -> Bool[Array, ""]:
    """Return whether every float in a pytree, such as a state or embeddings, is finite."""
    floats = [x for x in jax.tree.leaves(arrays) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


def first_not_finite(session: Session, progress: Progress, stop: int, rollbacks: int) -> NotFinite | None:
    """Repeat the steps from `progress` to `stop` one by one, up to the first with a non-finite result.

    `progress` is the last one known to be finite. Its buffers are donated.
    """
    loop = session.setup.loop
    for step in range(int(progress.state.step), stop):
        before = _copied(progress)
        if step % loop.steps_per_epoch == 0:
            before = before._replace(means=session.setup.put(zero_means(before.means.values)))
        progress = take_steps(session, progress, step, step + 1, rollbacks)
        if finite_terms(progress.means.values) and all_finite(progress.state):
            continue
        drawn, keys = session.setup.draw(step // loop.steps_per_pass, rollbacks)
        batch = loop.batch(drawn, session.setup.inputs, keys, np.int32(step))
        real = np.asarray(batch.mask)
        users, items = np.asarray(batch.users)[real], np.asarray(batch.items)[real]
        return NotFinite(step, before, _named(progress.means.values), users, items)
    return None


def _named(values: Mapping[str, Array]) -> tuple[str, ...]:
    """Return the names of the terms that are not finite; if none, of parts of terms; if none, of the total."""
    bad = [name for name, value in jax.device_get(values).items() if not np.isfinite(value)]
    terms = [name for name in bad if name != "loss" and "/" not in name]
    return tuple(terms or [name for name in bad if name != "loss"] or bad or ["gradient"])


def _skipped(session: Session, found: NotFinite, base: Position, position: Position) -> Position:
    """Return the position after skipping a step: only the step count changes."""
    state = found.before.state
    after = Position(
        found.step + 1,
        found.before._replace(state=state.replace(step=jnp.asarray(state.step) + 1)),
        position.history[: found.step // session.setup.loop.steps_per_epoch],
        base.tally._replace(skipped_steps=base.tally.skipped_steps + 1, seconds=position.tally.seconds),
    )
    return after._replace(base=after._replace(progress=_copied(after.progress)))


def _copied(progress: Progress) -> Progress:
    """Copy a progress into new buffers."""
    copy: Progress = jax.tree.map(jnp.copy, progress)
    return copy


def _account(session: Session, found: NotFinite) -> dict[str, Any]:
    """Describe the step: its epoch and step (both counted from 1), terms and raw ids."""
    place = place_of(session, found.step)
    return {
        "epoch": place.epochs + 1,
        "step": place.steps + 1,
        "terms": list(found.terms),
        "users": session.setup.dataset.user_ids[found.users].tolist(),
        "items": session.setup.dataset.item_ids[found.items].tolist(),
    }


def _line(account: Mapping[str, Any]) -> str:
    users, items = (", ".join(map(str, account[side][:SHOWN])) for side in ("users", "items"))
    more = f" and {len(account['users']) - SHOWN} more" if len(account["users"]) > SHOWN else ""
    return (
        f"{' and '.join(account['terms'])} not finite in epoch {account['epoch']}, step {account['step']}, whose batch "
        f"has users {users}{more} and items {items}{more}"
    )
