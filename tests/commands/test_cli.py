import errno
import io
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
from slmrec_jax.commands.main import main
from slmrec_jax.serving.exports import make_export, write_export
from slmrec_jax.serving.recommendations import Recommendations, nothing_left, write
from slmrec_jax.types import Embeddings, Interactions

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
    assert "slmrec has no preset 'papre'; there are: reference, paper" in refused(capsys, "train", "--preset", "papre")
    assert "choose one by --protocol" in refused(capsys, "train", "--eval.name", "mmrec")
    assert "there is no flag '--mmssl.mode'" in refused(capsys, "train", "--mmssl.mode", "published")


def test_a_preset_is_that_of_the_model_and_flags_win_over_it(capsys, tiny_demo, tmp_path):
    flags = ["--model", "mmssl", "--preset", "published", "--mmssl.heads", "2", "--out", str(tmp_path / "run")]
    said = refused(capsys, "train", *SMALL, *flags, "--mmssl.refresh-every", "0")
    assert "graphs of the last batches need" in said


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


EVIL = "\x1b[2J\x1b]0;owned\x07\u202eabc\n"


def one(user, *items, left=True):
    """Recommendations to one user, the last of which is none."""
    scores = np.array([[1.0] * (len(items) - 1) + [-np.inf]] if left else [[-np.inf] * len(items)], np.float32)
    return Recommendations(np.array([user]), np.array([items]), scores)


def test_raw_ids_are_shown_as_they_are(capsys):
    write(one("[x]u1", "[/i]2", "b"), "table", None)
    said = capsys.readouterr().out
    assert "[x]u1" in said
    assert "[/i]2" in said
    assert " b " not in said
    long = "item-" * 40
    write(one("u", long, "b"), "table", None)
    letters = re.sub(r"[^a-z-]", "", capsys.readouterr().out.split("score")[1])
    assert long in letters  # over several lines, and not cut short


def test_a_terminal_obeys_no_raw_id(capsys, tmp_path):
    write(one(EVIL, EVIL, "b"), "table", None)
    write(one(EVIL, EVIL, "b"), "table", tmp_path / "table")
    note = nothing_left(one(EVIL, "a", left=False))
    assert "1 of 1 users have nothing left to recommend" in note
    for said in (capsys.readouterr().out, (tmp_path / "table").read_text(), note):
        assert not {"\x1b", "\x07", "\u202e"} & set(said)
        assert r"\x1b[2J" in said


def test_a_refusal_is_one_line_that_a_terminal_shows(capsys):
    assert EVIL[:4] not in refused(capsys, "train", "--data", f"x{EVIL}")
    assert r"\x1b[2J" in refused(capsys, "report", f"x{EVIL}")


def test_a_user_with_nothing_left_is_in_every_form(tmp_path, capsys):
    ids = np.array([7, 8])
    found = Recommendations(ids, np.array([[1, 2], [3, 4]]), np.array([[0.5, -np.inf], [-np.inf] * 2], np.float32))
    for form in ("table", "jsonl", "parquet"):
        write(found, form, tmp_path / form)
    assert re.search(r"8 +│ +│ nothing left", (tmp_path / "table").read_text())
    lines = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    assert lines == [{"user": 7, "items": [1], "scores": [0.5]}, {"user": 8, "items": [], "scores": []}]
    rows = pyarrow.parquet.read_table(tmp_path / "parquet").to_pylist()
    assert rows == [
        {"user": 7, "rank": 1, "item": 1, "score": 0.5},
        {"user": 8, "rank": None, "item": None, "score": None},
    ]
    assert nothing_left(found) == "1 of 2 users have nothing left to recommend: 8"
    assert nothing_left(one(1, 2, 3)) is None


@pytest.fixture
def exported(tmp_path):
    """A folder that recommends; its ids hold commas, quotes, blanks and letters of other scripts."""
    users = np.array(["Doe, Jane", "u2", ' "x" ', "Жук", "u2 "])
    none, known = (Interactions(each, each + 1) for each in (np.zeros(0, np.int32), np.zeros(1, np.int32)))
    ids = {"user_ids": users, "item_ids": np.array(["商", "b"])}
    dataset = data.make_dataset("shop", known, none, none, num_users=5, num_items=2, **ids)
    write_export(make_export(dataset, Embeddings(np.ones((5, 1)), np.eye(2)[:, :1]), "dot", {}), tmp_path / "shop")
    return tmp_path / "shop"


