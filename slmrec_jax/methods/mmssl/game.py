"""MMSSL's adversarial part (WGAN-GP): a discriminator between users' interactions and the modalities' suggestions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Scalar

from slmrec_jax.config import Config
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.layers import mean
from slmrec_jax.methods.micro_batches import mean_in_turn
from slmrec_jax.methods.mmssl.discriminator import (
    Critic,
    batch_norm,
    discriminator,
    gradient_penalty,
    layer_dropout,
    real_rows,
)
from slmrec_jax.methods.mmssl.graphs import interaction_rows
from slmrec_jax.methods.mmssl.recommender import Encoded, Similarity, comparable_rows, similarity_rows
from slmrec_jax.types import Batch, Inputs, Params, Spec

MAX_ADVERSARIAL_BYTES = 512 * 2**20
"""The maximum total size of the discriminator's rows."""

COPIES = 8
"""The number of arrays of shape (users × modalities, items) that are in memory at once: the real, suggested and mixed
rows, their sources, and the first and second derivatives with respect to the mixed rows."""

MAX_WIDTHS = (256, 128)
"""The maximum widths of the discriminator's hidden layers if they are capped."""


class Game(NamedTuple):
    """The discriminator's part of a step."""

    init: Callable[[Key[Array, ""]], tuple[Params, Any]]
    """`key -> (params, opt_state)` of the discriminator."""
    step: Callable[[Params, Any, Encoded, Inputs, Batch, Key[Array, ""]], tuple[Params, Any, dict[str, Scalar]]]
    """`(params, opt_state, encoded, inputs, batch, key) -> (params, opt_state, metrics)`."""
    terms: Callable[[Params, Encoded, Inputs, Batch, Key[Array, ""]], dict[str, Scalar]]
    """`(params, encoded, inputs, batch, key) -> terms` that the discriminator adds to the recommender's loss."""


NO_GAME = Game(
    lambda key: ({}, ()),
    lambda params, opt_state, encoded, inputs, batch, key: (params, opt_state, {}),
    lambda params, encoded, inputs, batch, key: {},
)


