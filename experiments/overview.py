"""The picture at the top of README.md: accuracy on TikTok beside the speed of a training step.

Command:  python experiments/overview.py --systems runs/tiktok --tuned runs/tiktok-tuned
Needs:    the two comparisons of README.md's section "Accuracy", and benchmarks/results/step.json (make bench)
Writes:   docs/images/overview.png
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from slmrec_jax.figures import COLOURS, HIGHLIGHT, INK

ROOT = Path(__file__).parents[1]
METRIC = "recall@20"
NAMES = {
    "popularity": "popularity",
    "itemknn": "item-kNN on content",
    "mf": "MF-BPR",
    "vbpr": "VBPR",
    "mmgcn": "MMGCN",
    "mmssl": "MMSSL",
    "lightgcn": "LightGCN",
    "slmrec:none": "SLMRec, no task",
    "slmrec:fac": "SLMRec-FAC",
}
TASKS = {"none": "no task", "fac": "FAC", "fm": "FM", "fd": "FD", "fd+fm": "FD+FM"}


@dataclass(frozen=True)
class Flags:
    """Draw accuracy and speed."""

    systems: Path
    """The folder of the comparison of all systems with their defaults."""
    tuned: Path
    """The folder of the comparison of tuned systems."""
    out: Path = ROOT / "docs" / "images" / "overview.png"


def read_metric(folder: Path) -> dict[str, list[float]]:
    """Return the metric of each system of a comparison, by seed."""
    systems = json.loads((folder / "comparison.json").read_text())["systems"]
    return {name: [metrics[METRIC] for metrics in seeds] for name, seeds in systems.items()}


def draw(flags: Flags) -> None:
    """Draw the picture."""
    bars = {NAMES[name]: values for name, values in read_metric(flags.systems).items()}
    bars |= {f"{NAMES[name]}, tuned": values for name, values in read_metric(flags.tuned).items()}
    bars = dict(sorted(bars.items(), key=lambda bar: np.mean(bar[1])))
    steps = json.loads((ROOT / "benchmarks" / "results" / "step.json").read_text())["shapes"]["paper"]

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    accuracy, speed = figure.subplots(1, 2, width_ratios=(3, 2))
    means = [np.mean(values) for values in bars.values()]
    deviations = [np.std(values, ddof=1) if len(values) > 1 else 0 for values in bars.values()]
    colours = [HIGHLIGHT if mean == max(means) else COLOURS[0] for mean in means]
    drawn = accuracy.barh(list(bars), means, 0.7, xerr=deviations, color=colours, ecolor=INK)
    accuracy.bar_label(drawn, fmt="%.4f", padding=4, fontsize=8)
    accuracy.set_title(f"{METRIC} on TikTok, test, three seeds", fontsize=10, loc="left")
    accuracy.margins(x=0.15)

    ratios = [steps[task]["ratio"] for task in TASKS]
    drawn = speed.barh(list(TASKS.values()), ratios, 0.6, color=COLOURS[2])
    speed.bar_label(drawn, [f"{ratio:.0f} ×" for ratio in ratios], padding=4, fontsize=8)
    speed.set_title("A training step: times as fast as PyTorch, on two CPU cores", fontsize=10, loc="left")
    speed.invert_yaxis()
    speed.margins(x=0.15)
    for axes in (accuracy, speed):
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(bottom=False, labelbottom=False, left=False)
    figure.savefig(flags.out, dpi=140)


if __name__ == "__main__":
    draw(tyro.cli(Flags))
