"""Figures of a run, a comparison, a search and a data set."""

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from slmrec_jax.durable import whole_file

INK, HIGHLIGHT = "#0f172a", "#b91c1c"
COLOURS = ("#3b82f6", "#d97706", "#0d9488", "#db2777", "#8b5cf6", "#65a30d", "#dc2626", "#0891b2")
"""Colours that are readable on white and black backgrounds."""
_BARS = 30
"""The maximum number of bars of a histogram."""


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw each loss by epoch on a separate axis, and the selecting metric with its best epoch."""
    names = [name for name in history[-1]["losses"] if "/" not in name]
    figure = Figure(figsize=(9, max(3.4, 0.6 + 0.95 * len(names))), layout="constrained")
    grid = figure.add_gridspec(max(1, len(names)), 2)
    right = figure.add_subplot(grid[:, 1])
    epochs = [record["epoch"] for record in history]
    lowest = None
    for place, colour in zip(range(len(names)), cycle(COLOURS)):  # each loss has a separate scale
        lowest = figure.add_subplot(grid[place, 0], sharex=lowest)
        lowest.plot(epochs, [record["losses"][names[place]] for record in history], color=colour)
        lowest.set_ylabel(names[place])
        lowest.tick_params("x", labelbottom=place + 1 == len(names))
        if place == 0:
            lowest.set_title(title)
    if lowest:
        lowest.set_xlabel("epoch")
        lowest.xaxis.set_major_locator(MaxNLocator(integer=True))
    evaluated = [record for record in history if record["selected"]]
    for name in evaluated[-1]["selected"] if evaluated else ():
        right.plot([r["epoch"] for r in evaluated], [r["selected"][name] for r in evaluated], color=COLOURS[0])
        right.set(xlabel="epoch", ylabel=f"{evaluated[-1]['split']} {name}")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
    best = [record for record in evaluated if record["improved"]]
    if best:
        (value,) = best[-1]["selected"].values()
        right.plot(best[-1]["epoch"], value, "o", color=HIGHLIGHT)
        right.set_title(f"best: {value:.4f} at epoch {best[-1]['epoch']}", color=HIGHLIGHT)
    _finish(figure, path)


def draw_comparison(
    rows: Mapping[str, Mapping[str, tuple[float, float]]], metrics: Sequence[str], path: Path, title: str
) -> None:
    """Draw one panel per metric, two per row, with a bar for each system and its standard deviation over seeds.

    The best bar of each panel is red. The name of a system that is best in every metric is bold.
    """
    num_columns = min(2, len(metrics))
    num_rows = -(-len(metrics) // num_columns)
    size = 1.3 + 2.6 * num_columns, 0.5 + num_rows * (0.55 + 0.27 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).ravel()
    bests = {metric: max(values[metric][0] for values in rows.values()) for metric in metrics}
    for axes, metric in zip(panels, metrics, strict=False):
        means, deviations = zip(*(values[metric] for values in rows.values()), strict=True)
        colours = [HIGHLIGHT if mean == bests[metric] else COLOURS[0] for mean in means]
        bars = axes.barh(
            list(rows), means, 0.7, xerr=deviations if any(deviations) else None, color=colours, ecolor=INK
        )
        axes.bar_label(bars, fmt="%.4f", padding=3, fontsize=8, color=INK)
        axes.set_title(metric, fontsize=10)
        axes.margins(x=0.28)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    panels[0].invert_yaxis()
    winners = [name for name, values in rows.items() if all(values[key][0] == best for key, best in bests.items())]
    for axes in panels:
        axes.tick_params("y", labelsize=10)
        for label in axes.get_yticklabels():
            if label.get_text() in winners:
                label.set_fontweight("bold")
    figure.suptitle(title, fontsize=11)
    _finish(figure, path)


def draw_lines(
    lines: Mapping[str, Mapping[float, tuple[float, float]]],
    path: Path,
    title: str,
    *,
    x: str,
    y: str,
    log: bool,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Draw a line for each name through its means, with standard deviations as error bars.

    `lines` has the mean and the standard deviation by name and by value of `x`. `x` and `y` label the axes. With `log`,
    the x axis is logarithmic, with a marker and a tick for each value; otherwise values are integers. `levels` are
    published values by name, drawn as dashed lines in the same colour. A level so far from the lines that these would
    take less than two thirds of the height is only mentioned below the figure.
    """
    levels = levels or {}
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axes = figure.subplots()
    ends = [mean + sign * sd for points in lines.values() for mean, sd in points.values() for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    for (name, points), colour in zip(lines.items(), cycle(COLOURS)):
        means, deviations = zip(*points.values(), strict=True)
        yerr = deviations if any(deviations) else None
        axes.errorbar(
            list(points), means, yerr, label=name, color=colour, ecolor=INK, marker="o" if log else None, capsize=2
        )
        if name in levels:
            fits = high - low >= 2 / 3 * (max(high, levels[name]) - min(low, levels[name]))
            label = f"{name}, published: {levels[name]:.4f}{'' if fits else ', off the axis'}"
            axes.plot([], [], label=label, color=colour, linestyle="--", linewidth=1)
            if fits:
                axes.axhline(levels[name], color=colour, linestyle="--", linewidth=1)
    axes.set(xlabel=x, ylabel=y, title=title)
    if log:
        places = sorted({place for points in lines.values() for place in points})
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2 if levels else min(3, len(lines)), frameon=False, fontsize=9)
    _finish(figure, path)


