"""The search for settings: spaces, proposals, resumption, and the file it leaves."""

import csv
import dataclasses
import json
import os
import pickle
import resource
import runpy
import signal
import statistics
import sys
from pathlib import Path

import pytest

import slmrec_jax.studies.tuning
from slmrec_jax import Config, UserError, data, with_preset, with_protocol
from slmrec_jax.commands.main import main
from slmrec_jax.config import BASE, MFConfig, OptimizerConfig
from slmrec_jax.errors import Diverged
from slmrec_jax.studies.tuning.config_file import config_source
from slmrec_jax.studies.tuning.space import SPACES, Choices, Range, grid, make_space
from slmrec_jax.training.storage.folder import write_config
from slmrec_jax.training.storage.lock import locked

pytest.importorskip("optuna", reason="the extra `tune` is not installed")

from slmrec_jax.studies.tuning import search, study

IMPORT = "from slmrec_jax.config import Config"
SLMREC, MF = Config(), Config(model="mf")
SPACE = {"slmrec.alpha": Choices((0.1, 0.5)), "task": Choices(("fac", "fd", "fm"))}
RANGES = {"optimizer.learning_rate": Range(1e-4, 1e-1, True, False), "batch_size": Range(64, 512, True, True)}


@pytest.mark.parametrize("sampler", SPACES)
@pytest.mark.parametrize("model", BASE)
def test_every_model_has_a_space_of_its_own_settings(sampler, model):
    space = make_space(Config(model=model), sampler, ())
    assert "optimizer.learning_rate" in space
    if sampler == "grid":
        assert space["optimizer.learning_rate"] == Choices((1e-4, 1e-3, 1e-2, 1e-1))


def test_the_papers_grid_of_slmrec():
    points = grid(make_space(SLMREC, "grid", ()))
    assert len(points) == len({tuple(point.values()) for point in points}) == 4 * 4 * 4 * 4 * 5


def test_texts_override_the_table_and_add_to_it():
    space = make_space(SLMREC, "tpe", ("lr=1e-3", "slmrec.fac-similarity=dot,cosine", "dim=16..64"))
    assert space["optimizer.learning_rate"] == Choices((1e-3,))
    assert space["slmrec.fac_similarity"] == Choices(("dot", "cosine"))
    assert space["dim"] == Range(16, 64, log=False, whole=True)
    assert space["slmrec.alpha"] == Range(0.01, 1.0, log=True, whole=False)


@pytest.mark.parametrize(
    ("sampler", "text", "said"),
    [
        ("tpe", "lr", "write it like"),
        ("tpe", "lr=", "write it like"),
        ("tpe", "lr=fast", "not a number"),
        ("tpe", "lr=nan", "not finite"),
        ("tpe", "dim=1.5", "not a whole number"),
        ("tpe", "lr=0..1:log", "lower number above 0"),
        ("tpe", "lr=2..1", "lower number"),
        ("tpe", "lr=1..2:sqrt", "low..high"),
        ("tpe", "task=fac..fd", "a range is of numbers"),
        ("tpe", "lr=0.1,0.1", "twice"),
        ("tpe", "lr=-1,1", "give more than 0"),
        ("tpe", "task=magic", "none of fac, fd"),
        ("tpe", "mf.l2=0,1", "slmrec does not read"),
        ("tpe", "slmrec.magic=0,1", "no setting of that name"),
        ("tpe", "seed=0,1", "no setting of that name"),
        ("tpe", "eval.patience=1,2", "no setting of that name"),
        ("tpe", "missing=masked,zero", "no setting of that name"),
        ("tpe", "on-nan=stop,skip", "no setting of that name"),
        ("tpe", "checkpoint-every-steps=0,5", "no setting of that name"),
        ("tpe", "propagation=auto,chains", "no setting of that name"),
        ("tpe", "optimizer.chain=adam,sgd", "only numbers and names"),
        ("tpe", "slmrec.mask-false-negatives=yes", "not true or false"),
        ("grid", "lr=1e-4..1e-1:log", "one by one"),
    ],
)
def test_a_space_that_cannot_be_is_refused(sampler, text, said):
    with pytest.raises(UserError, match=said) as raised:
        make_space(SLMREC, sampler, (text,))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["lr", "wd"])
