"""Systems of a report: seeds of runs and of comparisons, and rankings without training."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from slmrec_jax import UserError, data
from slmrec_jax.commands.main import main
from slmrec_jax.reporting.facts import gather_facts
from slmrec_jax.reporting.report import write_report
from slmrec_jax.reporting.systems import _Member, _unique_labels, find_systems
from slmrec_jax.training.storage.records import write_json


@pytest.fixture(scope="module")
def compared(tiny, untrained, tmp_path_factory):
    """A comparison of popularity and two systems with two seeds each, and its facts; a third seed is unfinished."""
    out = tmp_path_factory.mktemp("compared") / "out"
    flags = ["--dim", "8", "--epochs", "1", "--ks", "5", "--models", "mf:concat,popularity,mf", "--seeds", "1,0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "demo", lambda: tiny)
        assert main(["compare", *flags, "--out", str(out)]) == 0
        shutil.copytree(out / "mf-seed0", out / "mf-seed2")
        (out / "mf-seed2" / "result.json").unlink()
        facts = gather_facts([out, out / "mf-seed0"])
    return out, facts


@pytest.mark.slow
def test_seeds_of_a_system_are_averaged(compared):
    out, facts = compared
    record = json.loads((out / "comparison.json").read_text())
    assert [each.label for each in facts.systems] == ["mf:concat", "mf", "popularity"]
    assert [[run.config.seed for run in each.runs] for each in facts.systems] == [[0, 1], [0, 1], []]
    assert [each.label for each in facts.runs] == ["mf:concat, seed 0", "mf, seed 0"]
    for each in facts.systems:
        for metric in facts.metrics:
            means = [test[metric] for test in record["systems"][each.label]]
            assert sorted(each.by_seed[metric]) == pytest.approx(sorted(means))
            assert each.metrics[metric].mean == pytest.approx(np.mean(means))
            assert each.per_user[metric].mean() == pytest.approx(np.mean(means))
        groups = each.groups["users"]
        weights = [group.num_nodes for group in groups]
        whole = np.average([group.interval.mean for group in groups], weights=weights)
        assert whole == pytest.approx(each.metrics[facts.metric].mean)
    (note,) = facts.notes
    assert note == f"{out / 'mf-seed2'} is missing or has not finished, and is left out"


def test_differences_are_tested_as_a_comparison_tests_them(compared):
    out, facts = compared
    expected = json.loads((out / "comparison.json").read_text())["p_values"]
    for metric, of_others in expected.items():
        of_metric = {each.label: each.holm for each in facts.contrasts if each.metric == metric}
        assert of_metric == pytest.approx(of_others)


def test_the_page_of_a_comparison(compared, tmp_path):
    _, facts = compared
    without_maps = facts._replace(runs=[run._replace(clusters={}) for run in facts.runs])
    write_report(without_maps, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<h1>mf:concat, mf, popularity</h1>" in page
    assert "is missing or has not finished, and is left out" in page
    with (tmp_path / "page_files" / "seeds.csv").open(newline="") as file:
        rows = {(row["metric"], row["system"]): row for row in csv.DictReader(file)}
    for each in facts.systems:
        row, values = rows["recall@20", each.label], each.by_seed["recall@20"]
        assert row["seeds"] == (str(len(values)) if each.runs else "—")
        assert float(row["mean"]) == pytest.approx(np.mean(values), rel=1e-5)
        assert float(row["deviation"]) == pytest.approx(np.std(values, ddof=1) if each.runs else math.nan, nan_ok=True)
    with (tmp_path / "page_files" / "runs.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [
            *("mf-concat-seed0", "mf-concat-seed1", "mf-seed0", "mf-seed1", "—")
        ]


def test_a_report_and_a_comparison_write_the_same_results(compared, tmp_path):
    out, facts = compared
    write_report(facts._replace(runs=[run._replace(clusters={}) for run in facts.runs]), tmp_path / "page.html")
    written = [(folder / "results.csv").read_text().splitlines() for folder in (out, tmp_path / "page_files")]
    assert len(written[0]) > 3 * 20
    assert sorted(written[0]) == sorted(written[1])
    assert "mean and standard deviation over seeds" in (tmp_path / "page.html").read_text()
    assert len(facts.measurements.histories["mf"]) == 2


def test_a_run_that_is_missing_from_a_comparison_is_named(compared, tmp_path):
    out = shutil.copytree(compared[0], tmp_path / "copy")
    shutil.rmtree(out / "mf-seed1")
    notes = find_systems([out], force=False, say=print).notes
    assert any("mf-seed1 is missing" in note for note in notes)


def test_runs_of_one_config_and_seed_are_shown_one_by_one(compared, tmp_path):
    out, _ = compared
    shutil.copytree(out / "mf-seed0", tmp_path / "copy")
    found = find_systems([out / "mf-seed0", tmp_path / "copy", out / "mf-seed1"], force=False, say=print)
    assert [each.label for each in found.systems] == ["mf-seed0", "copy", "mf-seed1"]
    assert "same settings and seed" in found.notes[0]
    found = find_systems([out / "mf-seed1", out / "mf-seed0", out / "mf-concat-seed0"], force=False, say=print)
    assert [(each.label, len(each.folders)) for each in found.systems] == [("mf", 2), ("mf-concat-seed0", 1)]
    assert found.notes == []


def test_labels_that_repeat_become_paths_and_then_numbers(compared, tmp_path):
    runs = [compared[0] / "mf-seed0", shutil.copytree(compared[0] / "mf-seed0", tmp_path / "mf-seed0")]
    found = find_systems(runs, force=False, say=print)
    assert [each.label for each in found.systems] == list(map(str, runs))
    same, ranking = _Member("a", Path("x")), _Member("popularity", Path("x"), untrained=True)
    assert _unique_labels([[same], [same], [ranking]]) == ["x (1)", "x (2)", "x/popularity"]


def test_a_comparison_that_holds_nothing_to_report_is_refused(tmp_path):
    record = {"fingerprint": "", "protocol": "", "seeds": [0], "p_values": {}, "settings": {}}
    for systems, said in (
        ([], "systems is a list of 0; expected named values"),
        ({"popularity": []}, "holds no finished run"),
    ):
        write_json(tmp_path / "comparison.json", record | {"systems": systems})
        with pytest.raises(UserError, match=said):
            find_systems([tmp_path], force=False, say=print)
