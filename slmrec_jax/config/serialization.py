"""Conversion of a config to and from plain data, for `config.json` and for comparing the settings of two runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from slmrec_jax.config.config import Config
from slmrec_jax.config.source import Source
from slmrec_jax.config.systems import ModelName
from slmrec_jax.errors import UserError
from slmrec_jax.forms import fault, field_names


def to_json(config: Config) -> dict[str, Any]:
    """Convert a config to plain data for `config.json`."""
    return dataclasses.asdict(config) | {"eval": config.eval._asdict()}


def relevant(config: Config) -> dict[str, Any]:
    """Return the settings that a run's results depend on, as plain data.

    The sections of other models and the data source are left out; data are compared by fingerprint instead.
    """
    left_out = {*get_args(ModelName), *field_names(Source)} - {config.model}
    return {name: value for name, value in to_json(config).items() if name not in left_out}


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Describe the first setting of `now` that has changed, such as `slmrec.alpha (0.1, not 0.2)`, or return `None`.

    Settings are plain data, as returned by `relevant`. A setting that `before` lacks counts as `None`.
    """
    for name, value in now.items():
        was = before.get(name)
        if was != value:
            within = first_change(was, value) if isinstance(was, Mapping) and isinstance(value, Mapping) else None
            return f"{name}.{within}" if within else f"{name} ({was}, not {value})"
    return None


def from_json(data: Mapping[str, Any], source: str) -> Config:
    """Rebuild a config from the data of `to_json`. A `UserError` names the field that does not fit and the `source`."""
    try:
        config: Config = _built(Config, data)
    except ValueError as error:
        raise UserError(
            f"{source} is not a config of this version: {error}; start a new run in another folder"
        ) from None
    return config


def _built(kind: Any, data: Any, section: str = "") -> Any:
    """Build a record and its nested records from plain data. A `ValueError` names the field that does not fit."""
    if wrong := fault(data, Mapping[str, Any], section.rstrip(".")):
        raise ValueError(wrong)
    names = field_names(kind)
    if set(data) != set(names):
        field = min({*names} ^ {*data})
        raise ValueError(f"{section}{field} is {'missing' if field in names else 'unknown'}")
    made = {}
    for field, hint in get_type_hints(kind).items():
        value = tuple(data[field]) if isinstance(data[field], list) else data[field]
        if field_names(hint):
            value = _built(hint, value, f"{section}{field}.")
        elif wrong := fault(value, hint, f"{section}{field}"):
            raise ValueError(wrong)
        made[field] = value
    return kind(**made)
