"""The training loop: epochs compiled as one scan, validation, early stopping. It names no model.

Everything random is a function of (seed, step): the order of an epoch, negatives, masks and dropout. Nothing is kept
of a generator, so that a resumed run goes on with the same bits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState
from jaxtyping import Array, Bool, Int, Key

from slmrec_jax.graph import sample_negatives
from slmrec_jax.types import Batch, Inputs, Method, Metrics


class Keys(NamedTuple):
    """Independent streams of one seed."""

    init: Key[Array, ""]
    order: Key[Array, ""]
    step: Key[Array, ""]


class Epoch(NamedTuple):
    """What an epoch leaves."""

    state: TrainState
    previous: TrainState | None
    """The state before the last step, where that was asked for."""
    metrics: Metrics
    """Means over the epoch's interactions."""


def make_keys(seed: int) -> Keys:
    """The streams of a seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 3))


def steps_per_epoch(num_interactions: int, batch_size: int) -> int:
    """How many batches an epoch has; the last may be short."""
    return math.ceil(num_interactions / batch_size)


def make_epoch(
    method: Method, batch_size: int, keep_previous: bool = False
) -> Callable[[TrainState, Inputs, Keys], Epoch]:
    """One pass over the training interactions as a pure function of the state, to be compiled as a whole.

    Each interaction stands in exactly one batch. The last batch is filled up with rows that are masked.

    Args:
        method: what steps.
        batch_size: B; at most the number of interactions is used.
        keep_previous: also returns the state before the last step.
    """

    def epoch(state: TrainState, inputs: Inputs, keys: Keys) -> Epoch:
        users, items = inputs.graph.interactions
        rows, mask = draw_order(keys.order, jnp.asarray(state.step), users.shape[0], batch_size)

        def body(
            carry: tuple[TrainState, TrainState | None], drawn: tuple[Array, Array]
        ) -> tuple[tuple[TrainState, TrainState | None], Metrics]:
            state, _ = carry
            key = jax.random.fold_in(keys.step, state.step)
            negatives_key, step_key = jax.random.split(key)
            row, real = drawn
            negatives = sample_negatives(inputs.graph, users[row], items[row], negatives_key, method.num_negatives)
            batch = Batch(users[row], items[row], real, negatives, step_key)
            after, metrics = method.step(state, inputs, batch)
            return (after, state if keep_previous else None), metrics

        (state, previous), metrics = jax.lax.scan(body, (state, state if keep_previous else None), (rows, mask))
        weights = jnp.sum(mask, axis=1) / users.shape[0]
        return Epoch(state, previous, {name: weights @ values for name, values in metrics.items()})

    return epoch


def draw_order(
    key: Key[Array, ""], step: Int[Array, ""], num_interactions: int, batch_size: int
) -> tuple[Int[Array, "steps batch"], Bool[Array, "steps batch"]]:
    """The batches of the epoch that begins at a step: a permutation of all interactions, and which rows are real."""
    size = min(batch_size, num_interactions)
    steps = steps_per_epoch(num_interactions, size)
    order = jax.random.permutation(jax.random.fold_in(key, step // steps), num_interactions)
    place = jnp.arange(steps * size)
    rows = order[place % num_interactions].astype(jnp.int32)
    return rows.reshape(steps, size), (place < num_interactions).reshape(steps, size)
