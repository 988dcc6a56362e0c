"""Micro-batches: the mean loss of several batches, with one graph propagation, one gather and one scatter for all.

A step propagates over the whole graph, regardless of its batch size. With M micro-batches, it propagates once for M
batches of B interactions. Each micro-batch has its own losses and its own in-batch negatives, so that a softmax stays B
× B. The gradient is exactly that of the mean of the M objectives.

The losses are mapped over the micro-batches with `jax.vmap`. Values that do not depend on the batch, such as the
propagated tables and the augmented views, are computed once. Table rows are gathered for all micro-batches together, up
to `GROUP_ROWS` of them. Larger steps process groups one after another, so that the memory of rows does not grow with
the number of micro-batches.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

from slmrec_jax.encoding.rows import MICRO_BATCHES, ids_of_all, memoized, rows_for_all
from slmrec_jax.encoding.sparse import MANY
from slmrec_jax.methods.in_turn import loss_in_turn, sum_in_turn
from slmrec_jax.objectives.sampling import SAMPLINGS
from slmrec_jax.types import Batch, Encode, Method, Metrics, Rows, View, Work

LEAST_STEPS = 16
"""The minimum number of steps per pass under `auto`: with fewer updates, training is slow however cheap a pass
is."""

GROUP_ROWS = 2 * MANY
"""The maximum number of interactions whose rows are in memory at a time, unless one micro-batch has more. SLMRec with
FAC and 64 columns takes about 2.7 GiB for this many. Groups have at least half as many, since each group takes time to
accumulate the gradients of whole tables."""

Returned = TypeVar("Returned", bound=PyTree)


def mean_over_micro_batches(
    objective: Callable[[Batch], tuple[Scalar, Metrics]], batch: Batch
) -> tuple[Scalar, Metrics]:
    """Return the mean of an objective and of its metrics over the micro-batches.

    A batch without micro-batches is passed to the objective as it is. If there are several groups of micro-batches, the
    value can only be differentiated in reverse mode, and the metrics cannot be differentiated (`loss_in_turn`).

    Args:
        objective: Takes one micro-batch, whose leading axis is rows.
        batch: With micro-batches, `users`, `items`, `mask` and `negatives` have a leading axis of size M. Micro-batches
            without real rows, at the end of a pass, are excluded from the mean.
    """
    if batch.users.ndim == 1:
        return objective(batch)

    def mean_part(part: tuple[dict[str, Array], Array]) -> tuple[Scalar, Metrics]:
        arrays, shares = part
        values = jax.vmap(lambda arrays: objective(batch._replace(**arrays)), axis_name=MICRO_BATCHES)(arrays)
        mean: tuple[Scalar, Metrics] = jax.tree.map(
            lambda x: jnp.sum(jnp.where(shares > 0, shares.astype(x.dtype) * x, 0)), values
        )
        return mean

    count, rows = batch.users.shape
    num_groups = -(-count // max(1, GROUP_ROWS // rows))
    divided = _shares_of(batch, multiple=num_groups)
    if num_groups == 1:
        return mean_part(divided)
    return loss_in_turn(
        mean_part, jax.tree.map(lambda x: x.reshape(num_groups, len(x) // num_groups, *x.shape[1:]), divided)
    )


def mean_in_turn(function: Callable[[Batch], Returned], batch: Batch) -> Returned:
    """Return the mean of a function over the micro-batches, one at a time, for functions that need much memory.

    All micro-batches use the batch's key.
    """
    if batch.users.ndim == 1:
        return function(batch)

    def mean_part(part: tuple[dict[str, Array], Array]) -> Returned:
        arrays, share = part
        value = function(batch._replace(**arrays))
        weighted: Returned = jax.tree.map(lambda x: jnp.where(share > 0, share.astype(x.dtype) * x, 0), value)
        return weighted

    return sum_in_turn(mean_part, _shares_of(batch))


def _shares_of(batch: Batch, multiple: int = 1) -> tuple[dict[str, Array], Float[Array, " micro_batches"]]:
    """Return a batch's arrays except its key, padded to a multiple of micro-batches, and each one's share of the mean.

    A micro-batch without real rows has share 0 and a copy of the first one's rows, since a mean over no rows is NaN.
    """
    padding = -batch.users.shape[0] % multiple
    arrays = {name: x for name, x in batch._asdict().items() if name != "key"}
    arrays = {name: jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1))) for name, x in arrays.items()}
    real = jnp.any(arrays["mask"], axis=1)

    def filled(x: Array) -> Array:
        return jnp.where(real.reshape(-1, *(1,) * (x.ndim - 1)), x, x[:1])

    shares = jnp.where(real, 1.0 / jnp.sum(real, dtype=jnp.float32), 0.0)
    return {name: filled(x) for name, x in arrays.items()}, shares


def gathering_for_all(encode: Encode) -> Encode:
    """Return an encoder whose views gather the rows of all micro-batches together, if there are micro-batches."""
    all_ids = memoized(ids_of_all)  # one array for all tables, so that they share gathers

    def by_name(tables: Mapping[str, Rows]) -> dict[str, Rows]:
        return {name: rows_for_all(rows, all_ids) for name, rows in tables.items()}

    def gathering(view: View) -> View:
        users, items = rows_for_all(view.users, all_ids), rows_for_all(view.items, all_ids)
        return View(users, items, by_name(view.user_modalities), by_name(view.item_modalities))

    return lambda augmentation, key: gathering(encode(augmentation, key))


def choose_micro_batches(method: Method, num_interactions: int, batch_size: int) -> tuple[int, str]:
    """Choose the number of micro-batches and return it with the reason.

    The number is large enough that the work shared by all micro-batches is at most a fifth of a step (`Method.work`),
    but leaves at least `LEAST_STEPS` steps per pass. It grows with the number of interactions, so that the cost of a
    pass over them is linear, not quadratic, in that number.
    """
    num_batches = SAMPLINGS[method.sampling].num_batches(num_interactions, batch_size)
    chosen = max(1, num_batches // LEAST_STEPS)
    if method.work is not None and method.work.batch > 0:
        chosen = min(chosen, max(1, math.ceil(4 * method.work.step / method.work.batch)))
    reason = f"{chosen}, {math.ceil(num_batches / chosen)} steps per pass"
    if method.work is not None:
        reason += (
            f"; their shared work, such as propagation, is about {_share(method.work, chosen):.0%} of a step's work"
        )
    return chosen, reason


def _share(work: Work, micro_batches: int) -> float:
    return work.step / (work.step + micro_batches * work.batch)
