"""The runs of the paper's experiments: flags, resumable runs, and the choice of a learning rate and weight decay.

An experiment maps names to configs and trains each with every seed. Where the flags give several learning rates or
weight decays, the first seed's validation chooses among them for each name, and tables show only the chosen runs; no
one reads the test metrics of the others. A seed that diverges is left out of its row, which says so. Experiments with
the same --out share the runs in `OUT/runs`; the same command continues an interrupted experiment.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import tyro
from paper import PaperData, PaperTask, Switches, settings

from slmrec_jax import Config, Run, UserError, data
from slmrec_jax.config import with_defaults
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import Diverged, Interrupted
from slmrec_jax.studies.runs import check_runs, finish_run, make_folder
from slmrec_jax.training.events import Callback, message
from slmrec_jax.training.progress import display


@dataclass(frozen=True)
class Flags:
    """Flags of all experiments."""

    data: str
    """`demo`, or the folder of a data set."""
    paper: PaperData | None = None
    """Which of the paper's data sets this is: tables then show the paper's figures beside ours."""
    format: str | None = None
    """The folder's format, where its content does not tell."""
    split: str | None = None
    """The way to divide the interactions; `mmrec` divides each user's 8:1:1."""
    preset: Switches = "reference"
    """SLMRec as in its published code, or as in the paper."""
    seeds: tuple[int, ...] = (0,)
    epochs: int = 1000
    """The most epochs; early stopping ends most runs sooner."""
    learning_rates: tuple[float, ...] = (1e-2,)
    """The published code's; the paper searches 1e-4 1e-3 1e-2 1e-1."""
    weight_decays: tuple[float, ...] = (1e-4,)
    """The published code's; the paper searches 1e-4 1e-3 1e-2 1e-1."""
    out: Path = Path("runs/paper")
    """The folder for runs, tables and pictures."""


@dataclass(frozen=True)
class TaskFlags(Flags):
    """Flags of the experiments on SLMRec's tasks."""

    tasks: tuple[PaperTask, ...] = ("fd", "fm", "fac")


def command(flags: type[Any], experiment: Callable[[Any], None], arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, a dataclass, run the experiment, and return the exit status."""
    try:
        experiment(tyro.cli(flags, args=arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"stopped by {stop} and saved; the same command continues", file=sys.stderr)
        return 128 + stop.signal_number
    return 0


def load(flags: Flags) -> Dataset:
    """Load the data set, divided as the flags say."""
    return data.load(flags.data, format=flags.format, split=flags.split)


def base(flags: Flags) -> Config:
    """Return the paper's settings with those of the flags."""
    where = flags.data if flags.data == "demo" else str(Path(flags.data).resolve())
    config = settings(flags.preset)
    return replace(config, data=where, format=flags.format, split=flags.split, epochs=flags.epochs)


def run(points: Mapping[str, Config], dataset: Dataset, flags: Flags) -> dict[str, list[Run]]:
    """Return the finished runs of each point, one a seed, without those that diverged.

    Raises:
        UserError: A config does not fit the data, a folder holds another run, a point diverges with every setting that
            it may choose, or all runs diverge.
        Interrupted: A signal asked to stop; the same call continues.
    """
    if not flags.seeds or not flags.learning_rates or not flags.weight_decays:
        raise UserError("--seeds, --learning-rates and --weight-decays each need at least one number")
    candidates = {name: _candidates(name, config, flags) for name, config in points.items()}
    for of_point in candidates.values():
        for runs in of_point:
            check_runs(runs, dataset)
    make_folder(flags.out)
    with display(flags.epochs) as show:
        found = {
            name: _finish(_choose(name, of_point, dataset, show), dataset, show)
            for name, of_point in candidates.items()
        }
    if not any(found.values()):
        raise UserError("every run diverges: give lower --learning-rates")
    return found


def _candidates(name: str, config: Config, flags: Flags) -> list[dict[Path, Config]]:
    """Return the runs of a point by folder, one mapping for each learning rate and weight decay."""
    found = []
    for rate, decay in product(flags.learning_rates, flags.weight_decays):
        optimizer = replace(config.optimizer, learning_rate=rate, weight_decay=decay)
        candidate = with_defaults(replace(config, optimizer=optimizer))
        stem = flags.out / "runs" / f"{name.replace(' ', '-')}-lr{rate:g}-wd{decay:g}"
        found.append({Path(f"{stem}-seed{seed}"): replace(candidate, seed=seed) for seed in flags.seeds})
    return found


def _choose(name: str, of_point: Sequence[dict[Path, Config]], dataset: Dataset, tell: Callback) -> dict[Path, Config]:
    """Return the candidate whose first seed is the best on validation; those where it diverges do not count."""
    if len(of_point) == 1:
        return of_point[0]
    values = {}
    for place, runs in enumerate(of_point):
        folder, config = next(iter(runs.items()))
        for done in _finish({folder: config}, dataset, tell):
            values[place] = done.result["valid"][config.eval.metric]
    if not values:
        raise UserError(f"{name} diverges with every setting: give lower --learning-rates")
    return of_point[max(values, key=lambda place: values[place])]


def _finish(runs: Mapping[Path, Config], dataset: Dataset, tell: Callback) -> list[Run]:
    """Finish the runs; report those that diverge and leave them out."""
    found = []
    for folder, config in runs.items():
        try:
            found.append(finish_run(config, dataset, folder, tell))
        except Diverged as error:
            tell(message(f"{folder.name}: {error}"))
    return found
