"""The files of results for a paper: tables as they are written, users as Parquet, and curves."""

import csv
import io

import numpy as np
import pyarrow.parquet
import pytest
from made_results import BASE, USERS, measured, measurements
from matplotlib.image import imread
from matplotlib.text import Text

from slmrec_jax.errors import UserError
from slmrec_jax.reporting import paper
from slmrec_jax.reporting.paper import results_csv, results_latex, results_markdown, write_results
from slmrec_jax.studies.measurements import scores_of

SYSTEMS = {
    "slm_rec & co": [measured(BASE + 0.25), measured(BASE + 0.5, seed=1)],
    "a|b": [measured(BASE, seed=None, coverage=0.75)],
    "*c*": [measured(BASE, seed=None, coverage=0.75)],
}
"""A best system of two seeds, and two that tie; the differences are the same for all users, and so p is 0."""

MADE = measurements(SYSTEMS, title="test, my_shop, protocol strict, 2 seeds")

MARKDOWN = """\
**Accuracy**: test, my\\_shop, protocol strict, 2 seeds. Mean ± standard deviation over seeds. The best is bold, the \
second best underlined. †: differs from the best (paired two-sided t-test over users, Holm's correction, p < 0.05).

| system | recall@20 |
| --- | ---: |
| slm\\_rec & co | **0.8438 ± 0.1768** |
| a\\|b | <u>0.4688</u>† |
| \\*c\\* | <u>0.4688</u>† |

**Beyond accuracy**: test, my\\_shop, protocol strict, 2 seeds. Coverage: share of the catalogue that is in any list. \
Gini: inequality of the items' exposure, 0 if all are in equally many lists. Novelty: mean self-information of the \
recommended items in bits. Popularity: their mean number of training interactions. Coverage and Gini are of all lists \
together and are not tested. Mean ± standard deviation over seeds. The best is bold, the second best underlined.

| system | coverage@20 ↑ | gini@20 ↓ | novelty@20 ↑ |
| --- | ---: | ---: | ---: |
| slm\\_rec & co | 0.5000 ± 0.0000 | 0.5000 ± 0.0000 | **3.00 ± 0.00** |
| a\\|b | **0.7500** | **0.2500** | **3.00** |
| \\*c\\* | **0.7500** | **0.2500** | **3.00** |
"""

LATEX = r"""% Needs \usepackage{booktabs}.
\begin{table}
\caption{Accuracy: test, my\_shop, protocol strict, 2 seeds. Mean $\pm$ standard deviation over seeds. The best is bold, the second best underlined. $^\dagger$: differs from the best (paired two-sided $t$-test over users, Holm's correction, $p < 0.05$).}
\begin{tabular}{lr}
\toprule
system & recall@20 \\
\midrule
slm\_rec \& co & \textbf{0.8438 $\pm$ 0.1768} \\
a\textbar{}b & \underline{0.4688}$^\dagger$ \\
*c* & \underline{0.4688}$^\dagger$ \\
\bottomrule
\end{tabular}
\end{table}
"""  # noqa: E501

CSV = """\
system,metric,mean,deviation,seeds,p_value,rank
slm_rec & co,recall@20,0.84375,0.1767766952966369,2,,1
a|b,recall@20,0.46875,,1,0.0,2
*c*,recall@20,0.46875,,1,0.0,2
slm_rec & co,coverage@20,0.5,0.0,2,,3
a|b,coverage@20,0.75,,1,,1
*c*,coverage@20,0.75,,1,,1
"""


def test_markdown_and_latex_and_csv_are_as_written_here():
    scores = scores_of(MADE)
    assert results_markdown(MADE, scores) == MARKDOWN
    latex = results_latex(MADE, scores)
    assert latex.startswith(LATEX)
    assert r"system & coverage@20 $\uparrow$ & gini@20 $\downarrow$ & novelty@20 $\uparrow$ \\" in latex
    assert results_csv(scores).replace("\r\n", "\n").startswith(CSV)


def test_two_that_tie_for_the_best_leave_no_second():
    made = measurements({"a": [measured(BASE)], "b": [measured(BASE)], "c": [measured(BASE / 2)]})
    lines = results_markdown(made, scores_of(made)).splitlines()
    assert lines[4:7] == ["| a | **0.4688** |", "| b | **0.4688** |", "| c | 0.2344 |"]
    assert "†" not in lines[0]  # four users show nothing
    assert "deviation" not in lines[0]  # one seed has none


