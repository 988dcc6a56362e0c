"""What an epoch costs beyond its steps: driven from the host as training does it, against one program for all of it.

python benchmarks/bench_epoch.py --data PATH/tiktok
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import shapes
import tyro
from timing import measure, median_ms, write_result

from slmrec_jax import Config
from slmrec_jax.methods import make_method
from slmrec_jax.training.fit import SEGMENT_SECONDS
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.steps import compile_steps

GOAL = 0.02


@dataclass(frozen=True)
class Flags:
    """What to measure."""

    data: str = "demo"
    task: str = "fac"
    rounds: int = 9
    out: Path = Path("benchmarks/results/epoch.json")


def main(flags: Flags) -> None:
    dataset = shapes.dataset(flags.data)
    config = replace(Config(), task=flags.task)
    method = make_method(config, make_spec(config, dataset))
    steps = compile_steps(method, method.prepare(make_inputs(dataset)), config)
    at = [steps.init(), 0]

    def advance(length: int) -> None:
        """To the end of the epoch, so many steps at a time, waiting for each stretch as training does."""
        end = (at[1] // steps.per_epoch + 1) * steps.per_epoch
        while at[1] < end:
            stop = min(at[1] + length, end)
            at[0] = steps.run(at[0], at[1], stop, 0)
            int(at[0].means.rows)
            at[1] = stop

    advance(steps.per_epoch)
    whole_ms = median_ms(measure({"whole": lambda: advance(steps.per_epoch)}, 3)["whole"])
    length = max(1, int(SEGMENT_SECONDS * 1e3 * steps.per_epoch / whole_ms))
    cases = {"whole": lambda: advance(steps.per_epoch), "host": lambda: advance(length)}
    ms = {name: median_ms(seconds) for name, seconds in measure(cases, flags.rounds).items()}
    overhead = (ms["host"] - ms["whole"]) / ms["host"]
    print(
        f"{dataset.name}, {flags.task}: {steps.per_epoch} steps in {ms['whole']:.0f} ms as one program, "
        f"{ms['host']:.0f} ms in stretches of {length}: overhead {overhead:.1%} (goal {GOAL:.0%})"
    )
    write_result(
        flags.out,
        {
            "data": dataset.name,
            "task": flags.task,
            "ms": ms,
            "steps": steps.per_epoch,
            "overhead": overhead,
            "goal": GOAL,
        },
    )
    jax.block_until_ready(at[0])


if __name__ == "__main__":
    main(tyro.cli(Flags))
