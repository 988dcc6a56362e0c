"""The cost of an epoch beyond its steps, and of saving it.

Two cases alternate, one epoch each: the steps alone, as one program whose order was drawn before the clock starts; and
a whole epoch as training runs it, which draws the order, takes the steps in stretches of about a second, checks for
signals in between, and fetches the means. Then such epochs alternate, several at a time, with epochs that hand a
checkpoint to the writer, which writes beside the steps and rests, as in training. The share of a round is the extra
time of the longer case over its whole time. The median of the rounds is reported with their quartiles.

    python benchmarks/bench_epoch.py --data PATH/tiktok
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import jax
import jax.numpy as jnp
import shapes
import tyro
from timing import median_ms, write_result

from slmrec_jax import Config
from slmrec_jax.training.fit import SEGMENT_SECONDS
from slmrec_jax.training.recovery import all_finite
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.storage.checkpoint import Checkpoint, Place, Tally
from slmrec_jax.training.storage.folder import Record
from slmrec_jax.training.storage.saver import open_saver
from slmrec_jax.training.timing import compiled_setup

GOAL = 0.02
SAVING_GOAL = 0.05


@dataclass(frozen=True)
class Flags:
    """Measure the cost of an epoch beyond its steps, and of saving it."""

    data: str = "demo"
    task: str = "fac"
    rounds: int = 25
    saved_epochs: int = 16
    """Epochs of a turn. The writer rests for as long as several epochs of TikTok take."""
    saved_rounds: int = 5
    out: Path = Path("benchmarks/results/epoch.json")


class Epochs:
    """Epochs of one training, one after another; each method trains one and returns its seconds."""

    def __init__(self, setup: Setup) -> None:
        self.loop, self.inputs, self.keys = setup.loop, setup.inputs, setup.keys()
        self.progress, self.step = self.loop.init(self.keys), 0
        self.steps_alone()
        self.stretch = max(1, int(SEGMENT_SECONDS * self.loop.steps_per_epoch / self.steps_alone()))
        """The steps that training takes at a time."""

    def steps_alone(self) -> float:
        """Take the steps as one stretch, whose order was drawn before the clock starts."""
        drawn = self._drawn()
        jax.block_until_ready((drawn, self.progress))
        start = time.perf_counter()
        self._take(drawn, self.loop.steps_per_epoch)
        jax.block_until_ready(self.progress)
        return time.perf_counter() - start

    def epoch(self) -> float:
        """Train as training does: draw the order, take stretches, fetch the means."""
        start, end, drawn = time.perf_counter(), self.step + self.loop.steps_per_epoch, self._drawn()
        while self.step < end:
            self._take(drawn, min(self.stretch, end - self.step))
            int(self.progress.means.rows)  # waits for the steps
        {name: float(value) for name, value in self.progress.means.values.items()}
        return time.perf_counter() - start

    def _drawn(self) -> object:
        return self.loop.order(self.inputs, self.keys, jnp.int32(self.step))

    def _take(self, drawn: object, count: int) -> None:
        self.progress = self.loop.run(self.progress, drawn, self.inputs, self.keys, jnp.int32(count))
        self.step += count


def main(flags: Flags) -> None:
    dataset = shapes.dataset(flags.data)
    setup, _ = compiled_setup(replace(Config(), task=flags.task), dataset)
    epochs, loop = Epochs(setup), setup.loop
    embeddings = loop.embed(epochs.progress.state, setup.inputs)
    with tempfile.TemporaryDirectory() as folder, open_saver(Path(folder), refused) as saver:
        records: list[Record] = []

        def saved_epoch() -> float:
            start = time.perf_counter()
            if not all_finite(epochs.progress.state):
                raise SystemExit("training is not finite")
            records.append({"epoch": len(records) + 1})
            place = Place(epochs.step // loop.steps_per_epoch)
            saver.save(Checkpoint(place, epochs.progress, Tally(), embeddings), records, frozenset())
            epochs.epoch()
            return time.perf_counter() - start

        def turn(case: Callable[[], float]) -> float:
            total = sum(case() for _ in range(flags.saved_epochs))
            saver.wait()  # nothing may be written beside the steps of the other case
            return total / flags.saved_epochs

        turn(saved_epoch)  # warm up
        alone = interleaved({"steps": epochs.steps_alone, "epoch": epochs.epoch}, flags.rounds)
        beside = interleaved(
            {"epoch": partial(turn, epochs.epoch), "saved": partial(turn, saved_epoch)}, flags.saved_rounds
        )
    overhead, saving = shares(alone["steps"], alone["epoch"]), shares(beside["epoch"], beside["saved"])
    ms = {name: median_ms(found) for name, found in alone.items()}
    ms |= {"epoch_beside_saved": median_ms(beside["epoch"]), "saved": median_ms(beside["saved"])}
    print(
        f"{dataset.name}, {flags.task}: {loop.steps_per_epoch} steps alone in {ms['steps']:.0f} ms, an epoch in "
        f"stretches of {epochs.stretch} in {ms['epoch']:.0f} ms: beyond the steps {in_words(overhead)} "
        f"(goal {GOAL:.0%}); an epoch in {ms['epoch_beside_saved']:.0f} ms, with checkpoints in "
        f"{ms['saved']:.0f} ms: for saving {in_words(saving)} (goal {SAVING_GOAL:.0%})"
    )
    about = {
        "data": dataset.name,
        "task": flags.task,
        "steps": loop.steps_per_epoch,
        "stretch": epochs.stretch,
        "ms": ms,
    }
    about |= {name: getattr(flags, name) for name in ("rounds", "saved_rounds", "saved_epochs")}
    found = {"overhead": overhead[1], "overhead_quartiles": overhead, "saving": saving[1], "saving_quartiles": saving}
    write_result(flags.out, {**about, **found, "goal": GOAL, "saving_goal": SAVING_GOAL})


def refused(line: str) -> NoReturn:
    """Stop: a checkpoint that was not written would count as cheap."""
    raise SystemExit(line)


def interleaved(cases: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round of each case; a case measures its own time."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for _ in range(rounds):
        for name in order:
            seconds[name].append(cases[name]())
        order = [*order[1:], order[0]]  # no case always follows the same one
    return seconds


def shares(shorter: list[float], longer: list[float]) -> list[float]:
    """Return the quartiles, with the median, of (longer - shorter) / longer over the rounds."""
    rounds = [(b - a) / b for a, b in zip(shorter, longer, strict=True)]
    return statistics.quantiles(rounds, n=4) if len(rounds) > 1 else 3 * rounds


def in_words(quartiles: list[float]) -> str:
    """Format the median with the quartiles."""
    lower, median, upper = quartiles
    return f"{median:.1%} (quartiles {lower:.1%} to {upper:.1%})"


if __name__ == "__main__":
    main(tyro.cli(Flags))
