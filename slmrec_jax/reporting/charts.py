"""Figures of a report, readable on a phone, in several formats: SVG for the page, PNG and PDF as files."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slmrec_jax.durable import whole_file
from slmrec_jax.evaluation.analysis import Difference, Interval
from slmrec_jax.figures import COLOURS, INK
from slmrec_jax.reporting.facts import GroupFacts
from slmrec_jax.reporting.items import ItemMap

_ABSENT = "#94a3b8"
_MARKERS = "osD^vP*X"
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
    "axes.facecolor": "none",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "slmrec_jax",
}
_styled = matplotlib.rc_context(_STYLE)
_MAX_NAME = 28

History: TypeAlias = Sequence[Mapping[str, Any]]
"""The records of a run's epochs (`training.storage.folder.Record`)."""


def metric_intervals(systems: Mapping[str, Mapping[str, Interval]], metrics: Sequence[str]) -> Figure:
    """Draw one row per metric, with a point and an interval for each system."""
    figure, axes = _new_figure(1.2 + 0.18 * len(metrics) * (1 + len(systems)))
    shown = {label: {metric: intervals[metric] for metric in metrics} for label, intervals in systems.items()}
    _draw_intervals(axes, shown, metrics)
    axes.set(yticklabels=list(metrics), xlim=(0, None))
    return _with_legend(figure, min(2, len(systems)))


def loss_curves(systems: Mapping[str, Sequence[History]]) -> Figure:
    """Draw the loss of each system by epoch, with one panel and scale per objective.

    A system has one history per seed: the line is the mean and the band the standard deviation, over the epochs that
    all seeds have. Systems whose losses have the same terms share a panel, unless one of them would look flat there.
    For a single system, each term has a panel.
    """
    lines = [
        _LossLine(label, " + ".join(_terms(seeds[0])[1:]) or "loss", seeds, "loss") for label, seeds in systems.items()
    ]
    if len(lines) == 1:
        lines = [lines[0]._replace(objective=name, name=name) for name in _terms(lines[0].seeds[0])]
    lines = [line._replace(colour=colour) for line, colour in zip(lines, cycle(COLOURS))]
    panels = _loss_panels(lines)
    figure, axes_of_panels = _new_panels(len(panels))
    for panel, axes in zip(panels, axes_of_panels, strict=True):
        for line in panel:
            _draw_band(axes, line.curve, line.colour, line.label)
        title = _display_name(panel[0].objective)
        if sum(other[0].objective == panel[0].objective for other in panels) > 1:
            title = f"{title}: {', '.join(_display_name(line.label) for line in panel)}"
        axes.set_title(title, loc="left", fontsize=8)
    figure.supylabel("training loss", fontsize=9, color=INK)
    axes_of_panels[-1].set_xlabel(_epoch_label(systems))
    return _with_legend(figure, min(2, len(systems)))


