"""The search for settings: proposals, resumption, and the files that it writes."""

import csv
import json
import os
import pickle
import re
import resource
import runpy
import signal
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import slmrec_jax.studies.tuning
from slmrec_jax import UserError, data
from slmrec_jax.commands.main import main
from slmrec_jax.data.dataset import take_rows
from slmrec_jax.errors import Diverged
from slmrec_jax.studies.tuning.space import Choices, Range, grid
from slmrec_jax.training.storage.folder import write_config
from slmrec_jax.training.storage.lock import locked

pytest.importorskip("optuna", reason="the extra `tune` is not installed")

from slmrec_jax.studies.tuning import search, trials

SPACE = {"slmrec.alpha": Choices((0.1, 0.5)), "task": Choices(("fac", "fd", "fm"))}
RANGES = {"optimizer.learning_rate": Range(1e-4, 1e-1, True, False), "batch_size": Range(64, 512, True, True)}


def quality(point):
    """Return a different value for each point of `SPACE`."""
    return point["slmrec.alpha"] + {"fac": 0.3, "fd": 0.2, "fm": 0.1}[point["task"]]


def trained(value, epochs=4):
    """Yield the records of two seeds after each epoch; their metric rises to a value."""
    history = []
    for epoch in range(1, epochs + 1):
        history.append({"epoch": epoch, "selected": {"recall@20": value * epoch / epochs}, "improved": True})
        yield [history, history]


def by_quality(point):
    return trained(quality(point))


def searched(folder, space, sampler, count, train, seeds=(0, 1)):
    """Open the folder, run so many trials, and return all of them."""
    folder.mkdir(exist_ok=True)
    opened = trials.open_search(folder, space, sampler, seeds)
    for _ in range(count):
        trials.run_trial(opened, train)
    return [trial._replace(seconds=0.0) for trial in trials.trials(opened)]


def test_a_grid_is_tried_point_by_point_and_resumes(tmp_path):
    whole = searched(tmp_path / "whole", SPACE, "grid", 6, by_quality)
    searched(tmp_path / "parts", SPACE, "grid", 2, by_quality)
    assert searched(tmp_path / "parts", SPACE, "grid", 4, by_quality) == whole
    assert [trial.point for trial in whole] == grid(SPACE)
    assert all(trial.state == "complete" for trial in whole)


def by_rate(point):
    rate = point["optimizer.learning_rate"]
    return trained(1.0 / (1.0 + abs(rate - 0.01) / rate), epochs=8)


def test_a_resumed_search_proposes_and_prunes_as_an_uninterrupted_one(tmp_path):
    whole = searched(tmp_path / "whole", RANGES, "tpe", 16, by_rate)
    for count in (3, 9, 4):
        parts = searched(tmp_path / "parts", RANGES, "tpe", count, by_rate)
    assert parts == whole
    assert len({trial.point["optimizer.learning_rate"] for trial in whole}) == 16
    assert {trial.state for trial in whole} == {"complete", "pruned"}
    for trial in whole:
        if trial.state == "pruned":
            epoch = max(trial.curve)
            others = [each.curve[epoch] for each in whole[: trial.number] if each.state == "complete"]
            assert epoch >= trials.PRUNE_AFTER_EPOCHS
            assert len(others) >= trials.PRUNE_AFTER_TRIALS
            assert trial.value < statistics.median(others)
    other = searched(tmp_path / "other", RANGES, "tpe", 1, by_rate, seeds=(2,))
    assert other[0].point != whole[0].point


def test_an_interrupted_trial_is_not_counted(tmp_path):
    def broken(point):
        yield from trained(0.9, epochs=2)
        raise KeyboardInterrupt

    before = searched(tmp_path / "s", SPACE, "grid", 1, lambda point: trained(0.5))
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "s", SPACE, "grid", 1, broken)
    assert searched(tmp_path / "s", SPACE, "grid", 0, broken) == before
    after = searched(tmp_path / "s", SPACE, "grid", 1, lambda point: trained(0.6))
    assert [trial.point for trial in after] == grid(SPACE)[:2]


