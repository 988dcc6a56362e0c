"""MMSSL's discriminator: its score, its gradient penalty, its real rows, and the game with the recommender."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mmssl_problem import DIM, NUM_ITEMS, PUBLISHED, SMALL, SPEC, normal, some_batch, some_rows

from slmrec_jax.config import MMSSLConfig
from slmrec_jax.methods.mmssl.discriminator import batch_norm, discriminator, gradient_penalty, real_rows
from slmrec_jax.methods.mmssl.game import (
    COPIES,
    MAX_ADVERSARIAL_BYTES,
    adversarial_game,
    choose_seats,
    discriminator_loss,
    suggested_rows,
)
from slmrec_jax.methods.mmssl.recommender import similarity_rows


def unchanged(layer, x):
    return x


@pytest.mark.parametrize(("activation", "affine"), [("identity", True), ("leaky", False)])
def test_the_published_discriminator_is_affine(activation, affine):
    net = discriminator(DIM, (6, 4), activation=activation)
    score = jax.jit(lambda key, x: net.apply(net.init(key), x, unchanged, unchanged))
    a, b = (np.asarray(normal(seed, 5, DIM)) for seed in (1, 2))
    of_a, of_b, of_sum, of_zero = (score(jax.random.key(0), x) for x in (a, b, a + b, 0 * a))
    assert np.allclose(of_a + of_b, of_sum + of_zero, atol=1e-4) == affine


def test_the_published_score_lies_between_0_and_100():
    rows = 50.0 * normal(1, 200, DIM)
    found = {}
    for output in ("linear", "sigmoid"):
        net = discriminator(DIM, (6, 4), activation="identity", output=output)
        score = jax.jit(lambda key, rows, net=net: net.apply(net.init(key), rows, unchanged, unchanged))
        found[output] = np.asarray(score(jax.random.key(0), rows))
    assert found["sigmoid"].min() >= 0
    assert 50 < found["sigmoid"].max() <= 100
    assert found["linear"].min() < 0
    assert found["linear"].max() > 100


def test_batch_statistics_are_of_real_rows():
    mask, x = jnp.asarray(np.arange(8) < 5), np.array(normal(0, 8, 3))
    normed = jax.jit(lambda x: batch_norm(mask)(0, x))
    found = np.asarray(normed(x))[:5]
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-3)
    x[5:] = np.nan
    np.testing.assert_array_equal(found, np.asarray(normed(x))[:5])


def test_the_gradient_penalty_of_a_linear_score():
    w, mask = jnp.asarray([3.0, 4.0, 0.0]), jnp.asarray(np.arange(6) < 4)

    @jax.jit
    @jax.value_and_grad
    def of_scale(scale):
        return gradient_penalty(lambda x: scale * (x @ w), normal(0, 6, 3), mask)

    np.testing.assert_allclose(of_scale(1.0), (16, 40), rtol=1e-5)
    np.testing.assert_allclose(of_scale(0.0), (1, 0))  # the gradient has no direction, and is not NaN


def test_the_discriminator_descends_from_suggested_to_real():
    real, suggested, mask = normal(0, 6, 3), normal(1, 6, 3), np.arange(6) < 4
    scores = [lambda rows: rows @ jnp.ones(3)] * 3
    loss, metrics = jax.jit(partial(discriminator_loss, scores), static_argnums=4)(
        real, suggested, jnp.full((6, 1), 0.5), mask, 2.0
    )
    distance = np.asarray(real)[:4].sum(1).mean() - np.asarray(suggested)[:4].sum(1).mean()
    np.testing.assert_allclose(metrics["distance"], distance, rtol=1e-4)
    np.testing.assert_allclose(loss, 2 * (math.sqrt(3) - 1) ** 2 - distance, rtol=1e-4)


def test_the_penalty_is_taken_between_real_and_suggested_rows():
    """With D(x) = |x|² / 2 the gradient is the row itself, so the penalty shows which rows were mixed, and how."""
    real, suggested, mask = normal(0, 6, 3), normal(1, 6, 3), np.arange(6) < 4
    shares = np.linspace(0.0, 1.0, 6, dtype=np.float32)[:, None]
    half_squares = [lambda rows: jnp.sum(jnp.square(rows), axis=1) / 2] * 3
    _, metrics = jax.jit(partial(discriminator_loss, half_squares), static_argnums=4)(
        real, suggested, shares, mask, 1.0
    )
    lengths = np.linalg.norm(shares * real + (1 - shares) * suggested, axis=1)[:4]
    np.testing.assert_allclose(metrics["penalty"], np.mean((lengths - 1) ** 2), rtol=1e-5)


@pytest.mark.usefixtures("optax_promotion")
def test_the_generator_raises_the_score_of_suggested_rows_and_the_discriminator_has_its_own_moments(given):
    """-mean D(q) of every modality; Adam with the betas of WGAN-GP, seen in its moments after one step."""
    options = MMSSLConfig(
        heads=2, adversarial_users=0, discriminator_dropout=(0.0, 0.0), discriminator_output="sigmoid"
    )
    game, _ = adversarial_game(dataclasses.replace(SMALL, mmssl=options), SPEC, SMALL.batch_size)
    net = discriminator(NUM_ITEMS, (NUM_ITEMS // 4, NUM_ITEMS // 8), output="sigmoid")
    encoded = some_rows()._replace(users=normal(8, 23, DIM), items=normal(9, 31, DIM))
    batch, mask = some_batch(), jnp.ones(12, bool)

    @jax.jit
    def play(keys, encoded, given):
        params, opt_state = game.init(keys[0])
        rows = suggested_rows(encoded, batch.users, None, "cosine")
        scores = net.apply(params, rows, batch_norm(mask), unchanged)
        terms = game.terms(params, encoded, given, batch, keys[1])
        return scores, terms, game.step(params, opt_state, encoded, given, batch, keys[2])[1]

    scores, terms, opt_state = play(jax.random.split(jax.random.key(1), 3), encoded, given)
    assert terms["generator"] < -1
    np.testing.assert_allclose(terms["generator"], -np.mean(scores), rtol=1e-4)

    moments = opt_state[0]  # (1 - b1) g and (1 - b2) g², where g is the first gradient
    mean, square = (np.asarray(each["output"]["kernel"]) for each in (moments.mu, moments.nu))
    np.testing.assert_allclose(square, 0.1 * (mean / 0.5) ** 2, rtol=1e-4)


def test_real_rows_are_interactions_or_own_scores():
    known = np.float32(np.asarray(normal(0, 4, 200)) > 1.5)
    own = jax.jit(similarity_rows)(normal(1, 4, DIM), normal(2, 200, DIM), 1.0 - known)
    drawn = np.random.default_rng(3).uniform(size=known.shape).astype(np.float32)

    def likeness(options):
        settings = {"temperature": 0.005, "cooled": options.real_cooled, "own_weight": options.own_weight}
        rows = np.asarray(jax.jit(partial(real_rows, **settings))(known, own, drawn))
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
        clean = np.asarray(known) / np.linalg.norm(known, axis=1, keepdims=True)
        return (rows * clean).sum(1), (rows * np.asarray(own)).sum(1)

    with_known, with_own = likeness(PUBLISHED.mmssl)
    assert with_known.max() < 0.05
    assert with_own.min() > 0.99
    with_known, with_own = likeness(SMALL.mmssl)
    assert with_known.min() > 0.9
    assert with_own.max() < 0.5


def test_what_the_temperature_divides():
    known, nothing = jnp.asarray([[1.0, 0.0, 0.0]]), jnp.zeros((1, 3))
    rows = {
        cooled: np.asarray(
            real_rows(known, nothing, jnp.full((1, 3), 0.3), temperature=0.1, cooled=cooled, own_weight=0.0)
        )[0]
        for cooled in ("whole_logit", "noise_only")
    }
    np.testing.assert_allclose(rows["noise_only"][0] / rows["noise_only"][1], math.e, rtol=1e-4)
    np.testing.assert_allclose(rows["whole_logit"][0] / rows["whole_logit"][1], math.e**10, rtol=1e-4)


def test_how_many_users_the_discriminator_sees():
    small, large = SPEC._replace(num_items=1000), SPEC._replace(num_items=10**6)
    for wanted, users in ((0, 1024), (64, 64), (5000, 1024)):
        assert choose_seats(small, 1024, wanted)[0] == users
    few, reason = choose_seats(large, 1024, 0)
    assert 2 <= few < 1024
    assert 4 * COPIES * few * 2 * 10**6 <= MAX_ADVERSARIAL_BYTES < 4 * COPIES * (few + 1) * 2 * 10**6
    assert "all 1024 would take" in reason
    # Batch norm of a single row leaves nothing.
    assert choose_seats(SPEC._replace(num_items=2**31 - 1), 1024, 0)[0] == 2
