"""`slmrec-jax blend`: the metrics of runs and of their blend, and a folder that recommends."""

import contextlib
import io
import json

import jax
import pytest

from slmrec_jax import blend, load_run
from slmrec_jax.commands.main import main
from slmrec_jax.commands.runs import open_runs
from slmrec_jax.evaluation.protocol import evaluate


@pytest.fixture(scope="module")
def second(finished, tiny, cheap, tmp_path_factory):
    """A second run, of another seed, that samples users of validation."""
    folder = tmp_path_factory.mktemp("second") / "run [b]"
    with (
        pytest.MonkeyPatch.context() as patch,
        jax.numpy_dtype_promotion("standard"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.setattr("slmrec_jax.data.demo", lambda: tiny)
        assert main(["train", *cheap, "--seed", "1", "--eval.users", "7", "--out", str(folder)]) == 0
    return folder


@pytest.mark.usefixtures("tiny_demo")
def test_runs_and_their_blend(finished, second, tiny, tmp_path, capsys):
    runs = [str(finished.folder), str(second)]
    capsys.readouterr()
    assert main(["blend", *runs, "--format", "json", "--out", str(tmp_path / "both")]) == 0
    said = json.loads(capsys.readouterr().out)
    members, both = said["runs"], said["blend"]
    assert [row["run"] for row in members] == runs
    assert (said["protocol"], said["fingerprint"]) == ("strict", tiny.fingerprint)
    assert "sampled" not in said
    expected = blend([load_run(run) for run in runs])
    assert tuple(row["weight"] for row in members) == expected.weights
    for split in ("valid", "test"):
        assert both[split] == expected.evaluate(split).means
    for row in members:
        assert row["test"] == json.loads((load_run(row["run"]).folder / "result.json").read_text())["test"]

    assert main(["recommend", str(tmp_path / "both"), "--users", "user-0003", "-k", "3", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == expected.recommend("user-0003", 3).items[0].tolist()

    assert main(["blend", *runs, "--weights", "1,3"]) == 0
    table = capsys.readouterr().out
    assert "run [b]" in table
    for shown in ("0.25", "0.75", "blend", "test"):
        assert shown in table


@pytest.mark.usefixtures("tiny_demo")
def test_a_ranking_without_training_is_blended(finished, capsys):
    capsys.readouterr()
    arguments = ["blend", str(finished.folder), "--untrained", "popularity,randomwalk", "--weights", "2,1,1"]
    assert main([*arguments, "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    expected = blend([load_run(finished.folder)], (2, 1, 1), untrained=["popularity", "randomwalk"])
    assert [(row["run"], row["weight"]) for row in said["runs"]] == [(str(finished.folder), 0.5)]
    assert {name: row["weight"] for name, row in said["untrained"].items()} == {"popularity": 0.25, "randomwalk": 0.25}
    for member, row in zip(expected.members, (*said["runs"], *said["untrained"].values()), strict=True):
        assert row["test"] == evaluate(expected.plan("test"), member.embeddings).means
    assert said["blend"]["test"] == expected.evaluate("test").means


@pytest.mark.usefixtures("tiny_demo")
def test_sampled_users_are_shown(finished, second, capsys):
    """The first run's sample holds for all."""
    runs = [str(second), str(finished.folder)]
    capsys.readouterr()
    assert main(["blend", *runs, "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sampled"]["valid"]["users"], said["sampled"]["test"]) == (7, None)
    assert main(["blend", *runs]) == 0
    assert "valid: 7 of " in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_demo")
def test_runs_share_the_data_in_memory(finished, second):
    one, other = open_runs([finished.folder, second], None)
    assert one.dataset.train.users is other.dataset.train.users


@pytest.mark.usefixtures("tiny_demo")
def test_mistakes(finished, second, refused, tmp_path):
    runs = [str(finished.folder), str(second)]
    (tmp_path / "there").mkdir()
    assert "at least two runs" in refused("blend", runs[0])
    assert "no runs were named" in refused("blend")
    assert "named twice" in refused("blend", runs[0], f"{runs[0]}/")
    assert "there exists: give another --out" in refused("blend", *runs, "--out", str(tmp_path / "there"))
    assert "--weights: 1 given for 2 rankings" in refused("blend", *runs, "--weights", "1")
    assert "--weights is 'much': give numbers separated by commas" in refused("blend", *runs, "--weights", "much")
    assert "--faiss and --onnx add to --out" in refused("blend", *runs, "--onnx")
    assert "--untrained mf: give some of popularity, itemknn, randomwalk" in refused(
        "blend", *runs, "--untrained", "mf"
    )
    assert "give the folder of a run" in refused("blend", runs[0], str(tmp_path))
