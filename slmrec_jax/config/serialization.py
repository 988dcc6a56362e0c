"""A config as plain data, and back: what `config.json` holds and how two runs are compared."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from slmrec_jax.config.config import Config
from slmrec_jax.config.source import Source
from slmrec_jax.config.systems import ModelName
from slmrec_jax.errors import UserError
from slmrec_jax.forms import fault, field_names


def to_json(config: Config) -> dict[str, Any]:
    """Return the config as plain data for `config.json`."""
    return dataclasses.asdict(config) | {"eval": config.eval._asdict()}


def relevant(config: Config) -> dict[str, Any]:
    """Return the settings that a run's results depend on, as plain data.

    Sections of other models are left out, and so is the source of the data, whose fingerprint tells whether they are
    the same.
    """
    left_out = {*get_args(ModelName), *field_names(Source)} - {config.model}
    return {name: value for name, value in to_json(config).items() if name not in left_out}


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first setting that has changed, such as `slmrec.alpha (0.1, not 0.2)`, or `None` if none has.

    Args:
        before: Settings as plain data, such as `relevant` returns; a setting that is missing here counts as `None`.
        now: The settings to compare with them.
    """
    for name, value in now.items():
        was = before.get(name)
        if was == value:
            continue
        within = first_change(was, value) if isinstance(was, Mapping) and isinstance(value, Mapping) else None
        return f"{name}.{within}" if within else f"{name} ({was}, not {value})"
    return None


def from_json(data: Mapping[str, Any], source: str) -> Config:
    """Return the config that `to_json` wrote.

    Raises:
        UserError: The data lack fields of a config, have others, or have values of other types; `source` says where
            they were found.
    """
    try:
        config: Config = _record(Config, data)
    except ValueError as error:
        raise UserError(
            f"{source} is not a config of this version: {error}; start a new run in another folder"
        ) from None
    return config


def _record(kind: Any, data: Any, section: str = "") -> Any:
    """Return a dataclass or NamedTuple made from plain data, and the records in it.

    Raises:
        ValueError: Says which field does not fit.
    """
    wrong = fault(data, Mapping[str, Any], section.rstrip("."))
    if wrong is not None:
        raise ValueError(wrong)
    names = field_names(kind)
    if set(data) != set(names):
        field = min({*names} ^ {*data})
        raise ValueError(f"{section}{field} is {'missing' if field in names else 'not known'}")
    made = {}
    for field, hint in get_type_hints(kind).items():
        value = tuple(data[field]) if isinstance(data[field], list) else data[field]
        if field_names(hint):
            made[field] = _record(hint, value, f"{section}{field}.")
            continue
        wrong = fault(value, hint, f"{section}{field}")
        if wrong is not None:
            raise ValueError(wrong)
        made[field] = value
    return kind(**made)
