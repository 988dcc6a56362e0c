"""What an epoch costs beyond its steps: driven from the host as training does it, and with a checkpoint after each.

Three ways take turns: one program for all steps; stretches of about a quarter of a second, between which the host looks
around; and these with a checkpoint after each epoch, which is written beside the steps of the next one.

python benchmarks/bench_epoch.py --data PATH/tiktok
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import shapes
import tyro
from timing import measure, median_ms, write_result

from slmrec_jax import Config
from slmrec_jax.methods import make_method
from slmrec_jax.training.checkpoint import Checkpoint, Place, Tally
from slmrec_jax.training.fit import SEGMENT_SECONDS
from slmrec_jax.training.inputs import input_shapes, make_inputs, make_spec
from slmrec_jax.training.numbering import by_degree
from slmrec_jax.training.recovery import all_finite
from slmrec_jax.training.saver import open_saver
from slmrec_jax.training.steps import compile_steps

GOAL = 0.02
SAVING_GOAL = 0.05


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
    programs = compile_steps(method, jax.eval_shape(method.prepare, input_shapes(dataset)), config)
    steps = programs.on(method.prepare(make_inputs(dataset, numbering=by_degree(dataset))))
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
    embeddings = steps.embed(at[0].state)
    with tempfile.TemporaryDirectory() as folder, open_saver(Path(folder), print) as saver:

        def saved() -> None:
            advance(length)
            if not all_finite(at[0].state):
                raise SystemExit("training is not finite")
            place = Place(at[1] // steps.per_epoch)
            saver.save(Checkpoint(place, at[0], Tally(), embeddings), [], frozenset())

        cases = {"whole": lambda: advance(steps.per_epoch), "host": lambda: advance(length), "saved": saved}
        ms = {name: median_ms(seconds) for name, seconds in measure(cases, flags.rounds).items()}
    overhead, saving = (ms["host"] - ms["whole"]) / ms["host"], (ms["saved"] - ms["host"]) / ms["saved"]
    print(
        f"{dataset.name}, {flags.task}: {steps.per_epoch} steps in {ms['whole']:.0f} ms as one program, "
        f"{ms['host']:.0f} ms in stretches of {length}, {ms['saved']:.0f} ms with a checkpoint: overhead of the host "
        f"{overhead:.1%} (goal {GOAL:.0%}), of saving {saving:.1%} (goal {SAVING_GOAL:.0%})"
    )
    about = {"data": dataset.name, "task": flags.task, "steps": steps.per_epoch, "stretch": length, "ms": ms}
    goals = {"goal": GOAL, "saving_goal": SAVING_GOAL}
    write_result(flags.out, {**about, "overhead": overhead, "saving": saving, **goals})


if __name__ == "__main__":
    main(tyro.cli(Flags))
