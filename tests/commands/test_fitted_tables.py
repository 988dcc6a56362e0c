"""Tables in terminals of different widths: headings are whole, and paths lose their middle."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slmrec_jax.commands.main import main
from slmrec_jax.commands.tables import fit_width, groups_table, metrics_table, shorten_middle
from slmrec_jax.evaluation.groups import Group
from slmrec_jax.studies.comparison import Comparison
from slmrec_jax.studies.measurements import Measurements
from slmrec_jax.studies.results import FinishedRuns
from slmrec_jax.studies.tuning.search import Tuned
from slmrec_jax.studies.tuning.trials import Trial

METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
FOLDER = "/home/someone/experiments/with/a/long/path/lightgcn-seed0"


def shown(table, width):
    """Return the lines of a table in a terminal of this width; none of them is longer."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(fit_width(table, width))
    lines = console.file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    return lines


def headings(lines):
    """Return the headings of all tables, put together again from their lines."""
    found, inside = [], False
    for line in lines:
        if line.startswith("┃"):
            cells = [cell.strip() for cell in line.strip("┃").split("┃")]
            found += [] if inside else [[] for _ in cells]
            for column, cell in zip(found[-len(cells) :], cells, strict=True):
                column.append(cell)
        inside = line.startswith("┃")
    return ["".join(column).replace(" ", "") for column in found]


def results_table():
    test = dict.fromkeys(METRICS, 0.1234)
    row = {"model": "lightgcn", "seed": 0, "data": "tiktok", "fingerprint": "a" * 64, "test": test}
    return FinishedRuns([{"folder": FOLDER, **row}, {"folder": "runs/short", **row}], ()).table()


def comparison_table():
    rows = {name: dict.fromkeys(METRICS, (0.1234, 0.0056)) for name in ("popularity", "slmrec:fac", "lightgcn")}
    alike = {key: {"popularity": 0.001, "lightgcn": 0.5} for key in METRICS}
    title = "test, tiktok, protocol mmrec, 3 seeds"
    return Comparison(rows, METRICS, alike, title, Measurements(title, {}, {}, METRICS, METRICS[0])).table()


def trials_table():
    names = ("optimizer.learning_rate", "optimizer.weight_decay", "slmrec.temperature", "slmrec.ssl_temperature")
    point = dict.fromkeys((*names, "slmrec.alpha"), 0.0123456)
    found = [Trial(number, point, 0.1, "complete", {}, (0.1,), (12, 30, 7), 1.0) for number in range(3)]
    return Tuned(found, found[0], []).table("recall@20")


def degree_table():
    groups = [Group(label, 12345, 67890, dict.fromkeys(METRICS, 0.1)) for label in ("0", "100 or more")]
    return groups_table(groups, "items", f"{FOLDER}, test, protocol strict, items by training interactions")


TABLES = {
    "results": results_table,
    "compare": comparison_table,
    "tune": trials_table,
    "evaluate": lambda: metrics_table({"test": dict.fromkeys(METRICS, 0.1)}, f"{FOLDER}, protocol strict"),
    "evaluate --by": degree_table,
}


@pytest.mark.parametrize("width", [40, 80, 120, 300])
@pytest.mark.parametrize("name", TABLES)
def test_headings_and_figures_are_whole(name, width):
    table = TABLES[name]()
    lines = shown(table, width)
    expected = [str(column.header).replace(" ", "") for column in table.columns]
    assert set(headings(lines)) == set(expected)
    if width >= 120:
        assert headings(lines) == expected  # in one table
    text = "\n".join(lines)
    for column in table.columns:
        if column.justify == "right":
            for cell in column.cells:
                for word in Text.from_markup(cell).plain.split():
                    assert word in text


@pytest.mark.parametrize("width", [80, 120])
def test_paths_lose_their_middle(width):
    (row,) = (line for line in shown(results_table(), width) if "/h" in line or "/…" in line)
    assert re.search(r"/\S*…\S*n-seed0 ", row)
    assert FOLDER in "".join(shown(results_table(), 300))
    lines = shown(metrics_table({"test": {"recall@20": 0.1}}, f"{FOLDER}, protocol strict"), width)
    assert "seed0," in lines[0] + lines[1]


def test_deviations_are_below_means_where_there_is_no_room():
    wide, narrow = ("\n".join(shown(comparison_table(), width)) for width in (120, 80))
    assert "0.1234 ± 0.0056 ≈" in wide
    assert re.search(r"lightgcn +(│ +0\.1234 ){4}│\n│ +(│ ± 0\.0056 ≈ ){4}", narrow)


def test_a_table_with_many_columns_becomes_several_with_the_first_column():
    lines = shown(trials_table(), 60)
    assert headings(lines).count("trial") == 2
    assert sum("best trials" in line for line in lines) == 1


def test_a_table_that_fits_stays_as_it_is():
    table = Table("system", title=Text("a title of more words"), title_justify="left", caption="below")
    table.add_column("recall@20", justify="right")
    table.add_row("a/b", "[bold]0.1[/bold]")
    consoles = [Console(file=io.StringIO(), width=60, force_terminal=True) for _ in range(2)]
    consoles[0].print(table)
    consoles[1].print(fit_width(table, 60))
    assert consoles[0].file.getvalue() == consoles[1].file.getvalue()


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("runs/a", 6, "runs/a"),
        ("/var/runs/of/a/study/slmrec-seed0", 20, "/var/r…/slmrec-seed0"),
        ("/var/runs/of/a/study/slmrec-seed0", 14, "/…slmrec-seed0"),
        ("/var/runs/of/a/study/slmrec-seed0", 9, "/…c-seed0"),
        ("/var/商品/推荐/系统", 12, "/var…荐/系统"),
        ("abc", 1, "…"),
    ],
)
def test_the_last_name_of_a_path_is_kept_longest(text, width, expected):
    found = shorten_middle(text, width)
    assert found == expected
    assert cell_len(found) <= width


@pytest.mark.parametrize("columns", [80, 120])
def test_inspect_wraps_texts_beside_their_names(tiny_demo, monkeypatch, capsys, columns):
    assert main(["data", "inspect", "demo"]) == 0
    plain = capsys.readouterr().out.splitlines()
    fingerprint = next(line for line in plain if line.startswith("fingerprint"))
    assert len(fingerprint.split()[1]) == 64  # on one line where the output is not a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["data", "inspect", "demo"]) == 0
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines).split()).startswith("data set ")
    assert [line.split("  ")[0] for line in lines if line[0] not in " !"] == [
        line.split("  ")[0] for line in plain if line[0] != "!"
    ]
    assert all(line.startswith(("! ", "  ")) for line in lines if line[0] in " !")
