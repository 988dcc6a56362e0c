"""Growth of a step with the graph: 10^5 to 10^7 edges at a fixed batch size, and a linear fit.

The number of nodes grows with the edges, so degrees stay the same. The system is SLMRec without a task and without
modalities, whose step is little else than propagation.

    python benchmarks/bench_growth.py
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import shapes
import tyro
from ours import our_steps
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

GOAL = 0.99

STEPS = 2
"""Steps in each call."""


@dataclass(frozen=True)
class Flags:
    """Measure how a step grows with the graph."""

    edges: tuple[int, ...] = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    edges_per_user: int = 12
    edges_per_item: int = 6
    rounds: int = 3
    out: Path = Path("benchmarks/results/growth.json")


def main(flags: Flags) -> None:
    milliseconds = []
    for edges in flags.edges:
        dataset = shapes.power_law(
            num_users=edges // flags.edges_per_user,
            num_items=edges // flags.edges_per_item,
            num_interactions=edges,
            columns={},
            exponent=0.5,
        )
        run, _ = our_steps(replace(dataset, name=f"{edges} edges"), "none")
        milliseconds.append(median_ms(measure({"ours": partial(run, STEPS)}, flags.rounds)["ours"]) / STEPS)
        print(edges, f"{milliseconds[-1]:.1f} ms", flush=True)
    slope, intercept = np.polyfit(flags.edges, milliseconds, 1)
    left = np.asarray(milliseconds) - (slope * np.asarray(flags.edges) + intercept)
    r_squared = float(1 - np.sum(left**2) / np.sum((milliseconds - np.mean(milliseconds)) ** 2))
    table = Table("edges", "step, ms", title="a step by the size of the graph")
    for edges, value in zip(flags.edges, milliseconds, strict=True):
        table.add_row(f"{edges:,}", f"{value:.1f}")
    Console().print(table)
    print(f"{1e6 * slope:.1f} ms a million edges, R² {r_squared:.4f} (goal {GOAL})")
    growth = {"ms_per_million_edges": 1e6 * slope, "r_squared": r_squared, "goal": GOAL}
    write_result(flags.out, {"edges": flags.edges, "step_ms": milliseconds, **growth})


if __name__ == "__main__":
    main(tyro.cli(Flags))
