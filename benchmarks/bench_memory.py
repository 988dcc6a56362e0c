"""Estimated against measured peak memory of a run of one epoch, in five cases; each run is a process of its own.

python benchmarks/bench_memory.py --files PATH/tiktok
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import shapes
import tyro
from rich.console import Console
from rich.table import Table
from timing import write_result

from slmrec_jax import Config, data, train

INTERACTIONS = 150_000
"""Interactions of the generated data: a third of the paper's, for a short epoch. Users, items and features are the
same."""


@dataclass(frozen=True)
class Flags:
    """Compare the estimated memory of a run with the measured peak."""

    files: str
    """The TikTok data set."""
    only: tuple[str, ...] = ()
    """Cases to measure, such as `paper:slmrec:fac`; all by default."""
    out: Path = Path("benchmarks/results/memory.json")


def run_once(source: str, model: str, task: str) -> None:
    """Train for one epoch and print the estimate and the peak as JSON; runs in a process of its own."""
    dataset = shapes.power_law(num_interactions=INTERACTIONS) if source == shapes.PAPER else data.load(source)
    with tempfile.TemporaryDirectory() as base:
        config = Config(model=model, task=task, epochs=1)  # type: ignore[arg-type]
        result = train(config, dataset, out=Path(base) / "run").result
    print(json.dumps({name: result[name] for name in ("estimated_bytes", "peak_rss_bytes")}), flush=True)


def main(flags: Flags) -> None:
    cases = {
        "demo:slmrec:fac": ("demo", "slmrec", "fac"),
        "tiktok:slmrec:fac": (flags.files, "slmrec", "fac"),
        "tiktok:slmrec:fd": (flags.files, "slmrec", "fd"),
        "paper:slmrec:fac": (shapes.PAPER, "slmrec", "fac"),
        "paper:lightgcn": (shapes.PAPER, "lightgcn", "none"),
    }
    table = Table("case", "estimated, MiB", "measured, MiB", "estimated / measured")
    rows = {}
    for name in flags.only or cases:
        command = [sys.executable, __file__, "--run-once", *cases[name]]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        row = json.loads(printed.splitlines()[-1])
        row["ratio"] = row["estimated_bytes"] / row["peak_rss_bytes"]
        rows[name] = row
        sizes = (f"{row[key] / 2**20:.0f}" for key in ("estimated_bytes", "peak_rss_bytes"))
        table.add_row(name, *sizes, f"{row['ratio']:.2f}")
    Console().print(table)
    write_result(flags.out, {"interactions_of_paper": INTERACTIONS, "cases": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run-once"]:
        run_once(*sys.argv[2:5])
    else:
        main(tyro.cli(Flags))
