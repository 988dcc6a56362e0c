"""The training loop as pure functions: any stretch of an epoch's steps is one compiled program. It names no model.

Everything random is a function of (seed, step): the order of an epoch, negatives, masks and dropout. Nothing is kept
of a generator, so that a resumed run goes on with the same bits. What is carried from step to step is carried from
stretch to stretch too, so that the bits do not depend on where an epoch is cut.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState
from jaxtyping import Array, Int, Key, PyTree, Scalar

from slmrec_jax.encoding.graph import Graph
from slmrec_jax.objectives.sampling import SAMPLINGS, Draw, uniform
from slmrec_jax.types import Batch, Inputs, Method, Metrics


class Keys(NamedTuple):
    """Independent streams of one seed."""

    init: Key[Array, ""]
    order: Key[Array, ""]
    step: Key[Array, ""]


class Means(NamedTuple):
    """Of an epoch's steps so far."""

    values: Metrics
    """Over the real rows."""
    rows: Int[Array, ""]
    """How many these are."""


class Progress(NamedTuple):
    """What one step leaves to the next."""

    state: TrainState
    means: Means


class Loop(NamedTuple):
    """An epoch in parts, all of them to be compiled; steps are counted from the start of training."""

    num_steps: Callable[[Inputs], int]
    """Of an epoch."""
    order: Callable[[Inputs, Keys, Scalar], PyTree]
    """`(inputs, keys, step) -> drawn`: what the epoch of a step draws beforehand."""
    begin: Callable[[TrainState, Inputs, Keys], Progress]
    """`(state, inputs, keys) -> progress`, before the first step of an epoch."""
    batch: Callable[[PyTree, Inputs, Keys, Scalar], Batch]
    """`(drawn, inputs, keys, step) -> batch`."""
    segment: Callable[[Progress, PyTree, Inputs, Keys, Scalar], Progress]
    """`(progress, drawn, inputs, keys, stop) -> progress`: the steps of one epoch from the state's to before `stop`."""


class Epoch(NamedTuple):
    """What an epoch leaves."""

    state: TrainState
    metrics: Metrics
    """Means over the epoch's real rows."""


def make_keys(seed: int, rollbacks: int = 0) -> Keys:
    """The streams of a seed; after each rollback the steps are drawn differently."""
    keys = Keys(*jax.random.split(jax.random.key(seed), 3))
    if rollbacks == 0:
        return keys
    return keys._replace(order=jax.random.fold_in(keys.order, rollbacks), step=jax.random.fold_in(keys.step, rollbacks))


def make_loop(method: Method, batch_size: int, *, negatives: Callable[[Graph], Draw] = uniform) -> Loop:
    """One pass over the training interactions.

    Args:
        method: what steps, and how its batches are drawn (`SAMPLINGS`).
        batch_size: B; fewer rows where there are not so many.
        negatives: how negatives are drawn (`NEGATIVES`).
    """
    sampling = SAMPLINGS[method.sampling]
    step_of = jax.jit(method.step, inline=True)  # traced once for all that take steps

    def num_steps(inputs: Inputs) -> int:
        return sampling.num_steps(inputs.graph.num_interactions, batch_size)

    def order(inputs: Inputs, keys: Keys, step: Scalar) -> PyTree:
        return sampling.order(jax.random.fold_in(keys.order, step // num_steps(inputs)), inputs.graph, batch_size)

    def batch(drawn: PyTree, inputs: Inputs, keys: Keys, step: Scalar, draw: Draw | None = None) -> Batch:
        draw = draw or negatives(inputs.graph)
        share = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, step % num_steps(inputs), keepdims=False), drawn)
        rows_key, negatives_key, step_key = jax.random.split(jax.random.fold_in(keys.step, step), 3)
        users, items, mask = sampling.rows(share, rows_key, inputs.graph, batch_size)
        drawn_items = draw(users, items, negatives_key, method.num_negatives)
        return Batch(users, items, mask, drawn_items, step_key)

    def one_step(progress: Progress, drawn: PyTree, inputs: Inputs, keys: Keys, draw: Draw) -> Progress:
        state, means = progress
        rows = batch(drawn, inputs, keys, jnp.asarray(state.step), draw)
        after, metrics = step_of(state, inputs, rows)
        return Progress(after, _joined(means, metrics, jnp.sum(rows.mask, dtype=jnp.int32)))

    def begin(state: TrainState, inputs: Inputs, keys: Keys) -> Progress:
        def metrics() -> Metrics:
            step = jnp.asarray(state.step)
            _, measured = step_of(state, inputs, batch(order(inputs, keys, step), inputs, keys, step))
            return cast("Metrics", measured)

        return Progress(state, no_steps(jax.eval_shape(metrics)))

    def segment(progress: Progress, drawn: PyTree, inputs: Inputs, keys: Keys, stop: Scalar) -> Progress:
        first = jnp.asarray(progress.state.step)
        draw = negatives(inputs.graph)  # what it sums up of the graph it does before the loop
        after: Progress = jax.lax.fori_loop(
            first, stop, lambda _, carry: one_step(carry, drawn, inputs, keys, draw), progress
        )
        return after

    return Loop(num_steps, order, begin, batch, segment)


def make_epoch(
    method: Method, batch_size: int, *, negatives: Callable[[Graph], Draw] = uniform
) -> Callable[[TrainState, Inputs, Keys], Epoch]:
    """A whole epoch as one pure function, for those who need no stop within it; the arguments are `make_loop`'s."""
    loop = make_loop(method, batch_size, negatives=negatives)

    def epoch(state: TrainState, inputs: Inputs, keys: Keys) -> Epoch:
        first, steps = jnp.asarray(state.step), loop.num_steps(inputs)
        progress = loop.begin(state, inputs, keys)
        drawn = loop.order(inputs, keys, first)
        after = loop.segment(progress, drawn, inputs, keys, (first // steps + 1) * steps)
        return Epoch(after.state, after.means.values)

    return epoch


def no_steps(names: Iterable[str]) -> Means:
    """Of no steps at all. Each zero is an array of its own, because their buffers are donated."""
    return Means({name: jnp.zeros(()) for name in names}, jnp.zeros((), jnp.int32))


def _joined(means: Means, metrics: Metrics, rows: Int[Array, ""]) -> Means:
    """A running mean: unlike that of a sum, its rounding does not grow with the length of an epoch."""
    total = means.rows + rows
    share = rows.astype(jnp.float32) / jnp.maximum(total, 1).astype(jnp.float32)
    values = {name: mean + (jnp.float32(metrics[name]) - mean) * share for name, mean in means.values.items()}
    return Means(values, total)
