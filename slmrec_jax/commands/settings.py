"""The settings of training commands: from a run or config file, then preset and protocol, then single flags."""

import argparse
import dataclasses
import functools
import importlib.util
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from slmrec_jax.config import BASE, IN_MEMORY, PROTOCOLS, Config, ProtocolName, with_preset, with_protocol
from slmrec_jax.config.files import with_config_file
from slmrec_jax.errors import UserError

if TYPE_CHECKING:
    from slmrec_jax.training.setup import MakeMethod


@dataclass(frozen=True)
class SettingsFlags:
    """The flags of every training command."""

    settings: Annotated[Config, tyro.conf.arg(name="")]
    preset: str | None = None
    """Named settings of the model, such as slmrec's `paper` (docs/settings.md has all); single flags win over them."""
    protocol: ProtocolName | None = None
    """How to select and to test, `strict` by default; single --eval.* flags win over it."""
    config: Path | None = None
    """Settings in a .toml or .json file, such as a run's config.json; or a Python file with get_config(), whose
    make_method(config, spec) train also uses, if there is one."""


AnySettingsFlags = TypeVar("AnySettingsFlags", bound=SettingsFlags)


def base_config(arguments: list[str]) -> Config:
    """Return the config that single flags change: that of the run to resume, of the file or the default, plus presets.

    Raises:
        UserError: The run or the config file cannot be read.
    """
    try:
        first = _first_flags(arguments)
    except argparse.ArgumentError:
        return Config()  # the full parser rejects the flag without a value
    if first.resume and first.out:
        from slmrec_jax.training.storage.folder import read_config

        config = read_config(Path(first.out))  # train() rejects settings and a Python file that differ from it
        if first.config and python_file(first.config) is None:
            config = with_config_file(config, first.config)
    else:
        config = _config_of(Path(first.config)) if first.config else Config()
    if first.model in BASE:
        config = dataclasses.replace(config, model=first.model)
    if first.preset:
        config = with_preset(config, first.preset)
    if first.protocol in PROTOCOLS:
        config = with_protocol(config, first.protocol)
    return config


def recorded(flags: AnySettingsFlags) -> AnySettingsFlags:
    """Return the flags in the form that a run folder records: a config, an absolute data path, separate modalities."""
    settings = Config(**vars(flags.settings))
    source = settings.data if settings.data in ("demo", IN_MEMORY) else str(Path(settings.data).resolve())
    modalities = tuple(name for names in settings.modalities for name in names.split(",") if name)
    return dataclasses.replace(flags, settings=dataclasses.replace(settings, data=source, modalities=modalities))


def parse_seeds(flags: SettingsFlags, seeds: str, command: str) -> list[int]:
    """Parse the seeds of a command that trains each system several times.

    Raises:
        UserError: The seeds are not distinct numbers, or the flags name a seed or a method, which the command ignores.
    """
    given = seeds.split(",")
    numbers = [int(each) for each in given if each.isascii() and each.isdigit()]
    if len(set(numbers)) < len(given):
        raise UserError(f"--seeds is {seeds!r}: give different numbers separated by commas, such as 0,1,2")
    if flags.settings.seed != Config().seed:
        raise UserError(
            f"{command} takes --seeds, but --seed, or the file of --config, names the seed {flags.settings.seed}: "
            "leave it out"
        )
    if own_method(flags.config) is not None:
        raise UserError(f"--config {flags.config} has make_method(), which {command} cannot use: use train")
    return numbers


def resume_command(arguments: list[str], folder: Path) -> str:
    """Return the command that continues a stopped run. `compare` and `tune` find their unfinished runs themselves."""
    if arguments[0] != "train":
        return shlex.join(["slmrec-jax", *arguments])
    given = _first_flags(arguments)
    file = python_file(given.config)
    kept = [*(["--config", str(file)] if file else []), *(["--mesh", given.mesh] if given.mesh else [])]
    return shlex.join(["slmrec-jax", "train", *kept, "--out", str(folder), "--resume"])


def python_file(path: Path | str | None) -> Path | None:
    """Return the path of a config file if it is Python. The content of other files is kept in a run's config.json."""
    return None if path is None or Path(path).suffix in (".json", ".toml") else Path(path)


def own_method(path: Path | None) -> "MakeMethod | None":
    """Return the `make_method` of a config file, if it is Python and has one."""
    file = python_file(path)
    return None if file is None else getattr(_load_module(file), "make_method", None)


def _config_of(path: Path) -> Config:
    file = python_file(path)
    if file is None:
        return Config.load(path)
    config: Any = _load_module(file).get_config()
    if not isinstance(config, Config):
        raise UserError(f"--config {path}: get_config() returns {config!r}, not a slmrec_jax.Config")
    return config


@functools.cache
def _load_module(path: Path) -> ModuleType:
    """Run the user's Python file named by --config, and return its module.

    Raises:
        UserError: The file cannot be read, is not Python or has no get_config().
    """
    spec = importlib.util.spec_from_file_location(f"slmrec_jax_config_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"--config {path}: not an existing file that ends in .py, .toml or .json")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the annotations of their module there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"--config {path}: line {error.lineno} is not Python: {error.msg}") from None
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"--config {path}: it has no function get_config(); add one that returns a slmrec_jax.Config")
    return module


def _first_flags(arguments: list[str]) -> argparse.Namespace:
    """Parse the flags that determine the defaults of others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--config", "--model", "--preset", "--protocol", "--out", "--mesh"):
        parser.add_argument(name)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(arguments)[0]