def test_a_diverged_trial_counts_as_0_and_is_never_best(tmp_path):
    def diverges(point):
        yield from trained(0.9, epochs=2)
        raise Diverged("the loss of seed 0 is not finite in epoch 3")

    found = searched(tmp_path / "s", SPACE, "grid", 1, diverges)
    assert (found[0].state, found[0].value) == ("diverged", 0.0)
    with pytest.raises(UserError, match="diverged in every trial"):
        trials.best_trial(found)
    found = searched(tmp_path / "s", SPACE, "grid", 1, lambda point: trained(0.0))
    assert trials.best_trial(found).number == 1


def test_a_pruned_trial_is_never_best(tmp_path):
    """Not even when its value is the highest: it may have been pruned by a seed or an epoch that was ahead."""
    complete, pruned = (
        trials.Trial(number, {"lr": 0.1}, value, state, {}, (value,), (1,), 0.0)
        for number, (value, state) in enumerate([(0.5, "complete"), (0.9, "pruned")])
    )
    for found in ([complete, pruned], [pruned, complete]):
        assert trials.best_trial(found) is complete
        shown = search.Tuned(found, complete, []).table("recall@20")
        assert [str(cell) for cell in shown.columns[0].cells] == ["0", "1"]
    with pytest.raises(UserError, match="diverged in every trial"):
        trials.best_trial([pruned])


def test_a_torn_last_line_is_cut_off(tmp_path):
    before = searched(tmp_path / "s", SPACE, "grid", 2, by_quality)
    with (tmp_path / "s" / trials.JOURNAL).open("a") as journal:
        journal.write('{"op_code":4,"wor')
    assert searched(tmp_path / "s", SPACE, "grid", 0, None) == before
    assert len(searched(tmp_path / "s", SPACE, "grid", 1, by_quality)) == 3


class Bomb:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    "content",
    [
        b"no json\n{}\n",
        b'{"op_code":99}\n{"op_code":0}\n',
        b"[]\n[]\n",
        b'{"op_code":4,"study_id":0}\n{"op_code":4,"study_id":0}\n',
        pickle.dumps(Bomb()) + b"\n\n",
    ],
)
def test_a_damaged_journal_is_refused_and_executes_nothing(tmp_path, content):
    (tmp_path / trials.JOURNAL).write_bytes(content)
    with pytest.raises(UserError, match="journal is damaged"):
        trials.open_search(tmp_path, SPACE, "grid", (0,))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.parent / "mine"), Path.mkdir])
def test_a_path_that_is_no_file_is_not_written_to(tmp_path, make):
    (tmp_path / "mine").write_text("mine")
    make(tmp_path / trials.JOURNAL)
    with pytest.raises(UserError, match="is not a regular file"):
        trials.open_search(tmp_path, SPACE, "grid", (0,))
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("change", ["a value", "a trial removed", "two exchanged"])
def test_a_journal_that_was_changed_is_refused(tmp_path, change):
    searched(tmp_path, SPACE, "grid", 3, by_quality)
    journal = tmp_path / trials.JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    entries = [place for place, line in enumerate(lines) if '"distributions"' in line]
    assert len(entries) == 3
    first, second = entries[:2]
    if change == "a value":
        entry = json.loads(lines[first])
        entry["values" if entry.get("values") else "value"] = 0.99
        lines[first] = json.dumps(entry) + "\n"
    elif change == "a trial removed":
        del lines[first]
    else:
        lines[first], lines[second] = lines[second], lines[first]
    journal.write_text("".join(lines))
    with pytest.raises(UserError, match="was changed or removed after it was written"):
        trials.open_search(tmp_path, SPACE, "grid", (0,))


@pytest.mark.parametrize("size", [0, 100])
def test_a_full_disk_is_no_damage(tmp_path, size, refusing_disk):
    """Neither when the journal is made nor when a trial is recorded; with room again the search continues."""
    if size:
        searched(tmp_path, SPACE, "grid", 1, by_quality)
        size = (tmp_path / trials.JOURNAL).stat().st_size + 100
    refusing_disk(size)
    with pytest.raises(OSError, match="File too large"):
        searched(tmp_path, SPACE, "grid", 1, by_quality)
    refusing_disk(resource.RLIM_INFINITY)
    assert len(searched(tmp_path, SPACE, "grid", 1, by_quality)) == (2 if size else 1)


