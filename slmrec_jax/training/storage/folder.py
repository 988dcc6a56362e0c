"""A run's folder: what lies in it and how it is written."""

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jax

from slmrec_jax.config import IN_MEMORY, Config, from_json, to_json
from slmrec_jax.data import write_store
from slmrec_jax.data.dataset import SPLITS, Dataset
from slmrec_jax.durable import PART, append, remove_folder, write_whole, writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.storage.lock import LOCK, locked
from slmrec_jax.training.storage.records import read_bytes, read_json, seal, unseal, write_json

CONFIG, DATA, ENVIRONMENT = "config.json", "dataset.json", "environment.json"
METRICS, RESULT, CURVES = "metrics.jsonl", "result.json", "curves.png"
CHECKPOINTS, EVENTS, NOT_FINITE = "checkpoints", "events", "not_finite.json"
STORE = "data"
"""The data set itself, of a run on one that was made in memory: nothing else says what it was."""

NO_RUN = "give the folder of a run"


class Record(TypedDict):
    """One epoch, a line of `metrics.jsonl`."""

    epoch: int
    """Counted from 1."""
    losses: Mapping[str, float]
    """Means over the epoch's interactions."""
    split: str
    """What was evaluated."""
    selected: Mapping[str, float]
    """The metric that selects; empty where the epoch was not evaluated, or the protocol does not select."""
    metrics: Mapping[str, float]
    improved: bool
    """Whether it is the best epoch so far."""
    train_seconds: float
    evaluate_seconds: float


class Description(TypedDict):
    """The data set of a run: `dataset.json`."""

    name: str
    fingerprint: str
    users: int
    items: int
    interactions: Mapping[str, int]
    """By split."""
    modalities: list[str]


class Result(TypedDict):
    """What a finished run measured: `result.json`."""

    valid: NotRequired[Mapping[str, float]]
    test: NotRequired[Mapping[str, float]]
    best_epoch: int
    epochs: int
    skipped_steps: int
    rollbacks: int
    seed: int
    fingerprint: str
    protocol: str
    seconds: Mapping[str, float]
    step_ms: float
    estimated_bytes: int
    peak_rss_bytes: int


class ConfigFile(TypedDict):
    """The Python file that a run's settings, and maybe its method, came from."""

    path: str
    sha256: str


class MadeBy(TypedDict):
    """What made the method that trains, beside the config."""

    method: str | None
    """The name of a function of the user's; `None` for the package's own `make_method`."""
    config_file: ConfigFile | None


class _Config(TypedDict):
    """What `config.json` has beside the fields of a config."""

    made_by: MadeBy


def new_folder(config: Config, dataset: Dataset, made_by: MadeBy, out: Path | None) -> AbstractContextManager[Path]:
    """Make the folder of a new run, with its config, its data's description and its environment; held within the block.

    Whether the place is free is checked on calling and on entering; it is written to on entering.

    Args:
        config: As resolved.
        dataset: What it trains on. One that was made in memory is written into the folder.
        made_by: What made the method.
        out: Where; by default a free name under `runs/`.

    Raises:
        UserError: The place is taken, or cannot be written.
    """
    if out is None:
        # A data set may be called anything.
        stem = re.sub(r"[^\w.+]+", "-", f"{dataset.name}-{config.model}-seed{config.seed}").lstrip(".-")
        places = (Path("runs") / (stem if number == 1 else f"{stem}-{number}") for number in range(1, 10_000))
        out = next(place for place in places if not place.exists())
    _check_free(out)
    return _made_folder(config, dataset, made_by, out)


@contextmanager
def _made_folder(config: Config, dataset: Dataset, made_by: MadeBy, out: Path) -> Iterator[Path]:
    fix = f"give another {setting('out')}"
    with writing(out, fix):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        _check_free(out)  # once more: another run may have come and gone meanwhile
        with writing(out, fix):
            write_json(out / ENVIRONMENT, environment())
            write_json(out / DATA, _description(dataset))
            if config.data == IN_MEMORY:
                if (out / STORE).exists():
                    remove_folder(out / STORE)
                write_store(dataset, out / STORE)
            write_config(out, config, made_by)  # last: with it the run is there to be resumed
        yield out


@contextmanager
def held_folder(folder: Path, config: Config, made_by: MadeBy) -> Iterator[Path]:
    """Hold the folder of a run to go on with, within the block.

    Args:
        folder: Folder of a run.
        config: The config that it goes on with.
        made_by: What made the method.

    Raises:
        UserError: Another process holds the folder, or it cannot be written.
    """
    with locked(folder):
        with writing(folder, f"give another {setting('out')}"):
            write_config(folder, config, made_by)
        yield folder


def _check_free(out: Path) -> None:
    """Refuse a folder with something in it; a run that was killed before its config was written has not begun."""
    left_by_a_killed_start = {LOCK, ENVIRONMENT, DATA, STORE, CONFIG}
    if not out.exists():
        return
    names = {path.name.removesuffix(PART) for path in out.iterdir()} if out.is_dir() else {""}
    others = {name for name in names - left_by_a_killed_start if not name.startswith(PART)}
    if others or (out / CONFIG).exists():
        goes_on = setting("resume", True)
        raise UserError(
            f"{out} is there already: {goes_on} goes on with a run; for a new one give another {setting('out')}"
        )


def write_config(folder: Path, config: Config, made_by: MadeBy) -> None:
    """Write the config of a run, and what made its method."""
    write_json(folder / CONFIG, to_json(config) | {"made_by": made_by})


def read_config(folder: Path) -> Config:
    """Read the config of a run.

    Raises:
        UserError: The folder holds none that can be read.
    """
    path = folder / CONFIG
    data = read_json(path, _Config, NO_RUN)
    del data["made_by"]
    return from_json(data, str(path))


def read_made_by(folder: Path) -> MadeBy:
    """Read what made the method of a run.

    Raises:
        UserError: The folder holds no config that can be read.
    """
    made_by: MadeBy = read_json(folder / CONFIG, _Config, NO_RUN)["made_by"]
    return made_by


def read_history(folder: Path, epochs: int) -> list[Record]:
    """Read the records of the first epochs of a run; lines after them, which a killed run may have left, are ignored.

    Raises:
        UserError: Some of them are missing, or were changed after they were written.
    """
    path, fix = folder / METRICS, "the epochs that it records cannot be used"
    lines = read_bytes(path, fix).splitlines()[:epochs]
    history: list[Any] = [unseal(line, Record, f"{path}: line {n}", fix) for n, line in enumerate(lines, 1)]
    if [record["epoch"] for record in history] != list(range(1, epochs + 1)):
        raise UserError(f"{path} lacks epochs before {epochs}, where the checkpoint is: {fix}")
    return history


def write_history(folder: Path, history: Sequence[Record]) -> None:
    """Write all records: on resuming, later ones are cut off, for which there is no checkpoint."""
    write_whole(folder / METRICS, _lines(history))


def append_records(folder: Path, records: Sequence[Record]) -> None:
    """Add epochs' lines, on disk before this returns, so that no checkpoint is without its record."""
    append(folder / METRICS, _lines(records))


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


def _description(dataset: Dataset) -> Description:
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
    return "".join(json.dumps(seal(record)) + "\n" for record in records)
