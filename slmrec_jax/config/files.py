"""Configs as JSON and TOML files, either complete or with only the settings that differ from the defaults."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

from slmrec_jax.config.config import Config
from slmrec_jax.config.presets import with_preset, with_protocol, with_settings
from slmrec_jax.config.protocols import ProtocolName
from slmrec_jax.config.serialization import to_json
from slmrec_jax.durable import write_whole, writing
from slmrec_jax.errors import UserError, check_type, one_line
from slmrec_jax.forms import fault, field_names

_RECORDED = ("made_by", "sha256")
"""The fields that a run's `config.json` has besides the settings."""
_MAX_BYTES = 2**20
_NOTHING = "none"
"""The text that stands for a setting without a value in TOML, which has no null."""


def with_config_file(config: Config, path: Path | str) -> Config:
    """Return the config, changed by the settings of a `.json` or `.toml` file; see `Config.load`.

    Raises:
        UserError: The file cannot be read, or a setting in it is unknown or has a value of the wrong type.
    """
    check_type("path", path, (str, Path), "the path of a config file")
    path = Path(path)
    data = {name: value for name, value in _read_mapping(path).items() if name not in _RECORDED}
    preset, protocol = data.pop("preset", None), data.pop("protocol", None)
    settings = dict(_settings(data, Config(), str(path)))
    config = with_settings(config, {name: value for name, value in settings.items() if name == "model"})
    if protocol is not None:
        if protocol not in get_args(ProtocolName):
            raise UserError(f"{path}: protocol is {protocol!r}; expected one of {', '.join(get_args(ProtocolName))}")
        config = with_protocol(config, protocol)
    if preset is not None:
        try:
            config = with_preset(config, str(preset))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return with_settings(config, settings)


def write_config_file(config: Config, path: Path | str) -> None:
    """Write all settings to a `.json` or `.toml` file, atomically.

    Raises:
        UserError: The file name has a different ending, or the file cannot be written.
    """
    path = Path(path)
    text = (
        json.dumps(to_json(config), indent=2) + "\n"
        if _is_json(path)
        else "".join(_toml_lines(to_json(config), to_json(Config())))
    )
    with writing(path, "give another path"):
        write_whole(path, text)


def _is_json(path: Path) -> bool:
    if path.suffix not in (".json", ".toml"):
        raise UserError(f"{path}: a config file's name ends in .json or .toml")
    return path.suffix == ".json"


def _read_mapping(path: Path) -> dict[str, Any]:
    parse = partial(json.loads, object_pairs_hook=_without_repeats) if _is_json(path) else tomllib.loads
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > _MAX_BYTES):
            raise UserError(f"{path} is not a regular file of at most {_MAX_BYTES >> 20} MiB; give a file of settings")
        data = parse(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from None
    except (ValueError, RecursionError) as error:
        kind = path.suffix[1:].upper()
        raise UserError(f"{path}: not valid {kind} ({one_line(error)}); correct it") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: it holds no named settings; expected an object")
    return data


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return dict(pairs)


def _settings(data: Mapping[str, Any], defaults: Any, where: str, section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the flag name of each setting, such as `slmrec.alpha`, with its value in the form of the field."""
    hints = get_type_hints(type(defaults))
    for name, value in data.items():
        flag = f"{section}{name}"
        if name not in hints:
            raise UserError(f"{where}: there is no setting {flag!r}; docs/settings.md lists them")
        if field_names(hints[name]):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: {flag} is {value!r}; expected named settings")
            yield from _settings(value, getattr(defaults, name), where, f"{flag}.")
            continue
        value = tuple(value) if isinstance(value, list) else value
        optional = type(None) in get_args(hints[name])
        if value == _NOTHING and optional and (getattr(defaults, name) is not None or fault(value, hints[name])):
            value = None
        wrong = fault(value, hints[name], flag)
        if wrong is not None:
            raise UserError(f"{where}: {wrong}")
        yield flag, value


def _toml_lines(data: Mapping[str, Any], defaults: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield the lines of a TOML document: values first, then one table per section."""
    if section:
        yield f"\n[{section}]\n"
    for name, value in data.items():
        if not isinstance(value, Mapping) and not (value is None and defaults[name] is None):
            yield f"{name} = {_toml(value)}\n"
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _toml_lines(value, defaults[name], name)


def _toml(value: Any) -> str:
    if value is None:
        return f'"{_NOTHING}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
