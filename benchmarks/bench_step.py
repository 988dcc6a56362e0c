"""A training step of each SLMRec task, against a plain PyTorch step written the way the published code computes it.

Both take the same batch size, layers and dimensions, in one process and in turn; ours runs a few steps as one program,
as training does. `paper` is generated data of the size of the SLMRec paper's TikTok.

    python benchmarks/bench_step.py --data paper PATH/tiktok
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import peer_torch
import shapes
import torch
import tyro
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.methods import make_method
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import make_keys, make_loop

TASKS = ("none", "fac", "fm", "fd", "fd+fm")
GOALS = {"paper": {"fac": 20, "fm": 40, "fd": 8, "fd+fm": 8}, "tiktok": {"fac": 4}}


@dataclass(frozen=True)
class Flags:
    """What to measure."""

    data: tuple[str, ...] = ("paper",)
    tasks: tuple[str, ...] = TASKS
    rounds: int = 3
    steps: int = 4
    """Of ours in a round; torch takes one."""
    out: Path = Path("benchmarks/results/step.json")


def our_steps(dataset: Dataset, task: str, steps: int) -> tuple[Callable[[], object], float]:
    """What runs so many steps, and how long it took to compile."""
    config = replace(Config(), task=task)
    method = make_method(config, make_spec(config, dataset))
    inputs, keys = method.prepare(make_inputs(dataset)), make_keys(0)
    loop = make_loop(method, config.batch_size)
    progress = loop.begin(jax.jit(method.init)(keys.init), inputs, keys)
    drawn = jax.jit(loop.order)(inputs, keys, jnp.int32(0))
    start = time.perf_counter()
    segment = jax.jit(loop.segment, donate_argnums=0).lower(progress, drawn, inputs, keys, jnp.int32(0)).compile()
    compile_seconds = time.perf_counter() - start
    at = [progress]

    def run() -> object:
        at[0] = segment(at[0], drawn, inputs, keys, at[0].state.step + jnp.int32(steps))
        return at[0].means

    return run, compile_seconds


def main(flags: Flags) -> None:
    torch.manual_seed(0)
    results: dict[str, dict[str, dict[str, float | None]]] = {}
    table = Table("data", "task", "ours, ms", "torch, ms", "ratio", "goal", "compile, s", title="a training step")
    for source in flags.data:
        dataset = shapes.dataset(source)
        rows = results[dataset.name] = {}
        for task in flags.tasks:
            ours, compile_seconds = our_steps(dataset, task, flags.steps)
            seconds = measure({"ours": ours, "torch": peer_torch.Trainer(dataset, task)}, flags.rounds)
            step_ms, torch_ms = median_ms(seconds["ours"]) / flags.steps, median_ms(seconds["torch"])
            goal = GOALS.get(dataset.name, {}).get(task)
            rows[task] = {
                "step_ms": step_ms,
                "torch_step_ms": torch_ms,
                "ratio": torch_ms / step_ms,
                "goal": goal,
                "compile_seconds": compile_seconds,
            }
            cells = (f"{step_ms:.1f}", f"{torch_ms:.0f}", f"{torch_ms / step_ms:.1f}", str(goal or ""))
            table.add_row(dataset.name, task, *cells, f"{compile_seconds:.1f}")
            print(dataset.name, task, *cells, flush=True)
    Console().print(table)
    threads = {"torch_version": torch.__version__, "torch_threads": torch.get_num_threads()}
    write_result(flags.out, {"rounds": flags.rounds, "steps": flags.steps, **threads, "shapes": results})


if __name__ == "__main__":
    main(tyro.cli(Flags))
