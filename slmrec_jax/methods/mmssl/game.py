"""MMSSL's adversarial half: a discriminator between a user's interactions and what each modality suggests (WGAN-GP)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Scalar

from slmrec_jax.config import Config
from slmrec_jax.encoding.layers import mean
from slmrec_jax.methods.mmssl.discriminator import (
    Discriminator,
    Score,
    batch_standardized,
    discriminator,
    dropped,
    gradient_penalty,
    real_rows,
)
from slmrec_jax.methods.mmssl.graphs import interaction_rows
from slmrec_jax.methods.mmssl.recommender import Encoded, compared, similarity_rows
from slmrec_jax.types import Batch, Inputs, Params, Spec

MAX_ADVERSARIAL_BYTES = 512 * 2**20
"""What the discriminator's rows may take in all."""

COPIES = 8
"""How many arrays of (users × modalities) × items the game holds at once: the real, the suggested and the mixed rows,
what they are made of, and the first and second derivatives of the mixed."""

MAX_WIDTHS = (256, 128)
"""Of the discriminator's hidden layers, where they are capped."""


class Game(NamedTuple):
    """What the discriminator does in a step."""

    init: Callable[[Key[Array, ""]], tuple[Params, Any]]
    """Its parameters and its optimizer's state."""
    step: Callable[[Params, Any, Encoded, Inputs, Batch, Key[Array, ""]], tuple[Params, Any, dict[str, Scalar]]]
    """`(params, opt_state, encoded, inputs, batch, key)`."""
    terms: Callable[[Params, Encoded, Inputs, Batch, Key[Array, ""]], dict[str, Scalar]]
    """What the recommender's loss has of it."""


NO_GAME = Game(
    lambda key: ({}, ()),
    lambda params, opt_state, encoded, inputs, batch, key: (params, opt_state, {}),
    lambda params, encoded, inputs, batch, key: {},
)


class Choice(NamedTuple):
    """How many users of a batch the discriminator sees, and why."""

    users: int
    reason: str


