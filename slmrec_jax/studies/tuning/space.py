"""What a search may vary: tables by sampler and model, and the texts of `--space` that override them."""

import math
import types
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

from slmrec_jax.config import BASE, Config, ModelName, Source, check_config, with_settings
from slmrec_jax.errors import UserError
from slmrec_jax.forms import field_names

Sampler = Literal["grid", "tpe"]


class Choices(NamedTuple):
    """One of these."""

    values: tuple[Any, ...]


class Range(NamedTuple):
    """Any number between, both ends included; evenly by its logarithm or as it is."""

    low: float
    high: float
    log: bool
    whole: bool
    """Whole numbers alone."""


Space: TypeAlias = Mapping[str, Choices | Range]
"""By the name of the setting, such as `slmrec.alpha`."""

Point: TypeAlias = Mapping[str, Any]
"""A value for each setting of a space."""

SHORT: Mapping[str, str] = {"lr": "optimizer.learning_rate", "wd": "optimizer.weight_decay"}

_RATES = {"lr": "1e-4,1e-3,1e-2,1e-1", "wd": "1e-4,1e-3,1e-2,1e-1"}
_WIDE = {"lr": "1e-4..1e-1:log", "wd": "1e-6..1e-1:log"}

SPACES: Mapping[Sampler, Mapping[ModelName, Mapping[str, str]]] = {
    # What the SLMRec paper searches; weight decay is the L2 term of all its systems.
    "grid": {
        "slmrec": {
            **_RATES,
            "slmrec.temperature": "0.1,0.2,0.5,1.0",
            "slmrec.ssl_temperature": "0.1,0.2,0.5,1.0",
            "slmrec.alpha": "0.01,0.05,0.1,0.5,1.0",
        },
        "mf": {**_RATES, "mf.l2": "0"},
        "lightgcn": {**_RATES, "lightgcn.l2": "0"},
        "vbpr": {**_RATES, "vbpr.l2": "0"},
        "mmgcn": {**_RATES, "mmgcn.l2": "0"},
    },
    "tpe": {
        "slmrec": {
            **_WIDE,
            "slmrec.temperature": "0.1..1.0:log",
            "slmrec.ssl_temperature": "0.1..1.0:log",
            "slmrec.alpha": "0.01..1.0:log",
        },
        "mf": {"lr": _WIDE["lr"], "mf.l2": "1e-4..1:log"},
        "lightgcn": {"lr": _WIDE["lr"], "lightgcn.l2": "1e-5..1e-1:log"},
        "vbpr": {"lr": _WIDE["lr"], "vbpr.l2": "1e-4..1:log"},
        "mmgcn": {"lr": _WIDE["lr"], "mmgcn.l2": "1e-4..1:log"},
        "mmssl": {
            "lr": _WIDE["lr"],
            "mmssl.contrast_weight": "1e-3..1e-1:log",
            "mmssl.contrast_temperature": "0.1..1.0:log",
        },
    },
}
"""As `--space` has it; a model that is not listed varies its optimizer alone."""

_OPTIMIZER: Mapping[Sampler, Mapping[str, str]] = {"grid": _RATES, "tpe": {"lr": _WIDE["lr"]}}

_FIXED = {
    *(*field_names(Source), "modalities", "missing"),  # the inputs are built once
    *("model", "seed", "epochs", "ks", "eval"),
    *("on_nan", "checkpoint_every_steps", "propagation", "frozen_rows"),  # how a run computes, not what
}
"""What says what is searched for, on what, and how it is carried out."""


