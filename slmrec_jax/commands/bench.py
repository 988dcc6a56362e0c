"""The commands `slmrec-jax bench` and `bench step`."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from slmrec_jax.commands.settings import SettingsFlags, own_method
from slmrec_jax.errors import UserError, escaped


@dataclass(frozen=True)
class BenchFlags:
    """Run the benchmarks of a clone of the project, in its root folder."""

    data: str = "demo"
    """A real data set to measure on, in addition to generated ones; split it first with `data convert --split` if it
    has no splits."""


def run_bench(flags: BenchFlags) -> None:
    """Run the benchmarks in a separate process and exit with its status."""
    suite = Path("benchmarks") / "suite.py"
    if not suite.is_file():
        raise UserError(f"{suite} does not exist here: the benchmarks come with the sources, so run this in a clone")
    command = [sys.executable, str(suite), "--data", flags.data]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 (a file of the project, without a shell)


@dataclass(frozen=True)
class StepFlags(SettingsFlags):
    """Time training steps on this machine's device; nothing is written."""

    rounds: int = 5
    """Number of timed calls, of about a second each."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


def run_step(flags: StepFlags) -> None:
    """Time steps of the model on the data given by the settings, and print the measurements."""
    from slmrec_jax.methods import make_method
    from slmrec_jax.training.loading import load_dataset
    from slmrec_jax.training.timing import time_steps

    if flags.rounds < 1:
        raise UserError(f"--rounds is {flags.rounds}: give 1 or more")
    config = flags.settings
    dataset = load_dataset(config, None, None)
    found = time_steps(config, dataset, flags.rounds, method=own_method(flags.config) or make_method)
    task = {"task": config.task} if config.model == "slmrec" else {}
    about = {"data": dataset.name, "model": config.model, **task, "batch_size": config.batch_size, "dim": config.dim}
    if flags.json:
        print(json.dumps({**about, **found._asdict()}))
        return
    lower, upper = found.step_ms_quartiles
    print(
        f"{escaped(dataset.name)}, {' '.join((config.model, *task.values()))}, batch size {config.batch_size}, "
        f"dim {config.dim}, on {found.device}"
    )
    print(
        f"per step: {found.step_ms:.3g} ms (quartiles {lower:.3g} to {upper:.3g}), {found.rounds} rounds of "
        f"{found.steps_per_call} steps"
    )
    print(f"per second: {found.steps_per_second:.4g} steps, {found.interactions_per_second:,.0f} interactions")
    print(f"compilation: {found.compile_seconds:.1f} s")
    print(f"peak memory of the {found.peak_of}: {found.peak_bytes / 2**20:,.0f} MiB")
