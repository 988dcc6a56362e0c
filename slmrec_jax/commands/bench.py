"""The command `slmrec-jax bench`."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from slmrec_jax.errors import UserError


@dataclass(frozen=True)
class BenchFlags:
    """Run the benchmarks of a clone of the project, in its root folder."""

    data: str = "demo"
    """A real data set to measure on, in addition to generated ones; one that is not divided must be divided first, by
    `data convert --split`."""


def run_bench(flags: BenchFlags) -> None:
    """Run the benchmarks in a process of their own and exit with its status."""
    suite = Path("benchmarks") / "suite.py"
    if not suite.is_file():
        raise UserError(f"there is no {suite} here: the benchmarks are part of the sources, run this in a clone")
    command = [sys.executable, str(suite), "--data", flags.data]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 (a file of the project, and no shell)