def test_what_a_chain_of_transformations_does_not_read_is_not_searched(name):
    config = Config(optimizer=OptimizerConfig(chain=("adamw(1e-3)",)))
    space = make_space(config, "tpe", ())
    assert set(space) == {"slmrec.temperature", "slmrec.ssl_temperature", "slmrec.alpha"}
    with pytest.raises(UserError, match=r"optimizer\.chain is set") as raised:
        make_space(config, "tpe", (f"{name}=0.1,0.2",))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        with_preset(with_protocol(Config(data='a"\n"""\nb\\', task="fm"), "mmrec"), "paper"),
        Config(model="mf", mf=MFConfig(l2=0.1 + 0.2), optimizer=OptimizerConfig(1e-3, chain=('adamw("1")',))),
        dataclasses.replace(Config(), eval=Config().eval._replace(metric="ndcg@10", patience=None)),
    ],
)
def test_the_file_returns_the_config_and_runs_nothing_else(config, tmp_path):
    head = ["said\nimport os; os.abort()", "\r\x0c raise SystemExit", '"""']
    (tmp_path / "best.py").write_text(config_source(config, head))
    assert runpy.run_path(str(tmp_path / "best.py"))["get_config"]() == config


def test_the_head_of_the_file_keeps_its_blank_lines():
    assert config_source(Config(), ["one", "", "two"]).splitlines()[:5] == ["# one", "#", "# two", "", IMPORT]


def quality(point):
    """Another value for each point of `SPACE`."""
    return point["slmrec.alpha"] + {"fac": 0.3, "fd": 0.2, "fm": 0.1}[point["task"]]


def trained(value, epochs=4):
    """Epochs that rise to a value, for two seeds."""
    for epoch in range(1, epochs + 1):
        now = value * epoch / epochs
        yield study.Progress(epoch, (now, now), (epoch, epoch))


def searched(folder, space, sampler, count, train, seeds=(0, 1)):
    """The trials of one call, which opens the folder anew."""
    folder.mkdir(exist_ok=True)
    opened = study.open_search(folder, space, sampler, seeds)
    for _ in range(count):
        study.run_trial(opened, train)
    return [trial._replace(seconds=0.0) for trial in study.trials(opened)]


def test_a_grid_is_tried_point_by_point_and_goes_on(tmp_path):
    whole = searched(tmp_path / "whole", SPACE, "grid", 6, lambda point: trained(quality(point)))
    searched(tmp_path / "parts", SPACE, "grid", 2, lambda point: trained(quality(point)))
    assert searched(tmp_path / "parts", SPACE, "grid", 4, lambda point: trained(quality(point))) == whole
    assert [trial.point for trial in whole] == grid(SPACE)
    assert all(trial.state == "complete" for trial in whole)


def by_rate(point):
    rate = point["optimizer.learning_rate"]
    return trained(1.0 / (1.0 + abs(rate - 0.01) / rate), epochs=8)


def test_proposals_that_go_on_are_those_of_a_search_without_a_break(tmp_path):
    whole = searched(tmp_path / "whole", RANGES, "tpe", 16, by_rate)
    for count in (3, 9, 4):
        parts = searched(tmp_path / "parts", RANGES, "tpe", count, by_rate)
    assert parts == whole
    assert len({trial.point["optimizer.learning_rate"] for trial in whole}) == 16
    assert {trial.state for trial in whole} == {"complete", "pruned"}
    other = searched(tmp_path / "other", RANGES, "tpe", 1, by_rate, seeds=(2,))
    assert other[0].point != whole[0].point


def test_a_pruned_trial_was_below_the_median_after_the_first_ones(tmp_path):
    found = searched(tmp_path / "s", RANGES, "tpe", 16, by_rate)
    for trial in found:
        if trial.state == "pruned":
            epoch = max(trial.curve)
            others = [each.curve[epoch] for each in found[: trial.number] if each.state == "complete"]
            assert epoch >= study.PRUNE_AFTER_EPOCHS
            assert len(others) >= study.PRUNE_AFTER_TRIALS
            assert trial.value < statistics.median(others)


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


