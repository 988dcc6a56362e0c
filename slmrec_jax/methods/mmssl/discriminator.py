"""MMSSL's discriminator, which distinguishes rows of observed interactions from rows suggested by the modalities."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Scalar

from slmrec_jax.encoding import layers
from slmrec_jax.objectives.augmentations import dropout
from slmrec_jax.types import Params

LEAKY_SLOPE = 0.2
EPSILON = 1e-5
"""Added to the variance in batch normalisation."""

Stage = Callable[[int, Float[Array, "rows width"]], Float[Array, "rows width"]]
"""A function `(layer, rows) -> rows`, such as normalisation or dropout."""
Critic = Callable[[Float[Array, "rows items"]], Float[Array, " rows"]]
"""D with its parameters bound: `rows -> scores`."""


class Discriminator(NamedTuple):
    """The discriminator D as pure functions."""

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
    """Make D(x) = w · f_2(f_1(x)), where each f = drop(batch_norm(leaky(x W + b))).

    Args:
        num_items: The length of a row.
        widths: The widths of the two hidden layers.
        activation: `"leaky"`: leaky ReLU with slope 0.2. `"identity"`: none, as in the published code, which sets the
            slope to 1; b is then omitted, because batch normalisation would remove it.
        output: `"linear"`: the score itself, as the Wasserstein distance requires; it has no bias, which would have no
            effect. `"sigmoid"`: 100 sigmoid(score + c), as in the published code.
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
                x = jax.nn.leaky_relu(x + hidden["bias"][None, :], LEAKY_SLOPE)
            x = standardize(layer, x) * hidden["scale"][None, :] + hidden["shift"][None, :]
            x = drop(layer, x)
        scores: Array = (x @ params["output"]["kernel"])[:, 0]
        return 100.0 * jax.nn.sigmoid(scores + params["output"]["bias"]) if output == "sigmoid" else scores

    return Discriminator(init, apply)


def batch_norm(mask: Bool[Array, " rows"]) -> Stage:
    """Make the stage that standardises each column with its mean and standard deviation over the unmasked rows."""
    real = mask[:, None]
    count = jnp.sum(mask, dtype=jnp.float32)

    def standardize(layer: int, x: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        center = jnp.sum(jnp.where(real, x, 0.0), axis=0, keepdims=True) / count
        centered = jnp.where(real, x - center, 0.0)
        variance = jnp.sum(jnp.square(centered), axis=0, keepdims=True) / count
        return centered * jax.lax.rsqrt(variance + EPSILON)

    return standardize


def layer_dropout(key: Key[Array, ""], rates: tuple[float, float]) -> Stage:
    """Make a dropout stage with a separate rate for each layer."""
    return lambda layer, x: dropout(jax.random.fold_in(key, layer), x, rates[layer])


def gradient_penalty(critic: Critic, rows: Float[Array, "rows items"], mask: Bool[Array, " rows"]) -> Scalar:
    """Compute the mean over unmasked rows b of (|∂ Σ_c D(x_c) / ∂x_b| - 1)².

    D uses batch statistics, so a row's gradient includes its effect on the scores of other rows. The norm of a zero
    gradient is not differentiable and is treated as a constant.
    """
    gradients = jax.grad(lambda x: jnp.sum(jnp.where(mask, critic(x), 0.0)))(rows)
    squares = jnp.sum(jnp.square(gradients), axis=1)
    lengths = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    return layers.mean(jnp.square(lengths - 1.0), mask)


def real_rows(
    interactions: Float[Array, "batch items"],
    own: Float[Array, "batch items"],
    uniform: Float[Array, "batch items"],
    *,
    temperature: float,
    cooled: Literal["whole_logit", "noise_only"],
    own_weight: float,
) -> Float[Array, "batch items"]:
    """Compute D's real rows: nrm(softmax(the user's interactions, with slight Gumbel noise) + weight · q).

    Args:
        interactions: R[u, :] of each user.
        own: q, the similarity rows (`similarity_rows`) of the recommender's own final rows.
        uniform: Uniform samples in [0, 1), from which the noise is computed.
        temperature: The softmax temperature τ > 0.
        cooled: `"whole_logit"`: τ divides R and the noise, as in the first published version. `"noise_only"`: τ divides
            only the noise, as in the newest version, where a parenthesis was lost.
        own_weight: The weight of q. With the published 100, the row is nearly all q.
    """
    noise = -1e-5 * jnp.log(-jnp.log(uniform + 1e-8) + 1e-8)
    logits = (interactions + noise) / temperature if cooled == "whole_logit" else interactions + noise / temperature
    rows = jax.nn.softmax(logits, axis=1) + own_weight * own
    return layers.normalize(rows)