@pytest.fixture
def pretended(tiny, monkeypatch):
    """Replace training by made-up values; return the configs of trials, and the folders and configs of runs."""
    calls = {"trials": [], "runs": []}

    def fit_seeds(planned, plan, seeds):
        assert plan.held_out is tiny.valid
        config = planned.config
        calls["trials"].append(config)
        histories = [[] for _ in seeds]
        for epoch in range(1, config.epochs + 1):
            for place, history in enumerate(histories):
                value = config.mf.l2 * epoch + place
                record = {"epoch": epoch, "losses": {"loss": 1.0}, "split": "valid", "metrics": {}}
                history.append(
                    record
                    | {
                        "selected": {"recall@20": value},
                        "improved": True,
                        "train_seconds": 0.0,
                        "evaluate_seconds": 0.0,
                    }
                )
            yield histories

    def finish_run(config, dataset, folder, tell):
        folder.mkdir(exist_ok=True)
        write_config(folder, config, {"method": None, "config_file": None})
        calls["runs"].append((folder.name, config))
        return SimpleNamespace(config=config, result={"test": {"recall@20": 0.123456}})

    monkeypatch.setattr(data, "demo", lambda: tiny)
    monkeypatch.setattr(search, "fit_seeds", fit_seeds)
    monkeypatch.setattr(search, "finish_run", finish_run)
    return calls


ARGUMENTS = ["tune", "--model", "mf", "--dim", "4", "--epochs", "3", "--sampler", "grid", "--seeds", "0,3"]
ARGUMENTS += ["--space", "lr=0.01", "wd=0", "mf.l2=0.1,0.3,0.2"]


def tune(out, *flags):
    return main([*ARGUMENTS, *flags, "--out", str(out)])


def valid_values(out):
    with (out / "trials.csv").open() as table:
        assert not re.search(r"\d\.\d{11}", table.read())  # six digits are enough
        table.seek(0)
        return [float(row["valid recall@20"]) for row in csv.DictReader(table)]


def test_the_command_searches_resumes_and_tests_only_the_best(pretended, tmp_path, capsys):
    out = tmp_path / "search"
    assert tune(out, "--trials", "1") == 0
    assert tune(out) == 0  # which finds a better one
    said = capsys.readouterr()
    assert [config.mf.l2 for config in pretended["trials"]] == [0.1, 0.3, 0.2]
    assert "1 trial finished before" in said.err
    assert "0.1235" not in said.err
    assert said.out.count("0.1235") == 4  # both seeds, in both calls
    assert {name: config.mf.l2 for name, config in pretended["runs"]} == {
        "best-trial0-seed0": 0.1,
        "best-trial0-seed3": 0.1,
        "best-trial1-seed0": 0.3,
        "best-trial1-seed3": 0.3,
    }
    assert valid_values(out) == pytest.approx([0.8, 1.4, 1.1])
    best = runpy.run_path(str(out / "best.py"))["get_config"]()
    assert (best.model, best.mf.l2, best.optimizer.learning_rate, best.epochs) == ("mf", 0.3, 0.01, 3)
    assert (out / "tuning.png").stat().st_size > 5000
    assert json.loads((out / "study.json").read_text())["space"]["mf.l2"] == {"choices": [[0.1, 0.3, 0.2]]}
    assert tune(out) == 0
    assert len(pretended["trials"]) == 3


