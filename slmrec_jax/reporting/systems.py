"""Group run folders into systems: runs that differ only in their seeds, and rankings without training."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slmrec_jax.config import relevant
from slmrec_jax.errors import UserError, escaped
from slmrec_jax.studies import results
from slmrec_jax.studies.comparison import COMPARISON_JSON, Recorded, run_folder
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.training.storage.folder import CONFIG, RESULT, read_config_and_maker
from slmrec_jax.training.storage.records import read_json

_SEED = re.compile(r"[-_. ]?seed[-_. ]?\d+$", re.IGNORECASE)


class System(NamedTuple):
    """Runs that are averaged over seeds, or a ranking without training."""

    label: str
    """A short label that is unique in the report."""
    folders: tuple[Path, ...]
    """The run folders by ascending seed. A ranking without training uses the data and rules of a run of its
    comparison."""
    untrained: str = ""
    """The key of `UNTRAINED` for a ranking without training."""


class ReportedSystems(NamedTuple):
    """The systems of a report."""

    systems: Sequence[System]
    """The systems; rankings without training come last."""
    results: results.FinishedRuns
    """The results of all runs."""
    notes: Sequence[str]
    """Runs that were left out or could not be averaged."""


class _Member(NamedTuple):
    """A run, or a ranking without training."""

    name: str
    """The name of the system in a comparison, or of the run's folder."""
    folder: Path
    """The folder of the run, or of the run whose data and rules a ranking without training uses."""
    untrained: bool = False

    @property
    def path(self) -> Path:
        """A path that distinguishes members of the same name."""
        return self.folder / self.name if self.untrained else self.folder


def find_systems(paths: Sequence[Path], *, force: bool, say: Callable[[str], None]) -> ReportedSystems:
    """Group runs into systems. Runs whose settings differ only in the seed form one system.

    The folder of a comparison contributes its finished runs and its rankings without training. `force` accepts runs on
    different data, under different protocols or tested by different rules. `say` receives a line for each unfinished
    run.

    Raises:
        UserError: A folder is neither a run nor a comparison, or the runs are not comparable and `force` is false.
    """
    runs, rankings, notes = _read_paths(paths)
    for note in notes:
        say(note)
    gathered = results.read_finished_runs([run.folder for run in runs.values()], force=force)
    rows = dict(zip(runs, gathered.rows, strict=True))
    groups, repeats = _group_runs(runs, rows)
    # Comparisons of the same data share their rankings without training.
    groups += {(each.name, rows[each.folder.resolve()]["fingerprint"]): [each] for each in rankings}.values()
    systems = [
        System(label, tuple(each.folder for each in group), group[0].name if group[0].untrained else "")
        for label, group in zip(_unique_labels(groups), groups, strict=True)
    ]
    return ReportedSystems(systems, gathered, [*notes, *repeats])


def _read_paths(paths: Sequence[Path]) -> tuple[dict[Path, _Member], list[_Member], list[str]]:
    """Return each run once, by resolved folder; rankings without training; and a note for each unfinished run."""
    runs: dict[Path, _Member] = {}
    rankings: list[_Member] = []
    notes: list[str] = []
    for path in paths:
        found = [_Member(path.resolve().name, path)]
        if (path / COMPARISON_JSON).is_file() and not (path / CONFIG).exists():
            found, untrained, unfinished = _read_comparison(path)
            rankings += untrained
            notes += [f"{folder} is missing or has not finished, and is left out" for folder in unfinished]
        for run in found:
            runs.setdefault(run.folder.resolve(), run)
    return runs, rankings, notes


def _read_comparison(path: Path) -> tuple[list[_Member], list[_Member], list[Path]]:
    """Return a comparison's finished runs, its rankings without training, and the folders of unfinished runs."""
    record = read_json(path / COMPARISON_JSON, Recorded, "give a folder that slmrec-jax compare made")
    systems, seeds = record["systems"], record["seeds"]
    names = {run_folder(path, name, seed): name for name in systems if name not in UNTRAINED for seed in seeds}
    for folder in sorted(each for each in path.iterdir() if (each / CONFIG).is_file()):
        names.setdefault(folder, folder.name)
    finished = [folder for folder in names if (folder / CONFIG).is_file() and (folder / RESULT).is_file()]
    if not finished:
        raise UserError(f"{path} holds no finished run: a report needs at least one trained system")
    return (
        [_Member(names[folder], folder) for folder in finished],
        [_Member(name, finished[0], untrained=True) for name in systems if name in UNTRAINED],
        sorted(names.keys() - finished),
    )


def _group_runs(
    runs: Mapping[Path, _Member], rows: Mapping[Path, Mapping[str, Any]]
) -> tuple[list[list[_Member]], list[str]]:
    """Return the runs of each system by ascending seed, and a note for each group with repeated seeds."""
    by_settings: dict[str, dict[Path, int]] = {}
    for path, run in runs.items():
        by_settings.setdefault(_settings_key(run.folder, rows[path]), {})[path] = rows[path]["seed"]
    groups, notes = [], []
    for seeds in by_settings.values():
        group = [runs[path] for path in sorted(seeds, key=seeds.__getitem__)]
        if len(set(seeds.values())) == len(seeds):
            groups.append(group)
        else:
            folders = ", ".join(str(run.folder) for run in group)
            notes.append(f"Runs of the same settings and seed are shown one by one: {folders}")
            groups += [[run] for run in group]
    return groups, notes


def _settings_key(folder: Path, row: Mapping[str, Any]) -> str:
    """Return the settings that the seeds of a system share. Data are represented by fingerprint, not by path."""
    config, made_by = read_config_and_maker(folder)
    settings = {name: value for name, value in relevant(config).items() if name != "seed"}
    file = made_by["config_file"] if made_by["method"] else None  # without a method, the file only has settings
    method = made_by["method"], file and file["sha256"]
    return json.dumps([settings, method, row["fingerprint"], row["protocol"]], sort_keys=True)


def _unique_labels(groups: Sequence[Sequence[_Member]]) -> list[str]:
    """Make labels from names if these are unique, otherwise from paths. Labels that still repeat are numbered."""
    labels = [_system_label([each.name for each in group]) for group in groups]
    if len(set(labels)) < len(labels):
        labels = [_system_label([str(each.path) for each in group]) for group in groups]
    return [label if labels.count(label) == 1 else f"{label} ({number})" for number, label in enumerate(labels, 1)]


def _system_label(names: Sequence[str]) -> str:
    """Return the label for a single name, or for several names without their seeds."""
    if len(names) == 1:
        return escaped(names[0])
    first, *others = dict.fromkeys(_SEED.sub("", name) or name for name in map(escaped, names))
    return f"{first} and {len(others)} more" if others else first
