"""Runs all benchmarks but those of loading and seeds, and puts what they found side by side: JSON, a table, a picture.

    python benchmarks/suite.py --data PATH/tiktok      (about a quarter of an hour on two CPU cores)

Without --data, what needs real data runs on the demo data, whose goals are not the issue of any figure.
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
from rich.console import Console
from rich.table import Table
from timing import write_result

mpl.use("Agg")
HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Flags:
    """What to measure on."""

    data: str = "demo"
    """A real data set."""


def commands(data: str) -> dict[str, list[str]]:
    """By benchmark: its arguments."""
    return {
        "step": ["--data", "paper", data],
        "product": ["--data", "paper"],
        "evaluate": ["--data", "paper", data],
        "epoch": ["--data", data],
        "compile": ["--data", data],
        "peak": ["--data", "paper"],
        "growth": [],
        "quality": ["--data", data],
    }


def findings(found: dict[str, dict]) -> Iterator[tuple[str, float, float | None, str]]:  # type: ignore[type-arg]
    """What was measured, its value, its goal, and which way is better."""
    for shape, tasks in found["step"]["shapes"].items():
        for task, row in tasks.items():
            yield f"step {task}, {shape}: torch / ours", row["ratio"], row["goal"], "≥"
    for name, ratio in found["product"]["ratios"].items():
        yield f"product and derivative: {name} / ours", ratio, found["product"]["goals"][name], "≥"
    share = found["product"]["share_of_gather_bandwidth"]
    yield "product: share of gather bandwidth", share, found["product"]["share_goal"], "≥"
    for shape, row in found["evaluate"]["shapes"].items():
        yield f"ranking, {shape}: torch / ours", row["ratio"], row["goal"], "≥"
    yield "epoch: share beyond its steps", found["epoch"]["overhead"], found["epoch"]["goal"], "≤"
    yield "epoch: share of saving", found["epoch"]["saving"], found["epoch"]["saving_goal"], "≤"
    for run, row in found["compile"]["runs"].items():
        yield f"compile {run}: seconds", row["compile_seconds"], found["compile"]["goal_seconds"], "≤"
    yield "peak memory, paper: ours / torch", found["peak"]["ratio"], found["peak"]["goal"], "≤"
    yield "growth with edges: R²", found["growth"]["r_squared"], found["growth"]["goal"], "≥"
    yield "time to quality: torch / ours", found["quality"]["ratio"], found["quality"]["goal"], "≥"


def main(flags: Flags) -> None:
    if importlib.util.find_spec("torch") is None:
        sys.exit("the benchmarks compare with PyTorch, which is not installed: pip install torch==2.13.0")
    found, start = {}, time.perf_counter()
    for name, arguments in commands(flags.data).items():
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(HERE / f"bench_{name}.py"), *arguments], check=True)
        found[name] = json.loads((RESULTS / f"{name}.json").read_text())
    rows = list(findings(found))
    table = Table("measured", "value", "goal", "", title=f"in {(time.perf_counter() - start) / 60:.0f} minutes")
    lines = ["| measured | value | goal | met |", "| --- | --- | --- | --- |"]
    for what, value, goal, way in rows:
        met = "" if goal is None else ("yes" if (value >= goal if way == "≥" else value <= goal) else "no")
        shown = (what, f"{value:.3g}", "" if goal is None else f"{way} {goal:g}", met)
        table.add_row(*shown)
        lines.append(f"| {' | '.join(shown)} |")
    Console().print(table)
    (RESULTS / "summary.md").write_text("\n".join(lines) + "\n")
    write_result(
        RESULTS / "summary.json",
        {"rows": [dict(zip(("measured", "value", "goal", "way"), row, strict=True)) for row in rows]},
    )
    draw(rows, RESULTS / "summary.png")


def draw(rows: list[tuple[str, float, float | None, str]], path: Path) -> None:
    """How many times its goal each figure reaches; right of 1 is better than the goal."""
    shown = [
        (what, value / goal if way == "≥" else goal / max(value, goal / 100)) for what, value, goal, way in rows if goal
    ]
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(shown) + 1), layout="constrained")
    names, times = zip(*reversed(shown), strict=True)
    axes.barh(names, times, color=["#4c78a8" if value >= 1 else "#e45756" for value in times])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times the goal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Flags))
