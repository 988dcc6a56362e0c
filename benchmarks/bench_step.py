"""A training step of each SLMRec task, against a plain PyTorch step written the way the published code computes it.

Both have the same batch size, layers and dimensions and run in one process, in turn; one call of ours takes as many
steps as training does, about a second of them. `paper` is generated data of the size of the SLMRec paper's TikTok.

    python benchmarks/bench_step.py --data paper PATH/tiktok
"""

from dataclasses import dataclass
from pathlib import Path

import peer_torch
import shapes
import torch
import tyro
from ours import compare_steps, our_steps
from rich.console import Console
from rich.table import Table
from timing import write_result

TASKS = ("none", "fac", "fm", "fd", "fd+fm")
GOALS = {"paper": {"fac": 20, "fm": 40, "fd": 8, "fd+fm": 8}, "tiktok": {"fac": 4}}


@dataclass(frozen=True)
class Flags:
    """Measure a training step of each task."""

    data: tuple[str, ...] = ("paper",)
    tasks: tuple[str, ...] = TASKS
    rounds: int = 3
    """Rounds of one call of ours and one step of the peer."""
    out: Path = Path("benchmarks/results/step.json")


def main(flags: Flags) -> None:
    torch.manual_seed(0)
    results: dict[str, dict[str, dict[str, float | None]]] = {}
    table = Table("data", "task", "ours, ms", "torch, ms", "ratio", "goal", "compile, s", title="a training step")
    for source in flags.data:
        dataset = shapes.dataset(source)
        rows = results[dataset.name] = {}
        for task in flags.tasks:
            ours, compile_seconds = our_steps(dataset, task)
            row = compare_steps(ours, {"torch": peer_torch.Trainer(dataset, task)}, flags.rounds)
            goal, ratio = GOALS.get(dataset.name, {}).get(task), row["torch_step_ms"] / row["step_ms"]
            rows[task] = {**row, "ratio": ratio, "goal": goal, "compile_seconds": compile_seconds}
            cells = (f"{row['step_ms']:.1f}", f"{row['torch_step_ms']:.0f}", f"{ratio:.1f}", str(goal or ""))
            table.add_row(dataset.name, task, *cells, f"{compile_seconds:.1f}")
            print(dataset.name, task, *cells, flush=True)
    Console().print(table)
    about = {"rounds": flags.rounds, "torch_version": torch.__version__}
    place = {"torch_threads": torch.get_num_threads(), "torch_device": str(peer_torch.device())}
    write_result(flags.out, {**about, **place, "shapes": results})


if __name__ == "__main__":
    main(tyro.cli(Flags))
