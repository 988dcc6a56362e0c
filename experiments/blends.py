"""How a blend of several systems compares with the best of them, over seeds.

Command:  python experiments/blends.py RUN... --out OUT.csv
          The runs are those of several systems on one data set, each with the same seeds: their folders, or folders of
          comparisons.
Time:     a minute for each seed of four systems on TikTok, in addition to training; with a random walk,
          about three minutes for each blend.
Result:   OUT.csv with a row for each system, each ranking without training, and the blend: test metrics as means and
          deviations over the blends, the mean weight, and the p-value of a paired t-test over users against the best,
          after Holm. docs/results.md shows the tables in experiments/results.

For each seed, the runs of that seed are blended, with weights chosen on validation (`slmrec_jax.blend`). With
`--seeds-per-blend`, each system enters as the blend of that many seeds with equal weights.
"""

import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sweep
import tyro
from equal_budgets import METRIC, METRICS, summaries, write_rows

from slmrec_jax import Run, UserError, blend
from slmrec_jax.data import Dataset
from slmrec_jax.evaluation.metrics import PerUser
from slmrec_jax.evaluation.protocol import evaluate
from slmrec_jax.reporting.systems import find_systems
from slmrec_jax.training.loading import load_sharing

BLEND = "blend"
COLUMNS = ("system", *(f"{metric}{of}" for metric in METRICS for of in ("", " deviation")), "weight", "p")


@dataclass(frozen=True)
class Flags:
    """Blend the runs of each seed, and write a table."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders, or folders of comparisons."""
    out: Path
    """The table to write."""
    untrained: tuple[str, ...] = ()
    """Rankings without training to blend with the runs, such as randomwalk."""
    seeds_per_blend: int = 1
    """The number of seeds of each system that enter one blend, a divisor of the number of seeds."""
    data: str | None = None
    """The path of the data set, if it was moved."""


class OfSeeds(NamedTuple):
    """The test metrics and the weights of a system, one for each blend; the blend itself has no weights."""

    tests: list[PerUser]
    weights: list[float]


def main(flags: Flags) -> None:
    found: dict[str, OfSeeds] = defaultdict(lambda: OfSeeds([], []))
    seeds, size = by_seed(flags.runs), flags.seeds_per_blend
    if size < 1 or len(seeds) % size:
        raise UserError(f"--seeds-per-blend {size}: give a divisor of the number of seeds, {len(seeds)}")
    datasets: dict[str, Dataset] = {}
    for start in range(0, len(seeds), size):
        runs = {
            system: average([load_sharing(each[system], datasets, flags.data) for each in seeds[start : start + size]])
            for system in seeds[start]
        }
        blended = blend(list(runs.values()), untrained=flags.untrained)
        plan = blended.plan("test")
        for system, member, weight in zip((*runs, *flags.untrained), blended.members, blended.weights, strict=True):
            found[system].tests.append(evaluate(plan, member.embeddings).per_user)
            found[system].weights.append(weight)
        found[BLEND].tests.append(blended.evaluate("test").per_user)
    write_rows(rows_of(found), COLUMNS, flags.out)
    print(flags.out.read_text(), end="")


def average(runs: list[Run]) -> Run:
    """Return a run that ranks by the blend of these runs with equal weights; a single one as it is."""
    return runs[0] if len(runs) == 1 else replace(runs[0], embeddings=blend(runs, [1] * len(runs)).embeddings)


def by_seed(paths: tuple[Path, ...]) -> list[dict[str, Path]]:
    """Return the folder of each system, for each seed."""
    found = find_systems(paths, force=False, say=print)
    seeds = {row["folder"]: row["seed"] for row in found.results.rows}
    trained = [each for each in found.systems if not each.untrained]
    systems = {each.label: {seeds[folder]: folder for folder in each.folders} for each in trained}
    first = next(iter(systems))
    for label, folders in systems.items():
        if folders.keys() != systems[first].keys():
            raise UserError(
                f"{label} has seeds {sorted(folders)}, {first} {sorted(systems[first])}: give the same seeds"
            )
    return [{label: folders[seed] for label, folders in systems.items()} for seed in sorted(systems[first])]


def rows_of(found: Mapping[str, OfSeeds]) -> list[dict[str, Any]]:
    """Return a row for each system, each ranking without training, and the blend, the best last."""
    tests = {
        system: {metric: np.stack([test[metric] for test in each.tests]) for metric in METRICS}
        for system, each in found.items()
    }
    rows = [
        {"system": system, **summary, "weight": statistics.fmean(found[system].weights) if system != BLEND else ""}
        for system, summary in summaries(tests).items()
    ]
    return sorted(rows, key=lambda row: row[METRIC])


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