def draw_search(
    values: Sequence[float], settings: Mapping[str, Sequence[Any]], complete: Sequence[bool], path: Path, metric: str
) -> None:
    """Draw the trials of a search in order, with the best value so far, and against each setting that varied.

    `settings` has the values of all trials by name. Trials that are not `complete` are pale and never the best.
    """
    varied = {name: each for name, each in settings.items() if len(set(each)) > 1}
    figure = Figure(figsize=(3.0 * (1 + len(varied)), 3.0), layout="constrained")
    first, *panels = figure.subplots(1, 1 + len(varied), sharey=True, squeeze=False)[0]
    best = max((place for place, done in enumerate(complete) if done), key=lambda place: values[place])
    so_far = np.fmax.accumulate(np.where(complete, values, np.nan))
    first.step(range(len(values)), so_far, where="post", color=INK, linewidth=1)
    first.set(xlabel="trial", ylabel=metric, title="best so far")
    columns: list[tuple[Axes, Sequence[Any]]] = [(first, range(len(values)))]
    for axes, (name, column) in zip(panels, varied.items(), strict=True):
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in column)
        axes.set(xlabel=name)
        if numbers and min(column) > 0 and max(column) >= 10 * min(column):
            axes.set_xscale("log")
        columns.append((axes, column if numbers else [str(each) for each in column]))
    for axes, column in columns:
        axes.scatter(column, values, 16, c=[COLOURS[0] if done else "#cbd5e1" for done in complete])
        axes.scatter(column[best : best + 1], values[best : best + 1], 30, color=HIGHLIGHT)
    _finish(figure, path)


def draw_inspection(
    degrees: Mapping[str, Int[np.ndarray, " nodes"]],
    norms: Mapping[str, Float[np.ndarray, " rows"]],
    missing: Mapping[str, float],
    path: Path,
    title: str,
) -> None:
    """Draw panels of the degrees of users and items, the norms of each modality, and missing features."""
    panels = len(degrees) + len(norms) + bool(missing)
    columns = min(3, panels)
    figure = Figure(figsize=(3.6 * columns, 0.4 + 2.6 * -(-panels // columns)), layout="constrained")
    places = iter(figure.subplots(-(-panels // columns), columns, squeeze=False).ravel())
    for (name, values), colour, axes in zip(degrees.items(), COLOURS[3:], places, strict=False):
        none = np.count_nonzero(values == 0)
        _draw_histogram(axes, values[values > 0], colour, whole=True)
        axes.set(xlabel="training interactions", ylabel=name)
        axes.set_title(f"{name}: median {np.median(values):g}, {none:,} without any", fontsize=10)
    for (name, values), colour, axes in zip(norms.items(), cycle(COLOURS), places):
        _draw_histogram(axes, values, colour)
        axes.set(xlabel=f"norm of {name}", ylabel="items")
        median = f"median {np.median(values):.4g}" if len(values) else "no item has it"
        axes.set_title(f"{name}: {median}", fontsize=10)
    if missing:
        axes = next(places)
        bars = axes.barh(list(missing), list(missing.values()), 0.6, color=COLOURS[0])
        axes.bar_label(bars, [f"{share:.1%}" for share in missing.values()], padding=3, fontsize=9, color=INK)
        axes.set(xlim=(0, 1.15), xlabel="share of items without it", xticks=(0, 0.5, 1))
        axes.set_title("missing features", fontsize=10)
        axes.invert_yaxis()
    for axes in places:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=11)
    _finish(figure, path)


def _draw_histogram(axes: Axes, values: Shaped[np.ndarray, " _"], colour: str, *, whole: bool = False) -> None:
    """Draw a histogram with bars of equal width, or of equal ratio if the values span orders of magnitude."""
    if len(values) == 0:
        axes.set(xticks=(), yticks=())
        return
    low, high = float(values.min()), float(values.max())
    by_powers = low > 0 and high > 10 * low
    if whole:
        edges = _whole_edges(int(low), int(high), by_powers)
    elif by_powers:
        edges = np.geomspace(low, high, _BARS + 1)
    else:
        same = high - low <= 1e-3 * abs(high)  # rows have equal norms, except for rounding
        edges = np.linspace(*((0.5 * low, 1.5 * high or 1.0) if same else (low, high)), _BARS + 1)
    edges[-1] = max(edges[-1], high)  # geomspace rounds
    axes.hist(values, edges.tolist(), color=colour, edgecolor="white", linewidth=0.3)
    if by_powers:
        axes.set_xscale("log")
    axes.margins(x=0.02)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _whole_edges(low: int, high: int, by_powers: bool) -> Float[np.ndarray, " edges"]:
    """Return the bar edges of a histogram of integers. Each bar is at least as wide as the one before."""
    edges, width, ratio = [low], -(-(high + 1 - low) // _BARS), ((high + 1) / low) ** (1 / _BARS)
    while edges[-1] <= high:
        edges.append(max(edges[-1] + 1, math.ceil(edges[-1] * ratio)) if by_powers else edges[-1] + width)
    return np.array(edges) - 0.5


def _finish(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    # Names with dollar signs are not formulas, but tick labels of log axes are.
    scales = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"]
    powers = {label for axis in scales for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(Text):
        text.set_parse_math(text in powers)
    picture = io.BytesIO()  # matplotlib reports a full disk with various exceptions
    figure.savefig(picture, dpi=140, format=path.suffix[1:])
    with whole_file(path) as file:
        file.write(picture.getbuffer())