def test_divergence_counts_as_nothing_found_and_is_never_best(tmp_path):
    def diverges(point):
        yield from trained(0.9, epochs=2)
        raise Diverged("the loss of seed 0 is not finite in epoch 3")

    found = searched(tmp_path / "s", SPACE, "grid", 1, diverges)
    assert (found[0].state, found[0].value) == ("diverged", 0.0)
    with pytest.raises(UserError, match="diverged in every trial"):
        study.best_trial(found)
    found = searched(tmp_path / "s", SPACE, "grid", 1, lambda point: trained(0.0))
    assert study.best_trial(found).number == 1


def test_a_pruned_trial_is_never_best(tmp_path):
    """It may have been ahead of the others when it was stopped, as seeds or epochs to come would not have held."""
    complete, pruned = (
        study.Trial(number, {"lr": 0.1}, value, state, {}, (value,), (1,), 0.0)
        for number, (value, state) in enumerate([(0.5, "complete"), (0.9, "pruned")])
    )
    for trials in ([complete, pruned], [pruned, complete]):
        assert study.best_trial(trials) is complete
        shown = search.Tuned(trials, complete, []).table("recall@20")
        assert [str(cell) for cell in shown.columns[0].cells] == ["0", "1"]
    with pytest.raises(UserError, match="diverged in every trial"):
        study.best_trial([pruned])


def test_a_torn_last_line_is_cut_off(tmp_path):
    before = searched(tmp_path / "s", SPACE, "grid", 2, lambda point: trained(quality(point)))
    with (tmp_path / "s" / study.JOURNAL).open("a") as journal:
        journal.write('{"op_code":4,"wor')
    assert searched(tmp_path / "s", SPACE, "grid", 0, None) == before
    assert len(searched(tmp_path / "s", SPACE, "grid", 1, lambda point: trained(quality(point)))) == 3


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
def test_a_damaged_journal_is_refused_and_runs_nothing(tmp_path, content):
    (tmp_path / study.JOURNAL).write_bytes(content)
    with pytest.raises(UserError, match="journal is damaged"):
        study.open_search(tmp_path, SPACE, "grid", (0,))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.parent / "mine"), Path.mkdir])
def test_what_is_no_journal_is_not_written_to(tmp_path, make):
    (tmp_path / "mine").write_text("mine")
    make(tmp_path / study.JOURNAL)
    with pytest.raises(UserError, match="is not a regular file"):
        study.open_search(tmp_path, SPACE, "grid", (0,))
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("change", ["a figure", "a trial less", "two exchanged"])
def test_a_journal_that_was_changed_is_refused(tmp_path, change):
    searched(tmp_path, SPACE, "grid", 3, lambda point: trained(quality(point)))
    journal = tmp_path / study.JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    entries = [place for place, line in enumerate(lines) if '"distributions"' in line]
    assert len(entries) == 3
    first, second = entries[:2]
    if change == "a figure":
        entry = json.loads(lines[first])
        entry["values" if entry.get("values") else "value"] = 0.99
        lines[first] = json.dumps(entry) + "\n"
    elif change == "a trial less":
        del lines[first]
    else:
        lines[first], lines[second] = lines[second], lines[first]
    journal.write_text("".join(lines))
    with pytest.raises(UserError, match="was changed or removed after it was written"):
        study.open_search(tmp_path, SPACE, "grid", (0,))


@pytest.mark.parametrize("size", [0, 100])
def test_a_full_disk_is_no_damage(tmp_path, size, refusing_disk):
    """When the journal is made, and when a trial is entered; with room again the search goes on."""
    if size:
        searched(tmp_path, SPACE, "grid", 1, lambda point: trained(quality(point)))
        size = (tmp_path / study.JOURNAL).stat().st_size + 100
    refusing_disk(size)
    with pytest.raises(OSError, match="File too large"):
        searched(tmp_path, SPACE, "grid", 1, lambda point: trained(quality(point)))
    refusing_disk(resource.RLIM_INFINITY)
    assert len(searched(tmp_path, SPACE, "grid", 1, lambda point: trained(quality(point)))) == 2 if size else 1


