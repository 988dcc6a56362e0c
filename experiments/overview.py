"""The picture at the top of README.md: accuracy on TikTok beside the speed of a training step.

Command:  python experiments/overview.py
Needs:    experiments/results/tiktok_systems.csv (tiktok_picture.py) and benchmarks/results/step.json (make bench)
Writes:   docs/images/overview.png
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import sweep
from matplotlib.figure import Figure
from tiktok_picture import read_table

from slmrec_jax.figures import COLOURS, HIGHLIGHT, INK

ROOT = Path(__file__).parents[1]
METRIC = "recall@20"
TASKS = {"none": "no task", "fac": "FAC", "fm": "FM", "fd": "FD", "fd+fm": "FD+FM"}


@dataclass(frozen=True)
class Flags:
    """Draw accuracy and speed."""

    out: Path = ROOT / "docs" / "images" / "overview.png"


def draw(flags: Flags) -> None:
    """Draw the picture."""
    rows = {
        name: values[METRIC] for name, values in read_table(ROOT / "experiments/results/tiktok_systems.csv").items()
    }
    rows = dict(sorted(rows.items(), key=lambda row: row[1]))
    means, deviations = zip(*rows.values(), strict=True)
    steps = json.loads((ROOT / "benchmarks" / "results" / "step.json").read_text())["shapes"]["paper"]

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    accuracy, speed = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = [HIGHLIGHT if mean == max(means) else COLOURS[0] for mean in means]
    drawn = accuracy.barh(list(rows), means, 0.7, xerr=deviations, color=colours, ecolor=INK)
    accuracy.bar_label(drawn, fmt="%.4f", padding=4, fontsize=8)
    accuracy.set_title(f"{METRIC} on TikTok, test, three seeds", fontsize=10, loc="left")
    accuracy.margins(x=0.15)

    ratios = [steps[task]["ratio"] for task in TASKS]
    drawn = speed.barh(list(TASKS.values()), ratios, 0.6, color=COLOURS[2])
    speed.bar_label(drawn, [f"{ratio:.0f} ×" for ratio in ratios], padding=4, fontsize=8)
    speed.set_title("times as fast as PyTorch, a step", fontsize=10, loc="left")
    speed.invert_yaxis()
    speed.margins(x=0.15)
    for axes in (accuracy, speed):
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(bottom=False, labelbottom=False, left=False)
    figure.savefig(flags.out, dpi=140)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, draw))
