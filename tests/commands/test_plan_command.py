"""The command `plan`: a table or JSON, for data or for sizes; refusals in one line."""

import json

import pytest

from slmrec_jax.commands.main import main

SIZES = ["--users", "30", "--items", "40", "--interactions", "200"]
SMALL = ["--model", "mf", "--dim", "4"]

pytestmark = pytest.mark.usefixtures("optax_promotion")


def test_sizes_in_json(capsys):
    assert main(["plan", *SIZES, *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["on"] == "cpu"
    assert found["fits"]
    assert found["estimated_step_seconds"] is None
    assert found["total_bytes"] == sum(found["memory_bytes"].values())
    assert set(found["programs"]) == {"step", "order", "embed"}


def test_brackets_in_the_name_of_the_data_are_shown(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "120")
    folder = tmp_path / "shop[old][ red]"
    folder.mkdir()
    rows = [f"u{user},i{(user + place) % 7}" for user in range(9) for place in range(4)]
    (folder / "interactions.csv").write_text("\n".join(["user,item", *rows]))
    assert main(["plan", "--data", str(folder), "--split", "mmrec", *SMALL]) == 0
    assert "mf on cpu: shop[old][ red]" in capsys.readouterr().out


def test_free_memory_that_is_unknown(capsys, monkeypatch):
    monkeypatch.setattr("slmrec_jax.training.planning.available_bytes", lambda: None)
    assert main(["plan", *SIZES, *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["usable_bytes"], found["fits"], found["checkpoints_copied"]) == (None, True, True)
    assert main(["plan", *SIZES, *SMALL]) == 0
    out = capsys.readouterr().out
    assert "unknown" in out
    assert "does not fit" not in out


def test_data_in_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["plan", "--data", "demo", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "mf on cpu: demo" in out
    for part in ("state", "JAX would use", "step", "embed", "slmrec-jax bench step"):
        assert part in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--users", "5"], "--users, --items and --interactions go together"),
        ([*SIZES, "--data", "/nowhere"], "replace the data: leave out --data"),
        ([*SIZES, "--split", "random"], "replace the data: leave out --data"),
        ([*SIZES, "--modalities", "visual"], "--modalities visual: with --users, give each modality's width"),
        ([*SIZES, "--modalities", "visual=²"], "give each modality's width, such as visual=512"),
        ([*SIZES, "--modalities", "=5"], "give each modality's width, such as visual=512"),
        ([*SIZES, "--modalities", "visual=5,visual=6"], "--modalities names visual twice"),
        ([*SIZES, "--batch-size", "0"], "--batch-size is 0: give at least 1"),
        ([*SIZES[:4], "--interactions", "1201"], "--interactions 1201: there are 1200 pairs"),
    ],
)
def test_refusals(flags, message, capsys):
    assert main(["plan", *SMALL, *flags]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
