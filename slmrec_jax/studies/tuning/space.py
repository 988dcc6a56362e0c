"""The settings that a search varies: defaults by sampler and model, and `--space` texts that override them."""

import math
import types
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

from slmrec_jax.config import BASE, Config, ModelName, OptimizerConfig, Protocol, Source, check_config, with_settings
from slmrec_jax.errors import UserError, setting
from slmrec_jax.forms import field_names

Sampler = Literal["grid", "tpe"]


class Choices(NamedTuple):
    """A setting that takes one of several values."""

    values: tuple[Any, ...]


class Range(NamedTuple):
    """A setting that takes any number from `low` to `high`, sampled uniformly on a linear or logarithmic scale."""

    low: float
    high: float
    log: bool
    whole: bool
    """Whether it takes only integers."""


Space: TypeAlias = Mapping[str, Choices | Range]
"""The values that each setting may take, by name, such as `slmrec.alpha`."""

Point: TypeAlias = Mapping[str, Any]
"""A value for each setting of a space."""

SHORT: Mapping[str, str] = {"lr": "optimizer.learning_rate", "wd": "optimizer.weight_decay"}

_RATES = {"lr": "1e-4,1e-3,1e-2,1e-1", "wd": "1e-4,1e-3,1e-2,1e-1"}
_WIDE_RATE = {"lr": "1e-4..1e-1:log"}

SPACES: Mapping[Sampler, Mapping[ModelName, Mapping[str, str]]] = {
    # The grid of the SLMRec paper; weight decay is the L2 term of all its systems.
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
            **_WIDE_RATE,
            "wd": "1e-6..1e-1:log",
            "slmrec.temperature": "0.1..1.0:log",
            "slmrec.ssl_temperature": "0.1..1.0:log",
            "slmrec.alpha": "0.01..1.0:log",
            "slmrec.popularity_correction": "-0.5..1.25",
            "slmrec.fusion": "concat,mean",
            "slmrec.main_negatives": "inbatch,sampled",
        },
        "bm3": {
            **_WIDE_RATE,
            "bm3.contrast_weight": "0.1..10:log",
            "bm3.dropout_rate": "0.1..0.7",
            "bm3.norm_weight": "1e-2..10:log",
        },
        "mf": {**_WIDE_RATE, "mf.l2": "1e-4..1:log"},
        "lightgcn": {**_WIDE_RATE, "lightgcn.l2": "1e-5..1e-1:log"},
        "vbpr": {**_WIDE_RATE, "vbpr.l2": "1e-4..1:log"},
        "mgcn": {**_WIDE_RATE, "mgcn.contrast_weight": "1e-3..1:log", "mgcn.l2": "1e-5..1:log"},
        "mmgcn": {**_WIDE_RATE, "mmgcn.l2": "1e-4..1:log"},
        "freedom": {
            **_WIDE_RATE,
            "freedom.prune_rate": "0..0.9",
            "freedom.content_weight": "1e-5..1:log",
        },
        "lattice": {**_WIDE_RATE, "lattice.original_share": "0.1..0.95", "lattice.l2": "1e-5..1e-1:log"},
        "sgl": {
            **_WIDE_RATE,
            "sgl.rate": "0.05..0.5",
            "sgl.weight": "1e-3..1:log",
            "sgl.temperature": "0.1..1.0:log",
            "sgl.l2": "1e-5..1e-1:log",
        },
        "simgcl": {
            **_WIDE_RATE,
            "simgcl.noise": "0.02..0.5:log",
            "simgcl.weight": "1e-2..2:log",
            "simgcl.temperature": "0.1..1.0:log",
            "simgcl.l2": "1e-5..1e-1:log",
        },
        "mmssl": {
            **_WIDE_RATE,
            "mmssl.contrast_weight": "1e-3..1e-1:log",
            "mmssl.contrast_temperature": "0.1..1.0:log",
            "mmssl.id_layers": "2,3,4",
            "mmssl.l2": "1e-5..1e-2:log",
            "mmssl.view_weight": "0,0.36",
            "mmssl.feature_weight": "0,0.05,0.55",
        },
    },
}
"""The default spaces, written as for `--space`. For a model that is not listed, only the optimizer is varied."""

_OPTIMIZER: Mapping[Sampler, Mapping[str, str]] = {"grid": _RATES, "tpe": _WIDE_RATE}

_FIXED = {
    *(*field_names(Source), "modalities", "missing"),  # the inputs are built once
    *("model", "seed", "epochs", "steps_per_epoch", "ks"),
    *("on_nan", "checkpoint_every_steps", "propagation", "frozen_rows"),  # they change memory, speed and rounding
}
"""The settings that cannot be searched, besides those of `eval`: they define what is searched, on which data, and how
it is computed."""


