"""What a blend of several systems brings beyond the best of them, over seeds.

Command:  python experiments/blends.py RUN... --out runs/blends.csv
          The runs are those of several systems on one data set, such as runs/compare/*-seed?, each with the same seeds.
Time:     a minute for each seed of seven systems on TikTok, besides the runs.
Result:   a row for each system and one for the blend, with test metrics as means and deviations over seeds, the mean
          weight, and the p-value of a paired t-test over users beside the best, after Holm. docs/results.md has them.

For each seed, the runs of that seed are blended, with weights chosen on validation (`slmrec_jax.blend`).
"""

import csv
import io
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from slmrec_jax import Run, blend
from slmrec_jax.data import Dataset
from slmrec_jax.durable import write_whole
from slmrec_jax.evaluation.metrics import PerUser
from slmrec_jax.studies.significance import mean_and_deviation, mean_per_user, p_values
from slmrec_jax.training.loading import load_sharing

METRICS = ("recall@20", "ndcg@20")
BLEND = "blend"
COLUMNS = ("system", *(f"{metric}{of}" for metric in METRICS for of in ("", " deviation")), "weight", "p")


@dataclass(frozen=True)
class Flags:
    """Blend the runs of each seed, and write a table."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders."""
    out: Path
    """The table to write, a CSV file."""
    data: str | None = None
    """The path of the data set, if it was moved."""


class Measured(NamedTuple):
    """What is known of a system, or of the blend, by seed."""

    tests: list[PerUser]
    weights: list[float]


def main(flags: Flags) -> None:
    datasets: dict[str, Dataset] = {}
    runs = [load_sharing(folder, datasets, flags.data) for folder in flags.runs]
    measured: dict[str, Measured] = defaultdict(lambda: Measured([], []))
    for of_seed in by_seed(runs):
        blended = blend(list(of_seed.values()))
        for (system, run), weight in zip(of_seed.items(), blended.weights, strict=True):
            measured[system].tests.append(run.evaluate("test").per_user)
            measured[system].weights.append(weight)
        measured[BLEND].tests.append(blended.evaluate("test").per_user)
    write(rows_of(measured), flags.out)


def by_seed(runs: Sequence[Run]) -> list[Mapping[str, Run]]:
    """Group runs by seed; every seed must have the same systems, which are named after their folders."""
    found: dict[int, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        system = re.sub(r"-seed\d+$", "", run.folder.resolve().name)
        if system in found[run.config.seed]:
            sys.exit(f"{run.folder}: there is another run of {system} with this seed; rename one of the folders")
        found[run.config.seed][system] = run
    first, *others = found.values()
    for seed, of_seed in found.items():
        if of_seed.keys() != first.keys():
            sys.exit(f"seed {seed} has runs of {', '.join(of_seed)}, another one of {', '.join(first)}: give the same")
    return [first, *others]


def rows_of(measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    main_metric = METRICS[0]
    per_user = {
        system: mean_per_user([test[main_metric] for test in found.tests]) for system, found in measured.items()
    }
    tested = p_values(per_user)
    rows = []
    for system, found in measured.items():
        row: dict[str, Any] = {"system": system, "p": tested.get(system, "")}
        for metric in METRICS:
            of_seeds = [float(test[metric].mean()) for test in found.tests]
            row[metric], row[f"{metric} deviation"] = mean_and_deviation(of_seeds)
        row["weight"] = mean_and_deviation(found.weights)[0] if found.weights else ""
        rows.append(row)
    return sorted(rows, key=lambda row: row[main_metric])


def write(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    write_whole(out, text.getvalue())
    print(text.getvalue(), end="")


if __name__ == "__main__":
    main(tyro.cli(Flags))
