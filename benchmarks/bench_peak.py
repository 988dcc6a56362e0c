"""Peak memory of a few steps, ours and the plain PyTorch peer's, each in a process of its own.

python benchmarks/bench_peak.py --data paper
"""

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from timing import write_result

GOAL = 0.5
STEPS = 4


@dataclass(frozen=True)
class Flags:
    """What to measure."""

    data: str = "paper"
    task: str = "fac"
    side: Literal["both", "ours", "torch"] = "both"
    """One side is measured in this process; both, in a process each."""
    out: Path = Path("benchmarks/results/peak.json")


def peak(flags: Flags) -> int:
    """Bytes, of the data alone and after some steps."""
    import shapes

    dataset = shapes.dataset(flags.data)
    if flags.side == "ours":
        import jax
        from ours import our_steps

        run, _ = our_steps(dataset, flags.task, STEPS)
        jax.block_until_ready(run())
    else:
        import peer_torch

        trainer = peer_torch.Trainer(dataset, flags.task)
        for _ in range(STEPS):
            trainer()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(flags: Flags) -> None:
    if flags.side != "both":
        print(json.dumps(peak(flags)))
        return
    found = {}
    for side in ("ours", "torch"):
        command = [sys.executable, __file__, "--data", flags.data, "--task", flags.task, "--side", side]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    ratio = found["ours"] / found["torch"]
    shown = ", ".join(f"{side} {bytes_ / 2**30:.2f} GiB" for side, bytes_ in found.items())
    print(f"{flags.data}, {flags.task}, peak memory: {shown}: {ratio:.0%} (goal {GOAL:.0%})")
    write_result(
        flags.out, {"data": flags.data, "task": flags.task, "peak_rss_bytes": found, "ratio": ratio, "goal": GOAL}
    )


if __name__ == "__main__":
    main(tyro.cli(Flags))
