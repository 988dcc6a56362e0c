"""Load a run from its folder, and its data set."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from slmrec_jax.config import IN_MEMORY, Config, source_of
from slmrec_jax.data import Dataset, check_dataset, load_source
from slmrec_jax.errors import UserError, check_type, setting
from slmrec_jax.training.run import Run
from slmrec_jax.training.selection import best_epoch
from slmrec_jax.training.storage.checkpoint import places, restore_embeddings
from slmrec_jax.training.storage.folder import (
    CHECKPOINTS,
    DATA,
    NO_RUN,
    RESULT,
    Description,
    Record,
    Result,
    read_config,
    read_history,
    read_kept_dataset,
)
from slmrec_jax.training.storage.records import read_json
from slmrec_jax.training.storage.resume import check_same_data
from slmrec_jax.types import Embeddings


def load_run(folder: Path | str, dataset: Dataset | None = None, *, data: Path | str | None = None) -> Run:
    """Load a run to evaluate it or to recommend with it. The model's code is not needed.

    For an unfinished run, the best epoch is the best of those saved so far (`Run.finished`).

    Args:
        folder: The folder of the run.
        dataset: The data that it was trained on; by default the data set that its config names.
        data: A different place to load the data from, instead of `dataset`.

    Raises:
        UserError: The run's files are incomplete, it has no saved epoch yet, it was trained on different data, or both
            `dataset` and `data` are given.
    """
    check_type("folder", folder, (str, Path), "the path of a run's folder")
    check_type("data", data, (str, Path, type(None)), "the path of a data set's folder")
    if dataset is not None and data is not None:
        raise UserError("dataset and data are both given: give the data set or the place to load it from, not both")
    folder = Path(folder)
    config = read_config(folder)
    wanted = config if data is None else replace(config, data=data if isinstance(data, str) else str(data.absolute()))
    dataset = load_dataset(wanted, dataset, folder).with_modalities(config.modalities)
    check_same_data(folder, dataset)
    result: dict[str, Any]
    if (folder / RESULT).exists():
        result = read_json(folder / RESULT, Result, f"finish the run again with {setting('resume', True)}")
        history = read_history(folder, result["epochs"])
    else:
        history = _saved_history(folder)
        result = {
            "best_epoch": best_epoch(history),
            "epochs": len(history),
            "seed": config.seed,
            "fingerprint": dataset.fingerprint,
            "protocol": config.protocol,
        }
    if not any(record["epoch"] == result["best_epoch"] and record["improved"] for record in history):
        raise UserError(f"{folder}: {RESULT} and the records of its epochs disagree on the best epoch: {NO_RUN}")
    embeddings = Embeddings(*map(jnp.asarray, restore_embeddings(folder / CHECKPOINTS, result["best_epoch"])))
    if (len(embeddings.users), len(embeddings.items)) != (dataset.num_users, dataset.num_items):
        raise UserError(f"{folder}: its embeddings do not fit the users and items of {dataset.name}: {NO_RUN}")
    return Run(config, dataset, embeddings, result, history, folder)


def load_sharing(folder: Path, datasets: dict[str, Dataset], data: Path | str | None = None) -> Run:
    """Load a run as `load_run` does. Runs on the same data share one of `datasets`, by fingerprint, in memory."""
    known = datasets.get(read_json(folder / DATA, Description, NO_RUN)["fingerprint"]) if datasets else None
    run = load_run(folder, known, data=data if known is None else None)
    datasets.setdefault(run.dataset.fingerprint, run.dataset)
    return run


def _saved_history(folder: Path) -> list[Record]:
    """Read the records up to the newest checkpoint of a run that has no result yet."""
    saved = places(folder / CHECKPOINTS)
    history = read_history(folder, saved[-1].epochs) if saved else []
    if not best_epoch(history):
        raise UserError(
            f"{folder}: the run was stopped before an epoch was saved; continue with {setting('resume', True)}"
        )
    return history


def load_dataset(config: Config, dataset: Dataset | None, folder: Path | None) -> Dataset:
    """Return the given data set, or the one that the config names, numbered by degree.

    A data set that was made in memory is read from the run's folder, if a folder is given.
    """
    check_type("dataset", dataset, (Dataset, type(None)), "a Dataset, such as slmrec_jax.load returns for a folder")
    if dataset is None and config.data == IN_MEMORY:
        if folder is None:
            raise UserError(
                "the run's data set was made in memory: give a folder with the same data as "
                f"{setting('data')}, or in Python pass the data set as dataset"
            )
        dataset = read_kept_dataset(folder)
    elif dataset is None:
        dataset = load_source(source_of(config))
    check_dataset(dataset)
    return dataset.by_degree()
