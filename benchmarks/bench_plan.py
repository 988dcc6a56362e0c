"""What training at the paper's size takes on devices that are not attached: compilation, memory, kernels, estimates.

A segment is the program of any number of steps; it is compiled once alone for its time. The compilers are extras:

    pip install '.[plan-cuda,plan-tpu]'
    python benchmarks/bench_plan.py --on h100 v5e
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # only compilers run

import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import shapes
import tyro
from rich.console import Console
from rich.table import Table
from timing import write_result

from slmrec_jax import Config
from slmrec_jax.commands.plan import as_json
from slmrec_jax.data.sizes import sized_dataset
from slmrec_jax.devices import compiler_of, compiling_for
from slmrec_jax.hardware.compilers import target_of
from slmrec_jax.training.planning import plan
from slmrec_jax.training.setup import outline

GOALS = {
    ("h100", "fac"): {"compile_seconds": 30, "temporary_mib": 90},
    ("h100", "fd+fm"): {"compile_seconds": 100},
    ("v5e", "fac"): {"compile_seconds": 180, "temporary_mib": 700},
    ("v5e", "fd+fm"): {"compile_seconds": 400},
}
"""The most that a segment may take."""


@dataclass(frozen=True)
class Flags:
    """Plan for devices that are not attached."""

    on: tuple[str, ...] = ("h100", "v5e")
    tasks: tuple[str, ...] = ("none", "fac", "fm", "fd", "fd+fm")
    out: Path = Path("benchmarks/results/plan.json")


def main(flags: Flags) -> None:
    dataset = sized_dataset(*shapes.PAPER_SIZES, shapes.PAPER_COLUMNS)
    table = Table("device", "task", "compile s", "temporary MiB", "kernels", "MB a step", "estimated ms", "goals met")
    found = {}
    for device in flags.on:
        for task in flags.tasks:
            config = replace(Config(), task=task)
            seconds, temporary = segment(config, dataset, device)
            measured = {"compile_seconds": seconds, "temporary_mib": temporary}
            goals = GOALS.get((device, task), {})
            met = {name: measured[name] <= most for name, most in goals.items()}
            whole = as_json(plan(config, dataset, device))
            step = whole["programs"]["step"]
            found[f"{device} {task}"] = {"segment": measured, "goals": goals, "met": met, "plan": whole}
            cells = f"{seconds:.1f}", f"{temporary:.1f}", str(step["kernels"]), f"{step['bytes'] / 1e6:.0f}"
            estimate = f"{1e3 * step['estimated_seconds']:.2f}"
            table.add_row(device, task, *cells, estimate, ", ".join("yes" if each else "no" for each in met.values()))
            print(device, task, *cells, estimate, met, flush=True)
    Console().print(table)
    write_result(flags.out, {"data": dataset.name, "plans": found})


def segment(config, dataset, device):  # type: ignore[no-untyped-def]
    """Return the seconds in which a segment compiles alone, and the MiB of its temporary memory on the device."""
    with compiling_for(target_of(device)):
        planned = outline(config, dataset)
        loop, inputs, keys, step = planned.loop, planned.inputs, planned.keys(), jnp.int32(0)
        drawn = jax.eval_shape(loop.order, inputs, keys, step)
        compile_program = compiler_of(loop.run, loop.shapes(), drawn, inputs, keys, step, donate=(0,))
        start = time.perf_counter()
        program = compile_program()
    return time.perf_counter() - start, program.memory_analysis().temp_size_in_bytes / 2**20


if __name__ == "__main__":
    main(tyro.cli(Flags))
