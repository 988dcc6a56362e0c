"""Configs as files: what was saved is loaded, and a file may hold a few settings only."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmrec_jax import Config, UserError, with_preset, with_protocol
from slmrec_jax.config import BASE, PRESETS, OptimizerConfig, with_settings
from slmrec_jax.config.protocols import PROTOCOLS

CONFIGS = [
    Config(),
    *(with_protocol(Config(), name) for name in PROTOCOLS),
    *(with_preset(Config(model=model), preset) for model in BASE for preset in PRESETS.get(model, ())),
    Config(
        modalities=("visual", 'a "name"\n\x7fé😀'), task="none", optimizer=OptimizerConfig(1e-5, None, ("sgd(1.0)",))
    ),
]


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_saved_config_is_loaded(tmp_path, config, suffix):
    config.save(tmp_path / f"mine.{suffix}")
    assert Config.load(tmp_path / f"mine.{suffix}") == config


@settings(deadline=None, max_examples=50)
@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_any_text_and_number_is_loaded(tmp_path_factory, text, number, truth):
    path = tmp_path_factory.mktemp("config") / "mine.toml"
    changes = {"modalities": (text,), "main_weight": number, "slmrec.normalize_features": truth}
    try:
        text.encode()
    except UnicodeEncodeError:  # a surrogate alone is no text of a file
        return
    config = with_settings(Config(), changes)
    config.save(path)
    assert Config.load(path) == config


def test_a_file_with_a_few_settings_has_the_defaults_for_the_rest(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'preset = "paper"\nprotocol = "mmrec"\ntask = "fd"\n[slmrec]\ntemperature = 0.4\n[eval]\npatience = "none"\n'
    )
    expected = with_preset(with_protocol(Config(task="fd"), "mmrec"), "paper")
    expected = with_settings(expected, {"slmrec.temperature": 0.4, "eval.patience": None})
    assert Config.load(tmp_path / "mine.toml") == expected


def test_the_config_of_a_run_is_one(tmp_path):
    Config(model="mf").save(tmp_path / "config.json")
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(data | {"made_by": {"method": None}, "sha256": "0"}))
    assert Config.load(tmp_path / "config.json") == Config(model="mf")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.toml", "alpha = 0.1", "there is no setting 'alpha'"),
        ("a.toml", "[slmrec]\nalfa = 0.1", "there is no setting 'slmrec.alfa'"),
        ("a.toml", "epochs = 'many'", "epochs is 'many'; expected a whole number"),
        ("a.toml", "slmrec = 3", "slmrec is 3; expected named settings"),
        ("a.toml", "epochs = ", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[]", "holds no named settings"),
        ("a.json", '{"protocol": "none"}', "protocol is 'none'; expected one of strict"),
        ("a.json", '{"model": "mf", "preset": "paper"}', "mf has no preset 'paper'"),
        ("a.yaml", "", "a config file's name ends in .json or .toml"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as raised:
        Config.load(tmp_path / name)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "mine.toml")
    with pytest.raises(UserError, match="is not a regular file"):
        Config.load(tmp_path / "mine.toml")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        Config.load(tmp_path / "none.toml")
