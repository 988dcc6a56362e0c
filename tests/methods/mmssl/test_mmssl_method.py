"""The method MMSSL: its steps, and each switch on which its paper and its published code differ."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mmssl_problem import PUBLISHED, SMALL, SPEC, edges_of

from slmrec_jax.config import PRESETS, Config, MMSSLConfig, OptimizerConfig, check_config, with_preset
from slmrec_jax.errors import UserError
from slmrec_jax.methods import make_method
from slmrec_jax.methods.mmssl import game
from slmrec_jax.objectives.sampling import uniform
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import Progress, make_keys, zero_means
from slmrec_jax.training.storage import checkpoint
from slmrec_jax.types import Batch

SWITCHES = {
    flag.removeprefix("mmssl."): value
    for flag, value in PRESETS["mmssl"]["published"].items()
    if flag.startswith("mmssl.")
}


@pytest.fixture(scope="module")
def two(tiny):
    return tiny.with_modalities(("visual", "textual"))


def problem(config, dataset):
    method = make_method(config, make_spec(config, dataset))
    inputs = jax.jit(method.prepare)(make_inputs(dataset))
    return method, inputs, jax.jit(method.init)(make_keys(0).init), jax.jit(method.step)


def batch_of(inputs, size=32, real=32, junk=0):
    rows = np.random.default_rng(0).permutation(inputs.graph.num_interactions)[:size]
    rows[real:] = junk
    users, items = (jnp.asarray(np.asarray(ids)[rows]) for ids in inputs.graph.interactions)
    negatives = jax.jit(uniform(inputs.graph), static_argnums=3)(users, items, jax.random.key(0), 1)
    return Batch(users, items, jnp.asarray(np.arange(size) < real), negatives, jax.random.key(0))


@pytest.fixture(scope="module")
def published(two):
    with jax.numpy_dtype_promotion("standard"):
        return problem(PUBLISHED, two)


@pytest.mark.slow
@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("of", ["published", "paper"])
def test_padded_rows_change_nothing(two, published, of):
    _method, inputs, state, step = published if of == "published" else problem(SMALL, two)
    one, other = (step(state, inputs, batch_of(inputs, real=21, junk=junk)) for junk in (3, 200))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("optax_promotion")
def test_the_training_graph_serves_until_a_step_was_taken(published):
    """Where the first step is skipped, as not finite, only the step count advances."""
    method, inputs, state, step = published
    embed, skipped = jax.jit(method.embed), state.replace(step=jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, embed(skipped, inputs), embed(state, inputs))
    after, _ = step(skipped, inputs, batch_of(inputs))
    assert bool(after.has_graphs)


@pytest.mark.slow
@pytest.mark.usefixtures("optax_promotion")
def test_published_steps_and_their_resumption(published, tmp_path):
    """With k = 0 the third step has no graph and a constant contrast. A restored state continues to the same bits."""
    method, inputs, state, step = published
    assert method.sampling == "users"
    users = jnp.arange(32, dtype=jnp.int32)
    batch = batch_of(inputs)._replace(users=users)
    contrasts = []
    for number in range(3):
        if number == 2:
            progress = Progress(state, zero_means(["loss"]))
            checkpoint.write_checkpoint(
                tmp_path, checkpoint.Checkpoint(checkpoint.Place(1), progress, checkpoint.Tally())
            )
            restored = checkpoint.restore_state(tmp_path, 1, state)
            jax.tree.map(np.testing.assert_array_equal, restored, state)
            again = step(restored, inputs, batch)
        state, metrics = step(state, inputs, batch)
        contrasts.append(float(metrics["contrast"]))
    jax.tree.map(np.testing.assert_array_equal, again, (state, metrics))
    constant = 2 * math.log(63)
    assert abs(contrasts[0] - constant) > 1e-2
    np.testing.assert_allclose(contrasts[2], constant, rtol=1e-6)
    assert edges_of(state.graphs) == [0] * 2


def test_the_papers_graph_is_never_empty(tiny):
    config = dataclasses.replace(SMALL, mmssl=MMSSLConfig(heads=2, topk_rate=0.0))
    method = make_method(config, make_spec(config, tiny))
    assert method.sampling == "interactions"
    assert "modality graphs: 1 items for every user" in method.notes[0]


@pytest.mark.usefixtures("optax_promotion")
def test_weight_0_leaves_a_term_out(tiny):
    config = dataclasses.replace(SMALL, mmssl=MMSSLConfig(heads=2, adversarial_weight=0.0, contrast_weight=0.0))
    method, inputs = make_method(config, make_spec(config, tiny)), make_inputs(tiny)
    state = jax.eval_shape(method.init, make_keys(0).init)
    assert state.discriminator == {}
    metrics = jax.eval_shape(method.step, state, jax.eval_shape(method.prepare, inputs), batch_of(inputs))[1]
    assert set(metrics) == {"loss", "bpr", "l2", "feature_l2"}
    assert "no discriminator" in method.notes[1]


def test_the_published_preset_has_its_own_learning_rate_unless_one_is_given():
    assert PUBLISHED.optimizer == OptimizerConfig(5.5e-4, 1e-2)
    given = dataclasses.replace(SMALL, optimizer=OptimizerConfig(learning_rate=0.01))
    assert with_preset(given, "published").optimizer == OptimizerConfig(0.01, 1e-2)


OTHER = {
    **SWITCHES,
    "normalize_features": True,
    "contrast_weight": 0.5,
    "contrast_temperature": 0.2,
    "adversarial_weight": 1.0,
    "topk_rate": 0.1,
    "refresh_every": 3,
    "adversarial_users": 5,
}
"""A value other than the default for each switch."""


def program(given, **switches):
    """Return how batches are drawn under these switches, and the first step as traced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(game, "MAX_WIDTHS", (4, 2))  # so few items do not reach the usual widths
        config = dataclasses.replace(SMALL, mmssl=dataclasses.replace(SMALL.mmssl, **switches))
        method = make_method(config, SPEC._replace(modalities={"visual": SPEC.modalities["visual"]}))
    batch = Batch(*(jnp.arange(32) % 7,) * 2, jnp.ones(32, bool), jnp.zeros((32, 1), jnp.int32), jax.random.key(0))

    def start(inputs):
        return method.step(method.init(jax.random.key(0)), method.prepare(inputs), batch)

    return method.sampling, str(jax.make_jaxpr(start)(given))


