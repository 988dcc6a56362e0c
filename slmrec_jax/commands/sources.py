"""The flags of the settings that say where data are read from; one has another name than its field."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from slmrec_jax.config import Config, Source


@dataclass(frozen=True)
class SourceFlags(Source):
    """A source whose field `since` is the flag `--from`, which is a word of Python."""

    since: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Leave out rows before this time: a number, or a date such as 2025-05-31, as the data have it."""


@dataclass(frozen=True)
class ConfigFlags(SourceFlags, Config):
    """A config as flags; `parse` returns plain ones."""


def as_flags(config: Config) -> ConfigFlags:
    """Return a config as the default of flags."""
    return ConfigFlags(**vars(config))
