"""The picture of all systems on TikTok, docs/images/tiktok.png, from experiments/results/tiktok_systems.csv.

Command:  python experiments/tiktok_picture.py
          python experiments/tiktok_picture.py --systems runs/tiktok --tuned runs/tiktok-tuned
Time:     seconds. The second command first updates the table from the comparisons of tiktok_systems.py and
          tiktok_slmrec.py, whose heads have their commands: test metrics, mean and standard deviation over seeds, 0
          where nothing is trained. Systems that a comparison leaves out keep their rows.
Result:   the tuned SLMRec-FAC is best by every metric. docs/results.md has dates and settings of each row.
"""

import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sweep

from slmrec_jax import UserError
from slmrec_jax.figures import draw_comparison
from slmrec_jax.studies.significance import mean_and_deviation

HERE = Path(__file__).parent
NAMES = {
    "popularity": "popularity",
    "itemknn": "item-kNN on content",
    "randomwalk": "random walk",
    "mf": "MF-BPR",
    "lightgcn": "LightGCN",
    "sgl": "SGL",
    "simgcl": "SimGCL",
    "vbpr": "VBPR",
    "mmgcn": "MMGCN",
    "bm3": "BM3",
    "freedom": "FREEDOM",
    "lattice": "LATTICE",
    "mgcn": "MGCN",
    "mmssl": "MMSSL",
    "slmrec:none": "SLMRec, no task",
    "slmrec:fac": "SLMRec-FAC",
}
METRICS = ("recall@20", "ndcg@20")

Rows = Mapping[str, Mapping[str, tuple[float, float]]]
"""Mean and deviation by system and metric."""


@dataclass(frozen=True)
class Flags:
    """Draw the picture."""

    systems: Path | None = None
    """The folder of the comparison of all systems with their defaults, to update the table from."""
    tuned: Path | None = None
    """The folder of the comparison of tuned systems, to update the table from."""
    table: Path = HERE / "results" / "tiktok_systems.csv"
    out: Path = HERE.parent / "docs" / "images" / "tiktok.png"


def read_comparison(folder: Path, addition: str) -> Rows:
    """Return the systems of a comparison, with an addition to their names."""
    systems = json.loads((folder / "comparison.json").read_text())["systems"]
    return {
        NAMES[name] + addition: {key: mean_and_deviation([each[key] for each in seeds]) for key in METRICS}
        for name, seeds in systems.items()
    }


def write_table(rows: Rows, path: Path) -> None:
    """Write the table, with six digits."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["system", *(name for key in METRICS for name in (key, f"{key} sd"))])
        for system, values in rows.items():
            writer.writerow([system, *(f"{value:.6g}" for key in METRICS for value in values[key])])


def read_table(path: Path) -> Rows:
    """Return the rows of the table."""
    with path.open(newline="") as file:
        return {
            row["system"]: {key: (float(row[key]), float(row[f"{key} sd"])) for key in METRICS}
            for row in csv.DictReader(file)
        }


def main(flags: Flags) -> None:
    if (flags.systems is None) != (flags.tuned is None):
        raise UserError("--systems and --tuned make the table together: give both, or none")
    if flags.systems is not None and flags.tuned is not None:
        measured = {**read_comparison(flags.systems, ""), **read_comparison(flags.tuned, ", tuned")}
        earlier = read_table(flags.table) if flags.table.exists() else {}
        write_table({**earlier, **measured}, flags.table)
    title = "TikTok, test: mean and deviation over three seeds"
    draw_comparison(read_table(flags.table), METRICS, flags.out, title)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
