"""Many runs in one folder: what finished is taken as it lies there, an interrupted one goes on, the rest is trained."""

from collections.abc import Mapping
from pathlib import Path

from slmrec_jax.config import Config, first_change, relevant
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.durable import writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.progress import Listener
from slmrec_jax.training.run import Run, load_run
from slmrec_jax.training.storage.folder import CONFIG, RESULT, read_config
from slmrec_jax.training.train import train


def check_unchanged(runs: Mapping[Path, Config]) -> None:
    """Refuses folders that hold a run of another config than is asked for now.

    Args:
        runs: configs with the models' defaults filled in, by the run's folder.

    Raises:
        UserError: names the first such folder, and what differs.
    """
    for folder, config in runs.items():
        if not (folder / CONFIG).exists():
            continue
        change = first_change(relevant(read_config(folder)), relevant(config))
        if change:
            raise UserError(
                f"{folder} is a run of another config, {change}: give another {setting('out')}, or delete it"
            )


def make_folder(out: Path) -> None:
    """Make the folder that holds the runs.

    Raises:
        UserError: It cannot be written.
    """
    with writing(out, f"give another {setting('out')}"):
        out.mkdir(parents=True, exist_ok=True)


def finish(config: Config, dataset: Dataset, folder: Path, report: Listener) -> Run:
    """The finished run in a folder, which is trained, resumed or taken as it lies there.

    Args:
        config: of the run, with the model's defaults filled in; see `check_unchanged`.
        dataset: what it trains on.
        folder: of the run.
        report: where progress goes.

    Raises:
        UserError: the run cannot be trained, or was made on other data.
        Interrupted: a signal asked to stop, and the run goes on when this is called again.
    """
    if (folder / RESULT).exists():
        report.say(f"{folder.name}: finished before")
        return load_run(folder, dataset)
    report.say(f"{folder.name}:")
    return train(config, dataset, out=folder, resume=(folder / CONFIG).exists(), report=report)
