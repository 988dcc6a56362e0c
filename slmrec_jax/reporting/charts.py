"""Figures of a report, each small enough to be read on a phone, and their forms: SVG for the page, PNG and PDF."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slmrec_jax.evaluation.analysis import Difference, Interval
from slmrec_jax.evaluation.groups import Group
from slmrec_jax.reporting.items import ItemMap

INK = "#0f172a"
"""Of lines and letters; on the page it becomes the text's own colour, light or dark."""
COLOURS = ("#3b82f6", "#d97706", "#0d9488", "#db2777", "#8b5cf6", "#65a30d", "#dc2626", "#0891b2")
"""Readable on white and on black."""
ABSENT = "#94a3b8"
_MARKERS = "osD^vP*X"
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
    "axes.facecolor": "none",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "slmrec_jax",
}
_LONGEST = 28


def metric_intervals(runs: Mapping[str, Mapping[str, Interval]], metrics: Sequence[str]) -> Figure:
    """A row a metric, a point a system with its interval."""
    figure, axes = _new(1.2 + 0.18 * len(metrics) * (1 + len(runs)))
    for place, (label, intervals) in enumerate(runs.items()):
        rows = np.arange(len(metrics)) + 0.6 * _shift(place, len(runs))
        _intervals(axes, [intervals[metric] for metric in metrics], rows, place, label)
    axes.set(yticks=range(len(metrics)), yticklabels=list(metrics), xlim=(0, None))
    axes.invert_yaxis()
    return _legend(axes, figure, len(runs))


def losses(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The loss by epoch; of a single run its terms beside it."""
    figure, axes = _new()
    lines = {label: (history, "loss") for label, history in histories.items()}
    if len(histories) == 1:
        ((_, history),) = histories.items()
        lines = {name: (history, name) for name in history[0]["losses"] if "/" not in name}
    for (label, (history, name)), colour in zip(lines.items(), cycle(COLOURS)):
        values = [record["losses"].get(name, np.nan) for record in history]
        axes.plot([record["epoch"] for record in history], values, color=colour, label=_short(label))
    axes.set(xlabel="epoch", ylabel="training loss")
    return _legend(axes, figure, len(lines))


def selection(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The metric that selected by epoch, the epoch that was kept marked."""
    figure, axes = _new()
    names = set()
    for (label, history), colour in zip(histories.items(), cycle(COLOURS)):
        evaluated = [record for record in history if record["selected"]]
        names |= {f"{record['split']} {name}" for record in evaluated for name in record["selected"]}
        points = [(record["epoch"], *record["selected"].values()) for record in evaluated]
        axes.plot(*zip(*points, strict=True) if points else ([], []), color=colour, label=_short(label))
        best = [point for point, record in zip(points, evaluated, strict=True) if record["improved"]][-1:]
        axes.plot(*zip(*best, strict=True) if best else ([], []), "o", color=colour)
    axes.set(xlabel="epoch", ylabel=" / ".join(sorted(names)))
    return _legend(axes, figure, len(histories))


def degrees(runs: Mapping[str, Sequence[Group]], metric: str, side: str) -> Figure:
    """A metric by how many training interactions users or items have."""
    figure, axes = _new()
    names = sorted({group.label for groups in runs.values() for group in groups}, key=_start)
    width = 0.8 / len(runs)
    for place, ((label, groups), colour) in enumerate(zip(runs.items(), cycle(COLOURS))):
        places = [names.index(group.label) + _shift(place, len(runs)) for group in groups]
        axes.bar(places, [group.means[metric] for group in groups], width, color=colour, label=_short(label))
    axes.set(xticks=range(len(names)), xticklabels=names)
    axes.set(xlabel=f"training interactions of {side}", ylabel=metric)
    axes.tick_params("x", labelrotation=30)
    return _legend(axes, figure, len(runs))


def contributions(runs: Mapping[str, Mapping[str, Difference]], metric: str) -> Figure:
    """How a metric changes when a modality is masked."""
    names = list(dict.fromkeys(name for changes in runs.values() for name in changes))
    figure, axes = _new(1.2 + 0.3 * len(names) * (0.5 + 0.5 * len(runs)))
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, (label, changes) in enumerate(runs.items()):
        rows = np.array([names.index(name) for name in changes]) + 0.6 * _shift(place, len(runs))
        _intervals(axes, [change.interval for change in changes.values()], rows, place, label)
    axes.set(yticks=range(len(names)), yticklabels=[f"without {_short(name)}" for name in names])
    axes.set(xlabel=f"change of {metric}", ylim=(len(names) - 0.5, -0.5))
    return _legend(axes, figure, len(runs))


def item_space(found: ItemMap, labels: Int[np.ndarray, " items"], modality: str) -> Figure:
    """Items in the plane, coloured by their cluster in a modality."""
    figure, axes = _new(4.0)
    absent = labels < 0
    style: dict[str, Any] = {
        "s": 5,
        "linewidths": 0,
        "alpha": 0.7,
        "rasterized": True,
    }  # thousands of points would burst an SVG
    axes.scatter(
        *found.places[absent].T, color=ABSENT, label=f"no {_short(modality)}" if absent.any() else None, **style
    )
    for label, colour in zip(range(labels.max(initial=-1) + 1), COLOURS, strict=False):
        axes.scatter(*found.places[labels == label].T, color=colour, label=f"cluster {label + 1}", **style)
    first, second = (f"component {n}: {share:.0%} of the variance" for n, share in enumerate(found.shares, 1))
    axes.set(xlabel=first, ylabel=second, title=f"clusters of {_short(modality)}")
    with matplotlib.rc_context(_STYLE):
        figure.legend(loc="outside lower center", ncols=3, markerscale=2.5, fontsize=8)
    return figure


def to_svg(figure: Figure, prefix: str) -> str:
    """A figure as an element of a page: transparent, in the page's ink, its ids apart from those of other figures."""
    text = io.StringIO()
    _save(figure, text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[1]}{prefix}-", svg)
    return svg.replace(INK, "currentColor")


def save(figure: Figure, path: Path) -> None:
    """A figure as a file of the kind that its suffix says, on white."""
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    picture = io.BytesIO()  # what the disk refuses would come out of matplotlib in many types
    _save(figure, picture, format=path.suffix[1:], facecolor="white", metadata=metadata)
    path.write_bytes(picture.getbuffer())


def _save(figure: Figure, target: Any, **options: Any) -> None:
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        figure.savefig(target, dpi=160, **options)


def _new(height: float = 3.0) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, height), layout="constrained")
        return figure, figure.subplots()


def _intervals(axes: Axes, intervals: Sequence[Interval], rows: Any, place: int, label: str) -> None:
    means, lows, highs = np.array(intervals, np.float64).reshape(-1, 3).T
    colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
    axes.hlines(rows, lows, highs, color=colour, linewidth=1.6)
    axes.plot(means, rows, marker, color=colour, markersize=4.5, label=_short(label))


def _legend(axes: Axes, figure: Figure, entries: int) -> Figure:
    if entries > 1:
        with matplotlib.rc_context(_STYLE):
            figure.legend(loc="outside lower center", ncols=min(entries, 2), fontsize=8)
    return figure


def _shift(place: int, count: int) -> float:
    """Where one of several runs stands about a whole number."""
    return 0.8 * ((place + 0.5) / count - 0.5)


def _start(label: str) -> int:
    """The least degree of a group, from its label."""
    return int(re.split(r"\D", label)[0])


def _short(name: str) -> str:
    """As a figure shows it; matplotlib leaves out of legends what begins with an underscore, so a space goes before."""
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
