"""The default method: one optimizer minimises a weighted sum of losses on one encoder."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array, Key, Scalar

from slmrec_jax.encoding.rows import all_rows, distinct_ids
from slmrec_jax.errors import UserError, check_type, shown
from slmrec_jax.methods.micro_batches import gathering_for_all, mean_over_micro_batches
from slmrec_jax.types import (
    NO_AUGMENTATION,
    Augmentation,
    Batch,
    Context,
    Embeddings,
    Inputs,
    Loss,
    Method,
    Metrics,
    Model,
    Params,
    Spec,
    Term,
)

OF_VIEW = 2**31 - 1
"""The `fold_in` number of the PRNG key of the view that losses read. Losses use the numbers from 0."""


def gradient_method(
    model: Model,
    terms: Mapping[str, Term],
    optimizer: optax.GradientTransformation,
    spec: Spec,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> Method:
    """Make the method that minimises Σ weight · loss over the terms.

    Args:
        model: The encoder.
        terms: The terms of the objective by name; the names appear in the logged metrics.
        optimizer: Any optax transformation, such as a result of `make_optimizer`.
        spec: The sizes of the data.
        augmentation: The augmentation of the view that the losses read (`Context.view`).

    Raises:
        UserError: An argument has the wrong type, or a weight is not finite.
        ValueError: Every term has weight 0, or a term's name is `loss` or contains a slash.
    """
    _check_arguments(model, terms, optimizer)
    active = {name: term for name, term in terms.items() if term.weight != 0}
    if not active:
        raise ValueError("nothing to train: every term of the objective has weight 0")
    for name in active:
        if name == "loss" or "/" in name:
            raise ValueError(
                f"a term is called {name!r}: `loss` is the total, and a slash separates a term from its metrics"
            )
    loss = objective(model, active, augmentation)

    def init(key: Key[Array, ""]) -> TrainState:
        model_key, *keys = jax.random.split(key, 1 + len(active))
        losses = {name: term.loss.init(key, spec) for key, (name, term) in zip(keys, active.items(), strict=True)}
        params = {"model": model.init(model_key), "losses": losses}
        state = TrainState.create(apply_fn=None, params=params, tx=optimizer)  # type: ignore[no-untyped-call]
        # TrainState starts from a Python int, which would cause a second trace.
        counted: TrainState = state.replace(step=jnp.zeros((), jnp.int32))
        return counted

    def step(state: TrainState, inputs: Inputs, batch: Batch) -> tuple[TrainState, Metrics]:
        (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, inputs, batch)
        after: TrainState = state.apply_gradients(grads=gradients)  # type: ignore[no-untyped-call]
        return after, {"loss": value, **metrics}

    def embed(state: TrainState, inputs: Inputs) -> Embeddings:
        view = model.encode(state.params["model"], inputs)(NO_AUGMENTATION, jax.random.key(0))
        return Embeddings(all_rows(view.users, spec.num_users), all_rows(view.items, spec.num_items))

    cold_items = model.cold_items
    return Method(
        init,
        step,
        embed,
        model.prepare,
        loss,
        num_negatives=max(term.loss.num_negatives for term in active.values()),
        in_batch=tuple(name for name, term in active.items() if term.loss.in_batch),
        cold_items=None if cold_items is None else lambda state, features: cold_items(state.params["model"], features),
        by_columns=model.by_columns,
        micro_batches=True,
    )


def _check_arguments(model: Model, terms: Mapping[str, Term], optimizer: optax.GradientTransformation) -> None:
    check_type("model", model, Model, "a Model, such as slm.slmrec_recipe(config, spec).model")
    check_type("terms", terms, Mapping, "a mapping from names to slm.Term(weight, loss)")
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise UserError(f"optimizer is {shown(optimizer)}: give a transformation of optax, such as optax.adam(1e-3)")
    for name, term in terms.items():
        check_type(f"terms[{name!r}]", term, Term, "slm.Term(weight, loss)")
        check_type(f"the loss of terms[{name!r}]", term.loss, Loss, "slm.Loss(function), or slm.bpr() and the like")
        try:
            finite = math.isfinite(term.weight)
        except TypeError:
            finite = False
        if not finite:
            raise UserError(f"the weight of terms[{name!r}] is {shown(term.weight)}: give a finite number")


def objective(
    model: Model, terms: Mapping[str, Term], augmentation: Augmentation = NO_AUGMENTATION
) -> Callable[[Params, Inputs, Batch], tuple[Scalar, Metrics]]:
    """Return a function of the parameters that computes the weighted sum of the terms and the value of each term.

    With micro-batches, the results are means over the micro-batches.
    """

    def loss(params: Params, inputs: Inputs, batch: Batch) -> tuple[Scalar, Metrics]:
        encode = gathering_for_all(model.encode(params["model"], inputs))

        def objective_of(batch: Batch) -> tuple[Scalar, Metrics]:
            context = Context(
                view=encode(augmentation, jax.random.fold_in(batch.key, OF_VIEW)),
                batch=batch,
                users=distinct_ids(batch.users, batch.mask, inputs.graph.num_users),
                items=distinct_ids(batch.items, batch.mask, inputs.graph.num_items),
                encode=encode,
                inputs=inputs,
                model_params=params["model"],
                key=batch.key,
                negatives=batch.negatives.reshape(-1),
            )
            total = jnp.zeros(())
            metrics: dict[str, Scalar] = {}
            for index, (name, term) in enumerate(terms.items()):
                own = context._replace(key=jax.random.fold_in(batch.key, index))
                value, parts = _applied(name, term.loss, params["losses"][name], own)
                total += term.weight * value
                metrics |= {name: value} | {f"{name}/{part}": part_value for part, part_value in parts.items()}
            return total, metrics

        return mean_over_micro_batches(objective_of, batch)

    return loss


def _applied(name: str, loss: Loss, params: Params, context: Context) -> tuple[Scalar, Metrics]:
    """Apply a loss and check its results. Errors name the loss."""
    try:
        returned: Any = loss.apply(params, context)
    except Exception as error:
        error.add_note(f"in the loss {name!r}")
        raise
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], Mapping):
        raise UserError(f"the loss {name!r} returns {shown(returned)}: return the loss and a mapping of metrics")
    value, parts = returned
    for what, each in {"": value, **{f", metric {part!r}": part_value for part, part_value in parts.items()}}.items():
        is_array = isinstance(each, float | np.ndarray | np.generic | jax.Array)
        if not is_array or jnp.shape(each) != () or not jnp.issubdtype(jnp.result_type(each), jnp.floating):
            found = f"an array of {each.dtype} of shape {each.shape}" if hasattr(each, "dtype") else shown(each)
            raise UserError(
                f"the loss {name!r}{what}: {found}; return one float, such as slm.mean(values, batch.mask), the mean "
                "over the batch's real rows"
            )
    return value, parts
