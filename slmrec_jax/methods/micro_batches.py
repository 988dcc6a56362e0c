"""Several batches for one propagation: the mean of their losses, with one gather and one scatter for all of them.

A step propagates the whole graph, whatever the size of its batch. With M micro-batches it propagates once for M batches
of B interactions. Each micro-batch has losses of its own, and in-batch negatives of its own, so that a softmax stays
B × B; the gradient is exactly that of the mean of the M objectives.

The losses are mapped over the micro-batches by `jax.vmap`. What does not depend on the batch, such as the propagated
tables and the augmented views, is computed once. Rows of tables are gathered for all micro-batches together.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from slmrec_jax.encoding.rows import MICRO_BATCHES, ids_of_all, memoized, rows_for_all
from slmrec_jax.objectives.sampling import SAMPLINGS
from slmrec_jax.types import Batch, Encode, Method, Rows, View, Work

LEAST_STEPS = 16
"""The fewest steps of an epoch under `auto`: fewer updates train slowly, however cheap an epoch is."""

MOST_ROWS = 2**20
"""The most interactions of a step under `auto`, since its memory grows with them: with 64 columns LightGCN
takes about 3 GiB for these, and SLMRec with FAC 9 GiB."""

Result = TypeVar("Result", bound=PyTree)


def mean_over_micro_batches(objective: Callable[[Batch], Result], batch: Batch) -> Result:
    """Return the mean of a function over the micro-batches of a step; of a batch without them, its value.

    Args:
        objective: Takes one micro-batch, whose arrays start with the axis of rows.
        batch: With micro-batches, `users`, `items`, `mask` and `negatives` start with an axis of M of them. Those
            without real rows, at the end of an epoch, do not count.
    """
    if batch.users.ndim == 1:
        return objective(batch)
    arrays, shares = _divided(batch)
    values = jax.vmap(lambda arrays: objective(batch._replace(**arrays)), axis_name=MICRO_BATCHES)(arrays)
    mean: Result = jax.tree.map(lambda x: jnp.sum(jnp.where(shares > 0, shares.astype(x.dtype) * x, 0)), values)
    return mean


def mean_in_turn(function: Callable[[Batch], Result], batch: Batch) -> Result:
    """Return the mean of a function over the micro-batches, one at a time: for functions that need much memory.

    All of them draw from the batch's key.
    """
    if batch.users.ndim == 1:
        return function(batch)
    arrays, shares = _divided(batch)

    def add(total: Result, of_one: tuple[Any, Array]) -> tuple[Result, None]:
        one, share = of_one
        value = function(batch._replace(**one))
        return jax.tree.map(
            lambda total, x: total + jnp.where(share > 0, share.astype(x.dtype) * x, 0), total, value
        ), None

    shapes = jax.eval_shape(lambda: function(batch._replace(**{name: x[0] for name, x in arrays.items()})))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total: Result
    total, _ = jax.lax.scan(add, nothing, (arrays, shares))
    return total


def _divided(batch: Batch) -> tuple[dict[str, Array], Float[Array, " micro_batches"]]:
    """Return all of a batch but its key, and each micro-batch's share of the mean.

    Those without real rows have share 0, and the rows of the first, since a mean over no rows is NaN.
    """
    real = jnp.any(batch.mask, axis=1)

    def filled(x: Array) -> Array:
        return jnp.where(real.reshape(-1, *(1,) * (x.ndim - 1)), x, x[:1])

    arrays = {name: filled(x) for name, x in batch._asdict().items() if name != "key"}
    return arrays, jnp.where(real, 1.0 / jnp.sum(real, dtype=jnp.float32), 0.0)


def gathering_for_all(encode: Encode) -> Encode:
    """Return an encoder whose views gather the rows of all micro-batches together; without these it is the same."""
    all_ids = memoized(ids_of_all)  # the same array for all tables, so that they share gathers

    def by_name(tables: Mapping[str, Rows]) -> dict[str, Rows]:
        return {name: rows_for_all(rows, all_ids) for name, rows in tables.items()}

    def gathering(view: View) -> View:
        users, items = rows_for_all(view.users, all_ids), rows_for_all(view.items, all_ids)
        return View(users, items, by_name(view.user_modalities), by_name(view.item_modalities))

    return lambda augmentation, key: gathering(encode(augmentation, key))


def choose_micro_batches(method: Method, num_interactions: int, batch_size: int) -> tuple[int, str]:
    """Choose the number of micro-batches, and return it and the reason.

    As many as make what a step does once for all of them at most a fifth of its work (`Method.work`), as long as an
    epoch has `LEAST_STEPS` steps and a step `MOST_ROWS` interactions. The number grows with the interactions, so that
    the cost of an epoch grows with them and not with their square.
    """
    num_batches = SAMPLINGS[method.sampling].num_batches(num_interactions, batch_size)
    chosen = max(1, min(num_batches // LEAST_STEPS, MOST_ROWS // batch_size))
    if method.work is not None and method.work.batch > 0:
        chosen = min(chosen, max(1, math.ceil(4 * method.work.step / method.work.batch)))
    reason = f"{chosen}, {math.ceil(num_batches / chosen)} steps an epoch"
    if method.work is not None:
        reason += f"; what they share, such as propagation, is about {_share(method.work, chosen):.0%} of a step's work"
    return chosen, reason


def _share(work: Work, micro_batches: int) -> float:
    return work.step / (work.step + micro_batches * work.batch)
