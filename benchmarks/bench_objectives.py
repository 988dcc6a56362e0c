"""Time of a training step by the choices of SLMRec's objective: correction, negatives, augmentations of the graph.

Cases take turns in each round, so that a ratio is of one run.

    python benchmarks/bench_objectives.py --data paper
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import shapes
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax.config import Config, with_settings
from slmrec_jax.training.timing import Steps, compiled_setup

CASES: dict[str, dict[str, Any]] = {
    "no task": {"task": "none", "slmrec.popularity_correction": 0.0},
    "no task, β 1": {"task": "none", "slmrec.popularity_correction": 1.0},
    "no task, 16 sampled negatives": {
        "task": "none",
        "slmrec.main_negatives": "sampled",
        "slmrec.num_negatives": 16,
    },
    "no task, 64 sampled negatives": {"task": "none", "slmrec.main_negatives": "sampled"},
    "fac": {"task": "fac"},
    "fd": {"task": "fd"},
    "ed": {"task": "ed"},
    "nd": {"task": "nd"},
    "rw": {"task": "rw"},
    "fac+ed": {"task": "fac+ed"},
    "item graph": {"task": "none", "slmrec.item_graph": 0.3},
}


@dataclass(frozen=True)
class Flags:
    """Measure milliseconds of a step."""

    data: str = shapes.PAPER
    """`paper`, the size of the paper's TikTok, or the folder of a data set."""
    cases: tuple[str, ...] = tuple(CASES)
    rounds: int = 5
    out: Path = Path("benchmarks/results/objectives.json")


def main(flags: Flags) -> None:
    dataset = shapes.dataset(flags.data)
    steps = {
        name: partial(Steps(compiled_setup(with_settings(Config(), CASES[name]), dataset)[0]), 1)
        for name in flags.cases
    }
    ms = {name: median_ms(seconds) for name, seconds in measure(steps, flags.rounds).items()}
    first = next(iter(ms))
    table = Table("objective", "ms a step", f"times {first}")
    for name, value in ms.items():
        table.add_row(name, f"{value:.1f}", f"{value / ms[first]:.2f}")
    Console().print(table)
    write_result(flags.out, {"data": dataset.name, "interactions": len(dataset.train.users), "step_ms": ms})


if __name__ == "__main__":
    main(tyro.cli(Flags))
