"""The command `slmrec-jax tune`: searches a model's settings on validation, and goes on where it stopped."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from slmrec_jax.config import Config, ProtocolName
from slmrec_jax.errors import UserError, escaped
from slmrec_jax.studies.tuning.space import Sampler, make_space
from slmrec_jax.training.progress import console_report


@dataclass(frozen=True)
class Tune:
    """Search a model's settings on validation; the same command goes on where it stopped."""

    settings: Annotated[Config, tyro.conf.arg(name="")]
    out: Path = Path("runs/tune")
    """The folder for journal, table, picture, the best config as best.py, and its runs."""
    preset: str | None = None
    """Named settings of the model, such as slmrec's `paper` (docs/settings.md has all); single flags win over them."""
    protocol: ProtocolName | None = None
    """How to select and to test, `strict` by default; single --eval.* flags win over it."""
    config: Path | None = None
    """A Python file of yours with get_config()."""
    sampler: Sampler = "tpe"
    """Every point of a grid, by default the paper's; or proposals by what was seen, with bad trials stopped early."""
    space: tuple[str, ...] = ()
    """What varies, in place of the model's own or beside it: slmrec.temperature=0.1,0.2,0.5 lr=1e-4..1e-2:log; a single
    value holds a setting fixed."""
    trials: int | None = None
    """How many in all, earlier ones among them; by default the whole grid, or 50."""
    seeds: str = "0"
    """Seeds of each trial, separated by commas; a trial counts with their mean."""


def tune(flags: Tune, seeds: list[int]) -> int:
    """Searches, and shows the best trials and the test of the best config."""
    try:
        from slmrec_jax.studies.tuning.search import BEST
        from slmrec_jax.studies.tuning.search import tune as search
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("tune needs optuna, which is not installed: pip install 'slmrec-jax[tune]'") from None
    if flags.trials is not None and flags.trials < 1:
        raise UserError(f"--trials is {flags.trials}: give at least 1")
    space = make_space(flags.settings, flags.sampler, flags.space)
    with console_report(flags.settings.epochs) as report:
        tuned = search(flags.settings, space, flags.sampler, seeds, flags.trials, flags.out, report)
    metric = str(tuned.runs[0].config.eval.metric)
    console = Console()
    console.print(tuned.table(metric))
    tests = ", ".join(f"seed {run.config.seed} {run.result['test'][metric]:.4f}" for run in tuned.runs)
    console.print(f"test {metric} of trial {tuned.best.number}: {tests}", highlight=False, soft_wrap=True)
    print(f"train it with: slmrec-jax train --config {escaped(shlex.quote(str(flags.out / BEST)))}")
    return 0