def make_space(config: Config, sampler: Sampler, texts: Sequence[str]) -> Space:
    """The model's table, with what the texts say in its place or beside it.

    Where the config has a chain of optax transformations, the table's learning rate and weight decay are left out,
    since a chain reads neither.

    Args:
        config: whose model it is.
        sampler: whose table; a grid needs values one by one.
        texts: `name=a,b,c`, or `name=low..high` with `:log` behind it where the logarithm counts. The name is that of
            the flag; `lr` and `wd` are short for `optimizer.learning_rate` and `optimizer.weight_decay`.

    Raises:
        UserError: a text cannot be read, or a name or a value is none of the config's.
    """
    given = dict(_parts(text) for text in texts)
    table = SPACES[sampler].get(config.model, _OPTIMIZER[sampler])
    space = {_full(name): text for name, text in table.items() if not (name in SHORT and config.optimizer.chain)}
    space |= {_full(name): text for name, text in given.items()}
    made = {name: _read(config, name, text) for name, text in space.items()}
    for name, values in made.items():
        if sampler == "grid" and isinstance(values, Range):
            raise UserError(f"--space {name}={space[name]}: a grid takes values one by one, such as {name}=0.1,0.2")
        for value in values.values if isinstance(values, Choices) else (values.low, values.high):
            check_config(with_settings(config, {name: value}))
    return made


def grid(space: Space) -> list[Point]:
    """Every point of a space of choices; the last setting varies fastest."""
    values = [each.values for each in space.values() if isinstance(each, Choices)]
    return [dict(zip(space, point, strict=True)) for point in product(*values)]


def _parts(text: str) -> tuple[str, str]:
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise UserError(f"--space {text}: write it like slmrec.temperature=0.1,0.2,0.5 or lr=1e-4..1e-2:log")
    return name, values


def _full(name: str) -> str:
    name = name.replace("-", "_")
    return SHORT.get(name, name)


def _read(config: Config, name: str, text: str) -> Choices | Range:
    hint = _hint(config, name)
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kind = next(kind for kind in kinds if kind is not types.NoneType)
    if ".." not in text:
        values = tuple(_value(kind, each, f"--space {name}={text}") for each in text.split(","))
        if len(set(values)) < len(values):
            raise UserError(f"--space {name}={text}: a value stands there twice")
        return Choices(values)
    ends, _, scale = text.partition(":")
    if kind not in (int, float) or scale not in ("", "log"):
        raise UserError(f"--space {name}={text}: a range is of numbers, low..high or low..high:log")
    low, high = (_value(kind, end, f"--space {name}={text}") for end in ends.split("..", 1))
    if not low < high or (scale == "log" and low <= 0):
        above = " above 0" if scale == "log" else ""
        raise UserError(f"--space {name}={text}: a range goes from a lower number{above} to a higher one")
    return Range(low, high, scale == "log", kind is int)


def _hint(config: Config, name: str) -> Any:
    """The type of a setting that a search may vary."""
    section, _, field = name.rpartition(".")
    names = get_type_hints(type(getattr(config, section)) if section in ("optimizer", config.model) else Config)
    first = section or field
    if section and first in BASE and first != config.model:
        raise UserError(f"--space {name}: {config.model} does not read the settings of {first}")
    if first in _FIXED or field not in names or (section and section not in ("optimizer", config.model)):
        raise UserError(
            f"--space {name}: there is no setting of that name to search; take a flag of `slmrec-jax train`"
        )
    if section == "optimizer" and config.optimizer.chain:
        raise UserError(
            f"--space {name}: --optimizer.chain is set, which reads no other setting of the optimizer: leave one out"
        )
    hint = names[field]
    simple = (int, float, bool, types.NoneType)
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if not all(part in simple or get_origin(part) is Literal for part in parts):
        raise UserError(f"--space {name}: only numbers and names can be searched")
    return hint


def _value(kind: Any, text: str, where: str) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UserError(f"{where}: {text!r} is none of {', '.join(get_args(kind))}")
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"{where}: {text!r} is not true or false")
        return text == "true"
    try:
        value = kind(text)
    except ValueError:
        raise UserError(f"{where}: {text!r} is not a{' whole' if kind is int else ''} number") from None
    if not math.isfinite(value):
        raise UserError(f"{where}: {text!r} is not finite")
    return value