def choose_rows(*, batch_size: int, num_items: int, num_modalities: int, wanted: int) -> Choice:
    """The rule: as many users as wanted (0: all of the batch), while `COPIES` of their rows fit the budget."""
    bytes_of_user = 4 * COPIES * num_modalities * num_items
    asked = min(wanted or batch_size, batch_size)
    users = max(2, min(asked, MAX_ADVERSARIAL_BYTES // bytes_of_user))
    size = f"{users * num_modalities} rows, about {users * bytes_of_user / 2**20:.0f} MiB"
    if users >= asked:
        return Choice(users, size)
    return Choice(users, f"{size}; all {asked} would take {asked * bytes_of_user / 2**20:.0f} MiB")


def discriminator_loss(
    score: Callable[[int], Score],
    real: Float[Array, "rows items"],
    suggested: Float[Array, "rows items"],
    shares: Float[Array, "rows 1"],
    mask: Bool[Array, " rows"],
    penalty_weight: float,
) -> tuple[Scalar, dict[str, Scalar]]:
    """WGAN-GP: mean D(suggested) - mean D(real) + weight · penalty(share · real + (1 - share) · suggested).

    Args:
        score: D by the number of the call, each of which drops other entries.
        real: rows that are.
        suggested: rows of the modalities.
        shares: uniform in [0, 1).
        mask: which rows are real ones of the batch.
        penalty_weight: of the penalty.
    """
    mixed = shares * real + (1.0 - shares) * suggested
    penalty = gradient_penalty(score(2), mixed, mask)
    distance = mean(score(0)(real), mask) - mean(score(1)(suggested), mask)
    return penalty_weight * penalty - distance, {"distance": distance, "penalty": penalty}


def suggested_rows(
    encoded: Encoded,
    users: Int[Array, " batch"],
    kept: Float[Array, "batch items"] | None,
    similarity: Literal["cosine", "dot"] = "dot",
) -> Float[Array, "rows items"]:
    """The q of every modality, one below the other."""
    rows = [
        similarity_rows(encoded.user_features[name][users], compared(encoded.item_features[name], similarity), kept)
        for name in encoded.user_features
    ]
    return jnp.concatenate(rows)


def adversarial_game(config: Config, spec: Spec) -> tuple[Game, str]:
    """The game that a config asks for, and a line on its size; none where its term has weight 0."""
    options = config.mmssl
    if options.adversarial_weight == 0:
        return NO_GAME, "no discriminator: its term has weight 0"
    num_modalities = len(spec.modalities)
    choice = choose_rows(
        batch_size=config.batch_size,
        num_items=spec.num_items,
        num_modalities=num_modalities,
        wanted=options.adversarial_users,
    )
    quarter, eighth = max(1, spec.num_items // 4), max(1, spec.num_items // 8)
    capped = options.discriminator_widths == "capped"
    widths = (min(quarter, MAX_WIDTHS[0]), min(eighth, MAX_WIDTHS[1])) if capped else (quarter, eighth)
    net: Discriminator = discriminator(
        spec.num_items,
        widths,
        activation=options.discriminator_activation,
        output=options.discriminator_output,
    )
    optimizer = optax.adam(options.discriminator_learning_rate, b1=0.5, b2=0.9)

    def scores(params: Params, mask: Bool[Array, " rows"], key: Key[Array, ""]) -> Score:
        standardize, drop = batch_standardized(mask), dropped(key, options.discriminator_dropout)
        return lambda rows: net.apply(params, rows, standardize, drop)

    def seats(inputs: Inputs, batch: Batch) -> tuple[Array, Array, Array, Array | None]:
        """The users who take part, the mask of their rows, their interactions, and what is kept of their scores."""
        users, mask = batch.users[: choice.users], jnp.tile(batch.mask[: choice.users], num_modalities)
        known = interaction_rows(inputs.graph, users)
        return users, mask, known, 1.0 - known if options.mask_training else None

    def init(key: Key[Array, ""]) -> tuple[Params, Any]:
        params = net.init(key)
        return params, optimizer.init(params)

    def step(
        params: Params, opt_state: Any, encoded: Encoded, inputs: Inputs, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Params, Any, dict[str, Scalar]]:
        draw_key, drop_key = (jax.random.fold_in(key, place) for place in range(2))
        users, mask, known, kept = seats(inputs, batch)
        own = similarity_rows(encoded.users[users], encoded.items, kept)
        drawn = jax.random.uniform(draw_key, (users.shape[0], spec.num_items + num_modalities))
        real = real_rows(
            known,
            own,
            drawn[:, : spec.num_items],
            temperature=options.real_temperature,
            cooled=options.real_cooled,
            own_weight=options.own_weight,
        )
        real, suggested = (
            jnp.tile(real, (num_modalities, 1)),
            suggested_rows(encoded, users, kept, options.similarity),
        )
        shares = drawn[:, spec.num_items :].T.reshape(-1, 1)

        def loss(params: Params) -> tuple[Scalar, dict[str, Scalar]]:
            def score(call: int) -> Score:
                return scores(params, mask, jax.random.fold_in(drop_key, call))

            return discriminator_loss(score, real, suggested, shares, mask, options.penalty_weight)

        gradients, metrics = jax.grad(loss, has_aux=True)(params)
        changes, opt_state = optimizer.update(gradients, opt_state, params)
        after: Params = optax.apply_updates(params, changes)
        return after, opt_state, metrics

    def terms(params: Params, encoded: Encoded, inputs: Inputs, batch: Batch, key: Key[Array, ""]) -> dict[str, Scalar]:
        users, mask, _, kept = seats(inputs, batch)
        return {
            "generator": -mean(
                scores(params, mask, key)(suggested_rows(encoded, users, kept, options.similarity)), mask
            )
        }

    return Game(init, step, terms), f"discriminator: {choice.users} users a step ({choice.reason})"
