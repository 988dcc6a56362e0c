"""Run folders grouped into systems: runs that differ only in their seeds, and rankings without training."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slmrec_jax.config import relevant
from slmrec_jax.errors import UserError, escaped
from slmrec_jax.studies import results
from slmrec_jax.studies.comparison import TABLE, UNTRAINED, Recorded, run_folder
from slmrec_jax.training.storage.folder import CONFIG, RESULT, read_config, read_config_and_maker
from slmrec_jax.training.storage.records import read_json

_SEED = re.compile(r"[-_. ]?seed[-_. ]?\d+$", re.IGNORECASE)


class System(NamedTuple):
    """Runs that are averaged over seeds, or a ranking without training."""

    label: str
    """Short, and unique in the report."""
    folders: tuple[Path, ...]
    """Run folders by ascending seed. A ranking without training takes data and rules from a run of its comparison."""
    untrained: str = ""
    """The key of `UNTRAINED` for a ranking without training."""


class ReportedSystems(NamedTuple):
    """The systems of a report."""

    systems: Sequence[System]
    """Rankings without training come last."""
    results: results.Results
    """The results of all runs."""
    notes: Sequence[str]
    """Runs that were left out or could not be averaged."""


class _Run(NamedTuple):
    folder: Path
    name: str
    """The system's name in a comparison, or the folder's."""


def find_systems(paths: Sequence[Path], *, force: bool, say: Callable[[str], None]) -> ReportedSystems:
    """Group runs into systems: runs whose settings differ only in the seed are one system.

    Args:
        paths: Folders of runs or of comparisons. A comparison adds its finished runs and its rankings without training.
        force: Accept runs on different data or under different protocols.
        say: Receives a line for each unfinished run.

    Raises:
        UserError: A folder is neither, or the runs cannot be compared and `force` is not given.
    """
    runs: dict[Path, _Run] = {}  # by resolved path, so that a run counts once
    rankings: list[tuple[str, Path]] = []
    notes: list[str] = []
    for path in paths:
        if (path / TABLE).is_file() and not (path / CONFIG).exists():
            found, untrained, unfinished = _read_comparison(path)
            rankings += [(name, found[0].folder) for name in untrained]
            notes += [f"{folder} is missing or has not finished, and is left out" for folder in unfinished]
        else:
            found = [_Run(path, path.resolve().name)]
        for run in found:
            runs.setdefault(run.folder.resolve(), run)
    for note in notes:
        say(note)
    gathered = results.gather([run.folder for run in runs.values()], force=force)
    rows = dict(zip(runs, gathered.rows, strict=True))
    groups, repeats = _group_runs(runs, rows)
    # Comparisons of the same data share their rankings without training.
    floors = {(name, rows[folder.resolve()]["fingerprint"]): folder for name, folder in rankings}
    labels = _unique_labels(
        [*([run.name for run in group] for group in groups), *([name] for name, _ in floors)],
        [*([run.folder for run in group] for group in groups), *([path / name] for (name, _), path in floors.items())],
    )
    systems = [System(next(labels), tuple(run.folder for run in group)) for group in groups]
    systems += [System(next(labels), (folder,), name) for (name, _), folder in floors.items()]
    return ReportedSystems(systems, gathered, [*notes, *repeats])


def _read_comparison(path: Path) -> tuple[list[_Run], list[str], list[Path]]:
    """Return a comparison's finished runs, its rankings without training, and the folders of unfinished runs."""
    record = read_json(path / TABLE, Recorded, "give a folder that slmrec-jax compare made")
    systems, seeds = record["systems"], record["seeds"]
    names = {run_folder(path, name, seed).name: name for name in systems if name not in UNTRAINED for seed in seeds}
    begun = sorted(each.name for each in path.iterdir() if (each / CONFIG).is_file())
    finished = [
        folder
        for folder in [*names, *(each for each in begun if each not in names)]
        if (path / folder / CONFIG).is_file() and (path / folder / RESULT).is_file()
    ]
    if not finished:
        raise UserError(f"{path} holds no finished run: a report needs at least one trained system")
    return (
        [_Run(path / folder, names.get(folder, folder)) for folder in finished],
        [name for name in systems if name in UNTRAINED],
        [path / folder for folder in sorted({*begun, *names}.difference(finished))],
    )


def _group_runs(
    runs: Mapping[Path, _Run], rows: Mapping[Path, Mapping[str, Any]]
) -> tuple[list[list[_Run]], list[str]]:
    """Return the runs of each system by ascending seed, and a note for each group with repeated seeds."""
    by_settings: dict[str, list[Path]] = {}
    for path, run in runs.items():
        by_settings.setdefault(_settings_key(run.folder, rows[path]), []).append(path)
    groups, notes = [], []
    for paths in by_settings.values():
        seeds = {path: rows[path]["seed"] for path in paths}
        group = [runs[path] for path in sorted(paths, key=seeds.__getitem__)]
        if len(set(seeds.values())) == len(paths):
            groups.append(group)
        else:
            folders = ", ".join(str(run.folder) for run in group)
            notes.append(f"Runs of the same settings and seed are shown one by one: {folders}")
            groups += [[run] for run in group]
    return groups, notes


def _settings_key(folder: Path, row: Mapping[str, Any]) -> str:
    """Return the settings that the seeds of a system share; the fingerprint represents the data, not their path."""
    settings = {name: value for name, value in relevant(read_config(folder)).items() if name not in ("seed", "data")}
    _, made_by = read_config_and_maker(folder)
    file = made_by["config_file"] if made_by["method"] else None  # without a method, the file only gives settings
    method = made_by["method"], file and file["sha256"]
    return json.dumps([settings, method, row["fingerprint"], row["protocol"]], sort_keys=True)


def _unique_labels(names: Sequence[Sequence[str]], paths: Sequence[Sequence[Path]]) -> Iterator[str]:
    """Iterate over the labels of systems: from names if those are unique, else from paths, with numbers if needed."""
    labels = [_system_label(each) for each in names]
    if len(set(labels)) < len(labels):
        labels = [_system_label(list(map(str, each))) for each in paths]
    for number, label in enumerate(labels, 1):
        yield label if labels.count(label) == 1 else f"{label} ({number})"


def _system_label(names: Sequence[str]) -> str:
    """Return the name of a single run, or what remains of several names without their seeds."""
    if len(names) == 1:
        return escaped(names[0])
    first, *others = dict.fromkeys(_SEED.sub("", name) or name for name in map(escaped, names))
    return f"{first} and {len(others)} more" if others else first
