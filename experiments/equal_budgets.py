"""All systems on one data set, with their defaults and with a search of as many trials for each.

Command:  python experiments/equal_budgets.py --data PATH/tiktok --out runs/equal-tiktok
          python experiments/equal_budgets.py --data PATH/ml100k --out runs/equal-ml100k
Time:     one and a half hours on MovieLens-100K and four on TikTok, on one CPU core. The same command continues where
          it stopped, and commands with the same --out and other --systems share the work.
Result:   OUT/table.csv, a row for each system that is complete, which docs/results.md shows. p-values are those of a
          paired t-test over users beside the best system, after Holm; seconds are of the processor, for a training
          with the defaults, and so is the peak of memory.

Each system is trained with its defaults and then searched by `slmrec-jax tune` over its default space, by validation
recall@20 of the first seed. What counts as tuned is the best trial, or the defaults where no trial is better on
validation. Every training is a process of its own.
"""

import csv
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from slmrec_jax import data, load_run
from slmrec_jax.durable import whole_folder, write_whole
from slmrec_jax.evaluation.metrics import PerUser
from slmrec_jax.studies.significance import mean_and_deviation, mean_per_user, p_values
from slmrec_jax.training.storage.folder import CONFIG, RESULT

SYSTEMS: Mapping[str, Sequence[str]] = {
    "lightgcn": ("--model", "lightgcn"),
    "freedom": ("--model", "freedom", "--num-layers", "2"),  # as published
    "simgcl": ("--model", "simgcl"),
    "sgl": ("--model", "sgl"),
    "mgcn": ("--model", "mgcn"),
    "slmrec:fac": ("--task", "fac"),
    "bm3": ("--model", "bm3"),
    "vbpr": ("--model", "vbpr"),
    "mf": ("--model", "mf"),
    "mmssl": ("--model", "mmssl", "--mmssl.adversarial-weight", "0"),  # which halves the time and changes nothing else
    "slmrec:none": ("--task", "none"),
    "lattice": ("--model", "lattice", "--num-layers", "2"),  # as published
    "mmgcn": ("--model", "mmgcn"),
}
"""The flags of each system."""

METRIC = "recall@20"
METRICS = (METRIC, "ndcg@20")
KINDS = ("default", "tuned")
COLUMNS = [
    "system",
    *(
        f"{kind} {name}"
        for kind in KINDS
        for name in (*(f"{metric}{of}" for metric in METRICS for of in ("", " deviation")), "p")
    ),
    "seconds",
    "gib",
]


@dataclass(frozen=True)
class Flags:
    """Train and search all systems on a data set."""

    data: str
    """The folder of a data set."""
    out: Path
    """The folder for runs, searches and tables."""
    systems: tuple[str, ...] = tuple(SYSTEMS)
    trials: int = 10
    """The trials of each system's search."""
    seeds: tuple[int, ...] = (0, 1, 2)
    table_only: bool = False
    """Write the tables of what is complete, and train nothing."""


class Folders(NamedTuple):
    """Where the runs of a system are."""

    default: Sequence[Path]
    """One for each seed."""
    search: Path
    tuned: Sequence[Path]
    """One for each seed; only the first may exist before its search has ended."""


def folders_of(flags: Flags, system: str) -> Folders:
    folder = flags.out / system.replace(":", "-")
    default, tuned = ([folder / f"{kind}-seed{seed}" for seed in flags.seeds] for kind in ("default", "tuned"))
    return Folders(default, folder / "search", tuned)


def finish(flags: Flags, system: str) -> None:
    """Train what is missing of a system: its defaults, its search and, if that found better settings, these."""
    found = folders_of(flags, system)
    own = ("--data", flags.data, "--protocol", "mmrec", *SYSTEMS[system])
    for seed, run in zip(flags.seeds, found.default, strict=True):
        train(run, *own, "--seed", str(seed))
    if best_of(found.search) is None:
        search = ("--trials", str(flags.trials), "--seeds", str(flags.seeds[0]), "--out", str(found.search))
        call("tune", *own, *search)
    best = best_of(found.search)
    if best is None or is_complete(found):
        return
    if not found.tuned[0].exists():  # the search has trained it
        with whole_folder(found.tuned[0]) as part:
            shutil.copytree(best, part, dirs_exist_ok=True)
    for seed, run in zip(flags.seeds, found.tuned, strict=True):
        train(run, "--config", str(found.search / "best.py"), "--seed", str(seed))


def train(folder: Path, *flags: str) -> None:
    """Train a run that is not finished, and write its processor time beside it."""
    if (folder / RESULT).exists():
        return
    resumed = (folder / CONFIG).exists()
    seconds = call("train", *flags, "--out", str(folder), *(["--resume"] if resumed else []))
    if not resumed:  # otherwise these are the seconds of a part
        write_whole(seconds_of(folder), f"{seconds}\n")


def call(*command: str) -> float:
    """Run a command of the package in a process of its own, and return its processor time in seconds."""
    print(" ".join(command), flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "slmrec_jax", *command], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def is_complete(found: Folders) -> bool:
    """Return whether all runs of a system are finished: tuned ones exist if a trial was better than the defaults."""
    best = best_of(found.search)
    if best is None or not all((run / RESULT).exists() for run in found.default):
        return False
    return valid(best) <= valid(found.default[0]) or all((run / RESULT).exists() for run in found.tuned)


def best_of(search: Path) -> Path | None:
    """Return the run of the best trial of a search; `None` if it has not ended."""
    return next((path.parent for path in search.glob(f"best-trial*/{RESULT}")), None)


def valid(folder: Path) -> float:
    """Return the selecting metric at the best epoch of a run."""
    return float(result(folder)["valid"][METRIC])


def result(folder: Path) -> Mapping[str, Any]:
    read: Mapping[str, Any] = json.loads((folder / RESULT).read_text())
    return read


def seconds_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.seconds")


def rows_of(flags: Flags, measure: Callable[[Path], PerUser]) -> list[dict[str, Any]]:
    """Return the figures of each system that is complete; `measure` returns a run's test metrics by user."""
    complete = {system: found for system in SYSTEMS if is_complete(found := folders_of(flags, system))}
    rows: dict[str, dict[str, Any]] = {system: {"system": system} for system in complete}
    for kind in KINDS:
        per_user = {}
        for system, found in complete.items():
            is_tuned = kind == "tuned" and found.tuned[0].exists()
            tests = [measure(run) for run in (found.tuned if is_tuned else found.default)]
            for metric in METRICS:
                mean, deviation = mean_and_deviation([float(test[metric].mean()) for test in tests])
                rows[system] |= {f"{kind} {metric}": mean, f"{kind} {metric} deviation": deviation}
            per_user[system] = mean_per_user([test[METRIC] for test in tests])
        for system, value in p_values(per_user).items():
            rows[system][f"{kind} p"] = value
    for system, found in complete.items():
        seconds = [float(path.read_text()) for run in found.default if (path := seconds_of(run)).exists()]
        rows[system]["seconds"] = statistics.median(seconds) if seconds else None
        rows[system]["gib"] = statistics.median(result(run)["peak_rss_bytes"] for run in found.default) / 2**30
    return list(rows.values())


def main(flags: Flags) -> None:
    if not flags.table_only:
        for system in flags.systems:
            finish(flags, system)
    dataset = data.load(flags.data)
    rows = rows_of(flags, lambda run: load_run(run, dataset).evaluate("test").per_user)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _digits(value) for name, value in row.items()} for row in rows)
    write_whole(flags.out / "table.csv", text.getvalue())


def _digits(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main(tyro.cli(Flags))
