"""Figures draw any names that the data have."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from slmrec_jax import figures
from slmrec_jax.reporting import charts

FORMULA = "$x^{$ and $y$"
"""Text that matplotlib cannot parse as a formula."""


@pytest.fixture
def shown(monkeypatch):
    """All texts of the figures that are saved."""
    texts, save = [], Figure.savefig

    def savefig(figure, *arguments, **options):
        save(figure, *arguments, **options)
        texts.extend(text for text in figure.findobj(Text) if text.get_visible())

    monkeypatch.setattr(Figure, "savefig", savefig)
    return texts


def test_dollar_signs_in_names_are_not_formulas(tmp_path, shown):
    history = [{"epoch": 1, "losses": {"loss": 2.0}, "split": "valid", "selected": {}, "improved": False}]
    row = {"recall@20": (0.1, 0.0)}
    degrees = {"users": np.array([1, 20, 3000], np.int32)}
    missing = {FORMULA: 0.5}
    figures.draw_curves(history, tmp_path / "curves.png", FORMULA)
    figures.draw_comparison({FORMULA: row}, ["recall@20"], tmp_path / "comparison.png", FORMULA)
    figures.draw_inspection(degrees, {FORMULA: np.ones(3, np.float32)}, missing, tmp_path / "data.png", FORMULA)
    assert all(imread(path).size for path in tmp_path.iterdir())
    assert [text.get_text() for text in shown].count(FORMULA) == 6
    assert {text.get_parse_math() for text in shown if "mathdefault" in text.get_text()} == {True}


def test_every_run_has_its_line_in_a_legend():
    record = {"epoch": 1, "losses": {"loss": 1.0}, "split": "valid", "selected": {}, "improved": False}
    figure = charts.loss_curves({"_hidden": [record], "__": [record], "c": [record]})
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["_hidden", "__", "c"]
