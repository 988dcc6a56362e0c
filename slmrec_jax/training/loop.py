"""The training loop as pure functions: one compiled program runs any number of an epoch's steps, for any model.

All randomness is a function of (seed, step): the order of a pass, negatives, masks and dropout. There is no stateful
generator, so a resumed run is bitwise identical. The loop carries the same values from call to call as from step to
step, so the result does not depend on where an epoch is split into calls.
"""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jaxtyping import Array, Int, Key, PyTree, Scalar

from slmrec_jax.devices import compiler_of
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.meshes import Layout
from slmrec_jax.objectives.sampling import SAMPLINGS, Draw, Sizes, uniform
from slmrec_jax.types import Batch, Embeddings, Inputs, Method, Metrics


class Keys(NamedTuple):
    """Independent PRNG keys derived from one seed."""

    init: Key[Array, ""]
    order: Key[Array, ""]
    step: Key[Array, ""]


class Means(NamedTuple):
    """The running means of an epoch's metrics."""

    values: Metrics
    """Means over the unmasked rows so far."""
    rows: Int[Array, ""]
    """The number of unmasked rows so far."""


class Progress(NamedTuple):
    """The carry from one step to the next."""

    state: TrainState
    means: Means


StepCount: TypeAlias = Scalar | np.int32
"""A step count or index. The host passes a NumPy scalar, which JAX replicates to every device of a mesh."""


class Loop(NamedTuple):
    """The functions that training calls. All are pure; `compile_loop` replaces them with compiled programs.

    Step indices count from the start of training.
    """

    steps_per_pass: int
    """The number of steps in one pass over the interactions, whose order is drawn at the start of the pass."""
    steps_per_epoch: int
    """The number of steps between evaluations: one pass, unless the config sets another number."""
    shapes: Callable[[], Progress]
    """`() -> progress` as shapes only. The first call traces a step."""
    init: Callable[[Keys], Progress]
    order: Callable[[Inputs, Keys, StepCount], PyTree]
    """`(inputs, keys, step) -> drawn`: the random draws made at the start of the pass that contains this step."""
    batch: Callable[[PyTree, Inputs, Keys, StepCount], Batch]
    """`(drawn, inputs, keys, step) -> batch`."""
    run: Callable[[Progress, PyTree, Inputs, Keys, StepCount], Progress]
    """`(progress, drawn, inputs, keys, num_steps) -> progress` after the next steps, which must all be in one pass and
    one epoch. The means are reset at the start of each epoch. The compiled program donates the buffers of
    `progress`."""
    embed: Callable[[TrainState, Inputs], Embeddings]

    def boundary(self, step: int) -> int:
        """Return the first step after `step` at which a pass or an epoch ends, which no call of `run` may cross."""
        return step + min(length - step % length for length in (self.steps_per_pass, self.steps_per_epoch))


def make_keys(seed: int, rollbacks: int = 0) -> Keys:
    """Return the PRNG keys of a seed. Each rollback changes the keys of the order and of the steps."""
    keys = Keys(*jax.random.split(jax.random.key(seed), 3))
    if rollbacks == 0:
        return keys
    return keys._replace(order=jax.random.fold_in(keys.order, rollbacks), step=jax.random.fold_in(keys.step, rollbacks))


def make_loop(
    method: Method,
    inputs: Inputs,
    sizes: Sizes,
    *,
    negatives: Callable[[Graph], Draw] = uniform,
    steps_per_epoch: int | None = None,
) -> Loop:
    """Return the loop over the training interactions.

    Args:
        method: The method, which also determines how batches are drawn (`SAMPLINGS`).
        inputs: The prepared inputs of the method, or their shapes.
        sizes: The batch size and the number of micro-batches.
        negatives: Draws negatives (`NEGATIVES`).
        steps_per_epoch: The length of an epoch; by default one pass over the interactions.
    """
    sampling = SAMPLINGS[method.sampling]
    steps_per_pass = sampling.num_steps(inputs.graph.num_interactions, sizes)
    epoch_steps = steps_per_epoch or steps_per_pass
    step_once = jax.jit(method.step, inline=True)  # traced once, shared by `shapes` and `run`

    @partial(jax.jit, inline=True)
    def order(inputs: Inputs, keys: Keys, step: Scalar) -> PyTree:
        return sampling.order(jax.random.fold_in(keys.order, step // steps_per_pass), inputs.graph, sizes)

    def batch(drawn: PyTree, inputs: Inputs, keys: Keys, step: Scalar, draw: Draw | None = None) -> Batch:
        index = step % steps_per_pass
        share = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), drawn)
        rows_key, negatives_key, step_key = jax.random.split(jax.random.fold_in(keys.step, step), 3)
        users, items, mask = sampling.rows(share, rows_key, inputs.graph, sizes)
        pairs = users.reshape(-1), items.reshape(-1)
        drawn_items = (draw or negatives(inputs.graph))(*pairs, negatives_key, method.num_negatives)
        return Batch(users, items, mask, drawn_items.reshape(*users.shape, method.num_negatives), step_key)

    def first_metrics(inputs: Inputs, keys: Keys) -> Metrics:
        state = method.init(keys.init)
        first = jnp.asarray(state.step)
        metrics: Metrics
        _, metrics = step_once(state, inputs, batch(order(inputs, keys, first), inputs, keys, first))
        return metrics

    @cache
    def metric_names() -> tuple[str, ...]:
        return tuple(jax.eval_shape(first_metrics, inputs, make_keys(0)))

    def init(keys: Keys) -> Progress:
        return Progress(method.init(keys.init), zero_means(metric_names()))

    @cache
    def shapes() -> Progress:
        made: Progress = jax.eval_shape(init, make_keys(0))
        return made

    def run(progress: Progress, drawn: PyTree, inputs: Inputs, keys: Keys, num_steps: StepCount) -> Progress:
        draw = negatives(inputs.graph)  # sums over the graph once, outside the loop
        begins = (num_steps > 0) & (jnp.asarray(progress.state.step) % epoch_steps == 0)

        def one_step(_: Scalar, progress: Progress) -> Progress:
            state, means = progress
            rows = batch(drawn, inputs, keys, jnp.asarray(state.step), draw)
            after, metrics = step_once(state, inputs, rows)
            return Progress(after, _with_step(means, metrics, jnp.sum(rows.mask, dtype=jnp.int32)))

        means = jax.tree.map(lambda mean: jnp.where(begins, jnp.zeros_like(mean), mean), progress.means)
        after: Progress = jax.lax.fori_loop(0, num_steps, one_step, Progress(progress.state, means))
        return after

    batch_of_step = jax.jit(lambda drawn, inputs, keys, step: batch(drawn, inputs, keys, step), inline=True)
    return Loop(steps_per_pass, epoch_steps, shapes, init, order, batch_of_step, run, method.embed)


