"""The paper's experiments: what they train, how they choose, what they write, and that they resume."""

import csv
import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from slmrec_jax import Config, UserError, blend, data, train, with_protocol
from slmrec_jax.config import with_defaults
from slmrec_jax.errors import Diverged
from slmrec_jax.studies import blending

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
NUM_ROWS = {"table2": 5, "table3": 5, "fig3_task_alone": 15, "fig4_convergence": 6, "fig5_alpha": 15}
NUM_ROWS["fig6_temperature"] = 12

pytestmark = pytest.mark.usefixtures("optax_promotion")


@pytest.fixture
def experiment(monkeypatch):
    """Import an experiment's module as when its file is run."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in (
            *NUM_ROWS,
            "output",
            "paper",
            "sweep",
            "overview",
            "tiktok_picture",
            "equal_budgets",
            "blends",
            "correction_rule",
        ):
            del sys.modules[name]


@pytest.fixture
def pretended(tiny, monkeypatch, experiment):
    """Replace runs by values made up from their config; return the folders and configs that were asked for."""
    monkeypatch.setattr(data, "demo", lambda: tiny)
    asked = []

    def finish_run(config, dataset, folder, report):
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
        return SimpleNamespace(config=config, result=result, history=history)

    monkeypatch.setattr(experiment("sweep"), "finish_run", finish_run)
    return asked


@pytest.fixture
def command(experiment, tmp_path):
    """Run an experiment, whose files go to `tmp_path`, and return its exit status.

    The tables get a column of their grid, because the methods of every setting are made to check them.
    """

    def run(name, *arguments):
        module = experiment(name)
        grid = ["--weight-decays", "0.001"] if name.startswith("table") else []
        flags = module.table2.Flags if name == "table3" else module.Flags
        arguments = ["--data", "demo", "--out", str(tmp_path), *grid, *arguments]
        return experiment("sweep").command(flags, module.main, arguments)

    return run


def rows_of(folder, name):
    with (folder / f"{name}.csv").open() as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize("name", NUM_ROWS)
def test_an_experiment_says_what_it_is(name):
    head = (EXPERIMENTS / f"{name}.py").read_text().split('"""')[1]
    assert re.search(r"^Paper: .*10\.1109/TMM\.2022\.3187556$", head, re.MULTILINE)
    assert re.search(rf"^Command:  python experiments/{name}\.py --data ", head, re.MULTILINE)
    assert {"Time:", "Result:"} <= set(head.split())
    assert "not run yet" not in head


@pytest.mark.parametrize("name", NUM_ROWS)
def test_an_experiment_writes_table_and_picture(name, pretended, command, tmp_path):
    assert command(name, "--paper", "tiktok", "--epochs", "2", "--seeds", "0", "1") == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.csv", f"{name}.md", f"{name}.png"}
    rows = rows_of(tmp_path, name)
    assert len(rows) == NUM_ROWS[name]
    lines = (tmp_path / f"{name}.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 + len(rows)
    assert "fingerprint" in lines[0]
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "results").rglob("*.csv")), ids=lambda path: path.stem)
def test_kept_tables_have_sensible_digits(path):
    with path.open(newline="") as table:
        cells = [cell for row in csv.reader(table) for cell in row]
    assert all(len(cell) <= 12 for cell in cells if re.fullmatch(r"-?\d[\d.e-]*", cell))


def test_written_tables_have_sensible_digits(experiment, tiny, tmp_path):
    rows = [{"task": "fac", "recall@10": 1 / 3, "recall@10 sd": 2e-9 / 3, "epoch": 1234567, "diverged": None}]
    flags = experiment("sweep").Flags("demo", out=tmp_path)
    experiment("output").write("table", rows, tiny, flags, "")
    assert rows_of(tmp_path, "table") == [
        {"task": "fac", "recall@10": "0.333333", "recall@10 sd": "6.66667e-10", "epoch": "1234567", "diverged": ""}
    ]


