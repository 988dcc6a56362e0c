"""The command `slmrec-jax tune`."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from slmrec_jax.commands.settings import SettingsFlags, parse_seeds
from slmrec_jax.errors import UserError, escaped
from slmrec_jax.studies.tuning.space import Sampler, make_space


@dataclass(frozen=True)
class TuneFlags(SettingsFlags):
    """Search a model's settings on validation; the same command resumes a stopped search."""

    out: Path = Path("runs/tune")
    """The folder for the journal, the table, the picture, the best config as best.py, and the best runs."""
    sampler: Sampler = "tpe"
    """Every point of a grid, by default the paper's; or proposals based on earlier trials, with bad ones stopped
    early."""
    space: tuple[str, ...] = ()
    """Settings to vary, replacing or extending the model's defaults: slmrec.temperature=0.1,0.2,0.5 lr=1e-4..1e-2:log;
    a single value keeps a setting fixed."""
    trials: int | None = None
    """Total number of trials, including earlier ones; by default the whole grid, or 50."""
    seeds: str = "0"
    """Seeds of each trial, separated by commas; a trial is judged by their mean."""


def run_tune(flags: TuneFlags) -> None:
    """Search, and show the best trials and the test metric of the best config."""
    from rich.console import Console

    from slmrec_jax.commands.tables import fit_width
    from slmrec_jax.training.progress import display

    seeds = parse_seeds(flags, flags.seeds, "tune")
    try:
        from slmrec_jax.studies.tuning.search import BEST_CONFIG, tune
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("tune needs optuna, which is not installed: pip install 'slmrec-jax[tune]'") from None
    if flags.trials is not None and flags.trials < 1:
        raise UserError(f"--trials is {flags.trials}: give at least 1")
    space = make_space(flags.settings, flags.sampler, flags.space)
    with display(flags.settings.epochs) as show:
        tuned = tune(flags.settings, space, flags.sampler, seeds, flags.trials, flags.out, show)
    metric = str(tuned.runs[0].config.eval.metric)
    console = Console()
    console.print(fit_width(tuned.table(metric), console.width))
    tests = ", ".join(f"seed {run.config.seed} {run.result['test'][metric]:.4f}" for run in tuned.runs)
    console.print(f"test {metric} of trial {tuned.best.number}: {tests}", highlight=False, soft_wrap=True)
    print(f"train it with: slmrec-jax train --config {escaped(shlex.quote(str(flags.out / BEST_CONFIG)))}")
