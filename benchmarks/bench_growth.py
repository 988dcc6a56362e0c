"""Growth with the interactions: of a step with one batch, and of an epoch with `auto` micro-batches.

A step propagates the whole graph, so that with one batch a step an epoch costs the square of its interactions. With
micro-batches the number of propagations of an epoch stays the same. Degrees stay the same as the graph grows. The
system is SLMRec without a task and without modalities, whose step with one batch is little else than propagation.

    python benchmarks/bench_growth.py
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import shapes
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax.config import Config
from slmrec_jax.training.timing import Steps, compiled_setup

GOAL_R_SQUARED, GOAL_EXPONENT = 0.99, 1.1


@dataclass(frozen=True)
class Flags:
    """Measure how a step and an epoch grow with the graph."""

    interactions: tuple[int, ...] = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    rounds: int = 3
    out: Path = Path("benchmarks/results/growth.json")


def main(flags: Flags) -> None:
    rows = []
    for count in flags.interactions:
        dataset = shapes.many(count)
        one, _, _ = _measured(Config(task="none"), dataset, flags.rounds)
        many, micro_batches, steps = _measured(Config(task="none", micro_batches="auto"), dataset, flags.rounds)
        rows.append(
            {
                "interactions": len(dataset.train.users),
                "step_ms": one,
                "micro_batches": micro_batches,
                "steps_per_epoch": steps,
                "epoch_seconds": many * steps / 1e3,
            }
        )
        print(rows[-1], flush=True)
    sizes, steps, epochs = (
        np.array([row[name] for row in rows]) for name in ("interactions", "step_ms", "epoch_seconds")
    )
    slope, intercept = np.polyfit(sizes, steps, 1)
    left = steps - (slope * sizes + intercept)
    r_squared = float(1 - np.sum(left**2) / np.sum((steps - np.mean(steps)) ** 2))
    exponent = float(np.polyfit(np.log(sizes), np.log(epochs), 1)[0])
    table = Table("interactions", "step of one batch, ms", "micro-batches", "steps an epoch", "epoch, s")
    for row in rows:
        table.add_row(
            f"{row['interactions']:,}",
            f"{row['step_ms']:.1f}",
            str(row["micro_batches"]),
            str(row["steps_per_epoch"]),
            f"{row['epoch_seconds']:.2f}",
        )
    Console().print(table)
    print(f"{1e6 * slope:.1f} ms a million interactions, R² {r_squared:.4f} (goal {GOAL_R_SQUARED})")
    print(f"an epoch grows as interactions^{exponent:.3f} (goal at most {GOAL_EXPONENT})")
    found = {"ms_per_million_edges": 1e6 * slope, "r_squared": r_squared, "goal": GOAL_R_SQUARED}
    write_result(flags.out, {"rows": rows, **found, "exponent": exponent, "goal_exponent": GOAL_EXPONENT})


def _measured(config: Config, dataset: shapes.Dataset, rounds: int) -> tuple[float, int, int]:
    """Return the milliseconds of a step, its micro-batches, and the steps of an epoch."""
    setup, _ = compiled_setup(config, replace(dataset))
    steps = Steps(setup)
    milliseconds = median_ms(measure({"ours": partial(steps, 1)}, rounds)["ours"])
    return milliseconds, int(setup.config.micro_batches), setup.steps_per_epoch


if __name__ == "__main__":
    main(tyro.cli(Flags))
