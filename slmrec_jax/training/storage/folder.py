"""The files of a run's folder, and functions that write and read them.

The reading functions raise a `UserError` for a file that is missing, unreadable or modified.
"""

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jax

from slmrec_jax import devices
from slmrec_jax.config import IN_MEMORY, Config, from_json, to_json
from slmrec_jax.data import Source, load_source, write_store
from slmrec_jax.data.dataset import SPLITS, Dataset
from slmrec_jax.durable import PART, append, move_folder, remove_folder, write_whole, writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.storage.lock import LOCK, locked
from slmrec_jax.training.storage.records import read_json, read_small_file, seal, unseal, write_json

CONFIG, DATA, ENVIRONMENT = "config.json", "dataset.json", "environment.json"
RECORDS, RESULT, CURVES = "metrics.jsonl", "result.json", "curves.png"
CHECKPOINTS, EVENTS, NOT_FINITE = "checkpoints", "events", "not_finite.json"
STORE = "data"
"""The folder of the data set itself, if it was made in memory and is stored nowhere else."""

NO_RUN = "give the folder of a run"


class Record(TypedDict):
    """The record of one epoch: a line of `metrics.jsonl`."""

    epoch: int
    """The number of the epoch, counted from 1."""
    losses: Mapping[str, float]
    """The mean losses over the epoch's interactions."""
    split: str
    """The split that was evaluated."""
    selected: Mapping[str, float]
    """The selecting metric; empty if the epoch was not evaluated or the protocol has no selecting metric."""
    metrics: Mapping[str, float]
    half_widths: NotRequired[Mapping[str, float]]
    """The half widths of the 95 % intervals of `metrics`, if they are means over a sample of users."""
    improved: bool
    """Whether the epoch is the best so far."""
    train_seconds: float
    evaluate_seconds: float


class Description(TypedDict):
    """A description of a run's data set: `dataset.json`."""

    name: str
    fingerprint: str
    users: int
    items: int
    interactions: Mapping[str, int]
    """The number of interactions by split."""
    modalities: list[str]


class Sampled(TypedDict):
    """The sample of a split's users on which a finished run was measured."""

    users: int
    of: int
    half_widths: Mapping[str, float]
    """The half width of the 95 % interval of each metric's mean."""


class Result(TypedDict):
    """The measurements of a finished run: `result.json`."""

    valid: NotRequired[Mapping[str, float]]
    test: NotRequired[Mapping[str, float]]
    sampled: NotRequired[Mapping[str, Sampled]]
    """The samples by split. Splits whose users were all ranked are left out."""
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
    mesh: NotRequired[Mapping[str, int]]
    """The sizes of the mesh axes; empty for one device."""
    processes: NotRequired[int]


class ConfigFile(TypedDict):
    """The Python file that a run's settings, and possibly its method, came from."""

    path: str
    sha256: str


class MadeBy(TypedDict):
    """The origin of a run's method, besides its config."""

    method: str | None
    """The name of the user's own function; `None` for the package's `make_method`."""
    config_file: ConfigFile | None


class _ConfigJson(TypedDict):
    """The part of `config.json` that does not belong to the config."""

    made_by: MadeBy


def new_folder(
    config: Config, dataset: Dataset, made_by: MadeBy, out: Path | None, *, overwrite: bool = False
) -> AbstractContextManager[Path]:
    """Make the folder of a new run with its config, data description and environment, and hold it within the block.

    Both the call and entering the block check that the folder is free; only entering writes. By default the folder gets
    an unused name under `runs/`. A data set that was made in memory is written into it. With `overwrite`, entering
    deletes an existing run but leaves other files.

    Raises:
        UserError: The folder is in use or cannot be written.
    """
    if out is None:
        # A data set's name may have any characters.
        stem = re.sub(r"[^\w.+]+", "-", f"{dataset.name}-{config.model}-seed{config.seed}").lstrip(".-")
        places = (Path("runs") / (stem if number == 1 else f"{stem}-{number}") for number in range(1, 10_000))
        out = next(place for place in places if not place.exists())
    overwrite = overwrite and (out / CONFIG).exists()
    if not overwrite:
        _check_free(out)
    else:
        read_config_and_maker(out)  # only a run is deleted
        if config.data not in ("demo", IN_MEMORY) and Path(config.data).resolve().is_relative_to(out.resolve()):
            raise UserError(f"{config.data} is part of the run in {out}, which {setting('overwrite', True)} deletes")
    return _made_folder(config, dataset, made_by, out, overwrite)


@contextmanager
def held_folder(folder: Path, config: Config, made_by: MadeBy) -> Iterator[Path]:
    """Hold a run's folder within the block (`locked`), and write the config that the run continues with."""
    with locked(folder):
        with writing(folder, f"give another {setting('out')}"):
            write_config(folder, config, made_by)
        yield folder


