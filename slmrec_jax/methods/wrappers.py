"""Wrappers for any method: matrix-product precision, tracing for a mesh, and stale embeddings for evaluation."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from slmrec_jax.meshes import tracing_for
from slmrec_jax.types import Batch, Embeddings, Inputs, Method, Metrics


def with_precision(method: Method, precision: str) -> Method:
    """Run a method with the given `jax.default_matmul_precision`, which applies to products that do not set their own.

    CPUs always compute in float32.
    """
    names = ("step", "embed", "prepare", "loss", "cold_items")
    return _within(lambda: jax.default_matmul_precision(precision), method, names)


def with_mesh(method: Method, mesh: Mesh) -> Method:
    """Trace a method for a mesh. `cold_items` still runs on one device."""
    return _within(lambda: tracing_for(mesh), method, ("init", "step", "embed", "prepare", "loss"))


def _within(context: Callable[[], AbstractContextManager[Any]], method: Method, names: Sequence[str]) -> Method:
    """Return the method with the named functions called in a context."""

    def within(function: Callable[..., Any] | None) -> Any:
        def call(*arguments: Any) -> Any:
            with context():
                return function(*arguments)  # type: ignore[misc]

        return function and call

    return method._replace(**{name: within(getattr(method, name)) for name in names})


class WithRanked(NamedTuple):
    """An optimizer state together with the embeddings before an epoch's last step."""

    opt_state: optax.OptState
    ranked: Embeddings
    step: Int[Array, ""]
    """The number of steps taken before `ranked`; -1 if there are no embeddings yet."""


def with_stale_embeddings(method: Method, inputs: Inputs, steps_per_epoch: int) -> Method:
    """Evaluate a method with the embeddings from before each epoch's last step, like SLMRec's published code.

    The embeddings are stored in the optimizer state. If the last step was skipped, the current embeddings are returned.
    `inputs` are the method's prepared inputs, or their shapes.
    """

    def plain(state: TrainState) -> TrainState:
        inner: TrainState = state.replace(opt_state=state.opt_state.opt_state)
        return inner

    def init(key: Key[Array, ""]) -> TrainState:
        state = method.init(key)
        shapes = jax.eval_shape(method.embed, state, inputs)
        zeros = Embeddings(*(jnp.zeros(table.shape, table.dtype) for table in shapes))
        started: TrainState = state.replace(opt_state=WithRanked(state.opt_state, zeros, jnp.int32(-1)))
        return started

    def step(state: TrainState, inputs: Inputs, batch: Batch) -> tuple[TrainState, Metrics]:
        before, (_, ranked, ranked_step) = plain(state), state.opt_state
        last = jnp.asarray(state.step) % steps_per_epoch == steps_per_epoch - 1
        ranked = jax.lax.cond(last, lambda: method.embed(before, inputs), lambda: ranked)
        ranked_step = jnp.where(last, jnp.asarray(state.step), ranked_step)
        after, metrics = method.step(before, inputs, batch)
        return after.replace(opt_state=WithRanked(after.opt_state, ranked, ranked_step)), metrics

    def embed(state: TrainState, inputs: Inputs) -> Embeddings:
        _, ranked, ranked_step = state.opt_state
        current: Embeddings = jax.lax.cond(
            ranked_step == jnp.asarray(state.step) - 1, lambda: ranked, lambda: method.embed(plain(state), inputs)
        )
        return current

    cold_items = method.cold_items
    return method._replace(
        init=init,
        step=step,
        embed=embed,
        cold_items=cold_items and (lambda state, features: cold_items(plain(state), features)),
    )
