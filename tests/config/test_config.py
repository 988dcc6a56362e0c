import copy
import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slmrec_jax.config import (
    DEFAULTS,
    PRESETS,
    Config,
    OptimizerConfig,
    SLMRecConfig,
    check_config,
    from_json,
    source_of,
    to_json,
    with_defaults,
    with_preset,
    with_protocol,
)
from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.config.source import Source
from slmrec_jax.errors import UserError, naming_flags, setting
from slmrec_jax.methods.optimizers import make_optimizer


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_config_survives_json(preset, protocol):
    config = with_protocol(with_preset(Config(modalities=("visual",), ks=(3, 4)), preset), protocol)
    config = dataclasses.replace(config, optimizer=OptimizerConfig(chain=("adam(1e-3)",)))
    assert from_json(json.loads(json.dumps(to_json(config))), "here") == config


@pytest.mark.parametrize("change", [{"colour": 1}, {"slmrec": {"beta": 1}}, {"slmrec": 5}])
def test_json_of_another_version_is_refused(change):
    with pytest.raises(UserError, match=r"here is not a config of this version"):
        from_json(to_json(Config()) | change, "here")
    with pytest.raises(UserError, match="batch_size is missing"):
        from_json({}, "here")


def test_presets_set_the_same_switches_and_differ():
    reference, paper = PRESETS["reference"], PRESETS["paper"]
    assert set(reference) == set(paper)
    numbers = {"alpha", "ssl_temperature", "num_negatives", "dropout_rate"}
    assert set(reference) == {field.name for field in dataclasses.fields(SLMRecConfig)} - numbers
    assert with_preset(Config(), "reference").slmrec == SLMRecConfig(temperature=0.2)
    assert with_preset(Config(), "paper").slmrec.fac_similarity == "cosine"


@pytest.mark.parametrize("model", DEFAULTS)
def test_a_models_own_settings_yield_to_what_was_chosen(model):
    config = Config(model=model)
    assert vars(with_defaults(config).optimizer).items() >= DEFAULTS[model].items()
    chosen = OptimizerConfig(learning_rate=0.5, weight_decay=0.0)
    assert with_defaults(dataclasses.replace(config, optimizer=chosen)).optimizer == chosen


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": 1}, "dim is 1"),
        ({"ks": ()}, "ks is empty"),
        ({"ks": (0,)}, "ks is 0"),
        ({"eval": Config().eval._replace(cutoffs=())}, "eval.cutoffs is empty"),
        ({"main_weight": float("nan")}, "main_weight is nan"),
        ({"slmrec": SLMRecConfig(temperature=0.0)}, "slmrec.temperature is 0"),
        ({"slmrec": SLMRecConfig(dropout_rate=1.0)}, "slmrec.dropout_rate is 1"),
        ({"optimizer": OptimizerConfig(learning_rate=-1.0)}, "optimizer.learning_rate is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"protocol": "mmrec"}, r"with_protocol\(config, 'mmrec'\)"),
        ({"eval": Config().eval._replace(evaluate_every=0)}, "eval.evaluate_every is 0"),
        ({"eval": Config().eval._replace(cutoffs=(0, 20))}, "eval.cutoffs is 0"),
        ({"task": "fd+fm", "slmrec": SLMRecConfig(fd_mode="input", fm_granularity="item")}, "cannot both"),
    ],
)
def test_values_that_cannot_be_meant(change, named):
    with pytest.raises(UserError, match=named):
        check_config(dataclasses.replace(Config(), **change))
    check_config(Config())


