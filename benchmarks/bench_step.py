"""A training step of each SLMRec task, against a plain PyTorch step written the way the published code computes it.

Both have the same batch size, layers and dimensions and run in one process, in turn; one call of ours takes as many
steps as training does, about a second of them. `paper` is generated data of the size of the SLMRec paper's TikTok.

    python benchmarks/bench_step.py --data paper PATH/tiktok
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peer_torch
import shapes
import torch
import tyro
from ours import our_steps
from rich.console import Console
from rich.table import Table
from timing import measure, median_ms, write_result

from slmrec_jax.training.timing import Steps, steps_a_call

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
            row = compare(ours, {"torch": peer_torch.Trainer(dataset, task)}, flags.rounds)
            goal, ratio = GOALS.get(dataset.name, {}).get(task), row["torch_step_ms"] / row["step_ms"]
            rows[task] = {**row, "ratio": ratio, "goal": goal, "compile_seconds": compile_seconds}
            cells = (f"{row['step_ms']:.1f}", f"{row['torch_step_ms']:.0f}", f"{ratio:.1f}", str(goal or ""))
            table.add_row(dataset.name, task, *cells, f"{compile_seconds:.1f}")
            print(dataset.name, task, *cells, flush=True)
    Console().print(table)
    about = {"rounds": flags.rounds, "torch_version": torch.__version__}
    place = {"torch_threads": torch.get_num_threads(), "torch_device": str(peer_torch.device())}
    write_result(flags.out, {**about, **place, "shapes": results})


def compare(ours: Steps, peers: Mapping[str, peer_torch.Trainer], rounds: int) -> dict[str, float]:
    """Return the milliseconds of a step of ours and of each peer, which take turns, and the steps in a call of ours."""
    steps = steps_a_call(ours)
    seconds = measure({"": partial(ours, steps), **peers}, rounds)
    return {"steps_a_call": steps, "step_ms": median_ms(seconds.pop("")) / steps} | {
        f"{name}_step_ms": median_ms(of_peer) for name, of_peer in seconds.items()
    }


if __name__ == "__main__":
    main(tyro.cli(Flags))
