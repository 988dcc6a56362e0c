import dataclasses
from typing import get_args

import pytest

from slmrec_jax.config import (
    BASE,
    PRESETS,
    PROTOCOLS,
    Config,
    ModelName,
    OptimizerConfig,
    SLMRecConfig,
    check_config,
    filled_in,
    with_defaults,
    with_preset,
    with_protocol,
    with_settings,
    with_system,
)
from slmrec_jax.errors import UserError
from slmrec_jax.methods import METHODS

NAMED = [f"{model}:{preset}" for model, presets in PRESETS.items() for preset in presets]


def test_every_model_has_a_base_preset_and_options():
    assert set(BASE) == set(METHODS) == set(get_args(ModelName)) >= set(PRESETS)
    assert all(dataclasses.is_dataclass(getattr(Config(), model)) for model in BASE)


@pytest.mark.parametrize("system", NAMED)
def test_a_preset_sets_what_it_names_and_nothing_else(system):
    model, preset = system.split(":")
    plain = dataclasses.replace(Config(), model=model)
    config = with_system(Config(), system)
    check_config(config)
    assert config == with_preset(plain, preset) == with_settings(plain, PRESETS[model][preset])
    assert (config != plain) == (system != "slmrec:fac")


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("magic", "there is no model 'magic': give one of slmrec"),
        ("mf:paper", "mf has no preset 'paper'; its presets are: concat, linear"),
    ],
)
def test_what_is_no_system_is_refused(system, said):
    with pytest.raises(UserError, match=said):
        with_system(Config(), system)


def test_slmrecs_presets_set_every_switch_and_differ():
    reference, paper = PRESETS["slmrec"]["reference"], PRESETS["slmrec"]["paper"]
    numbers = {
        "alpha",
        "ssl_temperature",
        "num_negatives",
        "dropout_rate",
        "edge_rate",
        "item_graph",
        "graph_neighbours",
    }
    switches = {field.name for field in dataclasses.fields(SLMRecConfig)} - numbers
    assert set(reference) == set(paper) == {f"slmrec.{name}" for name in switches}
    assert with_preset(Config(), "reference").slmrec == SLMRecConfig(temperature=0.2, popularity_correction=0.0)
    assert with_preset(Config(), "paper").slmrec.fac_similarity == "cosine"


def test_settings_are_those_of_flags_in_every_section():
    config = with_settings(Config(), {"dim": 8, "slmrec.alpha": 0.5, "eval.patience": None})
    assert (config.dim, config.slmrec.alpha, config.eval.patience) == (8, 0.5, None)
    assert config.eval == PROTOCOLS["strict"]._replace(patience=None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_is_the_whole_of_eval(protocol):
    config = with_protocol(with_settings(Config(), {"eval.round_digits": 7}), protocol)
    assert config.eval == PROTOCOLS[protocol]
    assert config.protocol == protocol


@pytest.mark.parametrize("model", BASE)
def test_a_models_own_settings_yield_to_what_was_chosen(model):
    config = Config(model=model)
    assert with_defaults(config) == with_settings(config, BASE[model])
    chosen = OptimizerConfig(learning_rate=0.5, weight_decay=0.0)
    assert with_defaults(dataclasses.replace(config, optimizer=chosen)).optimizer == chosen


def test_a_chosen_learning_rate_survives_every_preset():
    chosen = Config(optimizer=OptimizerConfig(learning_rate=0.01))
    for system in NAMED:
        assert with_defaults(with_system(chosen, system)).optimizer.learning_rate == 0.01


def test_a_setting_that_is_still_open_is_a_fault():
    assert filled_in(0.0) == 0.0
    with pytest.raises(ValueError, match="with_defaults"):
        filled_in(None)
