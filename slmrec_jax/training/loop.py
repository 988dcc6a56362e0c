"""The training loop: epochs compiled as one scan, validation, early stopping. It names no model.

Everything random is a function of (seed, step): the order of an epoch, negatives, masks and dropout. Nothing is kept
of a generator, so that a resumed run goes on with the same bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState
from jaxtyping import Array, Key, PyTree, Scalar

from slmrec_jax.graph import Graph
from slmrec_jax.sampling import SAMPLINGS, Draw, uniform
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
    """Means over the epoch's real rows."""


def make_keys(seed: int) -> Keys:
    """The streams of a seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 3))


def make_epoch(
    method: Method,
    batch_size: int,
    *,
    negatives: Callable[[Graph], Draw] = uniform,
    keep_previous: bool = False,
) -> Callable[[TrainState, Inputs, Keys], Epoch]:
    """One pass over the training interactions as a pure function of the state, to be compiled as a whole.

    Args:
        method: what steps, and how its batches are drawn (`SAMPLINGS`).
        batch_size: B; fewer rows where there are not so many.
        negatives: how negatives are drawn (`NEGATIVES`).
        keep_previous: also returns the state before the last step.
    """
    sampling = SAMPLINGS[method.sampling]

    def epoch(state: TrainState, inputs: Inputs, keys: Keys) -> Epoch:
        graph = inputs.graph
        steps = sampling.num_steps(graph.interactions[0].shape[0], batch_size)
        drawn = sampling.order(jax.random.fold_in(keys.order, jnp.asarray(state.step) // steps), graph, batch_size)
        draw_negatives = negatives(graph)

        def body(
            carry: tuple[TrainState, TrainState | None], share: PyTree
        ) -> tuple[tuple[TrainState, TrainState | None], tuple[Metrics, Scalar]]:
            state, _ = carry
            rows_key, negatives_key, step_key = jax.random.split(jax.random.fold_in(keys.step, state.step), 3)
            users, items, mask = sampling.rows(share, rows_key, graph, batch_size)
            negative_items = draw_negatives(users, items, negatives_key, method.num_negatives)
            after, metrics = method.step(state, inputs, Batch(users, items, mask, negative_items, step_key))
            return (after, state if keep_previous else None), (metrics, jnp.sum(mask))

        carry = (state, state if keep_previous else None)
        (state, previous), (metrics, counts) = jax.lax.scan(body, carry, drawn)
        weights = counts / jnp.sum(counts)
        return Epoch(state, previous, {name: weights @ values for name, values in metrics.items()})

    return epoch
