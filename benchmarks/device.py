"""Check and measure one accelerator, in under eight minutes.

Each part runs in a process of its own and writes DIR/PART.json row by row, so that an interrupted run leaves what it
measured. A part that fails is reported with its error and the next one runs. The time that a part leaves is for those
after it. DIR/device.json holds all parts.

    python benchmarks/device.py --data PATH/tiktok --out DIR
    python benchmarks/device.py --reduced --out DIR          (small sizes, on any device)
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from findings import Finding
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
MARGIN = 4.0
"""The seconds before its limit at which a part should end by itself."""

PATIENCE = 4.0
"""How many times as long the parts of a reduced run may take, which runs on processors of any speed."""

STARTING = 15.0
"""The seconds that a part must have to be started."""


class Planned(NamedTuple):
    """A part of the run."""

    module: str
    seconds: float
    """Its share of the time."""


PARTS = {
    "golden": Planned("device_correct", 45),
    "products": Planned("device_correct", 30),
    "segments": Planned("device_correct", 50),
    "steps": Planned("device_speed", 140),
    "bandwidth": Planned("device_speed", 35),
    "ranking": Planned("device_speed", 25),
    "epoch": Planned("device_speed", 20),
    "compilation": Planned("device_runs", 50),
    "peak": Planned("device_runs", 25),
    "quality": Planned("device_runs", 45),
}
"""In their order. Each is a function of its module."""


@dataclass(frozen=True)
class Flags:
    """Check and measure one accelerator."""

    out: Path
    """The folder for the JSON files."""
    data: str = "demo"
    """A real data set. A reduced run takes the demo data."""
    reduced: bool = False
    """Run all parts at small sizes, where goals do not apply."""
    parts: tuple[str, ...] = tuple(PARTS)
    """The parts to run."""


def main(flags: Flags) -> None:
    unknown = [name for name in flags.parts if name not in PARTS]
    if unknown:
        sys.exit(f"there is no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    flags.out.mkdir(parents=True, exist_ok=True)
    start, until = time.monotonic(), time.monotonic()
    reports = {}
    for name in PARTS:
        if name not in flags.parts:
            continue
        until += PARTS[name].seconds * (PATIENCE if flags.reduced else 1)
        print(f"== {name}, until {until - start:.0f} s", flush=True)
        reports[name] = run_part(name, flags, until)
        print(f"   {reports[name]['status']} after {reports[name]['seconds']:.0f} s", flush=True)
        summary = {"reduced": flags.reduced, "data": _name(flags), "seconds": time.monotonic() - start}
        (flags.out / "device.json").write_text(json.dumps(summary | {"parts": reports}, indent=2) + "\n")
    print_table(reports, flags.reduced, time.monotonic() - start)


def run_part(name: str, flags: Flags, until: float) -> dict[str, Any]:
    """Run a part in a process of its own and return its report, which is completed if the process could not."""
    path, start = flags.out / f"{name}.json", time.monotonic()
    path.unlink(missing_ok=True)
    data = "demo" if flags.reduced else flags.data
    command = [sys.executable, str(Path(__file__)), "--run-part", name, data, str(flags.out), str(int(flags.reduced))]
    report: dict[str, Any] = {"status": "failed", "rows": [], "findings": []}
    if until - start < STARTING:
        report |= {"status": "skipped", "reason": "earlier parts took its time"}
    else:
        with (flags.out / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [*command, str(until - MARGIN)], stdout=log, stderr=log, env=environment(flags.out, flags.reduced),
                start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(until - start)
            except subprocess.TimeoutExpired:
                report["status"] = "stopped"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text())
            report = found | ({"status": report["status"]} if found["status"] == "running" else {})
        if report["status"] == "stopped":
            report["reason"] = f"it was not done after {until - start:.0f} s"
        elif report["status"] == "failed" and "error" not in report:
            report["error"] = f"its process ended with status {process.returncode}: {_last_line(flags.out, name)}"
    report = {"part": name, "reduced": flags.reduced, "seconds": time.monotonic() - start, **report}
    path.write_text(json.dumps(report, indent=2) + "\n")
    return report


def environment(out: Path, reduced: bool) -> dict[str, str]:
    """Return the variables of a part's process. Parts share compiled programs, and the memory of the device."""
    # At small sizes PyTorch's threads mostly wait for each other, for seconds where other work takes a core.
    threads = {"OMP_NUM_THREADS": "1"} if reduced else {}
    ours = {
        "JAX_COMPILATION_CACHE_DIR": str(out.resolve() / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch computes in the same memory
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return {**ours, **threads, **os.environ, "PYTHONPATH": paths}


def run_here(name: str, data: str, out: str, reduced: str, until: str) -> None:
    """Run a part in this process, which ends at once: threads may still be compiling."""
    from device_part import Part, Skipped, line_of
    from timing import about

    part = Part(data, reduced == "1", float(until), Path(out) / f"{name}.json")
    part.report |= about()
    with contextlib.suppress(PackageNotFoundError):
        part.report["torch"] = version("torch")
    try:
        getattr(importlib.import_module(PARTS[name].module), name)(part)
        errors = sum("error" in row for row in part.report["rows"])
        part.report["status"] = f"done with {errors} errors" if errors else "done"
    except Skipped as skipped:
        part.report |= {"status": "skipped", "reason": str(skipped)}
    except (Exception, SystemExit) as error:
        import traceback

        traceback.print_exc()
        part.report |= {"status": "failed", "error": line_of(error)}
    part.write()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def print_table(reports: dict[str, dict[str, Any]], reduced: bool, seconds: float) -> None:
    """Print all findings, and the parts without a result."""
    kind = ", reduced: goals do not apply" if reduced else ""
    table = Table("part", "measured", "value", "goal", "met", title=f"in {seconds:.0f} s{kind}")
    for name, report in reports.items():
        for row in report["findings"]:
            finding = Finding(row["measured"], row["value"], row["goal"], row["way"])
            table.add_row(name, *finding.cells[:3], row["met"] or "")
        for row in report["rows"]:
            if "error" in row:
                about = ", ".join(str(value) for key, value in row.items() if key != "error")
                table.add_row(name, f"{about}: {row['error']}", "", "", "")
        why = report.get("reason") or report.get("error")
        if why:
            table.add_row(name, f"{report['status']}: {why}", "", "", "")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _last_line(out: Path, name: str) -> str:
    lines = (out / f"{name}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


def _name(flags: Flags) -> str:
    return "demo" if flags.reduced else flags.data.rstrip("/").split("/")[-1]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run-part"]:
        run_here(*sys.argv[2:7])
    else:
        main(tyro.cli(Flags))