def test_the_picture_of_tiktok_has_the_tuned_systems_as_the_best(experiment, monkeypatch, tmp_path):
    module, drawn = experiment("tiktok_picture"), []
    draw = module.draw_comparison
    monkeypatch.setattr(module, "draw_comparison", lambda *arguments: drawn.append(arguments) or draw(*arguments))
    module.main(module.Flags(out=tmp_path / "tiktok.png"))
    ((rows, metrics, *_),) = drawn
    for metric in metrics:
        assert sorted(rows, key=lambda name: rows[name][metric])[-2:] == ["SLMRec, no task, tuned", "SLMRec-FAC, tuned"]
    picture = EXPERIMENTS.parent / "docs" / "images" / "tiktok.png"
    assert imread(tmp_path / "tiktok.png").shape == imread(picture).shape


def test_the_table_of_tiktok_is_made_of_two_comparisons(experiment, tmp_path):
    module = experiment("tiktok_picture")
    seeds = [dict.fromkeys(module.METRICS, value) for value in (0.1, 0.2)]
    for folder, systems in (("all", {"popularity": seeds[:1], "slmrec:fac": seeds}), ("tuned", {"slmrec:fac": seeds})):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "comparison.json").write_text(json.dumps({"systems": systems}))
    table = tmp_path / "table.csv"
    flags = module.Flags(tmp_path / "all", tmp_path / "tuned", table, tmp_path / "tiktok.png")
    module.main(flags)
    found = module.read_table(table)
    assert list(found) == ["popularity", "SLMRec-FAC", "SLMRec-FAC, tuned"]
    assert found["popularity"]["ndcg@20"] == (0.1, 0.0)
    assert found["SLMRec-FAC, tuned"]["recall@20"] == pytest.approx((0.15, 0.0707107))
    with pytest.raises(UserError, match="give both"):
        module.main(replace(flags, tuned=None))


def test_the_setting_is_chosen_on_validation_by_the_first_seed(pretended, command, tmp_path, capsys):
    """0.001 is best on validation, 0.0001 on test, and 0.1 diverges. The paper's figures are beside ours."""
    assert command("table2", "--paper", "kwai", "--seeds", "3", "5") == 0
    later = [config for _, config in pretended if config.seed == 5]
    assert len(later) == 5
    assert {config.optimizer.learning_rate for config in later} == {0.001}
    assert "not finite" in capsys.readouterr().err
    *_, row = rows_of(tmp_path, "table2")
    assert row["system"] == "SLMRec-FAC"
    assert float(row["recall@10"]) == pytest.approx(sum(map(ord, "slmrec fac 4")) / 1e4 + 0.001 - 0.001, rel=1e-5)
    published = [row[f"paper {metric}"] for metric in ("recall@10", "ndcg@10", "precision@10")]
    assert published == ["0.057304", "0.045535", "0.019301"]


def test_a_system_that_always_diverges_is_named(pretended, command, tmp_path, capsys):
    assert command("table2", "--learning-rates", "0.1", "--weight-decays", "0", "0.001") == 1
    assert "MF-BPR diverges with every setting" in capsys.readouterr().err
    assert not (tmp_path / "table2.csv").exists()