def make_space(config: Config, sampler: Sampler, texts: Sequence[str]) -> Space:
    """Return the default space of the config's model, with settings replaced or added by the texts.

    If the config has a chain of optax transformations, the default learning rate and weight decay are left out, since a
    chain uses neither.

    Args:
        config: The settings that do not vary.
        sampler: Determines the defaults. A grid needs discrete values.
        texts: `name=a,b,c`, or `name=low..high`, followed by `:log` for a logarithmic scale. The name is that of the
            flag; `lr` and `wd` are short for `optimizer.learning_rate` and `optimizer.weight_decay`.

    Raises:
        UserError: A text cannot be parsed, or the config has no such setting or value.
    """
    table = SPACES[sampler].get(config.model, _OPTIMIZER[sampler])
    space = {_full_name(name): text for name, text in table.items() if not (name in SHORT and config.optimizer.chain)}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise UserError(f"--space {text}: write it like slmrec.temperature=0.1,0.2,0.5 or lr=1e-4..1e-2:log")
        space[_full_name(name)] = values
    made = {name: _parse_values(config, name, text) for name, text in space.items()}
    for name, found in made.items():
        if sampler == "grid" and isinstance(found, Range):
            raise UserError(f"--space {name}={space[name]}: a grid takes values one by one, such as {name}=0.1,0.2")
        for value in found.values if isinstance(found, Choices) else (found.low, found.high):
            check_config(with_settings(config, {name: value}))
    return made


def grid(space: Space) -> list[Point]:
    """Return every point of a space of choices. The last setting varies fastest."""
    values = [each.values for each in space.values() if isinstance(each, Choices)]
    return [dict(zip(space, point, strict=True)) for point in product(*values)]


def _full_name(name: str) -> str:
    name = name.replace("-", "_")
    return SHORT.get(name, name)


def _parse_values(config: Config, name: str, text: str) -> Choices | Range:
    kind, where = _setting_type(config, name), f"--space {name}={text}"
    if ".." not in text:
        values = tuple(_parse_value(kind, each, where) for each in text.split(","))
        if len(set(values)) < len(values):
            raise UserError(f"{where}: a value is given twice")
        return Choices(values)
    ends, _, scale = text.partition(":")
    if get_origin(kind) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    if kind not in (int, float) or scale not in ("", "log"):
        raise UserError(f"{where}: a range holds numbers: low..high or low..high:log")
    low, high = (_parse_value(kind, end, where) for end in ends.split("..", 1))
    if not low < high or (scale == "log" and low <= 0):
        above = " above 0" if scale == "log" else ""
        raise UserError(f"{where}: a range goes from a lower number{above} to a higher one")
    return Range(low, high, scale == "log", kind is int)


def _setting_type(config: Config, name: str) -> Any:
    """Return the type of a setting that a search may vary: `int`, `float`, `bool`, `str` or a `Literal`."""
    section, _, field = name.rpartition(".")
    model_options = type(getattr(config, config.model))
    owners = {"": Config, "optimizer": OptimizerConfig, "eval": Protocol, config.model: model_options}
    hints = get_type_hints(owners[section]) if section in owners else {}
    if section in BASE and section != config.model:
        raise UserError(f"--space {name}: {config.model} does not read the settings of {section}")
    if field not in hints:
        raise UserError(f"--space {name}: there is no setting of that name; use a flag of `slmrec-jax train`")
    if section == "eval" or name in _FIXED:
        flag = {"seed": "seeds", "since": "from"}.get(name, name)
        raise UserError(f"--space {name}: a search has one value of this setting: give it with {setting(flag)}")
    if section == "optimizer" and config.optimizer.chain:
        raise UserError(
            f"--space {name}: --optimizer.chain is set, which reads no other setting of the optimizer: leave one out"
        )
    hint = hints[field]
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
    if not all(kind in (int, float, bool, str) or get_origin(kind) is Literal for kind in kinds):
        raise UserError(f"--space {name}: only numbers and names can be searched")
    return kinds[0] if len(kinds) == 1 else hint


def _parse_value(kind: Any, text: str, where: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):  # a number, or a name instead
        number, names = get_args(kind)
        return text if text in get_args(names) else _parse_value(number, text, where)
    if kind is str:
        return text
    names = {"true": True, "false": False} if kind is bool else {name: name for name in get_args(kind)}
    if names:
        if text not in names:
            raise UserError(f"{where}: {text!r} is not one of {', '.join(names)}")
        return names[text]
    try:
        value = kind(text)
    except ValueError:
        raise UserError(f"{where}: {text!r} is not a{' whole' if kind is int else ''} number") from None
    if not math.isfinite(value):
        raise UserError(f"{where}: {text!r} is not finite")
    return value
