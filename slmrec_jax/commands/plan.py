"""The command `slmrec-jax plan`."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from slmrec_jax.commands.settings import SettingsFlags, own_method
from slmrec_jax.config import Config, Source, source_of
from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from rich.table import Table

    from slmrec_jax.data import Dataset
    from slmrec_jax.training.planning import Plan

DeviceName = Literal["cpu", "a100", "h100", "h200", "b200", "l4", "v5e", "v5p", "v6e"]


@dataclass(frozen=True)
class PlanFlags(SettingsFlags):
    """Compile a run for a device that need not be attached; show memory and an estimate of time."""

    on: DeviceName = "cpu"
    """The device; `cpu` is this machine's. The others need a compiler: pip install 'slmrec-jax[plan-cuda]' or
    '[plan-tpu]'."""
    mesh: str | None = None
    """Sizes of a mesh of such devices, such as data=2,model=4; the figures are then per device."""
    users: int | None = None
    """Sizes instead of --data: the number of users; with --items, --interactions and --modalities, such as
    visual=512,text=768."""
    items: int | None = None
    """The number of items."""
    interactions: int | None = None
    """The number of training interactions."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


def run_plan(flags: PlanFlags) -> None:
    """Plan, and print a table or JSON."""
    # Only compilers run. Without this, JAX would look for the devices of every installed plugin.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from slmrec_jax.methods import make_method
    from slmrec_jax.training.planning import plan

    config, dataset = _config_and_data(flags)
    planned = plan(config, dataset, flags.on, mesh=flags.mesh, method=own_method(flags.config) or make_method)
    if flags.json:
        print(json.dumps(as_json(planned), indent=2))
    else:
        _print(planned, config, dataset)


def _config_and_data(flags: PlanFlags) -> tuple[Config, "Dataset"]:
    from slmrec_jax.data.sizes import sized_dataset
    from slmrec_jax.training.loading import load_dataset

    users, items, interactions = flags.users, flags.items, flags.interactions
    if users is None and items is None and interactions is None:
        return flags.settings, load_dataset(flags.settings, None, None)
    if users is None or items is None or interactions is None:
        raise UserError("--users, --items and --interactions go together: give all three, or --data")
    if source_of(flags.settings) != Source():
        raise UserError("--users, --items and --interactions replace the data: leave out --data and its flags")
    columns: dict[str, int] = {}
    for each in (name for names in flags.settings.modalities for name in names.split(",") if name):
        name, _, width = each.partition("=")
        if not (name and width.isascii() and width.isdigit()):
            raise UserError(
                f"--modalities {each}: with --users, give each modality's width, such as {name or 'visual'}=512"
            )
        if name in columns:
            raise UserError(f"--modalities names {name} twice: give it once")
        columns[name] = int(width)
    return replace(flags.settings, modalities=()), sized_dataset(users, items, interactions, columns)


def as_json(planned: "Plan") -> dict[str, Any]:
    """Convert a plan to JSON values, in bytes and seconds."""
    return {
        "on": planned.on,
        "mesh": dict(planned.mesh),
        "tables_by_columns": planned.by_columns,
        "memory_bytes": {part: size for part, size in planned.memory._asdict().items() if size},
        "checkpoints_copied": planned.copies,
        "total_bytes": sum(planned.memory),
        "usable_bytes": planned.usable_bytes,
        "fits": planned.fits,
        "steps_per_pass": planned.steps_per_pass,
        "steps_per_epoch": planned.steps_per_epoch,
        "estimated_step_seconds": planned.programs["step"].cost.seconds if planned.speed else None,
        "estimated_epoch_seconds": planned.epoch_seconds if planned.speed else None,
        "compile_seconds": planned.compile_seconds,
        "speed": planned.speed and planned.speed._asdict(),
        "programs": {
            name: {
                "temporary_bytes": program.temporary_bytes,
                "kernels": program.cost.kernels,
                "bytes": program.cost.num_bytes,
                "operations": program.cost.operations,
                "estimated_seconds": program.cost.seconds if planned.speed else None,
                "collectives": [
                    {**each._asdict(), "times": times} for each, times in Counter(program.cost.collectives).items()
                ],
                "sent_bytes": sum(each.sent_bytes for each in program.cost.collectives),
            }
            for name, program in planned.programs.items()
        },
    }


def _print(planned: "Plan", config: Config, dataset: "Dataset") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from slmrec_jax.commands.tables import fit_width
    from slmrec_jax.training.memory import smaller_by
    from slmrec_jax.training.planning import assumptions

    console = Console()
    task = f" {config.task}" if config.model == "slmrec" else ""
    place = f"{planned.on}, each in a mesh of {_sizes(planned.mesh)}" if planned.mesh else planned.on
    # In a string, brackets would be parsed as markup.
    title = Text(escaped(f"{config.model}{task} on {place}: {dataset.name}"), "table.title")
    memory = Table("memory", title=title)
    memory.add_column("MiB", justify="right")
    for part, size in planned.memory._asdict().items():
        if size:
            memory.add_row(part, f"{size / 2**20:.1f}")
    memory.add_row("all", f"{sum(planned.memory) / 2**20:.1f}")
    usable = planned.usable_bytes
    memory.add_row("JAX would use", "unknown" if usable is None else f"{usable / 2**20:.0f}")
    programs = Table("program")
    for heading in ("temporary MiB", "kernels", "MB moved", "GFLOP", "estimated ms", "transfers", "MB sent"):
        programs.add_column(heading, justify="right")
    for name, program in planned.programs.items():
        cost = program.cost
        programs.add_row(
            name,
            f"{program.temporary_bytes / 2**20:.1f}",
            str(cost.kernels),
            f"{cost.num_bytes / 1e6:.1f}",
            f"{cost.operations / 1e9:.2f}",
            f"{1e3 * cost.seconds:.2f}" if planned.speed else "",
            str(len(cost.collectives)),
            f"{sum(each.sent_bytes for each in cost.collectives) / 1e6:.3f}",
        )
    for table in (memory, programs, *([_transfers(planned)] if planned.mesh else [])):
        console.print(fit_width(table, console.width))
    if planned.mesh and not planned.by_columns:
        print(f"{config.model} mixes columns: each device holds whole tables, and the mesh divides only the batch.")
    if not planned.copies:
        print("There is no memory for copies of checkpoints, so training waits while they are written.")
    if not planned.fits:
        sizes, smaller = planned.memory._asdict(), smaller_by()
        largest = max(smaller, key=lambda part: sizes[part])
        print(f"It does not fit. The largest part is {largest}: give {smaller[largest]}.")
    print(f"Compiled in {planned.compile_seconds:.1f} s on this machine.")
    if planned.speed is None:
        print("There are no estimates for this CPU; measure with: slmrec-jax bench step.")
        return
    print(
        f"Estimate, not a measurement: a step {1e3 * planned.programs['step'].cost.seconds:.2f} ms, an epoch of "
        f"{planned.steps_per_epoch} steps with its evaluation {planned.epoch_seconds:.3g} s."
    )
    print(f"It assumes that {assumptions(planned.speed)}.")


def _transfers(planned: "Plan") -> "Table":
    """Return a table of the transfers of each device of a mesh, with equal transfers in one row."""
    from rich.table import Table

    table = Table("program", "transfer", title="Transfers; bytes of the result on each device")
    for heading in ("among", "bytes", "times"):
        table.add_column(heading, justify="right")
    for name, program in planned.programs.items():
        for each, times in Counter(program.cost.collectives).most_common():
            table.add_row(name, each.operation, str(each.num_devices), str(each.num_bytes), str(times))
    return table


def _sizes(mesh: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in mesh.items())
