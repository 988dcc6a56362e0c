"""Where training stops being finite: which step, which term, and whose interactions.

Nothing is looked at in the hot path but what a segment leaves. Where that is not finite, the steps since the last
checkpoint are taken again one by one, to the same bits.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from slmrec_jax.training.loop import Progress
from slmrec_jax.training.steps import Steps


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
        before = copied(steps.begin(progress, step))
        progress = steps.run(progress, step, step + 1, rollbacks)
        if finite_terms(progress.means.values) and all_finite(progress.state):
            continue
        batch = steps.batch(step, rollbacks)
        real = np.asarray(batch.mask)
        users, items = np.asarray(batch.users)[real], np.asarray(batch.items)[real]
        return NotFinite(step, before, _named(progress.means.values), users, items)
    return None


def copied(progress: Progress) -> Progress:
    """In buffers of its own."""
    copy: Progress = jax.tree.map(jnp.copy, progress)
    return copy


def without_step(found: NotFinite) -> Progress:
    """What training goes on from where a step is left out: all as before it, but for the number of steps."""
    state = found.before.state
    return found.before._replace(state=state.replace(step=jnp.asarray(state.step) + 1))


def _named(values: Mapping[str, Array]) -> tuple[str, ...]:
    """Terms rather than their parts, and parts rather than the total."""
    bad = [name for name, value in jax.device_get(values).items() if not np.isfinite(value)]
    terms = [name for name in bad if name != "loss" and "/" not in name]
    return tuple(terms or [name for name in bad if name != "loss"] or bad or ["gradient"])
