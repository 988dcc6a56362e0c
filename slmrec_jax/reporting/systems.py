"""Which runs of a report are seeds of one system, and what each system is called."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
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
    """What a system of a report is measured from."""

    label: str
    """Short, and different for each system."""
    folders: tuple[Path, ...]
    """Its runs, by ascending seed; of a ranking that is not trained, the run whose data and rules it shares."""
    untrained: str = ""
    """The key of `UNTRAINED`, for a ranking that is not trained."""


class Found(NamedTuple):
    """What a report is measured from."""

    systems: Sequence[System]
    """Those that are not trained come last."""
    results: results.Results
    """Of all runs."""
    notes: Sequence[str]
    """What was left out, or could not be put together."""


class _Run(NamedTuple):
    folder: Path
    name: str
    """What a comparison calls its system, or the folder's name."""


def find_systems(paths: Sequence[Path], *, force: bool, say: Callable[[str], None]) -> Found:
    """Return the systems that run folders, and folders of `compare`, hold.

    Runs are seeds of one system where their settings differ in nothing but the seed.

    Args:
        paths: of run folders, or of folders that `compare` made, which stand for all their finished runs and for their
            rankings that are not trained.
        force: also takes runs on different data, or under different protocols.
        say: told of each run that has not finished.

    Raises:
        UserError: a folder is neither, or the runs cannot be compared and `force` is not given.
    """
    runs: dict[Path, _Run] = {}
    rankings: list[tuple[str, Path]] = []
    notes: list[str] = []
    for path in paths:
        named = [_Run(path, path.resolve().name)]
        if (path / TABLE).is_file() and not (path / CONFIG).exists():
            named, untrained, unfinished = _of_comparison(path)
            rankings += [(name, named[0].folder) for name in untrained]
            for folder in unfinished:
                notes.append(f"{folder} is missing or has not finished, and is left out")
                say(notes[-1])
        for each in named:
            runs.setdefault(each.folder.resolve(), each)
    gathered = results.gather([each.folder for each in runs.values()], force=force)
    rows = dict(zip(runs, gathered.rows, strict=True))
    trained, more = _grouped(runs, rows)
    # Two comparisons of the same data have the same rankings.
    floor = {(name, rows[folder.resolve()]["fingerprint"]): (name, folder) for name, folder in rankings}
    labels = iter(_labels([*trained, *([_Run(folder / name, name)] for name, folder in floor.values())]))
    systems = [System(label, tuple(each.folder for each in of)) for of, label in zip(trained, labels, strict=False)]
    systems += [System(next(labels), (folder,), name) for name, folder in floor.values()]
    return Found(systems, gathered, [*notes, *more])


def _grouped(runs: Mapping[Path, _Run], rows: Mapping[Path, Mapping[str, Any]]) -> tuple[list[list[_Run]], list[str]]:
    """Return the runs of each system by ascending seed, and what is to be said about it."""
    groups: dict[str, list[Path]] = {}
    for path, run in runs.items():
        groups.setdefault(_key(run.folder, rows[path]), []).append(path)
    systems, notes = [], []
    for paths in groups.values():
        members = [runs[path] for path in sorted(paths, key=lambda path: rows[path]["seed"])]
        if len({rows[path]["seed"] for path in paths}) == len(paths):
            systems.append(members)
        else:
            names = ", ".join(str(each.folder) for each in members)
            notes.append(f"Runs of the same settings and seed are shown one by one: {names}")
            systems += [[each] for each in members]
    return systems, notes


def _of_comparison(path: Path) -> tuple[list[_Run], list[str], list[Path]]:
    """Return a comparison's finished runs, the rankings that are not trained, and the folders of unfinished runs."""
    record = read_json(path / TABLE, Recorded, "give a folder that slmrec-jax compare made")
    systems, seeds = record["systems"], record["seeds"]
    names = {run_folder(path, name, seed).name: name for name in systems if name not in UNTRAINED for seed in seeds}
    begun = {each.name for each in path.iterdir() if (each / CONFIG).is_file()}
    finished = {name: path / name for name in sorted(begun) if (path / name / RESULT).is_file()}
    ordered = [*(name for name in names if name in finished), *(name for name in finished if name not in names)]
    if not ordered:
        raise UserError(f"{path} holds no finished run: a report needs at least one system that was trained")
    return (
        [_Run(finished[each], names.get(each, each)) for each in ordered],
        [name for name in systems if name in UNTRAINED],
        [path / each for each in sorted({*begun, *names} - finished.keys())],
    )


def _key(folder: Path, row: Mapping[str, Any]) -> str:
    """Return what all seeds of a system share; where the data lie does not count, what they are does."""
    settings = {name: value for name, value in relevant(read_config(folder)).items() if name not in ("seed", "data")}
    _, made_by = read_config_and_maker(folder)
    file = made_by["config_file"] if made_by["method"] else None  # else its settings are all that it gave
    method = made_by["method"], file and file["sha256"]
    return json.dumps([settings, method, row["fingerprint"], row["protocol"]], sort_keys=True)


def _labels(systems: Sequence[Sequence[_Run]]) -> list[str]:
    """Return names where these differ, else with the whole paths, else numbered."""
    labels = [_label([each.name for each in runs]) for runs in systems]
    if len(set(labels)) < len(labels):
        labels = [_label([str(each.folder) for each in runs]) for runs in systems]
    return [label if labels.count(label) == 1 else f"{label} ({place})" for place, label in enumerate(labels, 1)]


def _label(names: Sequence[str]) -> str:
    if len(names) == 1:
        return escaped(names[0])
    stems = dict.fromkeys(_SEED.sub("", name) or name for name in map(escaped, names))
    first, *others = stems
    return f"{first} and {len(others)} more" if others else first
