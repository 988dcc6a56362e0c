import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet
import pytest

from slmrec_jax import data
from slmrec_jax.cli import main
from slmrec_jax.recommendations import Recommendations, write

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = ["--dim", "8", "--batch-size", "128", "--num-layers", "2"]


@pytest.fixture
def tiny_demo(tiny, monkeypatch):
    monkeypatch.setattr(data, "demo", lambda: tiny)


@pytest.fixture(scope="module")
def run_folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(data, "demo", lambda: tiny)
        assert main(["train", *SMALL, "--epochs", "2", "--out", str(folder)]) == 0
    return folder


def refused(capsys, *arguments):
    """The one line that a person gets."""
    capsys.readouterr()
    assert main(list(arguments)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"slmrec-jax: [^\n]+\n", said.err), said.err
    return said.err


def test_train_says_what_it_did(tiny_demo, tmp_path, capsys):
    assert main(["train", *SMALL, "--epochs", "2", "--task", "fd+fm", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "fingerprint" in said.err
    assert re.search(r"epoch +2  loss [\d.]+  main [\d.]+  ssl [\d.]+  valid recall@20 [\d.]+", said.err)
    assert "recall" in said.out
    assert f"run folder: {tmp_path / 'run'}" in said.out


def test_flags_win_over_presets_and_protocols(tiny_demo, tmp_path):
    out = str(tmp_path / "run")
    flags = ["--preset", "paper", "--slmrec.fac-similarity", "dot", "--protocol", "mmrec", "--eval.patience", "3"]
    assert main(["train", *SMALL, "--epochs", "1", "--slmrec.num-negatives", "4", *flags, "--out", out]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["slmrec"]["main_negatives"] == "sampled"
    assert config["slmrec"]["fac_similarity"] == "dot"
    assert (config["eval"]["name"], config["eval"]["patience"], config["eval"]["round_digits"]) == ("mmrec", 3, 4)


def test_resume_takes_the_config_of_the_run(tiny_demo, tmp_path):
    out = str(tmp_path / "run")
    assert main(["train", *SMALL, "--epochs", "1", "--task", "fm", "--out", out]) == 0
    assert main(["train", "--epochs", "2", "--out", out, "--resume"]) == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_split_is_apart_from_the_seed(tmp_path):
    shop = tmp_path / "shop"
    shop.mkdir()
    rows = "".join(f"{user},{(user * item) % 31}\n" for user in range(30) for item in range(1, 12))
    (shop / "shop.csv").write_text(f"user,item\n{rows}")
    out = str(tmp_path / "run")
    flags = ["--split", "mmrec", "--split-seed", "1", "--seed", "2", "--model", "mf", "--epochs", "1", "--ks", "5"]
    assert main(["train", *SMALL, "--data", str(shop), *flags, "--out", out]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["fingerprint"] == data.load(str(shop), split="mmrec", split_seed=1).fingerprint
    assert main(["evaluate", "--run", out]) == 0  # on the same division


def test_evaluate(run_folder, tiny_demo, capsys):
    capsys.readouterr()
    assert main(["evaluate", "--run", str(run_folder), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"] == json.loads((run_folder / "result.json").read_text())["test"]
    assert main(["evaluate", "--run", str(run_folder), "--split", "valid", "--protocol", "mmrec"]) == 0
    assert "valid @20" in capsys.readouterr().out


def test_recommend_in_raw_ids(run_folder, tiny_demo, tmp_path, capsys):
    capsys.readouterr()
    arguments = ["recommend", "--run", str(run_folder), "--users", "user-0001,user-0004", "-k", "3"]
    assert main([*arguments, "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["user"] for line in lines] == ["user-0001", "user-0004"]
    assert all(re.fullmatch(r"item-\d{4}", item) for line in lines for item in line["items"])
    assert all(line["scores"] == sorted(line["scores"], reverse=True) for line in lines)

    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert all(item in table for line in lines for item in line["items"])

    out = tmp_path / "found.parquet"
    assert main([*arguments, "--format", "parquet", "--out", str(out)]) == 0
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["item"] for row in rows] == [item for line in lines for item in line["items"]]
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2


def test_refused_flags_get_one_line(capsys, tmp_path):
    assert "there is no command 'trian'; did you mean 'train'?" in refused(capsys, "trian")
    assert "did you mean '--slmrec.alpha'?" in refused(capsys, "train", "--slmrec.alhpa", "1")
    assert "invalid choice 'fog'" in refused(capsys, "train", "--task", "fog")
    assert "invalid choice 'lightgnc'" in refused(capsys, "train", "--model", "lightgnc")
    assert "different numbers" in refused(capsys, "compare", "--seeds", "0,0")
    assert "not --seed" in refused(capsys, "compare", "--seed", "7")
    assert "--seed" in refused(capsys, "train", "--seed", "x")
    assert "--config" in refused(capsys, "train", "--config", str(tmp_path / "none.py"))
    assert "--slmrec.temperature is 0" in refused(capsys, "train", "--slmrec.temperature", "0")
    assert "needs --out" in refused(capsys, "train", "--resume")
    assert "--split-seed is -1" in refused(capsys, "train", "--split-seed", "-1")
    assert "no split 'tmie'" in refused(capsys, "train", "--split", "tmie")
    assert "invalid choice 'median'" in refused(capsys, "train", "--missing", "median")


def test_refused_data_and_runs_get_one_line(capsys, run_folder, tiny_demo, tmp_path):
    out = tmp_path / "run"
    assert "no such folder" in refused(capsys, "train", "--data", str(tmp_path / "none"), "--out", str(out))
    assert "there already" in refused(capsys, "train", *SMALL, "--out", str(run_folder))
    assert "there is no modality 'smell'" in refused(capsys, "train", *SMALL, "--modalities", "visual,smell")
    assert "another task" in refused(capsys, "train", "--task", "fd", "--out", str(run_folder), "--resume")
    assert "config.json is not there" in refused(capsys, "evaluate", "--run", str(tmp_path))
    assert "no user 'x'" in refused(capsys, "recommend", "--run", str(run_folder), "--users", "x")
    assert "no users were named" in refused(capsys, "recommend", "--run", str(run_folder), "--users", ",")
    assert "k is 0, and there are 80 items to rank: give 1 to 80" in refused(
        capsys, "recommend", "--run", str(run_folder), "-k", "0"
    )
    assert "needs --out" in refused(capsys, "recommend", "--run", str(run_folder), "--format", "parquet")
    assert "no system 'magic'" in refused(capsys, "compare", "--models", "magic", "--out", str(out))
    assert not out.exists()


def test_a_dozen_items_train_rank_and_recommend_by_default(tmp_path, capsys):
    """No cut-off, metric or k is asked for that they cannot have; what is asked for is refused."""
    rows = [f"u{user},i{(user + 5 * step) % 12},{step}" for user in range(20) for step in range(6)]
    (tmp_path / "dozen").mkdir()
    (tmp_path / "dozen" / "interactions.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    run = str(tmp_path / "run")
    train = ["train", "--data", str(tmp_path / "dozen"), "--split", "leave-one-out", "--model", "mf", "--dim", "4"]
    assert main([*train, "--epochs", "1", "--out", run]) == 0
    said = capsys.readouterr()
    said = said.out + said.err
    assert "12 items to rank: no metrics at 20, 50, and ndcg@10 selects in place of recall@20" in said
    assert "an epoch has 1 step of at most 80 interactions: --batch-size 16 makes it 5" in said
    assert main(["evaluate", "--run", run, "--protocol", "mmssl", "--format", "json"]) == 0
    assert {key.split("@")[1] for key in json.loads(capsys.readouterr().out)["metrics"]} == {"10"}
    assert main(["recommend", "--run", run, "--users", "u1", "--format", "jsonl"]) == 0
    found = capsys.readouterr()
    assert len(json.loads(found.out)["items"]) == 6
    assert found.err == "-k is 20, and there are 12 items to rank\n"
    again = [*train, "--out", str(tmp_path / "again")]
    assert "--ks: the cut-off 50 is beyond the 12 items" in refused(capsys, *again, "--ks", "5", "50")
    assert "no metric 'ndcg@50' to select by" in refused(capsys, *again, "--eval.metric", "ndcg@50")
    assert not (tmp_path / "again").exists()


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="no such folder"):
        main(["train", "--debug", "--data", str(tmp_path / "none")])


def test_compare(tiny_demo, tmp_path, capsys):
    out = tmp_path / "compared"
    arguments = ["compare", *SMALL, "--epochs", "1", "--models", "popularity,lightgcn,slmrec:fm", "--seeds", "0,1"]
    assert main([*arguments, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert re.search(r"slmrec:fm.*±", said.out)
    figures = json.loads((out / "comparison.json").read_text())
    assert {name: len(results) for name, results in figures["systems"].items()} == {
        "popularity": 1,
        "lightgcn": 2,
        "slmrec:fm": 2,
    }
    assert {len(of_others) for of_others in figures["p_values"].values()} == {2}
    assert (out / "comparison.png").stat().st_size > 5000
    written = (out / "slmrec-fm-seed1" / "result.json").stat().st_mtime_ns
    assert main([*arguments, "--out", str(out)]) == 0
    assert capsys.readouterr().err.count("finished before") == 4
    assert (out / "slmrec-fm-seed1" / "result.json").stat().st_mtime_ns == written
    assert "another config" in refused(capsys, *arguments, "--out", str(out), "--batch-size", "64")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:", "line 1 is not Python"),
        ("x = 1", "no function get_config"),
        ("def get_config():\n    return None", "returns None"),
        (
            "def get_config():\n    import slmrec_jax\n    return slmrec_jax.Config()\nmake_method = 1",
            "which compare cannot",
        ),
    ],
)
def test_config_files_that_cannot_be_used(capsys, tmp_path, code, said):
    (tmp_path / "mine.py").write_text(code)
    assert said in refused(capsys, "compare", "--config", str(tmp_path / "mine.py"), "--out", str(tmp_path / "out"))


def test_raw_ids_are_shown_as_they_are(capsys):
    found = Recommendations(np.array(["[x]u1"]), np.array([["[/i]2", "b"]]), np.array([[1.0, -np.inf]], np.float32))
    write(found, "table", None)
    said = capsys.readouterr().out
    assert "[x]u1" in said
    assert "[/i]2" in said
    assert " b " not in said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_name_the_command_that_resumes(tmp_path, number, status):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "slmrec_jax.cli", "train", *SMALL, "--epochs", "100000", "--eval.patience", "None"]
    with subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True) as process:
        while not (out / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.1)
        os.kill(process.pid, number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == status, said
    assert f"go on with: slmrec-jax train --out {out} --resume" in said
    done = len((out / "metrics.jsonl").read_text().splitlines())
    assert (out / "checkpoints" / str(done)).is_dir()


def test_help_lists_every_command_and_flag(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("train", "evaluate", "recommend", "compare"))
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert not stopped.value.code
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--slmrec.alpha", "--eval.patience", "--optimizer.chain", "--resume"))
