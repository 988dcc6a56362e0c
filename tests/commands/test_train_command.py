import contextlib
import json
import os
import re
import shutil
import signal

import pytest
from listeners import on_epoch

from slmrec_jax import data
from slmrec_jax.commands import train
from slmrec_jax.commands.main import main
from slmrec_jax.commands.parsing import parse
from slmrec_jax.training import progress

pytestmark = pytest.mark.usefixtures("optax_promotion")


def settings(*arguments):
    return parse(train.TrainFlags, "slmrec-jax train", list(arguments)).settings


def test_train_says_what_it_did(finished):
    assert "fingerprint" in finished.err
    assert re.search(r"epoch +1  bpr [\d.]+  l2 [\d.]+  loss [\d.]+  valid recall@20 [\d.]+", finished.err)
    assert "recall" in finished.out
    assert f"run folder: {finished.folder}" in finished.out


def test_flags_win_over_presets_and_protocols():
    flags = ["--preset", "paper", "--slmrec.fac-similarity", "dot", "--protocol", "mmrec", "--eval.patience", "3"]
    config = settings(*flags)
    assert config.slmrec.main_negatives == "sampled"
    assert config.slmrec.fac_similarity == "dot"
    assert (config.protocol, config.eval.name, config.eval.patience, config.eval.round_digits) == (
        "mmrec",
        "mmrec",
        3,
        4,
    )


def test_the_run_records_whole_paths_and_single_modalities(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = settings("--data", "shop", "--modalities", "visual,textual", "audio", "--task", "fd+fm")
    assert config.data == str(tmp_path / "shop")
    assert config.modalities == ("visual", "textual", "audio")
    assert config.task == "fd+fm"


def test_resume_takes_the_config_of_the_run(finished, tiny_demo, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    assert main(["train", "--epochs", "2", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_the_split_is_apart_from_the_seed(cheap, tmp_path):
    shop = tmp_path / "shop"
    shop.mkdir()
    rows = "".join(f"{user},{(user * item) % 31}\n" for user in range(30) for item in range(1, 12))
    (shop / "shop.csv").write_text(f"user,item\n{rows}")
    out = str(tmp_path / "run")
    flags = ["--split", "mmrec", "--split-seed", "1", "--seed", "2", "--ks", "5"]
    assert main(["train", *cheap, "--data", str(shop), *flags, "--out", out]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["fingerprint"] == data.load(str(shop), split="mmrec", split_seed=1).fingerprint
    assert main(["evaluate", out]) == 0  # on the same division


@pytest.mark.slow
def test_a_dozen_items_train_rank_and_recommend_by_default(tmp_path, capsys, refused):
    """Defaults that a dozen items cannot have are adapted; what the user asks for is refused."""
    rows = [f"u{user},i{(user + 5 * step) % 12},{step}" for user in range(20) for step in range(6)]
    (tmp_path / "dozen").mkdir()
    (tmp_path / "dozen" / "interactions.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    run = str(tmp_path / "run")
    command = ["train", "--data", str(tmp_path / "dozen"), "--split", "leave-one-out", "--model", "mf", "--dim", "4"]
    assert main([*command, "--epochs", "1", "--out", run]) == 0
    said = capsys.readouterr()
    said = said.out + said.err
    assert "12 items to rank: no metrics at 20, 50, and ndcg@10 selects instead of recall@20" in said
    assert "an epoch has 1 step of at most 80 interactions: --batch-size 16 makes it 5" in said
    assert main(["evaluate", run, "--protocol", "mmssl", "--format", "json"]) == 0
    assert {key.split("@")[1] for key in json.loads(capsys.readouterr().out)["metrics"]} == {"10"}
    assert main(["recommend", run, "--users", "u1", "--format", "jsonl"]) == 0
    found = capsys.readouterr()
    assert len(json.loads(found.out)["items"]) == 6
    assert found.err == "-k is 20, but there are only 12 items to rank\n"
    again = [*command, "--out", str(tmp_path / "again")]
    assert "--ks: the cut-off 50 is beyond the 12 items" in refused(*again, "--ks", "5", "50")
    assert "--eval.metric ndcg@50: there is no metric of that name" in refused(*again, "--eval.metric", "ndcg@50")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_name_the_command_that_resumes(
    cheap, tiny_demo, tmp_path, monkeypatch, capsys, number, status
):
    @contextlib.contextmanager
    def interrupting(epochs):
        yield on_epoch(lambda event: os.kill(os.getpid(), number))

    monkeypatch.setattr(progress, "display", interrupting)
    out = tmp_path / "run"
    assert main(["train", *cheap, "--epochs", "100000", "--eval.patience", "None", "--out", str(out)]) == status
    assert f"continue with: slmrec-jax train --out {out} --resume" in capsys.readouterr().err
    done = len((out / "metrics.jsonl").read_text().splitlines())
    assert (out / "checkpoints" / str(done)).is_dir()