def place_loop(loop: Loop, layout: Layout) -> Loop:
    """Return the loop with its results placed on a mesh."""
    return loop._replace(
        shapes=lambda: cast("Progress", layout.shapes(loop.shapes())),
        init=layout.placed(loop.init),
        order=layout.placed(loop.order),
        batch=layout.placed(loop.batch),
        run=layout.placed(loop.run),
        embed=layout.placed(loop.embed),
    )


def compile_loop(loop: Loop, inputs: Inputs, keys: Keys, layout: Layout | None = None) -> Loop:
    """Compile all functions of a loop except `batch`; one program runs any number of steps.

    `inputs` are those that the loop was made for, or their shapes. `keys` may have any value. On a mesh, `layout` gives
    their shardings.
    """
    step = jnp.int32(0)
    with ThreadPoolExecutor() as pool:  # XLA compiles one program while Python traces the next

        def compiled(
            function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()
        ) -> "Future[jax.stages.Compiled]":
            places = arguments if layout is None else layout.shapes(arguments)
            return pool.submit(compiler_of(function, *places, donate=donate))

        drawn = jax.eval_shape(loop.order, inputs, keys, step)
        # The largest program first: the others are traced while it compiles.
        run = compiled(loop.run, loop.shapes(), drawn, inputs, keys, step, donate=(0,))
        order = compiled(loop.order, inputs, keys, step)
        init = compiled(loop.init, keys)
        embed = compiled(loop.embed, loop.shapes().state, inputs)
        return loop._replace(run=run.result(), order=order.result(), init=init.result(), embed=embed.result())


def epoch(loop: Loop, progress: Progress, inputs: Inputs, keys: Keys) -> Progress:
    """Train for one whole epoch, as one pure function."""
    of_epoch, of_pass = loop.steps_per_epoch, loop.steps_per_pass
    aligned = of_epoch % of_pass == 0 or of_pass % of_epoch == 0

    def within_pass(_: Scalar, carried: tuple[Progress, Scalar]) -> tuple[Progress, Scalar]:
        progress, left = carried
        step = jnp.asarray(progress.state.step)
        # Keep the count concrete where it is known: a traced count under `jax.vmap` gives each loop a different length.
        taken = jnp.int32(min(of_epoch, of_pass)) if aligned else jnp.minimum(left, of_pass - step % of_pass)
        return loop.run(progress, loop.order(inputs, keys, step), inputs, keys, taken), left - taken

    num_passes, start = math.ceil(of_epoch / of_pass) + (not aligned), (progress, jnp.int32(of_epoch))
    after = (
        within_pass(jnp.int32(0), start) if num_passes == 1 else jax.lax.fori_loop(0, num_passes, within_pass, start)
    )
    return after[0]


def zero_means(names: Iterable[str]) -> Means:
    """Return the means of zero steps. Each zero is a separate array, because the buffers are donated."""
    return Means({name: jnp.zeros(()) for name in names}, jnp.zeros((), jnp.int32))


def _with_step(means: Means, metrics: Metrics, rows: Int[Array, ""]) -> Means:
    """Update running means. Unlike a sum, their rounding error does not grow with the length of an epoch."""
    total = means.rows + rows
    share = rows.astype(jnp.float32) / jnp.maximum(total, 1).astype(jnp.float32)
    values = {name: mean + (jnp.float32(metrics[name]) - mean) * share for name, mean in means.values.items()}
    return Means(values, total)