def recommended(capsys, *arguments):
    assert main(["recommend", *arguments, "-k", "1", "--format", "jsonl"]) == 0
    return [json.loads(line)["user"] for line in capsys.readouterr().out.splitlines()]


def test_users_with_commas_quotes_and_blanks_can_be_named(exported, tmp_path, capsys):
    shop = ["--from", str(exported)]
    assert recommended(capsys, *shop, "--users", 'u2,"Doe, Jane"') == ["u2", "Doe, Jane"]
    assert recommended(capsys, *shop, "--users", '" ""x"" ",u2 ') == [' "x" ', "u2 "]
    names = tmp_path / "names.txt"
    names.write_bytes('\ufeffDoe, Jane\r\n\n "x" \nu2 \nЖук'.encode())
    assert recommended(capsys, *shop, "--users-file", str(names)) == ["Doe, Jane", ' "x" ', "u2 ", "Жук"]
    assert "quotes must enclose an id" in refused(capsys, "recommend", *shop, "--users", '"Doe, Jane')
    assert "one of --users and --users-file" in refused(
        capsys, "recommend", *shop, "--users", "u2", "--users-file", str(names)
    )
    for content, said in ((b"\n", "is empty"), (b"u2\n\xff", "not UTF-8 (byte 4)")):
        names.write_bytes(content)
        assert said in refused(capsys, "recommend", *shop, "--users-file", str(names))
    assert "Is a directory" in refused(capsys, "recommend", *shop, "--users-file", str(tmp_path))
    assert "no user 'all'" in refused(capsys, "recommend", *shop, "--users", '"all"')


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_cannot_hold_a_letter_has_a_mark_in_its_place(exported, tmp_path, monkeypatch, encoding):
    for arguments in (["recommend", "--from", str(exported), "-k", "1"], ["--help"], ["results", "Ж"]):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        assert main(arguments) == (1 if "results" in arguments else 0)
        said, refusal = (stream.buffer.getvalue() for stream in streams)
        assert (b"???" in said) == ("recommend" in arguments)
        assert (rb"\u0416 is not there" in refusal or rb"\u0416" in refusal) == ("results" in arguments)
    out = tmp_path / "table"
    assert main(["recommend", "--from", str(exported), "--users", "Жук", "-k", "1", "--out", str(out)]) == 0
    assert "Жук" in out.read_bytes().decode("utf-8")


def test_output_that_is_refused_is_one_line(exported, monkeypatch):
    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    for arguments in (["recommend", "--from", str(exported), "-k", "1"], ["--help"], ["results", "--help"]):
        full = io.TextIOWrapper(io.BufferedWriter(Full()), encoding="utf-8")
        said = io.StringIO()
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", said)
        assert main(arguments) == 1
        assert said.getvalue() == (
            "slmrec-jax: cannot write the output of this command: No space left on device; free some space, or send it "
            "to another place\n"
        )
        with pytest.raises(OSError, match="No space left"):
            full.close()


@pytest.mark.parametrize("form", ["table", "jsonl", "parquet"])
def test_a_full_disk_leaves_no_recommendations(exported, tmp_path, capsys, form, refusing_disk):
    (tmp_path / "out").write_text("old")
    arguments = ["recommend", "--from", str(exported), "-k", "1", "--format", form, "--out"]
    refusing_disk(50)
    for name in ("out", "new/out"):
        said = refused(capsys, *arguments, str(tmp_path / name))
        assert f"cannot write {tmp_path / name}: File too large; free some space, or give another --out" in said
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "shop"]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_full_disk_leaves_no_picture(tiny_demo, tmp_path, capsys, suffix, refusing_disk):
    refusing_disk(100)
    picture = tmp_path / f"p.{suffix}"
    said = refused(capsys, "data", "inspect", "demo", "--plot", str(picture))
    assert f"cannot write {picture}: File too large; free some space, or give another --plot" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [50, 4000])
def test_a_full_disk_ends_a_comparison_in_one_line(tiny_demo, tmp_path, capsys, size, refusing_disk):
    """At the table, and at the picture."""
    refusing_disk(size)
    said = refused(capsys, "compare", "--models", "popularity", "--out", str(tmp_path / "out"))
    assert "File too large; free some space, or give another --out; the same command does not repeat finished" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"comparison.json"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_name_the_command_that_resumes(tmp_path, number, status):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "slmrec_jax.commands.main",
        "train",
        *SMALL,
        "--epochs",
        "100000",
        "--eval.patience",
        "None",
    ]
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
