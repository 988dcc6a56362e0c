"""LATTICE's step: the item graph is built in the first step of each pass over the data and reused in the others."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array, Bool, Int, Key, PyTree

from slmrec_jax.config import Config
from slmrec_jax.encoding.item_graphs import item_graph
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.methods.gradient import gradient_method
from slmrec_jax.methods.optimizers import make_optimizer
from slmrec_jax.models.lattice import HeldGraph, lattice_recipe, learned_graph
from slmrec_jax.objectives.sampling import SAMPLINGS, Sizes
from slmrec_jax.types import Batch, Embeddings, Inputs, Method, Metrics, Params, Spec

_Path: TypeAlias = tuple[Any, ...]


_GRAPH, _REST = "graph", "rest"
_READ_BY_GRAPH = {"modalities", "weights"}
"""The parameters that only the graph reads."""


class WithGraph(NamedTuple):
    """An optimizer state together with the item graph of the current pass."""

    opt_state: optax.OptState
    graph: Operator
    built: Int[Array, ""]
    """The pass that built the graph. If a pass's first step is skipped because it is not finite, the next step builds
    it."""


def lattice_method(config: Config, spec: Spec) -> Method:
    """Make LATTICE's method: gradient descent on BPR and L2, with an item graph that is rebuilt once per pass.

    As in the published code, the gradient reaches the features and their projections only in a pass's first step.
    Later steps read the graph as a constant. They leave these parameters and their optimizer state, with its count of
    steps, unchanged, like PyTorch's Adam for parameters without a gradient. The optimizer therefore updates them
    separately: a chain that clips by a global norm uses the norm of each part. Ranking builds the graph from the
    current parameters.

    Raises:
        UserError: There are no features.
    """
    recipe, options = lattice_recipe(config, spec), config.lattice
    optimizer = make_optimizer(config.optimizer)
    in_parts = optax.partition({_GRAPH: optimizer, _REST: optimizer}, _parts)
    base = gradient_method(recipe.model, recipe.terms, in_parts, spec)
    steps = SAMPLINGS[base.sampling].num_steps(
        spec.num_interactions, Sizes(config.batch_size, config.num_micro_batches)
    )
    build = learned_graph(spec, neighbours=options.neighbours, original_share=options.original_share)

    def plain(state: TrainState) -> TrainState:
        inner: TrainState = state.replace(opt_state=state.opt_state.opt_state)
        return inner

    def init(key: Key[Array, ""]) -> TrainState:
        state = base.init(key)
        # The first step builds the graph. Until then, only its shapes matter.
        entries = spec.num_items, 2 * len(spec.modalities) * min(options.neighbours, spec.num_items)
        graph = item_graph([jnp.zeros(entries, jnp.int32)], [jnp.zeros(entries)])
        started: TrainState = state.replace(opt_state=WithGraph(state.opt_state, graph, jnp.int32(-1)))
        return started

    def step(state: TrainState, inputs: Inputs, batch: Batch) -> tuple[TrainState, Metrics]:
        before, held = plain(state), state.opt_state.graph
        current = jnp.asarray(state.step) // steps
        fresh = current != state.opt_state.built
        # Built here and, with a gradient, in the loss: twice per pass.
        graph = jax.lax.cond(fresh, lambda: build(before.params["model"], inputs.cache), lambda: held)
        with_held = inputs._replace(cache=inputs.cache._replace(held=HeldGraph(held, fresh)))
        after, metrics = base.step(before, with_held, batch)
        after = _with_held_part(after, before, fresh)
        return after.replace(opt_state=WithGraph(after.opt_state, graph, current)), metrics

    def embed(state: TrainState, inputs: Inputs) -> Embeddings:
        return base.embed(plain(state), inputs)

    return base._replace(init=init, step=step, embed=embed, loss=None)


def _parts(params: Params) -> PyTree[str]:
    """Name the part of the optimizer that each parameter belongs to."""

    def part(path: _Path, _: Array) -> str:
        return _GRAPH if _names(path) & _READ_BY_GRAPH else _REST

    return jax.tree_util.tree_map_with_path(part, params)


def _with_held_part(after: TrainState, before: TrainState, fresh: Bool[Array, ""]) -> TrainState:
    """Return the state after a step. Without a fresh graph, what only the graph reads keeps its values.

    Otherwise, optimizers such as Adam would change these parameters by momentum although their gradient is 0.
    """

    def choose(path: _Path, new: Array, old: Array) -> Array:
        return jnp.where(fresh, new, old) if _names(path) & {_GRAPH, *_READ_BY_GRAPH} else new

    chosen: TrainState = jax.tree_util.tree_map_with_path(choose, after, before)
    return chosen


def _names(path: _Path) -> set[Any]:
    return {getattr(key, "key", None) for key in path}
