"""Timing for the benchmarks: cases take turns, so that disturbances of the machine affect all; medians are reported."""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from slmrec_jax.training.storage.folder import environment


def measure(cases: Mapping[str, Callable[[], Any]], rounds: int, until: float = math.inf) -> dict[str, list[float]]:
    """Return the seconds of each round of each case.

    Args:
        cases: Calls whose results JAX can wait for; each is called once before it is timed.
        rounds: How often each is timed.
        until: When `time.monotonic` has reached this, no further round starts after the first.
    """
    for case in cases.values():
        jax.block_until_ready(case())
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for done in range(rounds):
        if done and time.monotonic() >= until:
            break
        for name, case in cases.items():
            start = time.perf_counter()
            jax.block_until_ready(case())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ms(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return 1e3 * statistics.median(seconds)


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write results with the machine, the versions and the commit that they belong to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, **about()}, indent=2) + "\n")


def about() -> dict[str, Any]:
    """Return the machine, the versions and the commit."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        commit = done.stdout.strip()
    except OSError:  # git is not installed
        commit = ""
    return {"environment": environment() | {"cpu": _cpu(), "cores": os.cpu_count()}, "commit": commit}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