@pytest.fixture
def pretended(tiny, monkeypatch):
    """A search whose training is made up; tells how often it was called and what was trained in the end."""
    calls = {"trials": [], "runs": []}

    def fit_seeds(method, inputs, plan, config, seeds):
        assert plan.held_out is tiny.valid
        calls["trials"].append(config)
        histories = [[] for _ in seeds]
        for epoch in range(1, config.epochs + 1):
            for place, history in enumerate(histories):
                value = config.mf.l2 * epoch + place
                record = {"epoch": epoch, "losses": {"loss": 1.0}, "split": "valid", "train_seconds": 0.0}
                history.append(record | {"selected": {"recall@20": value}, "improved": True})
            yield histories

    class Finished:
        def __init__(self, config):
            self.config, self.result = config, {"test": {"recall@20": 0.123456}}

    def finish(config, dataset, folder, report):
        folder.mkdir(exist_ok=True)
        write_config(folder, config, {"method": None, "config_file": None})
        calls["runs"].append((folder.name, config))
        return Finished(config)

    monkeypatch.setattr(data, "demo", lambda: tiny)
    monkeypatch.setattr(search, "fit_seeds", fit_seeds)
    monkeypatch.setattr(search, "finish", finish)
    return calls


ARGUMENTS = ["tune", "--model", "mf", "--dim", "8", "--epochs", "3", "--sampler", "grid", "--seeds", "0,3"]
ARGUMENTS += ["--space", "lr=0.01", "wd=0", "mf.l2=0.1,0.3,0.2"]


