"""TEMPORARY."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from slmrec_jax.config import Config, first_change, relevant
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError, setting
from slmrec_jax.methods import make_method
from slmrec_jax.training.storage.checkpoint import places
from slmrec_jax.training.storage.folder import (
    CHECKPOINTS,
    DATA,
    NO_RUN,
    Description,
    MadeBy,
    held_folder,
    read_config,
    read_made_by,
)
from slmrec_jax.training.storage.records import read_bytes, read_json

RESUMABLE = ("epochs", "checkpoint_every_steps", "on_nan")
"""Settings that may change when a run is resumed."""


def made_by(method: Callable[..., Any], config_file: Path | str | None) -> MadeBy:
    """Describe what makes the method, so that a run resumes with the same."""
    name = None if method is make_method else getattr(method, "__qualname__", type(method).__name__)
    if config_file is None:
        return {"method": name, "config_file": None}
    path = Path(config_file).resolve()
    digest = hashlib.sha256(read_bytes(path, "give the file that the run was begun with")).hexdigest()
    return {"method": name, "config_file": {"path": str(path), "sha256": digest}}


def resumed_folder(config: Config, dataset: Dataset, made_by: MadeBy, folder: Path) -> AbstractContextManager[Path]:
    """Hold."""
    now = {name: value for name, value in relevant(config).items() if name not in RESUMABLE}
    change = first_change(relevant(read_config(folder)), now)
    if change:
        raise UserError(
            f"{folder} was run with another {change}: resume it as it was, or start a new run with another "
            f"{setting('out')}; only {', '.join(map(setting, RESUMABLE))} may change"
        )
    _check_same_maker(folder, made_by)
    check_same_data(folder, dataset)
    saved = places(folder / CHECKPOINTS)
    if saved and config.epochs < saved[-1].epochs:
        raise UserError(
            f"{folder} has trained {saved[-1].epochs} epochs already: {setting('epochs', config.epochs)} would undo "
            f"some of them; give {setting('epochs', saved[-1].epochs)} or more"
        )
    return held_folder(folder, config, made_by)


def _check_same_maker(folder: Path, now: MadeBy) -> None:
    before = read_made_by(folder)
    old, new = before["config_file"], now["config_file"]
    if old and not new:
        raise UserError(f"{folder} was begun with {_file(old)}: resume it with the same file")
    if new and not old:
        raise UserError(f"{folder} was begun without a config file: resume it without {_file()}")
    if old and new and old["sha256"] != new["sha256"]:
        raise UserError(
            f"{folder} was begun with {_file(old)} of SHA-256 {old['sha256'][:12]}, and {new['path']} has "
            f"{new['sha256'][:12]}: restore the file as it was, or start a new run with another {setting('out')}"
        )
    if before["method"] != now["method"]:
        made = [f"method {name}" if name else "the package's own method" for name in (before["method"], now["method"])]
        raise UserError(f"{folder} was begun with {made[0]}, not {made[1]}: resume it with the same")


def _file(recorded: Mapping[str, Any] | None = None) -> str:
    """Name the argument that takes a config file."""
    return setting("config_file", recorded and recorded["path"], flag="config")


def check_same_data(folder: Path, dataset: Dataset) -> None:
    """Check."""
    trained_on = read_json(folder / DATA, Description, NO_RUN)["fingerprint"]
    if trained_on != dataset.fingerprint:
        raise UserError(
            f"{folder} was run on other data (fingerprint {trained_on[:12]}) than {dataset.name} holds now "
            f"({dataset.fingerprint[:12]}): give back the data it was run on, or start a new run"
        )
