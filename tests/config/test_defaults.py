"""The documented defaults are those of the code, and all of them are documented."""

import dataclasses
import re
from pathlib import Path

import pytest

from slmrec_jax.config import BASE, PRESETS, PROTOCOLS, Config, Source, with_defaults, with_preset
from slmrec_jax.forms import field_names

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "settings.md").read_text()


def tables():
    """Rows by the flag or name in the first column, of each table by its heading row."""
    found = {}
    for block in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE):
        head, _, *rows = ([cell.strip(" `") for cell in line.strip("|\n").split("|")] for line in block.splitlines())
        found[tuple(head)] = {name: tuple(values) for name, *values in rows}
    return found


def written(value):
    """A setting as the tables have it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(written, value)) or "–"
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def settings(config):
    """Every setting by its flag."""
    found = {}
    for name, value in vars(config).items():
        parts = vars(value) if dataclasses.is_dataclass(value) else value._asdict() if name == "eval" else None
        found |= {name: value} if parts is None else {f"{name}.{part}": each for part, each in parts.items()}
    return {f"--{name.replace('_', '-')}": value for name, value in found.items()}


def rows(configs, flags):
    """A row for each flag: its value in each config."""
    columns = [settings(config) for config in configs]
    return {flag: tuple(written(column[flag]) for column in columns) for flag in flags}


def flags_of(preset):
    return [f"--{name.replace('_', '-')}" for name in preset]


def test_every_default_is_documented():
    elsewhere = {*flags_of((*field_names(Source), *BASE["slmrec"])), "--eval"}
    known = [flag for flag in settings(Config()) if flag.split(".")[0] not in elsewhere and flag not in elsewhere]
    assert tables()["flag", "default"] == rows([Config()], known)


def test_the_models_own_optimizer_settings_are_documented():
    flags = ("--optimizer.learning-rate", "--optimizer.weight-decay")
    expected = {model: tuple(map(written, own.values())) for model, own in BASE.items()}
    assert all(flags == tuple(flags_of(own)) for own in BASE.values())
    assert tables()[("model", *flags)] == expected


@pytest.mark.parametrize(("model", "names"), [("slmrec", ("reference", "paper")), ("mmssl", ("published", "paper"))])
def test_presets_of_many_settings_are_documented(model, names):
    plain = Config(model=model)
    presets = [with_defaults(config) for config in (plain, *(with_preset(plain, name) for name in names))]
    expected = rows(presets, flags_of(PRESETS[model][names[0]]))
    assert tables()[("flag", "default", *names)] == expected


def test_presets_of_one_setting_are_documented():
    expected = {}
    for model, presets in PRESETS.items():
        for name, preset in presets.items():
            if len(preset) == 1:
                ((setting, value),) = preset.items()
                expected[f"{model}:{name}"] = (f"--{setting.replace('_', '-')} {written(value)}",)
    assert tables()["preset", "flag"] == expected


def test_protocols_are_documented():
    flags = [f"--eval.{name.replace('_', '-')}" for name in field_names(type(Config().eval)) if name != "name"]
    configs = [dataclasses.replace(Config(), eval=protocol) for protocol in PROTOCOLS.values()]
    assert tables()[("flag", *PROTOCOLS)] == rows(configs, flags)


@pytest.mark.parametrize(
    ("model", "chosen"),
    [
        ("mf", lambda config: (config.mf.l2,)),
        ("lightgcn", lambda config: (config.lightgcn.l2,)),
        ("vbpr", lambda config: (config.vbpr.l2,)),
        ("bm3", lambda config: (config.optimizer.learning_rate,)),
        ("mgcn", lambda config: (config.optimizer.learning_rate,)),
        ("mmgcn", lambda config: (config.optimizer.learning_rate,)),
        ("slmrec", lambda config: (config.slmrec.temperature, config.optimizer.weight_decay)),
        ("mmssl", lambda config: (config.optimizer.learning_rate,)),
    ],
)
def test_the_defaults_are_those_that_were_chosen(model, chosen):
    """In the table of what was tried, the bold numbers before the measured one."""
    (row,) = re.findall(rf"^\| `{model}` \|(.*\*\*.*)\|$", (DOCS / "systems.md").read_text(), re.MULTILINE)
    (bold,) = re.findall(r"\*\*(.*?)\*\*", row)
    settings, _ = bold.rsplit(" ", 1)
    assert tuple(map(float, settings.split(" and "))) == chosen(with_defaults(Config(model=model)))
