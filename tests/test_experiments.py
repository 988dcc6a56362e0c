"""The paper's experiments: what they train, what they choose by, what they write, and that they go on."""

import csv
import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slmrec_jax import UserError, data
from slmrec_jax.config import with_defaults
from slmrec_jax.errors import Diverged

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NAMES = ("table2", "table3", "fig3_task_alone", "fig4_convergence", "fig5_alpha", "fig6_temperature")
NUMBERS = {"table2": 5, "table3": 5, "fig3_task_alone": 15, "fig4_convergence": 6, "fig5_alpha": 15}
NUMBERS["fig6_temperature"] = 12

pytestmark = pytest.mark.usefixtures("optax_promotion")


@pytest.fixture
def experiment(monkeypatch):
    """An experiment's module, found as when its file is run."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in (*NAMES, "paper", "sweep"):
            del sys.modules[name]


@pytest.fixture
def pretended(tiny, monkeypatch, experiment):
    """Runs whose figures are made up from their config; keeps the folders that were asked for."""
    monkeypatch.setattr(data, "demo", lambda: tiny)
    sweep, asked = experiment("sweep"), []

    def finish(config, dataset, folder, report):
        asked.append((folder.name, config))
        rate, system = config.optimizer.learning_rate, f"{config.model} {config.task} {config.seed}"
        if rate == 0.1:
            raise Diverged("the loss is not finite in epoch 1")
        valid = (0.5 if rate == 0.001 else 0.2) + (0.1 if config.model == "vbpr" else 0.0)
        test = sum(map(ord, system)) / 1e4 + config.slmrec.alpha / 100 - rate
        figures = {"recall@10": test, "ndcg@10": test / 2, "precision@10": test / 4}
        losses = {"loss": 3.0, "main": 2.0, "ssl": 10.0}
        history = [{"epoch": epoch, "losses": losses} for epoch in range(1, config.epochs + 1)]
        result = {"valid": {"recall@10": valid}, "test": figures, "best_epoch": 1}
        return type("Run", (), {"config": config, "result": result, "history": history})()

    monkeypatch.setattr(sweep, "finish", finish)
    return asked


def command(experiment, name, *arguments):
    module = experiment(name)
    flags = module.table2.Flags if name == "table3" else module.Flags
    return experiment("sweep").command(flags, module.main, ["--data", "demo", *arguments])


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_says_what_it_is(name):
    head = (EXPERIMENTS / f"{name}.py").read_text().split('"""')[1]
    assert re.search(r"^Paper: .*10\.1109/TMM\.2022\.3187556$", head, re.MULTILINE)
    assert re.search(rf"^Command:  python experiments/{name}\.py --data ", head, re.MULTILINE)
    assert {"Time:", "Result:"} <= set(head.split())
    assert "not run yet" not in head


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_writes_table_and_picture(name, pretended, experiment, tmp_path, capsys):
    arguments = ["--paper", "tiktok", "--epochs", "2", "--seeds", "0", "1", "--out", str(tmp_path / "out")]
    assert command(experiment, name, *arguments) == 0
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {f"{name}.csv", f"{name}.md", f"{name}.png"}
    with (tmp_path / "out" / f"{name}.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == NUMBERS[name]
    lines = (tmp_path / "out" / f"{name}.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 + len(rows)
    assert "fingerprint" in lines[0]
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000


def test_the_papers_figures_stand_beside_ours(pretended, experiment, tmp_path):
    out = tmp_path / "out"
    assert command(experiment, "table2", "--paper", "kwai", "--out", str(out)) == 0
    with (out / "table2.csv").open() as table:
        row = next(row for row in csv.DictReader(table) if row["system"] == "SLMRec-FAC")
    assert (row["paper recall@10"], row["paper ndcg@10"], row["paper precision@10"]) == (
        "0.057304",
        "0.045535",
        "0.019301",
    )
    assert float(row["recall@10"]) == pytest.approx(sum(map(ord, "slmrec fac 0")) / 1e4 + 0.001 - 0.001)


def test_the_setting_is_chosen_on_validation_by_the_first_seed(pretended, experiment, tmp_path, capsys):
    """0.001 is best on validation, 0.0001 on test, and 0.1 diverges."""
    assert command(experiment, "table2", "--seeds", "3", "4", "--out", str(tmp_path / "out")) == 0
    later = [config for _, config in pretended if config.seed == 4]
    assert len(later) == 5
    assert {config.optimizer.learning_rate for config in later} == {0.001}
    assert "not finite" in capsys.readouterr().err


def test_a_system_that_always_diverges_is_said(pretended, experiment, tmp_path, capsys):
    flags = ["--learning-rates", "0.1", "--out", str(tmp_path / "out")]
    assert command(experiment, "table2", *flags) == 1
    assert "MF-BPR diverges with every setting" in capsys.readouterr().err
    assert not (tmp_path / "out" / "table2.csv").exists()


def test_what_diverges_is_left_out_and_said(pretended, experiment, tmp_path, monkeypatch, capsys):
    """α 0.5 with seed 1, α 1 with both seeds, FD, and of the baselines the best."""
    sweep = experiment("sweep")
    finish = sweep.finish

    def diverging(config, dataset, folder, report):
        slmrec = config.model == "slmrec"
        alpha = config.slmrec.alpha if slmrec else 0.0
        if (
            alpha == 1.0
            or (alpha, config.seed) == (0.5, 1)
            or (slmrec and config.task == "fd")
            or config.model == "vbpr"
        ):
            raise Diverged("the loss is not finite in epoch 1")
        return finish(config, dataset, folder, report)

    monkeypatch.setattr(sweep, "finish", diverging)

    def rows_of(name, *flags):
        assert command(experiment, name, "--seeds", "0", "1", *flags, "--out", str(tmp_path)) == 0
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        with (tmp_path / f"{name}.csv").open() as table:
            return list(csv.DictReader(table))

    rows = rows_of("fig5_alpha", "--tasks", "fac", "fd")
    assert [row["diverged"] for row in rows] == ["", "", "", "1", "0 1", *["0 1"] * 5]
    assert [bool(row["recall@10"]) for row in rows] == [*[True] * 4, *[False] * 6]
    assert float(rows[3]["recall@10 sd"]) == 0 < float(rows[2]["recall@10 sd"])
    assert "not finite in epoch 1" in capsys.readouterr().err
    rows = rows_of("fig4_convergence", "--tasks", "fd", "fac", "--epochs", "2")
    assert [(row["task"], row["epoch"], row["diverged"]) for row in rows] == [
        ("fd", "", "0 1"),
        ("fac", "1", ""),
        ("fac", "2", ""),
    ]
    one = ["--learning-rates", "0.001", "--weight-decays", "0.001"]
    rows = rows_of("table3", *one)
    assert {row["system"]: row["diverged"] for row in rows} == {
        "MF-BPR": "",
        "SLMRec-FM": "",
        "SLMRec-FD": "0 1",
        "SLMRec-FM+FD": "",
        "SLMRec-FAC": "",
    }
    assert {row["system"] for row in rows_of("table2", *one) if row["diverged"]} == {"VBPR"}
    assert command(experiment, "fig5_alpha", "--tasks", "fd", "--out", str(tmp_path / "none")) == 1
    assert "every run diverges" in capsys.readouterr().err


def test_the_best_baseline_is_chosen_on_validation(pretended, experiment, tmp_path):
    assert command(experiment, "table3", "--paper", "tiktok", "--out", str(tmp_path / "out")) == 0
    with (tmp_path / "out" / "table3.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["system"] for row in rows] == ["VBPR", "SLMRec-FM", "SLMRec-FD", "SLMRec-FM+FD", "SLMRec-FAC"]
    assert float(rows[0]["gain %"]) == 0
    assert float(rows[4]["paper gain %"]) == pytest.approx(100 * (0.132955 / 0.074568 - 1))


def test_figures_vary_what_they_say(pretended, experiment, tmp_path):
    for name in ("fig3_task_alone", "fig5_alpha", "fig6_temperature"):
        assert command(experiment, name, "--tasks", "fac", "--out", str(tmp_path / "out")) == 0
    configs = [config for _, config in pretended]
    assert [(config.main_weight, config.batch_size) for config in configs[:5]] == [
        (0.0, 128),
        (0.0, 256),
        (0.0, 512),
        (0.0, 1024),
        (0.0, 2048),
    ]
    assert [config.slmrec.alpha for config in configs[5:10]] == [0.01, 0.05, 0.1, 0.5, 1.0]
    assert [config.slmrec.ssl_temperature for config in configs[10:]] == [0.1, 0.2, 0.5, 1.0]
    assert {config.slmrec.temperature for config in configs} == {0.2}
    # α 0.1 at τ 0.2 is a point of both figures and of Table III: one run.
    folders = [folder for folder, _ in pretended]
    assert len(set(folders)) == len(pretended) - 1
    assert folders[7] == folders[11] == "SLMRec-FAC-lr0.01-wd0.0001-seed0"


def test_the_papers_settings(experiment):
    config = experiment("paper").settings("paper")
    assert (config.dim, config.batch_size, config.num_layers) == (64, 2048, 3)
    assert (config.slmrec.temperature, config.slmrec.ssl_temperature, config.slmrec.alpha) == (0.2, 0.2, 0.1)
    assert config.slmrec.main_negatives == "sampled"
    assert (config.eval.split, config.eval.metric) == ("valid", "recall@10")


def test_runs_are_taken_up_and_another_config_is_refused(tiny, monkeypatch, experiment, tmp_path, capsys):
    monkeypatch.setattr(data, "demo", lambda: tiny)
    sweep, paper = experiment("sweep"), experiment("paper")
    flags = sweep.Flags("demo", epochs=1, out=tmp_path / "out")
    config = replace(sweep.base(flags), dim=8)
    points = paper.systems(config, ["MF-BPR"])
    first = sweep.run(points, tiny, flags)["MF-BPR"][0]
    assert first.config == with_defaults(first.config)
    assert first.config.mf.features == "concat"
    again = sweep.run(points, tiny, flags)["MF-BPR"][0]
    assert "finished before" in capsys.readouterr().err
    assert again.result == first.result
    with pytest.raises(UserError, match="another config"):
        sweep.run({"MF-BPR": replace(points["MF-BPR"], dim=16)}, tiny, flags)
