import csv
import json
import re

import numpy as np
import pyarrow.parquet
import pytest

from slmrec_jax.commands.main import main
from slmrec_jax.config import Config
from slmrec_jax.evaluation.protocol import evaluate, plan_evaluation
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.training.loading import load_run


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.slow
def test_compare(cheap, tiny, tiny_demo, tmp_path, capsys, refused):
    out = tmp_path / "compared"
    arguments = ["compare", *cheap[2:], "--models", "popularity,itemknn,mf:linear", "--seeds", "0,1", "--out", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert re.search(r"mf:linear[^±]*│\n│ +│ ± ", said.out)  # a deviation is below its mean where a terminal is narrow
    figures = json.loads((out / "comparison.json").read_text())
    assert {name: len(results) for name, results in figures["systems"].items()} == {
        "popularity": 1,
        "itemknn": 1,
        "mf:linear": 2,
    }
    assert {len(of_others) for of_others in figures["p_values"].values()} == {2}
    assert (out / "comparison.png").stat().st_size > 5000
    assert (out / "curves.png").stat().st_size > 5000
    users = pyarrow.parquet.read_table(out / "users.parquet").to_pydict()
    assert set(zip(users["system"], users["seed"], strict=True)) == {
        ("popularity", None),
        ("itemknn", None),
        ("mf:linear", 0),
        ("mf:linear", 1),
    }
    evaluation = load_run(out / "mf-linear-seed1", tiny).evaluate("test")
    own = np.array([seed == 1 for seed in users["seed"]])
    for metric, values in evaluation.per_user.items():
        np.testing.assert_array_equal(np.array(users[metric])[own], values)
    written = (out / "mf-linear-seed1" / "result.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert capsys.readouterr().err.count("finished before") == 2
    assert (out / "mf-linear-seed1" / "result.json").stat().st_mtime_ns == written
    assert "another config" in refused(*arguments, "--batch-size", "64")


def test_a_comparison_writes_its_results(tiny, tiny_demo, tmp_path):
    """Of rankings without training, which have no curves."""
    out = tmp_path / "out"
    assert main(["compare", "--models", "popularity,itemknn", "--ks", "5", "--out", str(out)]) == 0
    names = {"comparison.json", "comparison.png", "results.md", "results.csv", "results.tex", "users.parquet"}
    assert {path.name for path in out.iterdir()} == names
    with (out / "results.csv").open(newline="") as file:
        rows = {(row["system"], row["metric"]): row for row in csv.DictReader(file)}
    users = pyarrow.parquet.read_table(out / "users.parquet").to_pydict()
    systems = json.loads((out / "comparison.json").read_text())["systems"]
    for name, (values,) in systems.items():
        expected = evaluate(plan_evaluation(tiny, "test", Config().eval, (5,)), UNTRAINED[name](Config(), tiny))
        own = np.array([system == name for system in users["system"]])
        assert np.array(users["user"])[own].tolist() == tiny.user_ids[expected.users].tolist()
        for metric, value in values.items():
            assert float(rows[name, metric]["mean"]) == value == expected.means[metric]
            np.testing.assert_array_equal(np.array(users[metric])[own], expected.per_user[metric])
    for metric in ("coverage@20", "gini@20", "novelty@20", "popularity@20", "recall@20 users 0-9", "ndcg@20 items 0-9"):
        assert {rows[name, metric]["rank"] for name in systems} == {"1", "2"}
    assert "popularity@20 $\\downarrow$" in (out / "results.tex").read_text()
    assert "| recall@5 | ndcg@5 |" in (out / "results.md").read_text()


@pytest.mark.parametrize("size", [50, 4000])
def test_a_full_disk_ends_a_comparison_in_one_line(tiny_demo, tmp_path, refused, size, refusing_disk):
    """At the table, and at the picture."""
    refusing_disk(size)
    said = refused("compare", "--models", "popularity", "--out", str(tmp_path / "out"))
    assert "File too large; free some space, or give another --out; the same command does not repeat finished" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"comparison.json"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:", "line 1 is not Python"),
        ("x = 1", "no function get_config"),
        ("def get_config():\n    return None", "returns None"),
        (
            "def get_config():\n    import slmrec_jax\n    return slmrec_jax.Config()\nmake_method = 1",
            "has make_method(), which compare cannot use",
        ),
    ],
)
def test_config_files_that_cannot_be_used(refused, tmp_path, code, said):
    (tmp_path / "mine.py").write_text(code)
    assert said in refused("compare", "--config", str(tmp_path / "mine.py"), "--out", str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["users.parquet", "curves.png", "config.json"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, refused, name):
    """A data set, a run or an export has files of these names."""
    (tmp_path / name).write_text("kept")
    assert "but no comparison: give another --out" in refused(
        "compare", "--models", "popularity", "--out", str(tmp_path)
    )
    assert (tmp_path / name).read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == [name]