def test_diverged_runs_are_left_out_and_named(pretended, command, experiment, tmp_path, monkeypatch, capsys):
    """α 0.5 with seed 1, α 1 with both seeds, FD, and the best baseline."""
    sweep = experiment("sweep")
    finish_run = sweep.finish_run

    def diverging(config, dataset, folder, report):
        alpha, task = (config.slmrec.alpha, config.task) if config.model == "slmrec" else (0.0, "none")
        if alpha == 1.0 or (alpha, config.seed) == (0.5, 1) or task == "fd" or config.model == "vbpr":
            raise Diverged("the loss is not finite in epoch 1")
        return finish_run(config, dataset, folder, report)

    monkeypatch.setattr(sweep, "finish_run", diverging)

    def rows_from(name, *flags):
        assert command(name, "--seeds", "0", "1", *flags) == 0
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        return rows_of(tmp_path, name)

    rows = rows_from("fig5_alpha", "--tasks", "fac", "fd")
    assert [row["diverged"] for row in rows] == ["", "", "", "1", "0 1", *["0 1"] * 5]
    assert [bool(row["recall@10"]) for row in rows] == [*[True] * 4, *[False] * 6]
    assert float(rows[3]["recall@10 sd"]) == 0 < float(rows[2]["recall@10 sd"])
    assert "not finite in epoch 1" in capsys.readouterr().err
    rows = rows_from("fig4_convergence", "--tasks", "fd", "fac", "--epochs", "2")
    found = [(row["task"], row["epoch"], row["diverged"]) for row in rows]
    assert found == [("fd", "", "0 1"), ("fac", "1", ""), ("fac", "2", "")]
    rows = rows_from("table3", "--learning-rates", "0.001")
    assert [row["system"] for row in rows] == ["MF-BPR", "SLMRec-FM", "SLMRec-FD", "SLMRec-FM+FD", "SLMRec-FAC"]
    assert [row["diverged"] for row in rows] == ["", "", "0 1", "", ""]
    rows = rows_from("table2", "--learning-rates", "0.001")
    assert {row["system"] for row in rows if row["diverged"]} == {"VBPR"}
    assert command("fig5_alpha", "--tasks", "fd") == 1
    assert "every run diverges" in capsys.readouterr().err


def test_the_best_baseline_is_chosen_on_validation(pretended, command, tmp_path):
    assert command("table3", "--paper", "tiktok") == 0
    rows = rows_of(tmp_path, "table3")
    assert [row["system"] for row in rows] == ["VBPR", "SLMRec-FM", "SLMRec-FD", "SLMRec-FM+FD", "SLMRec-FAC"]
    assert float(rows[0]["gain %"]) == 0
    assert float(rows[4]["paper gain %"]) == pytest.approx(100 * (0.132955 / 0.074568 - 1), rel=1e-5)


def test_figures_vary_what_they_say(pretended, command):
    for name in ("fig3_task_alone", "fig5_alpha", "fig6_temperature"):
        assert command(name, "--tasks", "fac") == 0
    configs = [config for _, config in pretended]
    assert {config.main_weight for config in configs[:5]} == {0.0}
    assert [config.batch_size for config in configs[:5]] == [128, 256, 512, 1024, 2048]
    assert [config.slmrec.alpha for config in configs[5:10]] == [0.01, 0.05, 0.1, 0.5, 1.0]
    assert [config.slmrec.ssl_temperature for config in configs[10:]] == [0.1, 0.2, 0.5, 1.0]
    assert {config.slmrec.temperature for config in configs} == {0.2}
    # α 0.1 at τ 0.2 is a point of both figures and of Table III: one run.
    folders = [folder for folder, _ in pretended]
    assert len(set(folders)) == len(pretended) - 1
    assert folders[7] == folders[11] == "SLMRec-FAC-lr0.01-wd0.0001-seed0"


def test_the_papers_settings(experiment):
    config, flags = experiment("paper").settings("paper"), experiment("table2").Flags("demo")
    assert (config.dim, config.batch_size, config.num_layers) == (64, 2048, 3)
    assert (config.slmrec.temperature, config.slmrec.ssl_temperature, config.slmrec.alpha) == (0.2, 0.2, 0.1)
    assert config.slmrec.main_negatives == "sampled"
    assert (config.eval.split, config.eval.metric) == ("valid", "recall@10")
    assert flags.learning_rates == flags.weight_decays == (1e-4, 1e-3, 1e-2, 1e-1)


