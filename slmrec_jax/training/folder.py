"""A run's folder: what lies in it and how it is written."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jax

from slmrec_jax.config import Config, from_json, to_json
from slmrec_jax.data.dataset import SPLITS, Dataset
from slmrec_jax.durable import PART, append, write_whole
from slmrec_jax.errors import UserError
from slmrec_jax.training.lock import LOCK, locked

CONFIG, DATA, ENVIRONMENT = "config.json", "dataset.json", "environment.json"
METRICS, RESULT, CURVES = "metrics.jsonl", "result.json", "curves.png"
CHECKPOINTS, EVENTS, NOT_FINITE = "checkpoints", "events", "not_finite.json"

Record = dict[str, Any]
"""One epoch: its number, means of the losses, the selected split's metrics, seconds."""


def new_folder(config: Config, dataset: Dataset, out: Path | None) -> AbstractContextManager[Path]:
    """The folder of a new run, with its config, its data's description and its environment; held within the block.

    Whether the place is free is looked at on calling and on entering; it is written to on entering.

    Args:
        config: as resolved.
        dataset: what it trains on.
        out: where; by default a free name under `runs/`.

    Raises:
        UserError: the place is taken, or cannot be written.
    """
    if out is None:
        stem = f"{dataset.name}-{config.model}-seed{config.seed}"
        places = (Path("runs") / (stem if number == 1 else f"{stem}-{number}") for number in range(1, 10_000))
        out = next(place for place in places if not place.exists())
    _check_free(out)
    return _made_folder(config, dataset, out)


@contextmanager
def _made_folder(config: Config, dataset: Dataset, out: Path) -> Iterator[Path]:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(out, error) from None
    with locked(out):
        _check_free(out)  # once more: another run may have come and gone meanwhile
        try:
            write_json(out / ENVIRONMENT, environment())
            write_json(out / DATA, _description(dataset))
            write_config(out, config)  # last: with it the run is there to be resumed
        except OSError as error:
            raise _not_writable(out, error) from None
        yield out


@contextmanager
def held_folder(folder: Path, config: Config) -> Iterator[Path]:
    """The folder of a run to go on with, within the block.

    Args:
        folder: of a run.
        config: which it goes on with.

    Raises:
        UserError: another process holds the folder, or it cannot be written.
    """
    with locked(folder):
        try:
            write_config(folder, config)
        except OSError as error:
            raise _not_writable(folder, error) from None
        yield folder


def _check_free(out: Path) -> None:
    """A run that was killed before its config was written has not begun."""
    unborn = {LOCK, ENVIRONMENT, DATA}
    if out.exists() and (
        not out.is_dir()
        or {path.name.removesuffix(PART) for path in out.iterdir()} - unborn - {CONFIG}
        or (out / CONFIG).exists()
    ):
        raise UserError(f"{out} is there already: --resume goes on with a run; for a new one give another --out")


def _not_writable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write the run folder {folder}: {error.strerror or error}; give another --out")


def write_config(folder: Path, config: Config) -> None:
    """Writes the config of a run."""
    write_json(folder / CONFIG, to_json(config))


def read_config(folder: Path) -> Config:
    """The config of a run.

    Raises:
        UserError: the folder holds none that can be read.
    """
    return from_json(read_json(folder / CONFIG, "give the folder of a run"), str(folder / CONFIG))


def read_history(folder: Path, epochs: int) -> list[Record]:
    """The records of the first epochs of a run; what a killed run may have left of later ones is not looked at.

    Raises:
        UserError: some of them are missing.
    """
    path = folder / METRICS
    try:
        history = [json.loads(line) for line in path.read_bytes().splitlines()[:epochs]]
        numbers = [record["epoch"] for record in history]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot read {path}: {error}; the run cannot be resumed") from None
    if numbers != list(range(1, epochs + 1)):
        raise UserError(f"{path} lacks epochs before {epochs}, where the checkpoint is; the run cannot be resumed")
    return history


def write_history(folder: Path, history: Sequence[Record]) -> None:
    """Writes the records anew: on resuming, later ones are cut off, for which no checkpoint stands."""
    write_whole(folder / METRICS, _lines(history))


def append_records(folder: Path, records: Sequence[Record]) -> None:
    """Adds epochs' lines, on disk before this returns, so that no checkpoint is without its record."""
    append(folder / METRICS, _lines(records))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all."""
    write_whole(path, json.dumps(data, indent=2) + "\n")


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: it is missing or not one; the text ends with how to mend it.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is not there: {mend}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; {mend}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} does not hold a JSON object: {mend}")
    return data


def environment() -> dict[str, Any]:
    """Versions, device and machine, as every result should state them."""
    packages = ("slmrec-jax", "jax", "jaxlib", "flax", "optax", "jraph", "numpy", "orbax-checkpoint", "scipy")
    return {
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in packages},
        "device": str(jax.devices()[0].device_kind),
        "devices": jax.device_count(),
        "backend": jax.default_backend(),
        "machine": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


def _description(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": {split: len(getattr(dataset, split).users) for split in SPLITS},
        "modalities": list(dataset.features),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