def unchecked(name, value):
    """A config with one setting changed, by its dotted name, past the check of annotations that only tests have."""
    config = copy.copy(Config())
    section, _, field = name.rpartition(".")
    part = copy.copy(getattr(config, section)) if section else config
    object.__setattr__(part, field, value)
    if section:
        object.__setattr__(config, section, part)
    return config


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("negatives", "rare", "negatives is 'rare': give one of uniform, popular"),
        ("mmssl.graphs", "some", "mmssl.graphs is 'some'"),
        ("lightgcn.features", "fuse", "lightgcn.features is 'fuse'"),
    ],
)
def test_a_choice_that_is_none_is_refused_from_python_too(name, value, said):
    with pytest.raises(UserError, match=said):
        check_config(unchecked(name, value))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", "1", "'1', of type str: give a whole number"),
        ("epochs", True, "True, of type bool: give a whole number"),
        ("epochs", 1.0, "1.0, of type float: give a whole number"),
        ("main_weight", "1", "'1', of type str: give a number"),
        ("main_weight", float("inf"), "inf: give a finite number"),
        ("modalities", "visual", "'visual', of type str: give a tuple, each text"),
        ("ks", [10, 20], "[10, 20], of type list: give a tuple, each a whole number"),
        ("ks", (10, "20"), "(10, '20'), of type tuple: give a tuple, each a whole number"),
        ("data", None, "None, of type NoneType: give text"),
        ("task", None, "None, of type NoneType: give one of 'fac', 'fd', 'fm', 'fd+fm', 'none'"),
        ("model", ["mf"], "['mf'], of type list: give one of 'slmrec', 'mf'"),
        ("eval", ["strict"], "['strict'], of type list: give a slmrec_jax.config.protocols.Protocol"),
        ("eval", Config().eval._replace(patience="20"), "'20', of type str: give a whole number or nothing"),
        ("slmrec", {"alpha": 0.1}, "{'alpha': 0.1}, of type dict: give a slmrec_jax.config.SLMRecConfig"),
        ("slmrec.alpha", None, "None, of type NoneType: give a number"),
        ("slmrec.normalize_features", 1, "1, of type int: give true or false"),
        ("mmssl.discriminator_dropout", (0.1,), "(0.1,), of type tuple: give a tuple, each a number"),
        ("mmssl.topk_rate", "0.1", "'0.1', of type str: give a number or nothing"),
        ("optimizer.chain", "adam(1e-3)", "'adam(1e-3)', of type str: give a tuple, each text"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(name, value, said):
    with pytest.raises(UserError) as raised:
        check_config(unchecked(name, value))
    where = "eval.patience" if isinstance(value, tuple) and name == "eval" else name
    assert str(raised.value).startswith(f"{where} is {said}")


def test_whole_numbers_are_numbers_too():
    for name in ("main_weight", "slmrec.alpha", "mmssl.topk_rate"):
        check_config(unchecked(name, 1))


def test_what_is_no_config_is_refused():
    with pytest.raises(UserError, match=r"config is 'slmrec', of type str: give a slmrec_jax.Config"):
        inspect.unwrap(check_config)("slmrec")  # without the check of annotations that tests have


def test_messages_name_settings_as_the_caller_gives_them():
    config = dataclasses.replace(Config(), slmrec=SLMRecConfig(num_negatives=0))
    with pytest.raises(UserError, match=r"^slmrec\.num_negatives is 0"):
        check_config(config)
    with pytest.raises(UserError, match=r"^--slmrec\.num-negatives is 0"), naming_flags():
        check_config(config)
    assert setting("slmrec.fd_mode", "layer") == "slmrec.fd_mode='layer'"
    assert setting("resume", True) == "resume=True"
    with naming_flags():
        assert setting("slmrec.fd_mode", "layer") == "--slmrec.fd-mode layer"
        assert setting("resume", True) == "--resume"
        assert setting("out", "my runs") == "--out 'my runs'"
    assert setting("out") == "out"


def test_weight_decay_joins_the_gradient_before_the_moments():
    """PyTorch's Adam(weight_decay), which the published code uses: g + w θ goes through the moments."""
    rng = np.random.default_rng(0)
    theta, learning_rate, decay = rng.normal(size=5), 0.01, 0.1
    gradients = rng.normal(size=(4, 5))
    m, v, expected = np.zeros(5), np.zeros(5), theta.copy()
    for step, gradient in enumerate(gradients, 1):
        g = gradient + decay * expected
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected -= learning_rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = make_optimizer(OptimizerConfig(learning_rate=learning_rate, weight_decay=decay))
        params = jnp.asarray(theta, jnp.float32)
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
            params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_an_optimizer_that_nothing_is_said_of_is_adam_at_a_thousandth_without_decay():
    """Adam's first step is the rate times the sign of the gradient, whatever the parameters are."""
    with jax.numpy_dtype_promotion("standard"):
        optimizer, params = make_optimizer(OptimizerConfig()), jnp.asarray([5.0, -7.0, 3.0])
        updates, _ = optimizer.update(jnp.asarray([1e-3, -1e-3, 0.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-1e-3, 1e-3, 0.0], rtol=1e-3)


def test_a_chain_is_the_optax_chain_it_names():
    chain = ("clip_by_global_norm(0.5)", "adamw(cosine_decay_schedule(1e-2, decay_steps=10), b1=0.8)")
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(optax.cosine_decay_schedule(1e-2, 10), b1=0.8))
    with jax.numpy_dtype_promotion("standard"):
        ours = make_optimizer(OptimizerConfig(chain=chain))
        params = jnp.arange(4.0)
        updates = [optimizer.update(params + 1, optimizer.init(params), params)[0] for optimizer in (ours, theirs)]
    np.testing.assert_array_equal(*updates)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adam(", "not readable"),
        ("adam", "has no|not readable|malformed"),
        ("adamm(1e-3)", "no function 'adamm'"),
        ("__import__('os').system('true')", "no function"),
        ("adam(open('x'))", "no function 'open'"),
        ("adam(**{'b1': 0.1})", "write each argument out"),
        ("adam(wrong=1)", "unexpected keyword|missing"),
        ("cosine_decay_schedule(1e-3, 10)", "not a gradient transformation"),
        ("adam(1e-3); import os", "not readable"),
        ("adam('x')", "cannot take a step"),
        ("lbfgs()", "cannot take a step"),
    ],
)
def test_other_chains_are_refused_and_run_nothing(text, said):
    with pytest.raises(UserError, match=said) as raised:
        make_optimizer(OptimizerConfig(chain=(text,)))
    assert "\n" not in str(raised.value)


def test_how_data_are_read_is_part_of_a_config():
    fields = {field.name: field.default for field in dataclasses.fields(Config)}
    assert {name: fields[name] for name in Source._fields} == {"data": "demo", **Source._field_defaults}
    config = Config(data="shop", split="mmrec", min_rating=4.0, k_core=5, user_column="buyer")
    assert source_of(from_json(json.loads(json.dumps(to_json(config))), "config.json")) == source_of(config)
    assert source_of(config)[:6] == ("shop", None, "mmrec", 0, 4.0, 5)
    with pytest.raises(UserError, match="k_core is -1: give at least 0"):
        check_config(Config(k_core=-1))
