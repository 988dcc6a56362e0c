"""Figures draw any names that the data have."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from slmrec_jax import figures
from slmrec_jax.evaluation.analysis import Interval
from slmrec_jax.reporting import charts
from slmrec_jax.reporting.facts import GroupFacts

FORMULA = "$x^{$ and $y$"
"""Text that matplotlib cannot parse as a formula."""


@pytest.fixture
def saved(monkeypatch):
    """The figures that are saved."""
    found, save = [], Figure.savefig

    def savefig(figure, *arguments, **options):
        save(figure, *arguments, **options)
        found.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def texts_of(figures):
    return [text for figure in figures for text in figure.findobj(Text) if text.get_visible()]


def test_dollar_signs_in_names_are_not_formulas(tmp_path, saved):
    history = [{"epoch": 1, "losses": {"loss": 2.0}, "split": "valid", "selected": {}, "improved": False}]
    row = {"recall@20": (0.1, 0.0)}
    degrees = {"users": np.array([1, 20, 3000], np.int32)}
    missing = {FORMULA: 0.5}
    figures.draw_curves(history, tmp_path / "curves.png", FORMULA)
    figures.draw_comparison({FORMULA: row}, ["recall@20"], tmp_path / "comparison.png", FORMULA)
    figures.draw_inspection(degrees, {FORMULA: np.ones(3, np.float32)}, missing, tmp_path / "data.png", FORMULA)
    assert all(imread(path).size for path in tmp_path.iterdir())
    shown = texts_of(saved)
    assert [text.get_text() for text in shown].count(FORMULA) == 5
    assert sum(FORMULA in text.get_text() for text in shown) == 7  # norms have a title and a label of their own
    assert {text.get_parse_math() for text in shown if "mathdefault" in text.get_text()} == {True}


def test_an_inspection_has_a_filled_histogram_on_an_axis_of_its_own_for_everything(tmp_path, saved):
    degrees = {"users": np.array([3, 3, 4, 0]), "items": np.array([1, 9, 2, 2, 700])}
    norms = {"visual": np.full(5, 1.0), "textual": np.array([1e-3, 1e5, 2.0]), "clip": np.zeros(0)}
    missing = {"visual": 0.0, "textual": 0.4, "clip": 1.0, "tags": 0.25}
    figures.draw_inspection(degrees, norms, missing, tmp_path / "data.png", "shop")
    panels = [axes for axes in saved[0].axes if axes.get_visible()]
    *counted, shares = panels
    assert [axes.get_title().split(":")[0] for axes in panels] == [*degrees, *norms, "missing features"]
    assert panels[0].get_title() == "users: median 3, 1 without any"
    heights = [[bar.get_height() for bar in axes.patches] for axes in counted]
    assert [sum(each) for each in heights] == [3, 5, 5, 3, 0]
    assert all(bar.get_fill() for axes in counted for bar in axes.patches)
    assert [axes.get_xscale() for axes in counted] == ["linear", "log", "linear", "log", "linear"]
    starts = [bar.get_x() + 0.5 for bar in panels[1].patches]
    assert starts[:3] == [1, 2, 3]  # bars of whole numbers
    assert (np.diff([bar.get_width() for bar in panels[1].patches]) >= 0).all()
    assert [text.get_text() for text in shares.texts] == ["0.0%", "40.0%", "100.0%", "25.0%"]


def test_the_best_system_is_highlighted(tmp_path, saved):
    rows = {
        "a": {"recall@20": (0.1, 0.01), "ndcg@20": (0.03, 0.0), "hit@20": (0.2, 0.0)},
        "b": {"recall@20": (0.2, 0.02), "ndcg@20": (0.05, 0.0), "hit@20": (0.1, 0.0)},
    }
    figures.draw_comparison(rows, ["recall@20", "ndcg@20"], tmp_path / "one.png", "")
    figures.draw_comparison(rows, ["recall@20", "ndcg@20", "hit@20"], tmp_path / "split.png", "")
    one, split = saved
    red = to_rgba(figures.HIGHLIGHT)
    for figure, expected in ((one, ["b", "b"]), (split, ["b", "b", "a"])):
        panels = [axes for axes in figure.axes if axes.get_visible()]
        found = [
            [name for name, bar in zip(rows, axes.patches, strict=True) if bar.get_facecolor() == red]
            for axes in panels
        ]
        assert found == [[name] for name in expected]
    bold = [
        {text.get_text() for text in figure.axes[0].get_yticklabels() if text.get_fontweight() == "bold"}
        for figure in saved
    ]
    assert bold == [{"b"}, set()]  # no system is best by all three metrics


@pytest.mark.parametrize("level", [0.1301, 0.0608, 0.001])
def test_a_published_level_does_not_squash_the_lines(tmp_path, saved, level):
    points = {0.01: (0.05, 0.0), 0.1: (0.06, 0.001), 1.0: (0.055, 0.0)}
    near = level == 0.0608
    figures.draw_lines(
        {"FAC": points}, tmp_path / "lines.png", "", x="α", y="recall@10", log=True, levels={"FAC": level}
    )
    low, high = saved[0].axes[0].get_ylim()
    assert (low < level < high) == near
    assert 0.55 * (high - low) < 0.061 - 0.05
    (name,) = (text for text in texts_of(saved) if "published" in text.get_text())
    assert f"{level:.4f}" in name.get_text()
    assert ("off the axis" in name.get_text()) != near


def test_the_legend_is_beside_the_lines(tmp_path, saved):
    lines = {name: {1.0: (1.0, 0.0), 9.0: (2.0, 0.0)} for name in "abc"}
    figures.draw_lines(lines, tmp_path / "lines.png", "", x="epoch", y="loss", log=False)
    (figure,) = saved
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())


def history_of(**losses):
    """Two epochs, with half of the losses in the second."""
    record = {"epoch": 1, "losses": losses, "split": "valid", "selected": {}, "improved": False}
    return [record, {**record, "epoch": 2, "losses": {name: value / 2 for name, value in losses.items()}}]


def test_each_objective_has_its_own_axis_of_losses():
    bpr, contrast = {"loss": 0.7, "bpr": 0.6, "l2": 1.0}, {"loss": 9.0, "main": 7.0, "ssl": 20.0, "ssl/visual": 10.0}
    runs = {"a": [history_of(**bpr)], "b": [history_of(**contrast)], "c": [history_of(**contrast)]}
    first, second = charts.loss_curves(runs).axes
    assert [line.get_label() for line in first.lines] == ["a"]
    assert [line.get_label() for line in second.lines] == ["b", "c"]
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["bpr + l2", "main + ssl"]
    assert first.get_ylim()[1] < 1 < 4 < second.get_ylim()[0]
    assert len({line.get_color() for axes in (first, second) for line in axes.lines}) == 3
    flat = charts.loss_curves({"a": [history_of(**bpr)], "b": [history_of(loss=15.0, bpr=0.6, l2=9.0)]}).axes
    assert [[line.get_label() for line in axes.lines] for axes in flat] == [["a"], ["b"]]
    assert [axes.get_title(loc="left") for axes in flat] == ["bpr + l2: a", "bpr + l2: b"]
    panels = charts.loss_curves({"b": [history_of(**contrast)]}).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["loss", "main", "ssl"]
    assert [axes.lines[0].get_ydata()[0] for axes in panels] == [9.0, 7.0, 20.0]


def test_bars_by_degree_have_intervals_and_counts():
    def groups(*sizes):
        names = ("0", "2-4", "100 or more")
        return [GroupFacts(name, size, 9, Interval(0.2, 0.1, 0.4)) for name, size in zip(names, sizes, strict=False)]

    figure = charts.degree_bars({"a": groups(3, 1234, 50), "b": groups(3, 1234)}, "recall@20", "items")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0\n3", "2–4\n1,234", "100+\n50"]
    ends = [segment[:, 1].tolist() for lines in axes.collections for segment in lines.get_segments()]
    assert ends == [[0.1, 0.4]] * 5
    other = charts.degree_bars({"a": groups(3, 1234), "b": groups(3, 1235)}, "recall@20", "items")
    assert [text.get_text() for text in other.axes[0].get_xticklabels()] == ["0\n3", "2–4\n"]


def test_the_curves_of_a_run_have_an_axis_for_each_loss(tmp_path, saved):
    history = history_of(loss=9.0, main=7.0, ssl=20.0, **{"ssl/visual": 10.0})
    figures.draw_curves(history, tmp_path / "curves.png", "")
    _, *losses = saved[0].axes
    assert [axes.get_ylabel() for axes in losses] == ["loss", "main", "ssl"]
    assert [list(axes.lines[0].get_ydata()) for axes in losses] == [[9.0, 4.5], [7.0, 3.5], [20.0, 10.0]]


def test_every_run_has_its_line_in_a_legend():
    record = {"epoch": 1, "losses": {"loss": 1.0}, "split": "valid", "selected": {}, "improved": False}
    figure = charts.loss_curves({"_hidden": [[record]], "__": [[record]], "c": [[record]]})
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["_hidden", "__", "c"]


def selected(*values, best):
    """The records of epochs 1, 2, … with a selecting metric; `None` for an epoch that was not evaluated."""
    return [
        {
            "epoch": epoch,
            "losses": {"loss": 1.0 / epoch},
            "split": "valid",
            "selected": {} if value is None else {"recall@20": value},
            "improved": epoch == best,
        }
        for epoch, value in enumerate(values, 1)
    ]


def band_of(axes):
    """The epochs, lower ends and upper ends of the only band of some axes."""
    (band,) = (each for each in axes.collections if isinstance(each, PolyCollection))
    points = band.get_paths()[0].vertices
    epochs = np.unique(points[:, 0])
    ends = [(points[points[:, 0] == epoch, 1].min(), points[points[:, 0] == epoch, 1].max()) for epoch in epochs]
    return epochs.tolist(), *np.transpose(ends)


def test_curves_are_means_with_bands_over_seeds():
    seeds = [selected(0.1, None, 0.4, 0.3, best=3), selected(0.2, None, 0.2, best=1), selected(0.6, None, 0.9, best=3)]
    figure = charts.selection_curves({"many": seeds, "one": [selected(0.2, 0.3, best=2)]})
    (axes,) = figure.axes
    values = np.array([[0.1, 0.4], [0.2, 0.2], [0.6, 0.9]])
    mean, deviation = values.mean(0), values.std(0, ddof=1)
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert lines["many"].get_xdata().tolist() == [1, 3]  # the first seed's last epoch is not one of all
    np.testing.assert_allclose(lines["many"].get_ydata(), mean)
    np.testing.assert_allclose(lines["one"].get_ydata(), [0.2, 0.3])
    epochs, low, high = band_of(axes)  # and so a single seed has none
    assert epochs == [1, 3]
    np.testing.assert_allclose(low, mean - deviation)
    np.testing.assert_allclose(high, mean + deviation)
    points = {(*line.get_xdata(), *line.get_ydata()) for line in axes.lines if line.get_marker() == "o"}
    assert points == {(3, 0.4), (1, 0.2), (3, 0.9), (2, 0.3)}
    assert axes.get_ylabel() == "valid recall@20"
    assert "deviation over seeds" in axes.get_xlabel()


def test_losses_have_bands_over_seeds():
    (axes,) = charts.loss_curves({"a": [history_of(loss=4.0), history_of(loss=2.0)]}).axes
    assert axes.lines[0].get_ydata().tolist() == [3.0, 1.5]
    epochs, low, high = band_of(axes)
    assert epochs == [1, 2]
    np.testing.assert_allclose(high - low, 2 * np.std([[4.0, 2.0], [2.0, 1.0]], axis=0, ddof=1))
