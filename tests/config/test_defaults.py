"""The documented defaults are those of the code, and all of them are documented."""

import dataclasses
import re
from pathlib import Path

import pytest

from slmrec_jax.config import DEFAULTS, MMSSL_MODES, PRESETS, PUBLISHED, Config, with_defaults
from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.config.source import Source

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


def flags(section, values):
    return {f"--{section}{name.replace('_', '-')}": value for name, value in values.items()}


def of_config(config):
    """Every setting that has a default of its own, by flag."""
    found = {}
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            open_too = name not in ("mmssl", "optimizer")  # whose None is the mode's, or the model's
            given = {part: each for part, each in vars(value).items() if open_too or each is not None}
            found |= flags(f"{name.replace('_', '-')}.", given)
        elif name not in (*Source._fields, "eval"):
            found |= flags("", {name: value})
    return found


def test_every_default_is_documented():
    assert tables()["flag", "default"] == {flag: (written(value),) for flag, value in of_config(Config()).items()}


def test_the_models_own_optimizer_settings_are_documented():
    names = ("learning_rate", "weight_decay")
    expected = {model: tuple(written(own[name]) for name in names) for model, own in DEFAULTS.items()}
    assert tables()["model", "--optimizer.learning-rate", "--optimizer.weight-decay"] == expected
    assert PUBLISHED == {"mmssl": {"learning_rate": 5.5e-4}}
    assert "`--mmssl.mode published` learns at 5.5e-4" in TEXT


def test_presets_modes_and_protocols_are_documented():
    own = {name: getattr(Config().slmrec, name) for name in PRESETS["paper"]}
    for head, columns, section in (
        (("flag", "default", *PRESETS), [own, *PRESETS.values()], "slmrec."),
        (("flag", *MMSSL_MODES), list(MMSSL_MODES.values()), "mmssl."),
        (("flag", *PROTOCOLS), [protocol._asdict() for protocol in PROTOCOLS.values()], "eval."),
    ):
        names = [name for name in columns[0] if name != "name"]
        expected = flags(section, {name: tuple(written(column[name]) for column in columns) for name in names})
        assert tables()[head] == expected


@pytest.mark.parametrize(
    ("model", "chosen"),
    [
        ("mf", lambda config: (config.mf.l2,)),
        ("lightgcn", lambda config: (config.lightgcn.l2,)),
        ("vbpr", lambda config: (config.vbpr.l2,)),
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
