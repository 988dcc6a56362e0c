"""Milliseconds a training step and seconds an epoch of each SLMRec task, and how much the exact algebra saves.

The same epoch is compiled twice, by chains and by the plain definition (segment sums over the whole graph), and both
run in turn. Compile time stands apart.

    python benchmarks/bench_step.py --data PATH/tiktok
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax import Config, data
from slmrec_jax.methods import make_method
from slmrec_jax.sampling import steps_of_interactions
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import make_epoch, make_keys

TASKS = ("none", "fac", "fm", "fd", "fd+fm")


@dataclass(frozen=True)
class Flags:
    """What to measure."""

    data: str = "demo"
    tasks: tuple[str, ...] = TASKS
    rounds: int = 5
    """Epochs that are timed."""
    out: Path = Path("benchmarks/results/step.json")


class Trainer:
    """One way of training, compiled; a call runs an epoch."""

    def __init__(self, config: Config, dataset: data.Dataset) -> None:
        method = make_method(config, make_spec(config, dataset))
        self.inputs, self.keys = method.prepare(make_inputs(dataset)), make_keys(0)
        self.state = jax.jit(method.init)(self.keys.init)
        start = time.perf_counter()
        epoch = jax.jit(make_epoch(method, config.batch_size), donate_argnums=0)
        self.epoch = epoch.lower(self.state, self.inputs, self.keys).compile()
        self.compile_seconds = time.perf_counter() - start

    def __call__(self) -> object:
        self.state, metrics = self.epoch(self.state, self.inputs, self.keys)
        return metrics


def main(flags: Flags) -> None:
    dataset = data.load(flags.data)
    steps = steps_of_interactions(len(dataset.train.users), Config().batch_size)
    rows = {}
    for task in flags.tasks:
        config = replace(Config(), task=task)  # type: ignore[arg-type]
        fast, plain = (Trainer(replace(config, propagation=way), dataset) for way in ("auto", "definition"))
        seconds = measure({"chains": fast, "definition": plain}, flags.rounds)
        step_ms, plain_ms = (median_ms(seconds[name]) / steps for name in ("chains", "definition"))
        rows[task] = {
            "step_ms": step_ms,
            "epoch_seconds": step_ms * steps / 1e3,
            "definition_step_ms": plain_ms,
            "definition_over_chains": plain_ms / step_ms,
            "compile_seconds": fast.compile_seconds,
        }
    table = Table("task", *next(iter(rows.values())), title=f"{dataset.name}, {steps} steps an epoch")
    for task, row in rows.items():
        table.add_row(task, *(f"{value:.1f}" for value in row.values()))
    Console().print(table)
    write_result(flags.out, {"data": dataset.name, "steps": steps, "rounds": flags.rounds, "tasks": rows})


if __name__ == "__main__":
    main(tyro.cli(Flags))