@pytest.mark.parametrize(
    ("systems", "comparable", "said"),
    [({"a": [measured(BASE)]}, True, ""), ({"a": [measured(BASE)], "b": [measured(0.1)]}, False, "cannot be compared")],
)
def test_nothing_is_best_without_a_comparison(systems, comparable, said):
    made = measurements(systems, comparable=comparable)
    text = results_markdown(made, scores_of(made))
    assert "| a | 0.4688 |" in text
    assert not set("†<") & set(text)
    assert said in text
    assert "is bold" not in text


def test_csv_has_the_numbers_in_full_and_no_formula():
    made = measurements({"=1+1": [measured(1 / 3), measured(1 / 7, seed=1)], "b": [measured(0.1 + BASE)]})
    scores = scores_of(made)
    first = next(csv.DictReader(io.StringIO(results_csv(scores))))
    assert first["system"] == "'=1+1"
    assert float(first["mean"]) == scores[0].mean
    assert float(first["deviation"]) == scores[0].deviation
    assert float(first["p_value"]) == scores[0].p_value


def test_users_are_read_back_as_they_were_measured(tmp_path):
    systems = {**SYSTEMS, "thirds": [measured(BASE / 3, novelty=BASE * 7.1)]}
    write_results(measurements(systems), tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "users.parquet")
    assert table.column_names == ["system", "seed", "user", "recall@20", "novelty@20"]
    rankings = [(name, each) for name, found in systems.items() for each in found]
    assert table["system"].to_pylist() == [name for name, _ in rankings for _ in USERS]
    assert table["seed"].to_pylist() == [each.seed for _, each in rankings for _ in USERS]
    assert table["user"].to_pylist() == ["u1", "u3", "u4", "u6"] * 5
    for metric in table.column_names[3:]:
        expected = np.concatenate([each.per_user[metric] for _, each in rankings])
        np.testing.assert_array_equal(table[metric].to_numpy(), expected)
    assert {path.name for path in tmp_path.iterdir()} == {"results.md", "results.csv", "results.tex", "users.parquet"}


@pytest.mark.parametrize("largest", [2**63 - 1, 2**63])
def test_ids_beyond_what_a_column_of_integers_holds_are_text(tmp_path, largest):
    ids = np.arange(8, dtype=np.uint64)
    ids[USERS[-1]] = largest
    write_results(measurements({"hashes": [measured(BASE, user_ids=ids)]}), tmp_path)
    found = pyarrow.parquet.read_table(tmp_path / "users.parquet")["user"].to_pylist()
    assert found == ([1, 3, 4, largest] if largest < 2**63 else ["1", "3", "4", str(largest)])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([np.arange(8) * 10], [10, 30, 40, 60]), ([np.arange(8), np.array(["\ud800"] * 8)], ["1", "3", "4", "6"])],
)
def test_raw_ids_are_integers_only_if_all_are(tmp_path, ids, expected):
    made = measurements({f"s{place}": [measured(BASE, user_ids=each)] for place, each in enumerate(ids)})
    write_results(made, tmp_path)
    users = pyarrow.parquet.read_table(tmp_path / "users.parquet")["user"].to_pylist()
    assert users[:4] == expected
    assert users[4:] == ["\\ud800"] * 4 * (len(ids) - 1)


def history(*values, **changes):
    shared = {"losses": {"loss": 1.0}, "split": "valid", "improved": False, **changes}
    return [{**shared, "epoch": epoch, "selected": {"recall@20": value}} for epoch, value in enumerate(values, 1)]


@pytest.mark.parametrize(("selected", "drawn"), [(True, "valid recall@20"), (False, "training loss")])
def test_curves_are_drawn_of_trained_systems(tmp_path, monkeypatch, selected, drawn):
    """Without a selecting metric, they are those of losses."""
    saved = []
    save = paper.save_figure
    monkeypatch.setattr(paper, "save_figure", lambda figure, path: saved.append(figure) or save(figure, path))
    seeds = [history(0.1, 0.2), history(0.2, 0.4)]
    if not selected:
        seeds = [[record | {"selected": {}} for record in each] for each in seeds]
    made = measurements(SYSTEMS, histories={"slm_rec & co": seeds})
    write_results(made, tmp_path)
    assert drawn in {text.get_text() for text in saved[0].findobj(Text)}
    pixels = imread(tmp_path / "curves.png")
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10
    write_results(made, tmp_path, curves=False)  # the curves of an earlier comparison are not of this one
    assert not (tmp_path / "curves.png").exists()


def test_a_file_that_cannot_be_replaced_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "users.parquet").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="symbolic link"):
        write_results(MADE, tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not list(tmp_path.glob(".part*"))