def test_the_command_searches_goes_on_and_tests_the_best_alone(pretended, tmp_path, capsys):
    out = tmp_path / "search"
    assert main([*ARGUMENTS, "--out", str(out), "--trials", "1"]) == 0
    assert main([*ARGUMENTS, "--out", str(out)]) == 0  # which finds a better one
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
    with (out / "trials.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [float(row["valid recall@20"]) for row in rows] == pytest.approx([0.8, 1.4, 1.1])
    best = runpy.run_path(str(out / "best.py"))["get_config"]()
    assert (best.model, best.mf.l2, best.optimizer.learning_rate, best.epochs) == ("mf", 0.3, 0.01, 3)
    assert (out / "tuning.png").stat().st_size > 5000
    assert main([*ARGUMENTS, "--out", str(out)]) == 0
    assert len(pretended["trials"]) == 3


@pytest.mark.parametrize("size", [0, 1500, 3000])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(pretended, tmp_path, capsys, size, refusing_disk):
    """At what is searched, at the journal, and at the picture."""
    out = tmp_path / "search"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    refusing_disk(size)
    assert main([*ARGUMENTS, "--out", str(out)]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("slmrec-jax: ")]
    assert "File too large; free some space, or give another --out; the same command goes on where it stopped" in said
    assert not list(out.glob("*.part*"))
    refusing_disk(limit)
    assert main([*ARGUMENTS, "--out", str(out)]) == 0
    assert len(pretended["trials"]) <= 4  # at most one was trained again


@pytest.mark.usefixtures("optax_promotion")
def test_a_trial_is_worth_what_validation_says(tiny, tmp_path, monkeypatch):
    """Nothing is pretended: the run of the best config repeats the trial, and its test is another figure."""
    monkeypatch.setattr(data, "demo", lambda: tiny)
    out = tmp_path / "search"
    arguments = ["--model", "mf", "--dim", "8", "--epochs", "1", "--batch-size", "256", "--sampler", "grid"]
    assert main(["tune", *arguments, "--space", "lr=0.001,0.1", "wd=0", "--out", str(out)]) == 0
    with (out / "trials.csv").open() as table:
        values = [float(row["valid recall@20"]) for row in csv.DictReader(table)]
    (run,) = out.glob("best-trial*-seed0")
    (record,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert record["split"] == "valid"
    assert len(set(values)) == 2
    assert max(values) == pytest.approx(record["selected"]["recall@20"], abs=1e-6)
    assert json.loads((run / "result.json").read_text())["test"]["recall@20"] != pytest.approx(max(values), abs=1e-4)


def test_the_best_config_finds_its_data_from_anywhere(pretended, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_source", lambda source: tiny)
    monkeypatch.chdir(tmp_path)
    assert main([*ARGUMENTS, "--data", "shop", "--trials", "1", "--out", "search"]) == 0
    assert runpy.run_path("search/best.py")["get_config"]().data == str(tmp_path / "shop")


def test_a_folder_that_another_search_holds_is_refused(pretended, tmp_path, capsys):
    out = tmp_path / "search"
    out.mkdir()
    with locked(out):
        assert main([*ARGUMENTS, "--out", str(out)]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "is in use by another run" in said
    assert [path.name for path in out.iterdir()] == ["lock"]
    assert main([*ARGUMENTS, "--out", str(out), "--trials", "1"]) == 0


def test_another_search_in_the_same_folder_is_refused(pretended, tmp_path, capsys):
    out = tmp_path / "search"
    assert main([*ARGUMENTS, "--out", str(out), "--trials", "1"]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for change, said in (
        (["--epochs", "4"], "another epochs"),
        (["--seeds", "1"], "another seeds"),
        (["--space", "mf.l2=0.1"], "another space"),
        (["--sampler", "tpe"], "another sampler"),
    ):
        capsys.readouterr()
        assert main([*ARGUMENTS, *change, "--out", str(out)]) == 1
        assert said in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_signal_ends_the_search_and_the_trial_is_made_again(pretended, tmp_path, capsys, monkeypatch):
    out, fit_seeds = tmp_path / "search", search.fit_seeds

    def stopped(method, inputs, plan, config, seeds):
        for histories in fit_seeds(method, inputs, plan, config, seeds):
            if config.mf.l2 == 0.3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield histories

    monkeypatch.setattr(search, "fit_seeds", stopped)
    assert main([*ARGUMENTS, "--out", str(out)]) == 143
    assert "go on with: slmrec-jax tune" in capsys.readouterr().err
    assert pretended["runs"] == []
    monkeypatch.setattr(search, "fit_seeds", fit_seeds)
    assert main([*ARGUMENTS, "--out", str(out)]) == 0
    assert [config.mf.l2 for config in pretended["trials"]] == [0.1, 0.3, 0.3, 0.2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "slmrec"], "selects on validation"),
        (["--trials", "0"], "give at least 1"),
        (["--seed", "1"], "not --seed"),
        (["--seeds", "0,x"], "different numbers"),
        (["--seeds", "99999999999"], "less than 4294967296"),
        (["--space", "lr"], "write it like"),
    ],
)
def test_refusals_write_nothing(pretended, tmp_path, capsys, arguments, said):
    out = tmp_path / "search"
    assert main([*ARGUMENTS, *arguments, "--out", str(out)]) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()
    assert not pretended["trials"]


def test_a_folder_with_something_else_is_left_alone(pretended, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main([*ARGUMENTS, "--out", str(tmp_path)]) == 1
    assert "something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_optuna_one_line_says_so(tmp_path, capsys, monkeypatch):
    for name in ("search", "study"):
        monkeypatch.delitem(sys.modules, f"slmrec_jax.studies.tuning.{name}")
        monkeypatch.delattr(slmrec_jax.studies.tuning, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main([*ARGUMENTS, "--out", str(tmp_path / "search")]) == 1
    assert "pip install 'slmrec-jax[tune]'" in capsys.readouterr().err
    assert not (tmp_path / "search").exists()


def test_the_record_of_a_search_is_plain_json(pretended, tmp_path):
    out = tmp_path / "search"
    assert main([*ARGUMENTS, "--out", str(out), "--trials", "1"]) == 0
    record = json.loads((out / search.STUDY).read_text())
    assert record["space"]["mf.l2"] == {"choices": [[0.1, 0.3, 0.2]]}
    assert Path(search.STUDY).suffix == ".json"