def selection_curves(systems: Mapping[str, Sequence[History]]) -> Figure:
    """Draw the selecting metric of each system by epoch, with a point at the selected epoch of each seed.

    A system has one history per seed: the line is the mean and the band the standard deviation, over the epochs that
    all seeds have. Points are values of single seeds.
    """
    figure, axes = _new_figure()
    names = set()
    for (label, seeds), colour in zip(systems.items(), cycle(COLOURS)):
        evaluated = [[record for record in history if record["selected"]] for history in seeds]
        names |= {f"{record['split']} {name}" for each in evaluated for record in each for name in record["selected"]}
        _draw_band(axes, _curve(evaluated, lambda record: next(iter(record["selected"].values()))), colour, label)
        for history in evaluated:
            for record in [record for record in history if record["improved"]][-1:]:
                axes.plot(record["epoch"], *record["selected"].values(), "o", color=colour, markersize=4.5)
    axes.set(xlabel=_epoch_label(systems), ylabel=" / ".join(sorted(names)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _with_legend(figure, min(2, len(systems)))


def degree_bars(systems: Mapping[str, Sequence[GroupFacts]], metric: str, side: str) -> Figure:
    """Draw a metric with its intervals, by the number of training interactions of users or items.

    The number of users or items is below each range, unless systems differ in it.
    """
    figure, axes = _new_figure()
    labels = {group.label for groups in systems.values() for group in groups}
    names = sorted(labels, key=lambda label: int(re.split(r"\D", label)[0]))  # by the lowest degree
    for place, ((label, groups), colour) in enumerate(zip(systems.items(), cycle(COLOURS))):
        places = [names.index(group.label) + _offset(place, len(systems)) for group in groups]
        means, lows, highs = np.array([group.interval for group in groups]).T
        axes.bar(places, means, 0.8 / len(systems), color=colour, label=_display_name(label))
        axes.vlines(places, lows, highs, color=INK, linewidth=0.9)
    counts = [
        {each.num_nodes for groups in systems.values() for each in groups if each.label == name} for name in names
    ]
    sizes = [f"{next(iter(found)):,}" if len(found) == 1 else "" for found in counts]
    ranges = [name.replace(" or more", "+").replace("-", "–") for name in names]
    axes.set_xticks(
        range(len(names)), [f"{name}\n{size}" for name, size in zip(ranges, sizes, strict=True)], fontsize=7.5
    )
    axes.set(xlabel=f"training interactions of {side}, and number of {side}", ylabel=metric, ylim=(0, None))
    return _with_legend(figure, min(2, len(systems)))


def contributions(runs: Mapping[str, Mapping[str, Difference]], metric: str) -> Figure:
    """Draw the change of a metric when a modality is masked."""
    names = list(dict.fromkeys(name for changes in runs.values() for name in changes))
    figure, axes = _new_figure(1.2 + 0.3 * len(names) * (0.5 + 0.5 * len(runs)))
    axes.axvline(0, color=INK, linewidth=0.8)
    shown = {label: {name: each.interval for name, each in changes.items()} for label, changes in runs.items()}
    _draw_intervals(axes, shown, names)
    axes.set(yticklabels=[f"without {_display_name(name)}" for name in names], xlabel=f"change in {metric}")
    return _with_legend(figure, min(2, len(runs)))


def item_space(found: ItemMap, labels: Int[np.ndarray, " items"], modality: str) -> Figure:
    """Draw the item map, coloured by the clusters of a modality."""
    figure, axes = _new_figure(4.0)
    # Rasterised, since thousands of points would make a huge SVG.
    style: dict[str, Any] = {"s": 5, "linewidths": 0, "alpha": 0.7, "rasterized": True}
    absent = labels < 0
    name = f"no {_display_name(modality)}" if absent.any() else None
    axes.scatter(*found.places[absent].T, color=_ABSENT, label=name, **style)
    for label, colour in zip(range(labels.max(initial=-1) + 1), COLOURS, strict=False):
        axes.scatter(*found.places[labels == label].T, color=colour, label=f"cluster {label + 1}", **style)
    first, second = (f"component {n}: {share:.0%} of the variance" for n, share in enumerate(found.shares, 1))
    axes.set(xlabel=first, ylabel=second, title=f"clusters of {_display_name(modality)}")
    return _with_legend(figure, 3, markerscale=2.5)


def to_svg(figure: Figure, prefix: str) -> str:
    """Return a transparent SVG element in the page's text colour; `prefix` makes its ids unique on the page."""
    text = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    _write_figure(figure, text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[1]}{prefix}-", svg)
    return svg.replace(INK, "currentColor")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure on white in the format of the path's suffix."""
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    picture = io.BytesIO()  # matplotlib reports a full disk with various exceptions
    _write_figure(figure, picture, format=path.suffix[1:], facecolor="white", metadata=metadata)
    with whole_file(path) as file:
        file.write(picture.getbuffer())


@_styled
def _write_figure(figure: Figure, target: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(target, dpi=160, **options)


@_styled
def _new_panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with stacked panels that share the epoch axis."""
    figure = Figure(figsize=(4.2, max(3.0, 0.7 + 1.3 * count)), layout="constrained")
    panels = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, list(panels)


class _Curve(NamedTuple):
    """Values by epoch over seeds."""

    epochs: Int[np.ndarray, " epochs"]
    mean: Float[np.ndarray, " epochs"]
    deviation: Float[np.ndarray, " epochs"] | None
    """The sample standard deviation; `None` for a single seed."""


def _curve(seeds: Sequence[History], value_of: Callable[[Mapping[str, Any]], float]) -> _Curve:
    """Compute the mean over seeds at the epochs that all seeds have."""
    by_epoch = [{record["epoch"]: value_of(record) for record in history} for history in seeds]
    epochs = sorted(set.intersection(*map(set, by_epoch)))
    values = np.array([[each[epoch] for epoch in epochs] for each in by_epoch])
    deviation = values.std(axis=0, ddof=1) if len(seeds) > 1 else None
    return _Curve(np.array(epochs, int), values.mean(axis=0), deviation)


def _draw_band(axes: Axes, curve: _Curve, colour: str, label: str) -> None:
    if curve.deviation is not None:
        ends = curve.mean - curve.deviation, curve.mean + curve.deviation
        axes.fill_between(curve.epochs, *ends, color=colour, alpha=0.2, linewidth=0)
    axes.plot(curve.epochs, curve.mean, color=colour, label=_display_name(label))


def _epoch_label(systems: Mapping[str, Sequence[History]]) -> str:
    return "epoch (mean ± deviation over seeds)" if any(len(seeds) > 1 for seeds in systems.values()) else "epoch"


class _LossLine(NamedTuple):
    """A loss of a system by epoch."""

    label: str
    objective: str
    """The title of the panel. Only lines of the same objective share a panel."""
    seeds: Sequence[History]
    name: str
    """The name of the loss in the history."""
    colour: str = INK

    @property
    def curve(self) -> _Curve:
        return _curve(self.seeds, lambda record: record["losses"].get(self.name, np.nan))


def _terms(history: History) -> list[str]:
    """Return the names of a run's losses: the total first, then its terms."""
    return ["loss", *(name for name in history[0]["losses"] if "/" not in name and name != "loss")]


def _loss_panels(lines: Sequence[_LossLine]) -> list[list[_LossLine]]:
    panels: list[list[_LossLine]] = []
    for line in lines:
        alike = (panel for panel in panels if panel[0].objective == line.objective and _share_scale([*panel, line]))
        panel = next(alike, None)
        if panel is None:
            panels.append([line])
        else:
            panel.append(line)
    return panels


def _share_scale(lines: Sequence[_LossLine]) -> bool:
    """Return whether each line spans at least a quarter of the height of all lines together."""
    values = [line.curve.mean for line in lines]
    height = np.ptp(np.concatenate(values))
    return all(np.ptp(each) >= height / 4 for each in values)


@_styled
def _new_figure(height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.2, height), layout="constrained")
    return figure, figure.subplots()


def _draw_intervals(axes: Axes, systems: Mapping[str, Mapping[str, Interval]], names: Sequence[str]) -> None:
    """Draw the intervals of each system in rows from the top."""
    for place, (label, intervals) in enumerate(systems.items()):
        rows = np.array([names.index(name) for name in intervals]) + 0.6 * _offset(place, len(systems))
        means, lows, highs = np.array(list(intervals.values())).T
        colour = COLOURS[place % len(COLOURS)]
        axes.hlines(rows, lows, highs, color=colour, linewidth=1.6)
        axes.plot(
            means, rows, _MARKERS[place % len(_MARKERS)], color=colour, markersize=4.5, label=_display_name(label)
        )
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))


@_styled
def _with_legend(figure: Figure, columns: int, **options: Any) -> Figure:
    if columns > 1:  # a single line needs no legend
        figure.legend(loc="outside lower center", ncols=columns, fontsize=8, **options)
    return figure


def _offset(place: int, count: int) -> float:
    """Return the offset of one of several systems from their common position."""
    return 0.8 * ((place + 0.5) / count - 0.5)


def _display_name(name: str) -> str:
    """Shorten a name, and put a space before a leading underscore, which would hide the name from legends."""
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
