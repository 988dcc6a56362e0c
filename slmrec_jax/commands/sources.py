"""The flags of the data source settings, one of which has a different name than its field."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from slmrec_jax.config import Config, Source


@dataclass(frozen=True)
class SourceFlags(Source):
    """A source whose field `since` is the flag `--from`, which is a Python keyword."""

    since: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Drop rows before this time: a number, or a date such as 2025-05-31, as in the data."""


@dataclass(frozen=True)
class ConfigFlags(SourceFlags, Config):
    """A config as flags; `parse` returns plain configs."""


def as_flags(config: Config) -> ConfigFlags:
    """Convert a config to the defaults of flags."""
    return ConfigFlags(**vars(config))