def test_finished_runs_are_loaded_and_another_config_is_refused(tiny, monkeypatch, experiment, tmp_path, capsys):
    monkeypatch.setattr(data, "demo", lambda: tiny)
    sweep = experiment("sweep")
    flags = sweep.Flags("demo", epochs=1, out=tmp_path)
    points = experiment("paper").systems(replace(sweep.base(flags), dim=4), ["MF-BPR"])
    (first,) = sweep.run(points, tiny, flags)["MF-BPR"]
    assert first.config == with_defaults(first.config)
    assert first.config.mf.features == "concat"
    (again,) = sweep.run(points, tiny, flags)["MF-BPR"]
    assert "finished before" in capsys.readouterr().err
    assert again.result == first.result
    with pytest.raises(UserError, match="another config"):
        sweep.run({"MF-BPR": replace(points["MF-BPR"], dim=16)}, tiny, flags)


def test_a_search_counts_where_it_is_better_than_the_defaults_on_validation(experiment, tmp_path, monkeypatch):
    module = experiment("equal_budgets")
    flags = module.Flags("PATH", tmp_path, ("lightgcn", "freedom"), trials=4, seeds=(0, 1))
    asked, searched = [], {"lightgcn": 0.3, "freedom": 0.1}

    def call(*command):
        """Pretend that every run with defaults has 0.2 on validation."""
        folder = Path(command[command.index("--out") + 1])
        asked.append((command[0], folder.relative_to(tmp_path)))
        value = 0.2
        if command[0] == "tune":
            value, folder = searched[folder.parent.name], folder / "best-trial3-seed0"
        folder.mkdir(parents=True)
        result = {"valid": {"recall@20": value}, "peak_rss_bytes": 3 * 2**29}
        (folder / "result.json").write_text(json.dumps(result))
        return 5.0

    def per_user(run):
        values = np.array([0.0, 0.4]) + (0.2 if run.name.startswith("tuned") else 0.1)
        return {"recall@20": values, "ndcg@20": values / 2}

    monkeypatch.setattr(module, "call", call)
    monkeypatch.setattr(module, "data", SimpleNamespace(load=lambda path: SimpleNamespace(fingerprint=path)))
    monkeypatch.setattr(
        module,
        "load_run",
        lambda run, dataset: SimpleNamespace(evaluate=lambda split: SimpleNamespace(per_user=per_user(run))),
    )
    for _ in range(2):  # the second time, nothing is left to do
        module.main(flags)
    for system in flags.systems:  # nor if the runs are gone
        shutil.rmtree(tmp_path / system)
    module.main(flags)
    assert [(command, str(folder)) for command, folder in asked] == [
        *(("train", "lightgcn/default-seed0"), ("train", "lightgcn/default-seed1"), ("tune", "lightgcn/search")),
        ("train", "lightgcn/tuned-seed1"),
        *(("train", "freedom/default-seed0"), ("train", "freedom/default-seed1"), ("tune", "freedom/search")),
    ]
    lightgcn, freedom = rows_of(tmp_path, "table")
    assert list(freedom) == module.COLUMNS
    assert lightgcn["default recall@20"] == freedom["default recall@20"] == "0.3"
    assert (lightgcn["tuned recall@20"], freedom["tuned recall@20"]) == ("0.4", "0.3")
    assert lightgcn["tuned recall@20 deviation"] == "0"
    assert (lightgcn["seconds"], lightgcn["gib"]) == ("5", "1.5")
    assert (lightgcn["tuned p"], freedom["tuned p"]) == ("", "0")
    before = (tmp_path / "table.csv").read_bytes()
    for other in (replace(flags, seeds=(0, 2)), replace(flags, trials=5), replace(flags, data="OTHER")):
        with pytest.raises(SystemExit, match="give another --out"):
            module.main(other)
    assert (tmp_path / "table.csv").read_bytes() == before


