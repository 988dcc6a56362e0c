"""Many runs in one folder: finished runs are loaded, stopped runs are resumed, and the others are trained."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from slmrec_jax.config import Config, check_config, first_change, relevant
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.durable import writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.methods import make_method
from slmrec_jax.training.events import Callback, message
from slmrec_jax.training.loading import load_run
from slmrec_jax.training.run import Run
from slmrec_jax.training.selection import check_epochs
from slmrec_jax.training.setup import build_method, with_micro_batches
from slmrec_jax.training.storage.folder import CONFIG, RESULT, read_config
from slmrec_jax.training.train import train


def check_runs(runs: Mapping[Path, Config], dataset: Dataset) -> None:
    """Reject runs that would fail later, before the first one trains.

    `runs` maps run folders to configs with the models' defaults filled in. The data set has the configs' modalities.

    Raises:
        UserError: A config is invalid, the data set lacks something it needs, or its folder holds a run of another
            config.
    """
    for config in runs.values():
        check_config(config)
        check_epochs(config)
    for config in dict.fromkeys(replace(config, seed=0) for config in runs.values()):
        build_method(config, dataset)
    for folder, config in runs.items():
        if (folder / CONFIG).exists():
            chosen, _ = with_micro_batches(config, dataset, make_method)
            change = first_change(relevant(read_config(folder)), relevant(chosen))
            if change:
                raise UserError(
                    f"{folder} is a run of another config, {change}: give another {setting('out')}, or delete it"
                )


def make_folder(out: Path) -> None:
    """Make the folder that holds the runs."""
    with writing(out, f"give another {setting('out')}"):
        out.mkdir(parents=True, exist_ok=True)


def finish_run(config: Config, dataset: Dataset, folder: Path, tell: Callback) -> Run:
    """Load, resume or train the run of a folder that `check_runs` has accepted.

    Raises:
        UserError: The run cannot be trained, or was trained on other data.
        Interrupted: A signal requested a stop. Calling this again resumes the run.
    """
    if (folder / RESULT).exists():
        tell(message(f"{folder.name}: finished before"))
        return load_run(folder, dataset)
    tell(message(f"{folder.name}:"))
    return train(config, dataset, out=folder, resume=(folder / CONFIG).exists(), progress=False, callbacks=[tell])
