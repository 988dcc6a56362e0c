"""Epochs and seconds to the same validation recall, by the number of micro-batches and the rule for the learning rate.

More interactions a step are fewer updates an epoch, and gradients with less noise. `sqrt` multiplies the learning rate
by √M, `linear` by M, `none` leaves it. The goal of a run is 99 % of the best validation recall@20 of one batch a step.

    python benchmarks/bench_micro_quality.py --data PATH/tiktok --counts 1 2 4 8
"""

import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from timing import write_result

from slmrec_jax import Config, data, train, with_protocol
from slmrec_jax.data.dataset import Dataset

RATE = 1e-3
RULES = {"none": lambda count: 1.0, "sqrt": math.sqrt, "linear": float}
SHARE = 0.99


@dataclass(frozen=True)
class Flags:
    """Measure epochs and seconds to a level of quality."""

    data: tuple[str, ...] = ("demo",)
    """Folders of data sets, or a number of users of generated data with planted tastes."""
    split: str | None = None
    counts: tuple[int, ...] = (1, 2, 4, 8)
    rules: tuple[str, ...] = ("sqrt", "linear")
    task: str = "fac"
    epochs: tuple[int, ...] = (1000,)
    """The most epochs; one for each of `counts`, or one for all."""
    users: int | None = None
    """The number of users to rank in each evaluation; all by default."""
    out: Path = Path("benchmarks/results/micro_quality.json")


def main(flags: Flags) -> None:
    most = flags.epochs * (1 if len(flags.epochs) > 1 else len(flags.counts))
    if len(most) != len(flags.counts):
        sys.exit(
            f"--epochs has {len(most)} numbers and --counts {len(flags.counts)}: give one for each, or one for all"
        )
    results = []
    for name in flags.data:
        dataset = generated(int(name)) if name.isdecimal() else data.load(name, split=flags.split)
        goal = None
        for count, epochs in zip(flags.counts, most, strict=True):
            for rule in flags.rules if count > 1 else ("none",):
                found = measured(flags, dataset, count, epochs, RATE * RULES[rule](count))
                goal = SHARE * max(found["recall"]) if goal is None else goal
                reached = next((place for place, recall in enumerate(found["recall"]) if recall >= goal), None)
                row = {
                    "data": dataset.name,
                    "interactions": len(dataset.train.users),
                    "micro_batches": count,
                    "rule": rule,
                    "best": max(found["recall"]),
                    "epochs": None if reached is None else reached + 1,
                    "seconds": None if reached is None else sum(found["seconds"][: reached + 1]),
                    "test": found["test"],
                    "steps_per_epoch": found["steps_per_epoch"],
                    "goal": goal,
                }
                results.append(row)
                print(row, [round(recall, 4) for recall in found["recall"]], flush=True)
                write_result(flags.out, {"task": flags.task, "results": results})
    columns = ("data", "micro-batches", "learning rate", "best recall@20", "epochs to goal", "seconds to goal", "test")
    table = Table(*columns)
    for row in results:
        table.add_row(
            row["data"],
            str(row["micro_batches"]),
            row["rule"],
            f"{row['best']:.4f}",
            str(row["epochs"] or "–"),
            "–" if row["seconds"] is None else f"{row['seconds']:.1f}",
            f"{row['test']:.4f}",
        )
    Console(width=120).print(table)


def generated(num_users: int) -> Dataset:
    """Return data with planted tastes; about 6.5 training interactions a user."""
    columns = {"visual": 64}
    return data.demo(num_users=num_users, num_items=num_users // 10, num_scenes=300, columns=columns)


def measured(flags: Flags, dataset: Dataset, count: int, epochs: int, rate: float) -> dict[str, Any]:
    """Return the validation recall and the training seconds of each epoch, and the test recall of the best."""
    config = with_protocol(Config(task=flags.task, micro_batches=count, epochs=epochs), "mmrec")
    config = replace(config, eval=config.eval._replace(users=flags.users, test_users=flags.users))
    config = replace(config, optimizer=replace(config.optimizer, learning_rate=rate))
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, dataset, out=Path(folder) / "run", progress=False)
    return {
        "recall": [record["selected"]["recall@20"] for record in run.history],
        "seconds": [record["train_seconds"] for record in run.history],
        "test": run.result["test"]["recall@20"],
        "steps_per_epoch": -(-len(dataset.train.users) // (config.batch_size * count)),
    }


if __name__ == "__main__":
    main(tyro.cli(Flags))