@pytest.mark.slow
def test_the_runs_of_each_seed_are_blended(experiment, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(blending, "ADDITIONS", 4)  # each set of rankings with a weight is compiled
    module = experiment("blends")
    config = with_protocol(Config(dim=4, batch_size=128, epochs=1), "mmrec")
    systems = {"mf": replace(config, model="mf"), "wide": replace(config, model="mf", dim=6)}
    runs = {
        (name, seed): train(replace(own, seed=seed), tiny, out=tmp_path / f"{name}-seed{seed}")
        for name, own in systems.items()
        for seed in (0, 3)
    }
    folders = tuple(run.folder for run in runs.values())
    module.main(module.Flags(folders, tmp_path / "table.csv"))
    rows = {row["system"]: row for row in rows_of(tmp_path, "table")}
    assert rows.keys() == {"mf", "wide", "blend"}
    assert list(rows["mf"]) == list(module.COLUMNS)
    tests = [runs["wide", seed].test["recall@20"] for seed in (0, 3)]
    assert float(rows["wide"]["recall@20"]) == pytest.approx(np.mean(tests), rel=1e-5)
    assert float(rows["wide"]["recall@20 deviation"]) == pytest.approx(np.std(tests, ddof=1), rel=1e-4)
    blends = [blend([runs[name, seed] for name in systems]) for seed in (0, 3)]
    tests = [each.evaluate("test").means["recall@20"] for each in blends]
    assert float(rows["blend"]["recall@20"]) == pytest.approx(np.mean(tests), rel=1e-5)
    assert float(rows["mf"]["weight"]) == pytest.approx(np.mean([each.weights[0] for each in blends]), rel=1e-5)
    assert rows["blend"]["weight"] == ""
    assert [row["p"] for row in rows.values()].count("") == 1
    with pytest.raises(UserError, match=r"wide.* has seeds \[0\], mf \[0, 3\]: give the same seeds"):
        module.main(module.Flags(folders[:3], tmp_path / "other.csv"))

    both = module.Flags(folders, tmp_path / "both.csv", untrained=("randomwalk",), seeds_per_blend=2)
    module.main(both)
    found = {row["system"]: row for row in rows_of(tmp_path, "both")}
    assert found.keys() == {"mf", "wide", "randomwalk", "blend"}
    together = {name: blend([runs[name, seed] for seed in (0, 3)], (1, 1)) for name in systems}
    tests = together["wide"].evaluate("test").means["recall@20"]
    assert float(found["wide"]["recall@20"]) == pytest.approx(tests, rel=1e-5)
    entered = [replace(runs[name, 0], embeddings=together[name].embeddings) for name in systems]
    weights = blend(entered, untrained=["randomwalk"]).weights
    assert [float(found[name]["weight"]) for name in ("mf", "wide", "randomwalk")] == pytest.approx(weights, rel=1e-5)
    with pytest.raises(UserError, match="--seeds-per-blend 3: give a divisor of the number of seeds, 2"):
        module.main(replace(both, seeds_per_blend=3))


def test_the_rule_of_the_correction_is_fitted_to_other_sources(experiment):
    """Sources agree that 0 is right at 5 % and 1 at 10 %, and nothing is between them. One other is wrong about it."""
    module = experiment("correction_rule")
    low, high = module.Measured("a", 0.05, {0: 0.2, 1: 0.1}), module.Measured("b", 0.1, {0: 0.1, 1: 0.2})
    between = module.Measured("c", 0.05, {0: 0.1, 0.5: 0.4, 1: 0.3})
    assert module.loss(between, 0.75) == pytest.approx(1 - 0.35 / 0.4)
    bounds = module.fitted([low, high])
    assert [module.chosen(rate, bounds) for rate in (0.05, 0.1)] == [0.0, 1.0]
    rows = module.table({"low": low, "high": high, "between": between})
    assert rows[-1] == ("between", 0.0, pytest.approx(0.75), pytest.approx(0.75))
    page = (EXPERIMENTS.parent / "docs" / "systems.md").read_text().splitlines()
    for row in module.table(module.read(module.MEASURED)):
        assert module.line(row) in page
