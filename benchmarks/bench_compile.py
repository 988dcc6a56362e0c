"""Seconds that a run compiles: with an empty cache, and with the programs that the first run cached.

Each run is a process with a cache folder of its own, and is measured once: a median of three would take minutes.

    python benchmarks/bench_compile.py --data PATH/tiktok
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table
from timing import write_result

GOAL_SECONDS = {"first": 10.0, "second": 1.0}
"""By run. We want the second to be near zero, by which we mean one second."""


@dataclass(frozen=True)
class Flags:
    """Measure how long a run compiles."""

    data: str = "demo"
    tasks: tuple[str, ...] = ("fac", "fd+fm")
    out: Path = Path("benchmarks/results/compile.json")


def main(flags: Flags) -> None:
    rows = {}
    table = Table("task", "run", "compile, s", "goal", "met", "whole run, s", title="one epoch, empty cache and again")
    for task in flags.tasks:
        with tempfile.TemporaryDirectory() as folder:
            for run, goal in GOAL_SECONDS.items():
                found = rows[f"{task}, {run}"] = time_run(flags.data, task, Path(folder), run) | {"goal_seconds": goal}
                met = "yes" if found["compile_seconds"] <= goal else "no"
                cells = (f"{found['compile_seconds']:.1f}", f"≤ {goal:g}", met, f"{found['run_seconds']:.1f}")
                table.add_row(task, run, *cells)
    Console().print(table)
    write_result(flags.out, {"data": flags.data.split("/")[-1], "runs": rows})


def time_run(data: str, task: str, folder: Path, name: str) -> dict[str, float]:
    """Train for one epoch in a process of its own and return the seconds of compiling, and of everything.

    The folder holds the compiled programs of earlier runs in it, and the run of this name.
    """
    out = folder / name
    command = [sys.executable, "-m", "slmrec_jax", "train", "--data", data, "--task", task]
    command += ["--epochs", "1", "--out", str(out)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    compile_seconds = json.loads((out / "result.json").read_text())["seconds"]["compile"]
    return {"compile_seconds": compile_seconds, "run_seconds": seconds}


if __name__ == "__main__":
    main(tyro.cli(Flags))
