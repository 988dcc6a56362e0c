import json

import pytest

from slmrec_jax.commands.main import main


def test_bench_needs_the_sources(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    assert "run this in a clone" in refused("bench")


def test_bench_step_needs_rounds_and_has_a_name(cheap, tiny_demo, refused):
    assert "--rounds is 0: give 1 or more" in refused("bench", "step", *cheap, "--rounds", "0")
    assert "there is no command 'bench stpe'; did you mean 'bench step'?" in refused("bench", "stpe")


@pytest.mark.parametrize("form", [["--json"], []])
def test_bench_step_measures_without_a_clone(cheap, tiny_demo, optax_promotion, tmp_path, monkeypatch, capsys, form):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("slmrec_jax.training.timing.SEGMENT_SECONDS", 0.01)
    assert main(["bench", "step", *cheap, "--rounds", "3", *form]) == 0
    said = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    if not form:
        assert "demo" in said
        assert "per step: " in said
        assert "MiB" in said
        return
    found = json.loads(said)
    assert (found["model"], found["batch_size"], found["dim"], found["rounds"]) == ("mf", 128, 4, 3)
    assert found["platform"] == "cpu"
    lower, upper = found["step_ms_quartiles"]
    assert 0 < lower <= found["step_ms"] <= upper
    assert found["steps_per_second"] == pytest.approx(1e3 / found["step_ms"])
    assert 0 < found["interactions_per_second"] <= 128 * found["steps_per_second"]
    assert found["compile_seconds"] > 0
    assert found["peak_bytes"] > 2**20
