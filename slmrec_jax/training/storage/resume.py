"""Checks that a run resumes with the settings, the method, the config file and the data that it was started with."""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

from slmrec_jax.config import Config, first_change, relevant
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.storage.checkpoint import places
from slmrec_jax.training.storage.folder import (
    CHECKPOINTS,
    DATA,
    NO_RUN,
    ConfigFile,
    Description,
    MadeBy,
    held_folder,
    read_config_and_maker,
)
from slmrec_jax.training.storage.records import read_json, read_small_file

RESUMABLE = ("epochs", "checkpoint_every_steps", "on_nan")
"""The settings that may change when a run is resumed."""


def made_by(method: str | None, config_file: Path | str | None) -> MadeBy:
    """Describe the origin of a run's method: the user's function (`None` for the package's) and the config file."""
    if config_file is None:
        return {"method": method, "config_file": None}
    path = Path(config_file).resolve()
    digest = hashlib.sha256(read_small_file(path, "give the file that the run was started with")).hexdigest()
    return {"method": method, "config_file": {"path": str(path), "sha256": digest}}


def resumed_folder(config: Config, dataset: Dataset, maker: MadeBy, folder: Path) -> AbstractContextManager[Path]:
    """Check that a run may continue, and hold its folder within the block. Only entering the block writes.

    Of the `relevant` settings, only those in `RESUMABLE` may differ from when the run was started.

    Raises:
        UserError: Something else differs from when the run was started, or the folder cannot be read or held.
    """
    before, made_before = read_config_and_maker(folder)
    now = {name: value for name, value in relevant(config).items() if name not in RESUMABLE}
    if change := first_change(relevant(before), now):
        raise UserError(
            f"{folder} was run with another {change}: resume it as it was, or start a new run with another "
            f"{setting('out')}; only {', '.join(map(setting, RESUMABLE))} may change"
        )
    _check_same_maker(folder, made_before, maker)
    check_same_data(folder, dataset)
    saved = places(folder / CHECKPOINTS)
    if saved and config.epochs < saved[-1].epochs:
        raise UserError(
            f"{folder} has already trained {saved[-1].epochs} epochs: {setting('epochs', config.epochs)} would undo "
            f"some of them; give {setting('epochs', saved[-1].epochs)} or more"
        )
    return held_folder(folder, config, maker)


def check_same_data(folder: Path, dataset: Dataset) -> None:
    """Reject a data set other than the one that a run was started on."""
    trained_on = read_json(folder / DATA, Description, NO_RUN)["fingerprint"]
    if trained_on != dataset.fingerprint:
        raise UserError(
            f"{folder} was run on other data (fingerprint {trained_on[:12]}) than {dataset.name} now holds "
            f"({dataset.fingerprint[:12]}): restore the data it was run on, or start a new run"
        )


def _check_same_maker(folder: Path, before: MadeBy, now: MadeBy) -> None:
    old, new = before["config_file"], now["config_file"]
    if old and not new:
        raise UserError(f"{folder} was started with {_argument(old)}: resume it with the same file")
    if new and not old:
        raise UserError(f"{folder} was started without a config file: resume it without {_argument()}")
    if old and new and old["sha256"] != new["sha256"]:
        raise UserError(
            f"{folder} was started with {_argument(old)} of SHA-256 {old['sha256'][:12]}, but {new['path']} has "
            f"{new['sha256'][:12]}: restore the file as it was, or start a new run with another {setting('out')}"
        )
    if before["method"] != now["method"]:
        was, given = (
            f"method {each['method']}" if each["method"] else "the package's own method" for each in (before, now)
        )
        raise UserError(f"{folder} was started with {was}, not {given}: resume it with the same one")


def _argument(file: ConfigFile | None = None) -> str:
    """Name the argument that takes a config file: as a flag for the command line, as a keyword in Python."""
    return setting("config_file", file and file["path"], flag="config")
