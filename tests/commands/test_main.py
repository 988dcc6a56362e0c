import errno
import io
import sys

import pytest

from slmrec_jax.commands.main import main


def test_help_lists_every_command_and_flag(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("train", "evaluate", "recommend", "compare"))
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help-all"])
    assert not stopped.value.code
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--slmrec.alpha", "--eval.patience", "--optimizer.chain", "--resume"))


def test_refused_flags_get_one_line(refused, tmp_path):
    assert "there is no command 'trian'; did you mean 'train'?" in refused("trian")
    assert "did you mean '--slmrec.alpha'?" in refused("train", "--slmrec.alhpa", "1")
    assert "--task is fog: give none, fac, fd" in refused("train", "--task", "fog")
    assert "--model is 'lightgnc': give slmrec, mf, " in refused("train", "--model", "lightgnc")
    for seeds in ("0,0", "0,00", "²", "0,", "x"):
        assert "different numbers" in refused("compare", "--seeds", seeds)
    assert "--seed, or the file of --config, names the seed 7" in refused("compare", "--seed", "7")
    assert "--model, or the file of --config, names mf" in refused("compare", "--model", "mf")
    assert "--num-processes is 0" in refused(
        "train", "--coordinator", "h:1", "--num-processes", "0", "--process-id", "0"
    )
    assert "--seed" in refused("train", "--seed", "x")
    assert "--config" in refused("train", "--config", str(tmp_path / "none.py"))
    assert "--slmrec.temperature is 0" in refused("train", "--slmrec.temperature", "0")
    assert "needs --out" in refused("train", "--resume")
    assert "--split-seed is -1" in refused("train", "--split-seed", "-1")
    assert "no split 'tmie'" in refused("train", "--split", "tmie")
    assert "--missing is 'median': give " in refused("train", "--missing", "median")
    assert "slmrec has no preset 'papre'; its presets are: reference, paper" in refused("train", "--preset", "papre")
    assert "choose one with --protocol" in refused("train", "--eval.name", "mmrec")
    assert "there is no flag '--mmssl.mode'" in refused("train", "--mmssl.mode", "published")


def test_a_preset_is_that_of_the_model_and_flags_win_over_it(refused, cheap, tiny_demo, tmp_path):
    flags = ["--model", "mmssl", "--preset", "published", "--mmssl.heads", "2", "--out", str(tmp_path / "run")]
    said = refused("train", *cheap, *flags, "--mmssl.refresh-every", "0")
    assert "graphs of the last batches need" in said


def test_refused_data_and_runs_get_one_line(refused, cheap, finished, tiny_demo, tmp_path):
    run, out = str(finished.folder), tmp_path / "run"
    assert "no such folder" in refused("train", "--data", str(tmp_path / "none"), "--out", str(out))
    assert "already exists" in refused("train", *cheap, "--out", run)
    assert "there is no modality 'smell'" in refused("train", *cheap, "--modalities", "visual,smell")
    assert "another dim" in refused("train", "--dim", "8", "--out", run, "--resume")
    assert "config.json is missing" in refused("evaluate", str(tmp_path))
    assert "no user 'x'" in refused("recommend", run, "--users", "x")
    assert "no users were named" in refused("recommend", run, "--users", ",")
    assert "--k is 0: give at least 1" in refused("recommend", run, "-k", "0")
    assert "--port 99999: give 1 to 65535" in refused("explore", run, "--port", "99999")
    report = ("report", run, "--out", str(tmp_path / "page.html"), "--explore")
    for part in ("page.html", "page_files/more.html"):
        assert "--explore is" in refused(*report, str(tmp_path / part))
    assert "needs --out" in refused("recommend", run, "--format", "parquet")
    assert "no system 'magic'" in refused("compare", "--models", "magic", "--out", str(out))
    assert not out.exists()


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="no such folder"):
        main(["train", "--debug", "--data", str(tmp_path / "none")])


EVIL = "\x1b[2J\x1b]0;owned\x07\u202eabc\n"


def test_a_refusal_is_one_line_that_a_terminal_shows(refused):
    assert EVIL[:4] not in refused("train", "--data", f"x{EVIL}")
    assert r"\x1b[2J" in refused("report", f"x{EVIL}")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_cannot_hold_a_letter_has_a_mark_in_its_place(exported, tmp_path, monkeypatch, encoding):
    for arguments in (["recommend", str(exported), "-k", "1"], ["--help"], ["results", "Ж"]):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        assert main(arguments) == (1 if "results" in arguments else 0)
        said, refusal = (stream.buffer.getvalue() for stream in streams)
        assert (b"???" in said) == ("recommend" in arguments)
        assert (rb"\u0416 is missing" in refusal or rb"\u0416" in refusal) == ("results" in arguments)
    out = tmp_path / "table"
    assert main(["recommend", str(exported), "--users", "Жук", "-k", "1", "--out", str(out)]) == 0
    assert "Жук" in out.read_bytes().decode("utf-8")


def test_output_that_is_refused_is_one_line(exported, monkeypatch):
    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    for arguments in (["recommend", str(exported), "-k", "1"], ["--help"], ["results", "--help"]):
        full = io.TextIOWrapper(io.BufferedWriter(Full()), encoding="utf-8")
        said = io.StringIO()
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", said)
        assert main(arguments) == 1
        assert said.getvalue() == (
            "slmrec-jax: cannot write the output of this command: No space left on device; free some space, or write "
            "it elsewhere\n"
        )
        with pytest.raises(OSError, match="No space left"):
            full.close()


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_full_disk_leaves_no_picture(tiny_demo, tmp_path, refused, suffix, refusing_disk):
    refusing_disk(100)
    picture = tmp_path / f"p.{suffix}"
    said = refused("data", "inspect", "demo", "--plot", str(picture))
    assert f"cannot write {picture}: File too large; free some space, or give another --plot" in said
    assert list(tmp_path.iterdir()) == []