def choose_seats(spec: Spec, rows: int, wanted: int) -> tuple[int, str]:
    """Choose how many users of a batch of `rows` rows the discriminator sees, and return the number with the reason.

    The number is `wanted` (0 means the whole batch), reduced so that `COPIES` arrays of their rows fit the budget.
    """
    num_modalities = len(spec.modalities)
    bytes_of_user = 4 * COPIES * num_modalities * spec.num_items
    asked = min(wanted or rows, rows)
    # At least two, if the batch has them, since batch normalisation turns a single row into zeros.
    num_users = min(rows, max(2, min(asked, MAX_ADVERSARIAL_BYTES // bytes_of_user)))
    size = f"{num_users * num_modalities} rows, about {num_users * bytes_of_user / 2**20:.0f} MiB"
    if num_users < asked:
        size += f"; all {asked} would take {asked * bytes_of_user / 2**20:.0f} MiB"
    return num_users, size


def discriminator_loss(
    critics: Sequence[Critic],
    real: Float[Array, "rows items"],
    suggested: Float[Array, "rows items"],
    shares: Float[Array, "rows 1"],
    mask: Bool[Array, " rows"],
    penalty_weight: float,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute WGAN-GP: mean D(suggested) - mean D(real) + weight · penalty(share · real + (1 - share) · suggested).

    `critics` are D for each of the three calls, with different dropout masks. `shares` are uniform in [0, 1). `mask` is
    true for rows that belong to real rows of the batch.
    """
    mixed = shares * real + (1.0 - shares) * suggested
    penalty = gradient_penalty(critics[2], mixed, mask)
    distance = mean(critics[0](real), mask) - mean(critics[1](suggested), mask)
    return penalty_weight * penalty - distance, {"distance": distance, "penalty": penalty}


def suggested_rows(
    encoded: Encoded, users: Int[Array, " batch"], unseen: Float[Array, "batch items"] | None, similarity: Similarity
) -> Float[Array, "rows items"]:
    """Return q (`similarity_rows`) of every modality, stacked in modality order."""
    of_modalities = [comparable_rows(encoded, name, similarity) for name in encoded.user_features]
    return jnp.concatenate([similarity_rows(take(rows, users), items, unseen) for rows, items in of_modalities])


def adversarial_game(config: Config, spec: Spec, rows: int) -> tuple[Game, str]:
    """Make the game of a config, with a log line about its size; `NO_GAME` if its term has weight 0.

    A batch or micro-batch has `rows` rows.
    """
    options = config.mmssl
    if options.adversarial_weight == 0:
        return NO_GAME, "no discriminator: its term has weight 0"
    num_modalities = len(spec.modalities)
    num_users, reason = choose_seats(spec, rows, options.adversarial_users)
    quarter, eighth = max(1, spec.num_items // 4), max(1, spec.num_items // 8)
    capped = options.discriminator_widths == "capped"
    net = discriminator(
        spec.num_items,
        (min(quarter, MAX_WIDTHS[0]), min(eighth, MAX_WIDTHS[1])) if capped else (quarter, eighth),
        activation=options.discriminator_activation,
        output=options.discriminator_output,
    )
    optimizer = optax.adam(options.discriminator_learning_rate, b1=0.5, b2=0.9)

    def critic_of(params: Params, mask: Bool[Array, " rows"], key: Key[Array, ""]) -> Critic:
        standardize, drop = batch_norm(mask), layer_dropout(key, options.discriminator_dropout)
        return lambda rows: net.apply(params, rows, standardize, drop)

    def seats(inputs: Inputs, batch: Batch) -> tuple[Array, Array, Array, Array | None]:
        """Return the participating users, the mask of their rows, their interactions, and the factors on scores."""
        users, mask = batch.users[:num_users], jnp.tile(batch.mask[:num_users], num_modalities)
        known = interaction_rows(inputs.graph, users)
        return users, mask, known, 1.0 - known if options.mask_training else None

    def init(key: Key[Array, ""]) -> tuple[Params, Any]:
        params = net.init(key)
        return params, optimizer.init(params)

    def step(
        params: Params, opt_state: Any, encoded: Encoded, inputs: Inputs, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Params, Any, dict[str, Scalar]]:
        gradients, metrics = mean_in_turn(lambda batch: gradients_of(params, encoded, inputs, batch, key), batch)
        changes, opt_state = optimizer.update(gradients, opt_state, params)
        after: Params = optax.apply_updates(params, changes)
        return after, opt_state, metrics

    def gradients_of(
        params: Params, encoded: Encoded, inputs: Inputs, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Params, dict[str, Scalar]]:
        draw_key, drop_key = (jax.random.fold_in(key, place) for place in range(2))
        users, mask, known, unseen = seats(inputs, batch)
        drawn = jax.random.uniform(draw_key, (users.shape[0], spec.num_items + num_modalities))
        real = real_rows(
            known,
            similarity_rows(take(encoded.users, users), encoded.items, unseen),
            drawn[:, : spec.num_items],
            temperature=options.real_temperature,
            cooled=options.real_cooled,
            own_weight=options.own_weight,
        )
        real = jnp.tile(real, (num_modalities, 1))
        suggested = suggested_rows(encoded, users, unseen, options.similarity)
        shares = drawn[:, spec.num_items :].T.reshape(-1, 1)

        def loss(params: Params) -> tuple[Scalar, dict[str, Scalar]]:
            critics = [critic_of(params, mask, jax.random.fold_in(drop_key, call)) for call in range(3)]
            return discriminator_loss(critics, real, suggested, shares, mask, options.penalty_weight)

        gradients: tuple[Params, dict[str, Scalar]] = jax.grad(loss, has_aux=True)(params)
        return gradients

    def terms(params: Params, encoded: Encoded, inputs: Inputs, batch: Batch, key: Key[Array, ""]) -> dict[str, Scalar]:
        users, mask, _, unseen = seats(inputs, batch)
        suggested = suggested_rows(encoded, users, unseen, options.similarity)
        return {"generator": -mean(critic_of(params, mask, key)(suggested), mask)}

    return Game(init, step, terms), f"discriminator: {num_users} users per batch ({reason})"
