"""MMSSL's discriminator: it tells rows of user-item relations that are from rows that the modalities suggest."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Scalar

from slmrec_jax.encoding import layers
from slmrec_jax.encoding.layers import mean
from slmrec_jax.objectives.augmentations import dropout
from slmrec_jax.types import Params

SLOPE = 0.2
EPSILON = 1e-5
"""Joins the variance that a batch is divided by."""

Stage = Callable[[int, Float[Array, "rows width"]], Float[Array, "rows width"]]
"""`(layer, rows) -> rows`."""
Score = Callable[[Float[Array, "rows items"]], Float[Array, " rows"]]


class Discriminator(NamedTuple):
    """D as pure functions."""

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[[Params, Float[Array, "rows items"], Stage, Stage], Float[Array, " rows"]]
    """`(params, rows, standardize, drop) -> scores`."""


def discriminator(
    num_items: int,
    widths: tuple[int, int],
    *,
    activation: Literal["leaky", "identity"] = "leaky",
    output: Literal["linear", "sigmoid"] = "linear",
) -> Discriminator:
    """D(x) = w · f_2(f_1(x)), each f = drop(batch_norm(leaky(x W + b))).

    Args:
        num_items: the length of a row.
        widths: of the two hidden layers.
        activation: leaky ReLU of slope 0.2; or none, as in the published code, which builds it with slope 1. What is
            constant over a batch is then gone with the batch's mean, so that there is no b.
        output: the score itself, as Wasserstein's distance wants it: a constant in it changes nothing, so there is
            none; or 100 sigmoid(score + c), as in the published code.
    """

    def init(key: Key[Array, ""]) -> Params:
        sizes = (num_items, *widths, 1)
        kernels = [
            # Kaiming-normal for a ReLU: standard deviation sqrt(2 / inputs).
            (2.0 / inputs) ** 0.5 * jax.random.normal(key, (inputs, outputs), jnp.float32)
            for key, inputs, outputs in zip(jax.random.split(key, 3), sizes[:-1], sizes[1:], strict=True)
        ]
        hidden = [
            {"kernel": kernel, "scale": jnp.ones(width), "shift": jnp.zeros(width)}
            | ({"bias": jnp.zeros(width)} if activation == "leaky" else {})
            for kernel, width in zip(kernels[:-1], widths, strict=True)
        ]
        last = {"kernel": kernels[-1]} | ({"bias": jnp.zeros(1)} if output == "sigmoid" else {})
        return {"hidden": hidden, "output": last}

    def apply(params: Params, rows: Float[Array, "rows items"], standardize: Stage, drop: Stage) -> Array:
        x = rows
        for layer, hidden in enumerate(params["hidden"]):
            x = x @ hidden["kernel"]
            if activation == "leaky":
                x = jax.nn.leaky_relu(x + hidden["bias"][None, :], SLOPE)
            x = standardize(layer, x) * hidden["scale"][None, :] + hidden["shift"][None, :]
            x = drop(layer, x)
        scores: Array = (x @ params["output"]["kernel"])[:, 0]
        return 100.0 * jax.nn.sigmoid(scores + params["output"]["bias"]) if output == "sigmoid" else scores

    return Discriminator(init, apply)


def batch_standardized(mask: Bool[Array, " rows"]) -> Stage:
    """Subtracts the mean over the real rows and divides by their standard deviation, column by column."""
    real = mask[:, None]
    count = jnp.sum(mask, dtype=jnp.float32)

    def standardize(layer: int, x: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        center = jnp.sum(jnp.where(real, x, 0.0), axis=0, keepdims=True) / count
        centered = jnp.where(real, x - center, 0.0)
        variance = jnp.sum(jnp.square(centered), axis=0, keepdims=True) / count
        return centered * jax.lax.rsqrt(variance + EPSILON)

    return standardize


def dropped(key: Key[Array, ""], rates: tuple[float, float]) -> Stage:
    """Dropout with a rate for each layer."""
    return lambda layer, x: dropout(jax.random.fold_in(key, layer), x, rates[layer])


def gradient_penalty(score: Score, rows: Float[Array, "rows items"], mask: Bool[Array, " rows"]) -> Scalar:
    """The mean over real rows of (|∂ Σ_b D(x_b) / ∂x_b| - 1)².

    The rows of a batch meet in D's batch statistics, so that a row's gradient holds what it does to the others. A
    gradient that is 0 has no direction, and none flows back through its length.
    """
    gradients = jax.grad(lambda x: jnp.sum(jnp.where(mask, score(x), 0.0)))(rows)
    squares = jnp.sum(jnp.square(gradients), axis=1)
    lengths = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    return mean(jnp.square(lengths - 1.0), mask)


def real_rows(
    interactions: Float[Array, "batch items"],
    own: Float[Array, "batch items"],
    uniform: Float[Array, "batch items"],
    *,
    temperature: float,
    cooled: Literal["whole_logit", "noise_only"],
    own_weight: float,
) -> Float[Array, "batch items"]:
    """What D takes for real: nrm(softmax of the user's interactions with a little Gumbel noise + weight · q).

    Args:
        interactions: R[u, :].
        own: q, the similarity rows of the recommender's own final vectors.
        uniform: uniform in [0, 1), which the noise is made of.
        temperature: τ > 0 of the softmax.
        cooled: divides R and noise by τ, as the first published version does; or the noise alone, as the newest does,
            where a parenthesis was lost.
        own_weight: of q. At the published 100 it is nearly all of the row.
    """
    noise = -1e-5 * jnp.log(-jnp.log(uniform + 1e-8) + 1e-8)
    logits = (interactions + noise) / temperature if cooled == "whole_logit" else interactions + noise / temperature
    rows = jax.nn.softmax(logits, axis=1) + own_weight * own
    return layers.normalize(rows)
