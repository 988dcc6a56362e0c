"""Time of a batch by the number of micro-batches for one propagation, for SLMRec's tasks.

A step propagates the whole graph once, for M batches of 2048 interactions. The fit `step = propagation + M · batch`
gives the share of propagation in a step, and with it the number of micro-batches at which it is a fifth.

    python benchmarks/bench_micro_batches.py --sizes paper 3000000
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
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.training.timing import Steps, compiled_setup


@dataclass(frozen=True)
class Flags:
    """Measure milliseconds per batch against the number of micro-batches."""

    sizes: tuple[str, ...] = (shapes.PAPER, "3000000", "30000000")
    """`paper`, or a number of interactions of generated data with one modality of 128 columns."""
    systems: tuple[str, ...] = ("fac", "fm", "fd", "none", "lightgcn")
    """Tasks of SLMRec, or the name of another model."""
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    most_seconds: float = 60.0
    """Leave out the larger numbers of micro-batches once a step takes longer."""
    rounds: int = 3
    batch_size: int = 2048
    out: Path = Path("benchmarks/results/micro_batches.json")


def main(flags: Flags) -> None:
    results = []
    for size in flags.sizes:
        dataset = shapes.many(int(size), {"visual": 128}) if size.isdecimal() else shapes.dataset(size)
        for system in flags.systems:
            found = _measured(flags, dataset, system)
            results.append({"size": size, "system": system, "interactions": len(dataset.train.users), **found})
            write_result(flags.out, {"batch_size": flags.batch_size, "results": results})
    table = Table("size", "system", *(f"M={count}" for count in flags.counts), "propagation", "batch", "M at a fifth")
    for each in results:
        by_count = dict(zip(each["counts"], each["ms_per_batch"], strict=True))
        row = [f"{by_count[count]:.0f}" if count in by_count else "" for count in flags.counts]
        fitted = (f"{each[name]:.0f}" for name in ("propagation_ms", "batch_ms", "micro_batches_at_a_fifth"))
        table.add_row(each["size"], each["system"], *row, *fitted)
    Console(width=140).print(table)


def _measured(flags: Flags, dataset: Dataset, system: str) -> dict[str, object]:
    """Return milliseconds per batch for each count, and what they fit."""
    base = Config(batch_size=flags.batch_size)
    config = (
        replace(base, task=system) if system in ("fac", "fm", "fd", "fd+fm", "none") else replace(base, model=system)
    )
    counts, ms = [], []
    for count in flags.counts:
        setup, _ = compiled_setup(replace(config, micro_batches=count), dataset)
        steps = Steps(setup)
        step_ms = median_ms(measure({"ours": partial(steps, 1)}, flags.rounds)["ours"])
        counts.append(count)
        ms.append(step_ms / count)
        print(dataset.name, system, count, f"{step_ms:.0f} ms a step, {ms[-1]:.1f} ms a batch", flush=True)
        del setup, steps
        if step_ms > 1e3 * flags.most_seconds:
            break
    # Relative errors count: each number of micro-batches was measured with about the same relative noise.
    totals = np.array(ms) * counts
    batch, propagation = np.polyfit(counts, totals, 1, w=1 / totals)
    return {
        "counts": counts,
        "ms_per_batch": ms,
        "propagation_ms": float(propagation),
        "batch_ms": float(batch),
        "micro_batches_at_a_fifth": float(4 * propagation / batch),
    }


if __name__ == "__main__":
    main(tyro.cli(Flags))
