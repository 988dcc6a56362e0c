"""The usual method: a weighted sum of losses on one encoder, descended by one optimizer."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array, Key, Scalar

from slmrec_jax.encoding.rows import distinct, whole
from slmrec_jax.types import (
    NO_AUGMENTATION,
    Batch,
    Context,
    Embeddings,
    Inputs,
    Method,
    Metrics,
    Model,
    Params,
    Spec,
    Term,
)

Objective = Callable[[Params, Inputs, Batch], tuple[Scalar, Metrics]]


def gradient_method(
    model: Model, terms: Mapping[str, Term], optimizer: optax.GradientTransformation, spec: Spec
) -> Method:
    """Descends Σ weight · loss over the terms.

    Args:
        model: the encoder.
        terms: losses by name, with their weights.
        optimizer: any optax transformation.
        spec: sizes for the losses' own parameters.

    Raises:
        ValueError: no term has a weight other than 0.
    """
    active = {name: term for name, term in terms.items() if term.weight != 0}
    if not active:
        raise ValueError("nothing to train: every term of the objective has weight 0")
    value_and_grad = jax.value_and_grad(objective(model, active), has_aux=True)

    def init(key: Key[Array, ""]) -> TrainState:
        model_key, *keys = jax.random.split(key, 1 + len(active))
        losses = {name: term.loss.init(key, spec) for key, (name, term) in zip(keys, active.items(), strict=True)}
        params = {"model": model.init(model_key), "losses": losses}
        state = TrainState.create(apply_fn=None, params=params, tx=optimizer)  # type: ignore[no-untyped-call]
        # TrainState counts from a Python int, which would cost a second trace.
        counted: TrainState = state.replace(step=jnp.zeros((), jnp.int32))
        return counted

    def step(state: TrainState, inputs: Inputs, batch: Batch) -> tuple[TrainState, Metrics]:
        (value, metrics), gradients = value_and_grad(state.params, inputs, batch)
        after: TrainState = state.apply_gradients(grads=gradients)  # type: ignore[no-untyped-call]
        return after, {"loss": value, **metrics}

    def embed(state: TrainState, inputs: Inputs) -> Embeddings:
        view = model.encode(state.params["model"], inputs)(NO_AUGMENTATION, jax.random.key(0))
        return Embeddings(whole(view.users, spec.num_users), whole(view.items, spec.num_items))

    place = model.cold_items
    return Method(
        init,
        step,
        embed,
        model.prepare,
        max(term.loss.num_negatives for term in active.values()),
        tuple(name for name, term in active.items() if term.loss.in_batch),
        cold_items=None if place is None else lambda state, features: place(state.params["model"], features),
    )


def objective(model: Model, terms: Mapping[str, Term]) -> Objective:
    """The training objective and its parts as a function of the parameters."""

    def apply(params: Params, inputs: Inputs, batch: Batch) -> tuple[Scalar, Metrics]:
        encode = model.encode(params["model"], inputs)
        view = encode(NO_AUGMENTATION, batch.key)
        users = distinct(batch.users, batch.mask, inputs.graph.num_users)
        items = distinct(batch.items, batch.mask, inputs.graph.num_items)
        total = jnp.zeros(())
        metrics: dict[str, Scalar] = {}
        for place, (name, (weight, loss)) in enumerate(terms.items()):
            key = jax.random.fold_in(batch.key, place)
            context = Context(params["model"], encode, inputs, key, users, items)
            value, parts = loss.apply(params["losses"][name], view, batch, context)
            total += weight * value
            metrics |= {name: value} | {f"{name}/{part}": of_part for part, of_part in parts.items()}
        return total, metrics

    return apply
