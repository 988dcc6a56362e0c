"""What training takes on each device of a mesh, compiled for devices that are not attached, and a model of its time.

    pip install '.[plan-cuda,plan-tpu]'
    python benchmarks/bench_mesh.py

The first table is of compiled programs. The others are of a model that is fitted to two of them and compared with all:
the time of a step on 1 to 64 devices, with the links of a host of eight and 400 Gb/s for each device between hosts.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # only compilers run

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import tyro
from rich.console import Console
from rich.table import Table
from timing import write_result

from slmrec_jax import Config
from slmrec_jax.commands.plan import as_json
from slmrec_jax.data.sizes import sized_dataset
from slmrec_jax.hardware.targets import HARDWARE
from slmrec_jax.training.planning import plan

GIB = 2**30
BETWEEN_HOSTS = 50e9
"""Bytes a second that a device sends to other hosts: 400 Gb/s."""
MEET_BETWEEN_HOSTS = 3e-5
"""The least time of a transfer between hosts, an assumption."""
HOST = 8
COLUMNS_OF_A_SHARE = 8
"""The columns that a device keeps at least (`meshes.LEAST_COLUMNS_PER_DEVICE`): 64 columns go to eight devices."""


@dataclass(frozen=True)
class Flags:
    """Plan for meshes."""

    on: str = "h100"
    sizes: tuple[int, ...] = (1, 10, 100)
    """Multiples of the paper's size."""
    devices: tuple[int, ...] = (1, 2, 4, 8, 16)
    task: str = "fac"
    out: Path = Path("benchmarks/results/mesh.json")


def main(flags: Flags) -> None:
    plans: dict[str, dict[str, Any]] = {}
    config = replace(Config(), task=flags.task)
    for size in flags.sizes:
        dataset = sized_dataset(*(size * each for each in shapes.PAPER_SIZES), shapes.PAPER_COLUMNS)
        for count in flags.devices:
            plans[f"{size} {count}"] = as_json(plan(config, dataset, flags.on, mesh=mesh_of(count)))
            print(*cells(size, count, plans[f"{size} {count}"]), flush=True)
    table = Table(title=f"{flags.task} on {flags.on}, for each device")
    for heading in ("times the paper's size", "devices", "memory GiB", "of it temporary", "transfers a step"):
        table.add_column(heading, justify="right")
    for heading in ("MB sent a step", "step ms, estimated", "compiled in s"):
        table.add_column(heading, justify="right")
    for name, each in plans.items():
        table.add_row(*cells(*map(int, name.split()), each))
    Console(width=160).print(table)
    model = modelled(flags, plans) if sum(1 < count <= HOST for count in flags.devices) > 1 else None
    write_result(flags.out, {"on": flags.on, "task": flags.task, "plans": plans, "model": model})


def mesh_of(count: int) -> str | None:
    model = min(count, Config().dim // COLUMNS_OF_A_SHARE)
    return None if count == 1 else f"data={count // model},model={model}"


def cells(size: int, count: int, planned: dict[str, Any]) -> tuple[str, ...]:
    step = planned["programs"]["step"]
    return (
        str(size),
        str(count),
        f"{planned['total_bytes'] / GIB:.2f}",
        f"{step['temporary_bytes'] / GIB:.2f}",
        str(sum(each["times"] for each in step["collectives"])),
        f"{step['sent_bytes'] / 1e6:.2f}",
        f"{1e3 * planned['estimated_step_seconds']:.2f}",
        f"{planned['compile_seconds']:.0f}",
    )


def modelled(flags: Flags, plans: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Fit the bytes of a step to the plans of two meshes, check the times on the others, and extend them to other data.

    A step reads and writes `each_column` bytes for each interaction and each column that a device has, and `each` bytes
    for each interaction. Users and items grow with the interactions. There is no cache in the model, so it is too slow
    for tables that one holds.
    """
    rates, paper, dim = HARDWARE[flags.on].rates, shapes.PAPER_SIZES[2], Config().dim
    largest, shares = flags.sizes[-1], [count for count in flags.devices if 1 < count <= HOST][-2:]
    steps = [plans[f"{largest} {count}"]["programs"]["step"] for count in shares]
    columns = [dim // count for count in shares]
    each_column, each = np.polyfit(columns, [step["bytes"] / (largest * paper) for step in steps], 1)
    launches = steps[-1]["kernels"] * rates.launch_seconds
    meets, sent = sum(each["times"] for each in steps[-1]["collectives"]), max(step["sent_bytes"] for step in steps)

    def seconds(interactions: float, count: int) -> tuple[float, float]:
        """Return the times of computing and of transfers."""
        own_columns = dim / min(count, dim // COLUMNS_OF_A_SHARE)
        computing = launches + interactions * (each + each_column * own_columns) / rates.bandwidth
        if count == 1:
            return computing, 0.0
        link, meet = (rates.link, rates.meet_seconds) if count <= HOST else (BETWEEN_HOSTS, MEET_BETWEEN_HOSTS)
        return computing, meets * meet + sent / link

    check = Table(title="Step ms, of compiled programs and by the model")
    for heading in ("times the paper's size", "devices", "compiled", "model"):
        check.add_column(heading, justify="right")
    checks = []
    for name, planned in plans.items():
        size, count = map(int, name.split())
        if count <= HOST:  # the plan of two hosts counts NVLink between them
            model, compiled = sum(seconds(size * paper, count)), planned["estimated_step_seconds"]
            checks.append({"size": size, "devices": count, "compiled": compiled, "model": model})
            check.add_row(str(size), str(count), f"{1e3 * compiled:.2f}", f"{1e3 * model:.2f}")
    table = Table(title=f"Step ms by the model (of it transfers), {flags.task} on {flags.on}")
    table.add_column("interactions", justify="right")
    counts = (1, 2, 4, 8, 16, 32, 64)
    for count in counts:
        table.add_column(str(count), justify="right")
    rows = {}
    for interactions in (1e6, 1e7, 1e8, 1e9):
        found = {count: seconds(interactions, count) for count in counts}
        rows[f"{interactions:.0e}"] = found
        shown = (f"{1e3 * sum(times):.2f} ({1e3 * times[1]:.2f})" for times in found.values())
        table.add_row(f"{interactions:.0e}", *shown)
    for each_table in (check, table):
        Console(width=160).print(each_table)
    return {
        "bytes_each_interaction": each,
        "bytes_each_interaction_and_column": each_column,
        "launch_seconds": launches,
        "transfers": meets,
        "sent_bytes": sent,
        "checks": checks,
        "step_seconds": rows,
    }


if __name__ == "__main__":
    main(tyro.cli(Flags))
