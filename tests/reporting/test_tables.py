"""Cells, CSV and LaTeX of tables, and elements of the page."""

import csv
import io
import math

import numpy as np

from slmrec_jax.evaluation.analysis import Interval, uniformity
from slmrec_jax.reporting.page import element
from slmrec_jax.reporting.tables import ReportTable, cell_text, escape_latex, is_numeric_column, to_csv, to_latex


def test_texts_and_attributes_are_escaped():
    assert element("p", '<b a="1">', class_='"x', aria_label="&") == (
        '<p class="&quot;x" aria-label="&amp;">&lt;b a=&quot;1&quot;&gt;</p>'
    )
    assert element("p", element("b", "&")) == "<p><b>&amp;</b></p>"


def test_tables_as_csv_and_latex():
    rows = [("a\\b\n{$x}", Interval(0.5, 0.25, 1 / 3)), ("#", 2e-6)]
    table = ReportTable("t", "50 % & more_", ("item", "value"), rows)
    assert list(csv.reader(to_csv(table).splitlines(keepends=True))) == [
        ["item", "value", "value low", "value high"],
        ["a\\b\n{$x}", "0.5", "0.25", "0.333333"],
        ["#", "2e-06", "", ""],
    ]
    latex = to_latex(table)
    assert r"\caption{50 \% \& more\_}" in latex
    assert r"a\textbackslash{}b \{\$x\} & 0.5000 {[}0.2500, 0.3333{]} \\" in latex
    assert r"\# & 2.0e-06 \\" in latex
    assert escape_latex('<"a">') == r"\textless{}''a''\textgreater{}"  # without a package or an encoding
    assert r"\begin{tabular}{lr}" in latex


def test_a_spreadsheet_finds_no_formula():
    cells = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "a=1", "-5", -0.5, -3, "—", ""]
    column = ReportTable("t", "", ("=x",), [(cell,) for cell in cells])
    name, *found = (line[0] for line in csv.reader(io.StringIO(to_csv(column))))
    assert name == "'=x"
    assert found[:6] == [f"'{cell}" for cell in cells[:6]]
    assert found[6:] == ["a=1", "-5", "-0.5", "-3", "—", ""]
    table = ReportTable("t", "", ("run", "=x"), [("@a", Interval(-0.5, -1.0, 0.0)), ("b", "=none")])
    assert list(csv.reader(io.StringIO(to_csv(table)))) == [
        ["run", "'=x", "'=x low", "'=x high"],
        ["'@a", "-0.5", "-1", "0"],
        ["b", "'=none", "", ""],
    ]


def test_an_undefined_value_is_a_dash():
    row = ("a", uniformity(np.ones((1, 2), np.float32)), math.nan)
    table = ReportTable("t", "", ("run", "uniformity", "none"), [row])
    assert [cell_text(cell) for cell in row] == ["a", "—", "—"]
    assert not is_numeric_column(table, 1)
    assert is_numeric_column(table._replace(rows=[row, ("b", -1.5, math.nan)]), 1)
