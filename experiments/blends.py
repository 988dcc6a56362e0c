"""How a blend of several systems compares with the best of them, over seeds.

Command:  python experiments/blends.py RUN... --out OUT.csv
          The runs are those of several systems on one data set, each with the same seeds: their folders, or folders of
          comparisons.
Time:     a minute for each seed of four systems on TikTok, in addition to training.
Result:   OUT.csv with a row for each system and one for the blend: test metrics as means and deviations over seeds, the
          mean weight, and the p-value of a paired t-test over users against the best, after Holm. docs/results.md shows
          the tables in experiments/results.

For each seed, the runs of that seed are blended, with weights chosen on validation (`slmrec_jax.blend`).
"""

import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from equal_budgets import METRIC, METRICS, summaries, write_rows

from slmrec_jax import UserError, blend
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
    data: str | None = None
    """The path of the data set, if it was moved."""


class OfSeeds(NamedTuple):
    """The test metrics and the weights of a system, by seed; the blend has no weights."""

    tests: list[PerUser]
    weights: list[float]


def main(flags: Flags) -> None:
    found: dict[str, OfSeeds] = defaultdict(lambda: OfSeeds([], []))
    for folders in by_seed(flags.runs):
        datasets: dict[str, Dataset] = {}
        blended = blend([load_sharing(folder, datasets, flags.data) for folder in folders.values()])
        plan = blended.plan("test")
        for system, run, weight in zip(folders, blended.runs, blended.weights, strict=True):
            found[system].tests.append(evaluate(plan, run.embeddings).per_user)
            found[system].weights.append(weight)
        found[BLEND].tests.append(blended.evaluate("test").per_user)
    write_rows(rows_of(found), COLUMNS, flags.out)
    print(flags.out.read_text(), end="")


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
    """Return a row for each system and the blend, the best last."""
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
    try:
        main(tyro.cli(Flags))
    except UserError as error:
        sys.exit(str(error))
