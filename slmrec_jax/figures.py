"""Pictures of a run and of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

INK, BEST = "#334155", "#b91c1c"
COLOURS = ("#1d4ed8", "#0f766e", "#b45309", "#7c3aed", "#be185d", "#4d7c0f")


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Losses by epoch on the left, the selecting metric with its best epoch on the right."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    names = [name for name in history[-1]["losses"] if "/" not in name]
    for name, colour in zip(names, COLOURS, strict=False):
        left.plot(epochs, [record["losses"][name] for record in history], label=name, color=colour)
    left.set(xlabel="epoch", ylabel="loss", title=title)
    left.legend(frameon=False)
    evaluated = [record for record in history if record["selected"]]
    for name in evaluated[-1]["selected"] if evaluated else ():
        right.plot([r["epoch"] for r in evaluated], [r["selected"][name] for r in evaluated], color=COLOURS[0])
        right.set(xlabel="epoch", ylabel=f"{evaluated[-1]['split']} {name}")
    best = [record for record in evaluated if record["improved"]]
    if best:
        (value,) = best[-1]["selected"].values()
        right.plot(best[-1]["epoch"], value, "o", color=BEST)
        right.set_title(f"best: {value:.4f} at epoch {best[-1]['epoch']}", color=BEST)
    _finish(figure, path)


def draw_comparison(
    rows: Mapping[str, Mapping[str, tuple[float, float]]], metrics: Sequence[str], path: Path, title: str
) -> None:
    """A group of bars a metric, a bar a system, with its deviation over seeds."""
    figure = Figure(figsize=(1.8 + 1.9 * len(metrics), 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for place, ((name, values), colour) in enumerate(zip(rows.items(), COLOURS * len(rows), strict=False)):
        at = [group + (place - (len(rows) - 1) / 2) * width for group in range(len(metrics))]
        means, deviations = zip(*(values[metric] for metric in metrics), strict=True)
        bars = axes.bar(at, means, 0.92 * width, yerr=deviations if any(deviations) else None, color=colour, label=name)
        axes.bar_label(bars, fmt="%.3f", fontsize=7, color=INK, padding=2)
    axes.set_xticks(range(len(metrics)), metrics)
    axes.set(title=title, ylabel="test")
    axes.margins(y=0.15)
    axes.legend(frameon=False, ncols=min(3, len(rows)))
    _finish(figure, path)


def _finish(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    figure.savefig(path, dpi=140)
