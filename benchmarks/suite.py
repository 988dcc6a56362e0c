"""Run all benchmarks but those of loading, memory and seeds, and summarise them as JSON, a table and a picture.

    python benchmarks/suite.py --data PATH/tiktok

The summary gives the minutes that it took. Without --data, benchmarks that need real data run on the demo data, for
which the goals do not hold.
"""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import tyro
from findings import Finding
from rich.console import Console
from rich.table import Table
from timing import write_result

mpl.use("Agg")
HERE = Path(__file__).parent
RESULTS = HERE / "results"

MOST_TIMES = 4.0
"""The longest bar. A value that should be small may be zero, or below zero by noise."""


@dataclass(frozen=True)
class Flags:
    """Run the benchmarks."""

    data: str = "demo"
    """A real data set."""


def commands(data: str) -> dict[str, list[str]]:
    """Return the arguments of each benchmark."""
    return {
        "step": ["--data", "paper", data],
        "floor": ["--data", "paper"],
        "product": ["--data", "paper"],
        "evaluate": ["--data", "paper", data],
        "epoch": ["--data", data],
        "compile": ["--data", data],
        "peak": ["--data", "paper"],
        "growth": [],
        "quality": ["--data", data],
    }


def findings(found: dict[str, dict]) -> Iterator[Finding]:  # type: ignore[type-arg]
    """Yield every measured value."""
    for shape, tasks in found["step"]["shapes"].items():
        for task, row in tasks.items():
            yield Finding(f"step {task}, {shape}: torch / ours", row["ratio"], row["goal"], "≥")
    yield Finding("step fac, paper: its floor / ours", found["floor"]["share"], None, "≥")
    product = found["product"]
    for name, ratio in product["ratios"].items():
        yield Finding(f"product and derivative: {name} / ours", ratio, product["goals"][name], "≥")
    share = product["share_of_gather_bandwidth"]
    yield Finding("product: share of gather bandwidth", share, product["share_goal"], "≥")
    for shape, row in found["evaluate"]["shapes"].items():
        yield Finding(f"ranking, {shape}: torch / ours", row["ratio"], row["goal"], "≥")
    epoch = found["epoch"]
    overhead = epoch["overhead"], epoch["goal"], "≤", epoch["overhead_quartiles"]
    yield Finding("epoch: share beyond its steps", *overhead)
    yield Finding("epoch: share of saving", epoch["saving"], epoch["saving_goal"], "≤", epoch["saving_quartiles"])
    for run, row in found["compile"]["runs"].items():
        yield Finding(f"compile {run}: seconds", row["compile_seconds"], row["goal_seconds"], "≤")
        yield Finding(f"compile {run}: seconds of the whole run", row["run_seconds"], None, "≤")
    yield Finding("peak memory, paper: ours / torch", found["peak"]["ratio"], found["peak"]["goal"], "≤")
    growth = found["growth"]
    yield Finding("growth of a step with edges: R²", growth["r_squared"], growth["goal"], "≥")
    yield Finding("growth of an epoch with edges: exponent", growth["exponent"], growth["goal_exponent"], "≤")
    yield Finding("time to quality: torch / ours", found["quality"]["ratio"], found["quality"]["goal"], "≥")


def main(flags: Flags) -> None:
    if importlib.util.find_spec("torch") is None:
        sys.exit("the benchmarks compare with PyTorch, which is not installed: pip install torch==2.13.0")
    found, start = {}, time.perf_counter()
    for name, arguments in commands(flags.data).items():
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(HERE / f"bench_{name}.py"), *arguments], check=True)
        found[name] = json.loads((RESULTS / f"{name}.json").read_text())
    rows, minutes = list(findings(found)), (time.perf_counter() - start) / 60
    table = Table("measured", "value", "goal", "met", title=f"in {minutes:.0f} minutes")
    lines = ["| measured | value | goal | met |", "| --- | --- | --- | --- |"]
    for row in rows:
        table.add_row(*row.cells)
        lines.append(f"| {' | '.join(row.cells)} |")
    Console().print(table)
    (RESULTS / "summary.md").write_text("\n".join([*lines, "", f"Measured in {minutes:.0f} minutes."]) + "\n")
    write_result(
        RESULTS / "summary.json",
        {"minutes": round(minutes, 1), "rows": [row._asdict() | {"met": row.met} for row in rows]},
    )
    draw(rows, RESULTS / "summary.png")


def draw(rows: list[Finding], path: Path) -> None:
    """Draw how many times its goal each value reaches, up to `MOST_TIMES`; right of 1 is better than the goal."""
    shown = [(row, times_goal(row.value, row.goal, row.way)) for row in reversed(rows) if row.goal]
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(shown) + 1), layout="constrained")
    colours = {"yes": "#4c78a8", "no": "#e45756", "within noise": "#b8b8b8"}
    axes.barh([row.measured for row, _ in shown], [t for _, t in shown], color=[colours[row.met] for row, _ in shown])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel(f"times the goal ({MOST_TIMES:g}: as many or more); grey: within noise")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def times_goal(value: float, goal: float, way: str) -> float:
    """Return how many times a value reaches its goal, or is below it if it should be small."""
    return min(value / goal, MOST_TIMES) if way == "≥" else goal / max(value, goal / MOST_TIMES)


if __name__ == "__main__":
    main(tyro.cli(Flags))
