"""Peak memory of a run of ours, against a few steps of the plain PyTorch peer, each in a process of its own.

Ours is all of `slmrec_jax.train` for one epoch: compilation, steps, evaluation and checkpoints. The peer only takes
steps. Both read the same data from files, and neither loads the other's library. On a CPU the peak is of the process;
on an accelerator it is the most that was allocated of its memory.

    python benchmarks/bench_peak.py --data paper
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tyro

GOAL = 0.5
STEPS = 4
"""Steps of the peer, whose memory does not grow from step to step."""

STORE = "store"
"""The folder of the data in the package's format; the peer's arrays are beside it."""


@dataclass(frozen=True)
class Flags:
    """Measure the peak memory of a run."""

    data: str = "paper"
    task: str = "fac"
    out: Path = Path("benchmarks/results/peak.json")


# Functions that need JAX or PyTorch import it in a process of their own. The parent imports neither before it has
# measured, because a process starts with the peak of its parent.


def write_data(folder: Path, source: str) -> None:
    """Write the data in the package's format, and as plain arrays for the peer."""
    import shapes

    from slmrec_jax import data

    dataset = shapes.dataset(source)
    data.write_store(dataset, folder / STORE)
    features = {f"feature {name}": feature.values for name, feature in dataset.features.items()}
    sizes = {"num_users": dataset.num_users, "num_items": dataset.num_items}
    np.savez(folder / "peer.npz", users=dataset.train.users, items=dataset.train.items, **sizes, **features)


def run_ours(folder: Path, task: str) -> dict[str, Any]:
    """Return the peak bytes of a run of one epoch, and of which memory."""
    import jax

    from slmrec_jax import Config, train

    config = Config(data=str(folder / STORE), task=task, epochs=1)  # type: ignore[arg-type]
    train(config, out=folder / "run")
    if "torch" in sys.modules:
        sys.exit("PyTorch is loaded beside our side, and its memory would count as ours")
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _peak_of_process()
    return {"memory": "device", "bytes": (device.memory_stats() or {})["peak_bytes_in_use"]}


def run_torch(folder: Path, task: str) -> dict[str, Any]:
    """Return the peak bytes of the peer's steps, and of which memory."""
    import peer_torch
    import torch

    with np.load(folder / "peer.npz") as arrays:
        values = {name: arrays[name] for name in arrays.files}
    features = {
        name.removeprefix("feature "): SimpleNamespace(values=rows)
        for name, rows in values.items()
        if name.startswith("feature ")
    }
    dataset = SimpleNamespace(
        num_users=int(values["num_users"]),
        num_items=int(values["num_items"]),
        train=(values["users"], values["items"]),
        features=features,
    )
    trainer = peer_torch.Trainer(dataset, task)  # type: ignore[arg-type]
    for _ in range(STEPS):
        trainer()
    if "jax" in sys.modules:
        sys.exit("JAX is loaded beside the PyTorch peer, and its memory would count as the peer's")
    if torch.cuda.is_available():
        return {"memory": "device", "bytes": torch.cuda.max_memory_allocated()}
    return _peak_of_process()


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process("data", folder, flags.data)
        found = {side: json.loads(_in_a_process(side, folder, flags.task)) for side in SIDES}
    memory = {side: row["memory"] for side, row in found.items()}
    if len(set(memory.values())) > 1:
        sys.exit(f"peak memory cannot be compared, {memory}: give both libraries the same device")
    bytes_ = {side: row["bytes"] for side, row in found.items()}
    ratio = bytes_["ours"] / bytes_["torch"]
    shown = ", ".join(f"{side} {value / 2**30:.2f} GiB" for side, value in bytes_.items())
    print(f"{flags.data}, {flags.task}, peak {memory['ours']} memory: {shown}: {ratio:.0%} (goal {GOAL:.0%})")
    from timing import write_result

    key = "peak_rss_bytes" if memory["ours"] == "host" else "peak_device_bytes"
    about = {"data": flags.data, "task": flags.task, "memory": memory["ours"], "torch_steps": STEPS}
    write_result(flags.out, {**about, key: bytes_, "ratio": ratio, "goal": GOAL})


def _in_a_process(part: str, folder: str, argument: str) -> str:
    """Run a part of this script in a process of its own and return the last line that it prints."""
    command = [sys.executable, __file__, "--part", part, folder, argument]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return printed.splitlines()[-1] if printed else ""


def _peak_of_process() -> dict[str, Any]:
    """Return `slmrec_jax.training.memory.peak_rss_bytes()`, whose import would load JAX."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"memory": "host", "bytes": peak if sys.platform == "darwin" else 1024 * peak}


SIDES: dict[str, Callable[[Path, str], dict[str, Any]]] = {"ours": run_ours, "torch": run_torch}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        part, folder, argument = sys.argv[2:5]
        if part == "data":
            write_data(Path(folder), argument)
        else:
            print(json.dumps(SIDES[part](Path(folder), argument)))
    else:
        main(tyro.cli(Flags))
