"""The picture of all systems on TikTok, docs/images/tiktok.png, from experiments/results/tiktok_systems.csv.

Command:  python experiments/tiktok_picture.py
Time:     seconds. The rows of the table come from the comparisons of tiktok_systems.py and tiktok_slmrec.py, whose
          heads have their commands: test metrics, mean and standard deviation over three seeds, 0 where nothing is
          trained.
Result:   the tuned SLMRec-FAC is best by every metric. The rows that are not tuned were measured with earlier code.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import tyro

from slmrec_jax.figures import draw_comparison

HERE = Path(__file__).parent
SHOWN = ("recall@20", "ndcg@20")


@dataclass(frozen=True)
class Flags:
    """Flags of this picture."""

    table: Path = HERE / "results" / "tiktok_systems.csv"
    out: Path = HERE.parent / "docs" / "images" / "tiktok.png"


def read_rows(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Return mean and deviation by system and metric."""
    with path.open(newline="") as table:
        return {
            row["system"]: {name: (float(row[name]), float(row[f"{name} sd"])) for name in row if f"{name} sd" in row}
            for row in csv.DictReader(table)
        }


def main(flags: Flags) -> None:
    draw_comparison(read_rows(flags.table), SHOWN, flags.out, "TikTok, test: mean and deviation over three seeds")


if __name__ == "__main__":
    main(tyro.cli(Flags))
