"""All systems on one data set, with their defaults and with a search of as many trials for each.

Command:  python experiments/equal_budgets.py --data PATH/tiktok --out runs/equal-tiktok
          python experiments/equal_budgets.py --data PATH/ml100k --out runs/equal-ml100k
Time:     about three hours on MovieLens-100K and more on TikTok, on one CPU core. The same command continues where
          it stopped, and commands with the same --out and other --systems share the work.
Result:   OUT/SYSTEM.npz, the test metrics of each user, and OUT/table.csv with a row for each system that has such a
          file, which docs/results.md shows. p-values are those of a paired t-test over users beside the best system,
          after Holm; seconds are of the processor, for a training with the defaults, and so is the peak of memory.

Each system is trained with its defaults and then searched by `slmrec-jax tune` over its default space, by validation
recall@20 of the first seed. What counts as tuned is the best trial, or the defaults where no trial is better on
validation. Every training is a process of its own.

A system with an OUT/SYSTEM.npz is finished, and its runs are not needed any more. If OUT starts as a copy of
`experiments/results/equal-ml100k` or `equal-tiktok`, a system is added without training those again.
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
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import sweep
from jaxtyping import Float

from slmrec_jax import data, load_run
from slmrec_jax.durable import whole_file, whole_folder, write_whole
from slmrec_jax.evaluation.metrics import PerUser
from slmrec_jax.studies.significance import mean_and_deviation, mean_per_user, p_values
from slmrec_jax.training.storage.folder import CONFIG, RESULT

SYSTEMS: Mapping[str, Sequence[str]] = {
    "lightgcn": ("--model", "lightgcn"),
    "freedom": ("--model", "freedom", "--preset", "published"),
    "simgcl": ("--model", "simgcl"),
    "sgl": ("--model", "sgl"),
    "mgcn": ("--model", "mgcn"),
    "slmrec:fac": ("--task", "fac"),
    "bm3": ("--model", "bm3"),
    "vbpr": ("--model", "vbpr"),
    "mf": ("--model", "mf"),
    "mmssl": ("--model", "mmssl", "--mmssl.adversarial-weight", "0"),  # which halves the time and changes nothing else
    "slmrec:none": ("--task", "none"),
    "lattice": ("--model", "lattice", "--preset", "published"),
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


Budget: TypeAlias = Mapping[str, Any]
"""The data's fingerprint, the seeds and the trials, which all systems of a table share."""


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


class Places(NamedTuple):
    """Where the runs and the measured metrics of a system are."""

    measured: Path
    default: Sequence[Path]
    """One for each seed."""
    search: Path
    tuned: Sequence[Path]
    """One for each seed, if the search found better settings."""


def places_of(flags: Flags, system: str) -> Places:
    folder = flags.out / system.replace(":", "-")
    default, tuned = ([folder / f"{kind}-seed{seed}" for seed in flags.seeds] for kind in KINDS)
    return Places(folder.with_name(f"{folder.name}.npz"), default, folder / "search", tuned)


def finish(flags: Flags, system: str) -> Places:
    """Train what is missing of a system: its defaults, its search and, if that found better settings, these."""
    found = places_of(flags, system)
    own = ("--data", flags.data, "--protocol", "mmrec", *SYSTEMS[system])
    for seed, run in zip(flags.seeds, found.default, strict=True):
        train(run, *own, "--seed", str(seed))
    if best_of(found.search) is None:
        search = ("--trials", str(flags.trials), "--seeds", str(flags.seeds[0]), "--out", str(found.search))
        call("tune", *own, *search)
    best = best_of(found.search)
    if best is None:
        raise ValueError(f"{found.search} has no best trial: remove it and search again")
    if valid(best) > valid(found.default[0]):
        if not found.tuned[0].exists():  # the search has trained it
            with whole_folder(found.tuned[0]) as part:
                shutil.copytree(best, part, dirs_exist_ok=True)
        for seed, run in zip(flags.seeds, found.tuned, strict=True):
            train(run, "--config", str(found.search / "best.py"), "--seed", str(seed))
    return found


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


def measure(found: Places, budget: Budget, per_user: Callable[[Path], PerUser]) -> None:
    """Write what the table needs of a complete system; `per_user` returns a run's test metrics by user."""
    seconds = [float(path.read_text()) for run in found.default if (path := seconds_of(run)).exists()]
    arrays = {
        "seconds": np.float64(statistics.median(seconds) if seconds else np.nan),
        "gib": np.float64(statistics.median(result(run)["peak_rss_bytes"] for run in found.default) / 2**30),
    }
    runs = {"default": found.default, "tuned": found.tuned if found.tuned[0].exists() else found.default}
    for kind, folders in runs.items():
        tests = [per_user(run) for run in folders]
        for metric in METRICS:
            arrays[f"{kind} {metric}"] = np.stack([test[metric] for test in tests])
    with whole_file(found.measured) as file:
        np.savez_compressed(file, budget=np.array(json.dumps(budget)), **arrays)


def rows_of(measured: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return the figures of each measured system."""
    rows: dict[str, dict[str, Any]] = {system: {"system": system} for system in measured}
    for kind in KINDS:
        tests = {
            system: {metric: found[f"{kind} {metric}"] for metric in METRICS} for system, found in measured.items()
        }
        for system, summary in summaries(tests).items():
            rows[system] |= {f"{kind} {name}": value for name, value in summary.items()}
    for system, found in measured.items():
        rows[system] |= {name: float(found[name]) for name in ("seconds", "gib")}
    return list(rows.values())


def summaries(tests: Mapping[str, Mapping[str, Float[np.ndarray, "seeds users"]]]) -> dict[str, dict[str, Any]]:
    """Return the mean and deviation over seeds of each metric of each system, and `p`, which the best does not have."""
    tested = p_values({system: mean_per_user(list(found[METRIC])) for system, found in tests.items()})
    rows: dict[str, dict[str, Any]] = {}
    for system, found in tests.items():
        rows[system] = {"p": tested.get(system, "")}
        for metric in METRICS:
            mean, deviation = mean_and_deviation(np.mean(found[metric], axis=1).tolist())
            rows[system] |= {metric: mean, f"{metric} deviation": deviation}
    return rows


def main(flags: Flags) -> None:
    dataset = data.load(flags.data)
    budget = {"data": dataset.fingerprint, "seeds": list(flags.seeds), "trials": flags.trials}
    flags.out.mkdir(parents=True, exist_ok=True)
    for system in flags.systems:
        if not places_of(flags, system).measured.exists():
            measure(finish(flags, system), budget, lambda run: load_run(run, dataset).evaluate("test").per_user)
        write_table(flags, budget)


def write_table(flags: Flags, budget: Budget) -> None:
    measured = {}
    for system in SYSTEMS:
        file = places_of(flags, system).measured
        if file.exists():
            found = dict(np.load(file))
            if json.loads(str(found["budget"])) != budget:
                sys.exit(f"{file} has {found['budget']}, not {json.dumps(budget)}: give another --out, or remove it")
            measured[system] = found
    write_rows(rows_of(measured), COLUMNS, flags.out / "table.csv")


def write_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], file: Path) -> None:
    """Write a table as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _digits(value) for name, value in row.items()} for row in rows)
    with whole_file(file) as target:
        target.write(text.getvalue().encode())


def _digits(value: Any) -> Any:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