def write_config(folder: Path, config: Config, made_by: MadeBy) -> None:
    """Write the config of a run and the origin of its method."""
    write_json(folder / CONFIG, to_json(config) | {"made_by": made_by})


def read_config(folder: Path) -> Config:
    """Read the config of a run."""
    return read_config_and_maker(folder)[0]


def read_config_and_maker(folder: Path) -> tuple[Config, MadeBy]:
    """Read the config of a run and the origin of its method."""
    data = read_json(folder / CONFIG, _ConfigJson, NO_RUN)
    made_by: MadeBy = data.pop("made_by")
    return from_json(data, str(folder / CONFIG)), made_by


def read_kept_dataset(folder: Path) -> Dataset:
    """Read the data set that was made in memory and is stored in the run's folder."""
    store = folder / STORE
    if not store.exists():
        raise UserError(
            f"{store} is missing: the run's data set was made in memory and kept only in that folder; restore it, "
            f"name a folder that has the same data by {setting('data')}, or in Python pass the data set as dataset"
        )
    return replace(load_source(Source(str(store))))  # without its source, which is still memory


def read_history(folder: Path, epochs: int) -> list[Record]:
    """Read the records of a run's first epochs. Later lines, which a killed run may have left, are ignored."""
    path, fix = folder / RECORDS, "the epochs that it records cannot be used"
    lines = read_small_file(path, fix).splitlines()[:epochs]
    history: list[Any] = [unseal(line, Record, f"{path}: line {n}", fix) for n, line in enumerate(lines, 1)]
    if [record["epoch"] for record in history] != list(range(1, epochs + 1)):
        raise UserError(f"{path} lacks epochs before {epochs}, where the checkpoint is: {fix}")
    return history


def write_history(folder: Path, history: Sequence[Record]) -> None:
    """Replace all records. On resuming, this drops later records, which have no checkpoint."""
    write_whole(folder / RECORDS, _json_lines(history))


def append_records(folder: Path, records: Sequence[Record]) -> None:
    """Append records. They are on disk on return, so that no checkpoint lacks its record."""
    append(folder / RECORDS, _json_lines(records))


def environment() -> dict[str, Any]:
    """Return the versions, the device and the machine, which every result should state."""
    packages = ("slmrec-jax", "jax", "jaxlib", "flax", "optax", "jraph", "numpy", "orbax-checkpoint", "scipy")
    return {
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in packages},
        "device": str(jax.devices()[0].device_kind),
        "devices": jax.device_count(),
        "backend": devices.platform(),
        "machine": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


def _check_free(out: Path) -> None:
    """Reject a folder that holds anything other than remains of a run killed before its config was written."""
    if not out.exists():
        return
    if (out / CONFIG).exists():
        resumes, replaces = setting("resume", True), setting("overwrite", True)
        raise UserError(
            f"{out} already exists: {resumes} continues a run, {replaces} deletes it; or give another {setting('out')}"
        )
    names = {path.name.removesuffix(PART) for path in out.iterdir()} if out.is_dir() else {""}
    left = {LOCK, ENVIRONMENT, DATA} | ({STORE} if ENVIRONMENT in names else set())  # the store is written last
    if any(not name.startswith(PART) for name in names - left):
        raise UserError(f"{out} already exists and holds no run: give another {setting('out')}")


@contextmanager
def _made_folder(config: Config, dataset: Dataset, made_by: MadeBy, out: Path, overwrite: bool) -> Iterator[Path]:
    fix = f"give another {setting('out')}"
    with writing(out, fix):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if not overwrite:
            _check_free(out)  # check again: another run may have written it before the lock was taken
        with writing(out, fix):
            in_memory, new_store = config.data == IN_MEMORY, out / f"{PART}-{STORE}"
            if new_store.exists():
                remove_folder(new_store)
            if overwrite:
                if in_memory:  # write it before anything is deleted, since writing may fail
                    write_store(dataset, new_store)
                _delete_run(out)
            write_json(out / ENVIRONMENT, environment())
            write_json(out / DATA, _description(dataset))
            if (out / STORE).exists():
                remove_folder(out / STORE)
            if new_store.exists():
                move_folder(new_store, out / STORE)
            elif in_memory:
                write_store(dataset, out / STORE)
            write_config(out, config, made_by)  # written last, since a folder with a config can be resumed
        yield out


def _delete_run(out: Path) -> None:
    """Delete a run's files, the config last, so that the folder is still recognised as a run after an interruption."""
    for name in (CHECKPOINTS, EVENTS, STORE, RECORDS, RESULT, CURVES, NOT_FINITE, ENVIRONMENT, DATA, CONFIG):
        path = out / name
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)


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


def _json_lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(seal(record)) + "\n" for record in records)