@pytest.mark.parametrize("size", [0, 1500, 3000])
def test_a_full_disk_is_one_line_and_the_same_command_continues(pretended, tmp_path, capsys, size, refusing_disk):
    """The disk is full at `study.json`, at the journal, and at the picture."""
    out = tmp_path / "search"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    refusing_disk(size)
    assert tune(out) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("slmrec-jax: ")]
    assert "File too large; free some space, or give another --out; the same command continues where it stopped" in said
    assert not list(out.glob("*.part*"))
    refusing_disk(limit)
    assert tune(out) == 0
    assert len(pretended["trials"]) <= 4  # at most one was repeated


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.slow
def test_the_value_of_a_trial_is_that_of_validation(tiny, tmp_path, monkeypatch):
    """Without made-up values: the run of the best config repeats its trial, and test gives another value.

    Users and items are not ordered by degree, as trials and runs number them.
    """
    reversed_ids = (np.arange(count, dtype=np.int32)[::-1] for count in (tiny.num_users, tiny.num_items))
    unordered = take_rows(tiny, *reversed_ids)
    monkeypatch.setattr(data, "demo", lambda: unordered)
    out = tmp_path / "search"
    assert tune(out, "--epochs", "1", "--seeds", "0", "--space", "lr=0.1", "wd=0") == 0  # not the default
    (value,) = valid_values(out)
    (run,) = out.glob("best-trial*-seed0")
    (record,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert record["split"] == "valid"
    assert value == pytest.approx(record["selected"]["recall@20"], abs=1e-6)
    assert json.loads((run / "result.json").read_text())["test"]["recall@20"] != pytest.approx(value, abs=1e-4)


def test_doubtful_batches_are_reported_once_before_the_first_trial(pretended, tmp_path, capsys):
    assert tune(tmp_path / "search") == 0
    lines = capsys.readouterr().err.splitlines()
    (doubt,) = [place for place, line in enumerate(lines) if "an epoch has 1 step" in line]
    assert doubt < min(place for place, line in enumerate(lines) if line.startswith("trial 0"))


def test_the_best_config_finds_its_data_from_anywhere(pretended, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_source", lambda source: tiny)
    monkeypatch.chdir(tmp_path)
    assert tune("search", "--data", "shop", "--trials", "1") == 0
    assert runpy.run_path("search/best.py")["get_config"]().data == str(tmp_path / "shop")


def test_a_folder_that_another_search_holds_is_refused(pretended, tmp_path, capsys):
    out = tmp_path / "search"
    out.mkdir()
    with locked(out):
        assert tune(out) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "is in use by another run" in said
    assert [path.name for path in out.iterdir()] == ["lock"]
    assert tune(out, "--trials", "1") == 0


def test_another_search_in_the_same_folder_is_refused(pretended, tmp_path, capsys):
    out = tmp_path / "search"
    assert tune(out, "--trials", "1") == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for change, said in (
        (["--epochs", "4"], "another epochs"),
        (["--seeds", "1"], "another seeds"),
        (["--space", "mf.l2=0.1"], "another space"),
        (["--sampler", "tpe"], "another sampler"),
    ):
        capsys.readouterr()
        assert tune(out, *change) == 1
        assert said in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_signal_stops_the_search_and_the_trial_is_repeated(pretended, tmp_path, capsys, monkeypatch):
    out, fit_seeds = tmp_path / "search", search.fit_seeds

    def stopped(planned, plan, seeds):
        for histories in fit_seeds(planned, plan, seeds):
            if planned.config.mf.l2 == 0.3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield histories

    monkeypatch.setattr(search, "fit_seeds", stopped)
    assert tune(out) == 143
    assert "continue with: slmrec-jax tune" in capsys.readouterr().err
    assert pretended["runs"] == []
    monkeypatch.setattr(search, "fit_seeds", fit_seeds)
    assert tune(out) == 0
    assert [config.mf.l2 for config in pretended["trials"]] == [0.1, 0.3, 0.3, 0.2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "slmrec"], "selects on validation"),
        (["--trials", "0"], "give at least 1"),
        (["--seed", "1"], "names the seed 1"),
        (["--seeds", "0,x"], "different numbers"),
        (["--seeds", "99999999999"], "less than 4294967296"),
        (["--space", "lr"], "write it like"),
    ],
)
def test_refusals_write_nothing(pretended, tmp_path, capsys, arguments, said):
    out = tmp_path / "search"
    assert tune(out, *arguments) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()
    assert not pretended["trials"]


def test_a_folder_with_something_else_is_left_alone(pretended, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert tune(tmp_path) == 1
    assert "something other than a search" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_missing_optuna_is_one_line(tmp_path, capsys, monkeypatch):
    for name in ("search", "trials"):
        monkeypatch.delitem(sys.modules, f"slmrec_jax.studies.tuning.{name}")
        monkeypatch.delattr(slmrec_jax.studies.tuning, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune(tmp_path / "search") == 1
    assert "pip install 'slmrec-jax[tune]'" in capsys.readouterr().err
    assert not (tmp_path / "search").exists()
