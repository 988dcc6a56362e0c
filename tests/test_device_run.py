"""The device run in its reduced form: cheap parts in processes of their own, and what is reported of the others."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def device(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import device

    return device


def run(*flags):
    command = [sys.executable, str(BENCHMARKS / "device.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_parts_are_measured_and_written(tmp_path):
    done = run("--reduced", "--out", tmp_path, "--parts", "bandwidth", "products")
    assert done.returncode == 0, done.stderr
    assert "goals do not apply" in done.stdout
    whole = json.loads((tmp_path / "device.json").read_text())
    assert whole["reduced"]
    assert list(whole["parts"]) == ["products", "bandwidth"]
    for name, report in whole["parts"].items():
        assert report == json.loads((tmp_path / f"{name}.json").read_text())
        assert report["status"] == "done", (tmp_path / f"{name}.log").read_text()
        assert report["environment"]["backend"] == "cpu"
        assert report["findings"]
        assert all(row["met"] is None for row in report["findings"])
    products = {row["product"]: row for row in whole["parts"]["products"]["rows"]}
    assert {"segment_sum", "csr", "chunked"} <= products.keys()
    assert all(row[name] < 1e-5 for row in products.values() for name in ("value_error", "derivative_error"))


def test_an_unknown_part_is_refused(tmp_path):
    done = run("--reduced", "--out", tmp_path, "--parts", "magic")
    assert done.returncode == 1
    assert "there is no part 'magic'; there are: golden, products" in done.stderr


def test_a_part_that_fails_or_has_no_time_is_reported(device, tmp_path, monkeypatch):
    flags = device.Flags(tmp_path, reduced=True)
    none = device.run_part("golden", flags, time.monotonic() + device.STARTING - 1)
    assert (none["status"], none["reason"]) == ("skipped", "earlier parts took its time")
    monkeypatch.setitem(device.PARTS, "golden", device.Planned("no_such_module", 60))
    monkeypatch.setattr(device, "__file__", str(tmp_path / "none.py"))
    failed = device.run_part("golden", flags, time.monotonic() + 60)
    assert failed["status"] == "failed"
    assert "none.py" in failed["error"]
    assert json.loads((tmp_path / "golden.json").read_text()) == failed


def test_a_part_that_takes_too_long_is_stopped_with_what_it_wrote(device, tmp_path, monkeypatch):
    script = tmp_path / "slow.py"
    written = {"status": "running", "rows": [{"value": 1}], "findings": []}
    script.write_text(
        f"import time\nopen({str(tmp_path / 'peak.json')!r}, 'w').write({json.dumps(written)!r})\ntime.sleep(60)"
    )
    monkeypatch.setattr(device, "__file__", str(script))
    monkeypatch.setattr(device, "STARTING", 0.0)
    report = device.run_part("peak", device.Flags(tmp_path), time.monotonic() + 1.5)
    assert report["status"] == "stopped"
    assert report["rows"] == [{"value": 1}]
    assert report["seconds"] < 30


def test_the_time_of_all_parts_is_below_eight_minutes(device):
    assert sum(part.seconds for part in device.PARTS.values()) < 480