@pytest.fixture(scope="module")
def by_default(given):
    with jax.numpy_dtype_promotion("standard"):
        return program(given)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_reaches_the_program(given, by_default, switch):
    assert getattr(MMSSLConfig(), switch) != OTHER[switch]
    if switch == "graphs":  # graphs of the last batches need a period
        assert program(given, graphs=OTHER[switch], refresh_every=2) != program(given, refresh_every=2)
    else:
        assert program(given, **{switch: OTHER[switch]}) != by_default


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"feature_dropout": 1.0}, "mmssl.feature_dropout is 1"),
        ({"discriminator_dropout": (0.1, -1.0)}, "mmssl.discriminator_dropout is -1"),
        ({"contrast_temperature": 0.0}, "mmssl.contrast_temperature is 0"),
        ({"own_weight": -1.0}, "mmssl.own_weight is -1"),
    ],
)
def test_invalid_values(change, named):
    with pytest.raises(UserError, match=named):
        check_config(Config(model="mmssl", mmssl=MMSSLConfig(**change)))
    check_config(Config(model="mmssl"))


@pytest.mark.parametrize(
    ("batch_size", "micro_batches", "every", "said"),
    [
        (1000, 1, 0, "is 0, but a pass has 1 step: graphs of the last batches need at least 1$"),
        (50, 1, 3, "is 3, but a pass has 3 steps: graphs of the last batches need at least 1 and at most 2$"),
        (50, 2, 2, "and at most 1; fewer micro_batches make more steps$"),
    ],
)
def test_the_possible_periods_of_graphs_are_named(batch_size, micro_batches, every, said):
    options = MMSSLConfig(heads=2, graphs="last_batches", refresh_every=every)
    config = dataclasses.replace(SMALL, batch_size=batch_size, micro_batches=micro_batches, mmssl=options)
    with pytest.raises(UserError, match=said):
        make_method(config, SPEC)


def test_the_discriminator_sees_no_more_users_than_a_batch_has_rows():
    options = MMSSLConfig(heads=2, adversarial_users=0)
    for sampling, rows in (("interactions", SPEC.num_interactions), ("users", SPEC.num_users)):
        of_sampling = dataclasses.replace(options, sampling=sampling)
        config = dataclasses.replace(SMALL, batch_size=1000, mmssl=of_sampling)
        assert make_method(config, SPEC).notes[1].startswith(f"discriminator: {rows} users per batch")


def test_heads_divide_the_columns():
    with pytest.raises(UserError, match=r"mmssl\.heads=7 does not divide dim=64"):
        make_method(Config(model="mmssl", mmssl=MMSSLConfig(heads=7)), SPEC)


def test_mmssl_needs_a_modality():
    with pytest.raises(UserError, match="needs a modality"):
        make_method(Config(model="mmssl"), SPEC._replace(modalities={}))
