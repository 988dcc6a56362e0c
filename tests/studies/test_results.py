"""Finished runs side by side: runs that are comparable, and those that are refused."""

import io
import json

import pytest
from rich.console import Console

from slmrec_jax.commands.main import main
from slmrec_jax.errors import UserError
from slmrec_jax.studies.results import read_finished_runs
from slmrec_jax.training.storage.folder import CONFIG, DATA, RESULT
from slmrec_jax.training.storage.records import write_json

TEST = {"recall@10": 0.1, "ndcg@10": 0.05, "recall@20": 0.2, "ndcg@20": 0.08}


@pytest.fixture
def finished(tmp_path):
    """Return a function that makes the folder of a finished run."""

    def make(name, *, test=TEST, fingerprint="a" * 64, protocol="mmrec", seed=0, rules=None):
        folder = tmp_path / name
        folder.mkdir()
        write_json(folder / CONFIG, {"model": "mf", "eval": rules or {}})
        sizes = {"users": 4, "items": 5, "interactions": {"train": 9}, "modalities": []}
        write_json(folder / DATA, {"name": "shop", "fingerprint": fingerprint, **sizes})
        counts = ("epochs", "skipped_steps", "rollbacks", "step_ms", "estimated_bytes", "peak_rss_bytes")
        result = {"best_epoch": 3, "seed": seed, "fingerprint": fingerprint, "protocol": protocol, "seconds": {}}
        tested = {} if test is None else {"test": test}
        write_json(folder / RESULT, {**tested, **result, **dict.fromkeys(counts, 5)})
        return folder

    return make


def test_runs_on_the_same_data_are_shown_side_by_side(finished, capsys):
    other = {**TEST, "recall@20": 0.3, "recall@50": 0.5}
    folders = [finished("one"), finished("two", test=other, seed=1)]
    assert main(["results", *map(str, folders), "--format", "json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["folder"], first["model"], first["seed"], first["test"]) == (str(folders[0]), "mf", 0, TEST)
    assert (second["seed"], second["test"]) == (1, other)
    table = read_finished_runs(folders).table()
    assert [column.header for column in table.columns][4:] == ["recall@10", "ndcg@10", "recall@20", "ndcg@20"]
    assert list(table.columns[6].cells) == ["0.2000", "0.3000"]
    assert table.caption is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"fingerprint": "b" * 64}, "on different data"),
        ({"protocol": "strict"}, "under a different protocol"),
        ({"rules": {"candidates": "cold"}}, "was tested with cold for --eval.candidates, and"),
        ({"rules": {"test_users": 10, "patience": 3}}, "was tested with 10 for --eval.test-users, and"),
    ],
)
def test_runs_that_are_not_comparable_are_refused_unless_forced(finished, capsys, other, said):
    folders = [str(finished("one")), str(finished("two", **other))]
    assert main(["results", *folders]) == 1
    refusal = capsys.readouterr().err
    assert refusal.count("\n") == 1
    for part in (folders[1], said, "--force"):
        assert part in refusal
    assert main(["results", *folders, "--force"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert said in shown
    assert shown.count("0.2000") == 2


def test_runs_that_were_only_trained_by_other_rules_are_comparable(finished):
    folders = [finished("one"), finished("two", rules={"patience": 3, "users": 10, "candidates": "all"})]
    assert read_finished_runs(folders).differences == ()
    # The protocol's name stands for its rules.
    other = finished("three", protocol="strict", rules={"mask_valid_at_test": True})
    assert len(read_finished_runs([folders[0], other], force=True).differences) == 1


def test_brackets_in_names_are_shown(finished, capsys):
    folders = [finished("one [bold]"), finished("[red]two", protocol="strict")]
    gathered = read_finished_runs(folders, force=True)
    table = gathered.table()
    assert [str(cell) for cell in table.columns[0].cells] == [str(folder) for folder in folders]
    console = Console(file=io.StringIO(), width=1000)
    console.print(table)
    assert all(console.file.getvalue().count(folder.name) == 2 for folder in folders)  # row and caption


def test_a_run_that_does_not_say_what_it_measured_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match="does not record its test metrics, so"):
        read_finished_runs([finished("untested", test=None)])
    with pytest.raises(UserError, match="give the folder of a run"):
        read_finished_runs([tmp_path])
    (finished("stopped") / RESULT).unlink()
    with pytest.raises(UserError, match="has not finished"):
        read_finished_runs([tmp_path / "stopped"])


def test_no_runs(capsys):
    assert main(["results"]) == 1
    assert "give their folders" in capsys.readouterr().err
