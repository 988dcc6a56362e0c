"""Checkpoints on disk: written atomically, with the SHA-256 of every file, and verified before they are read.

A checkpoint is a folder named after its place in the run: `6` after six epochs, `6+120` another 120 steps later.

    training/                Orbax's files of the state and the running means
    embeddings.safetensors   what was evaluated; only at the end of an epoch
    tally.json               format version, names and shapes of the arrays, counts of the run
    manifest.sha256          the SHA-256 of each file

The folder gets its final name once all of its files are on disk. The functions that restore raise a `UserError` for a
checkpoint that is missing, does not match its manifest, or is of another model or version.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.training.train_state import TrainState

from slmrec_jax import processes
from slmrec_jax.data.own_files import write_tensors
from slmrec_jax.durable import PART, check_room, move_folder, remove_folder
from slmrec_jax.errors import UserError, one_line, setting
from slmrec_jax.forms import fault
from slmrec_jax.meshes import on_host
from slmrec_jax.training.loop import Means, Progress, zero_means
from slmrec_jax.training.storage.arrays import load_arrays, save_arrays
from slmrec_jax.training.storage.manifest import DAMAGED, check_manifest, write_manifest
from slmrec_jax.training.storage.records import read_json, seal
from slmrec_jax.types import Embeddings

TRAINING, EMBEDDINGS, TALLY = "training", "embeddings.safetensors", "tally.json"

FORMAT_VERSION = 1
"""The format version, incremented when the files, the order of rows or the random draws of steps change."""

_OVERHEAD = 2**17
"""An upper bound on the bytes of a checkpoint besides its arrays."""


class Place(NamedTuple):
    """The place of a checkpoint in a run. Later places compare as greater."""

    epochs: int
    """The number of finished epochs."""
    steps: int = 0
    """The number of finished steps of the next epoch."""

    def __str__(self) -> str:
        return f"{self.epochs}+{self.steps}" if self.steps else str(self.epochs)

    def words(self) -> str:
        """Describe the place in words."""
        if self.steps:
            return f"step {self.steps} of epoch {self.epochs + 1}"
        return f"epoch {self.epochs}" if self.epochs else "the start"


class Tally(NamedTuple):
    """Counts of a run that are not part of its state."""

    skipped_steps: int = 0
    rollbacks: int = 0
    seconds: float = 0.0
    """The training time in the current epoch."""


class Checkpoint(NamedTuple):
    """A point of a run from which training can continue."""

    place: Place
    progress: Progress
    tally: Tally
    embeddings: Embeddings | None = None
    """The embeddings that were evaluated; only at the end of an epoch."""


class OtherVersion(UserError):
    """An error for a checkpoint that was written by another version of this package."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and read it back. On return it is on disk and restores to the same bits.

    It replaces a checkpoint of the same place. After an `OSError`, there is no checkpoint of this place. With several
    processes, each writes its own shards, the first writes everything else, and all must call this function.
    """
    place, first = folder / str(checkpoint.place), processes.is_first()
    part = place.with_name(place.name + PART)
    for earlier in (place, part):
        if first and earlier.exists():
            remove_folder(earlier)
    try:
        _write_files(part, checkpoint)
        if first:
            move_folder(part, place)
        processes.wait_for_all()
    except OSError:
        with suppress(OSError):
            shutil.rmtree(part)  # it takes up scarce disk space
        raise


def places(folder: Path) -> list[Place]:
    """Return the places of a folder's checkpoints, oldest first, without checking their files."""
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"cannot read {folder} ({error.strerror}): check its permissions") from None
    found = [re.fullmatch(r"(\d{1,18})(?:\+(\d{1,18}))?", name, re.ASCII) for name in names]
    return sorted(Place(int(match[1]), int(match[2] or 0)) for match in found if match)


def remove(folder: Path, unwanted: Collection[Place]) -> None:
    """Delete the unwanted checkpoints, and all unfinished ones."""
    for name in (*map(str, unwanted), *(path.name for path in folder.glob(f"*{PART}"))):
        remove_folder(folder / name)


def damage(folder: Path, place: Place) -> str | None:
    """Describe how a checkpoint's files differ from what was written; `None` if they do not.

    Raises:
        OtherVersion: The files are intact, but were written by another version.
    """
    try:
        check_manifest(folder / str(place))
        _read_description(folder / str(place))
    except OtherVersion:
        raise
    except UserError as error:
        return str(error)
    return None


def newest_good(
    folder: Path, candidates: Sequence[Place], say: Callable[[str], None], accept: Callable[[Place], str | None]
) -> Place | None:
    """Return the newest usable checkpoint, after checking its files; `None` if there are no candidates.

    Candidates are ordered from oldest to newest. `accept` returns a reason to reject a place, or `None`. `say` receives
    a line for each checkpoint that is skipped.

    Raises:
        UserError: No checkpoint is usable, or the newest intact one was written by another version.
    """
    for place in reversed(candidates):
        wrong = damage(folder, place) or accept(place)
        if wrong is None:
            return place
        say(f"WARNING: the checkpoint of {place.words()} cannot be used ({wrong}); going back to an older one")
    if candidates:
        raise UserError(f"{folder}: no checkpoint can be used; start a new run with another {setting('out')}")
    return None


def restore(folder: Path, place: Place, like: Progress) -> Checkpoint:
    """Restore a checkpoint whose files were checked. `like` is the progress of the same model, or its shapes.

    Raises:
        UserError: The checkpoint is of another model or version.
    """
    return _load_checkpoint(folder / str(place), place, like)


def restore_state(folder: Path, epoch: int, like: TrainState) -> TrainState:
    """Restore the state at the end of an epoch. `like` is a state of the same model, or its shapes."""
    path = _checked(folder, Place(epoch))
    names = (re.fullmatch(r"\.means\.values\['(.*)'\]", name) for name in _read_description(path)[0])
    means = jax.eval_shape(lambda: zero_means(found[1] for found in names if found))
    return _load_checkpoint(path, Place(epoch), Progress(like, means)).progress.state


def restore_embeddings(folder: Path, epoch: int) -> Embeddings:
    """Read the embeddings that an epoch was evaluated with, as host arrays."""
    path = _checked(folder, Place(epoch)) / EMBEDDINGS
    if not path.is_file():
        raise UserError(f"{path} is missing: {DAMAGED}")
    try:
        saved = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}): {DAMAGED}") from None
    tables: list[Any] = [saved.get(side) for side in Embeddings._fields]
    if not all(table is not None and table.ndim == 2 and table.dtype == np.float32 for table in tables):
        raise UserError(f"{path} does not hold a table of users and one of items: {DAMAGED}")
    return Embeddings(*tables)


def _write_files(part: Path, checkpoint: Checkpoint) -> None:
    first = processes.is_first()
    if first:
        part.mkdir(parents=True)
        leaves = jax.tree.leaves((checkpoint.progress, checkpoint.embeddings))
        check_room(part, sum(leaf.nbytes for leaf in leaves) + _OVERHEAD)
    processes.wait_for_all()
    save_arrays(part / TRAINING, _tree(checkpoint.progress))
    if checkpoint.embeddings is not None:
        # Orbax is not used here: each call would take a tenth of a second of a core away from the next steps.
        tables = checkpoint.embeddings._asdict()
        write_tensors(tables, part / EMBEDDINGS if first else Path(os.devnull), blocks=on_host)
    if not first:
        return
    tally = checkpoint.tally._asdict()
    description = {"version": FORMAT_VERSION, "arrays": _array_types(checkpoint.progress), "tally": tally}
    (part / TALLY).write_text(json.dumps(seal(description), indent=2) + "\n", encoding="utf-8")
    write_manifest(part)


def _tree(progress: Progress) -> dict[str, Any]:
    """Convert the progress to the pytree that Orbax stores."""
    return {"state": progress.state, "values": dict(progress.means.values), "rows": progress.means.rows}


def _load_checkpoint(path: Path, place: Place, like: Progress) -> Checkpoint:
    saved, tally = _read_description(path)
    wanted = _array_types(like)
    if saved != wanted:
        name = next(name for name in sorted({*saved, *wanted}) if saved.get(name) != wanted.get(name))
        raise UserError(
            f"{path} is a checkpoint of another model: it has {saved.get(name, 'no array')} "
            f"at {name} where this config makes {wanted.get(name, 'none')}; use the config it was made with"
        )
    found = load_arrays(path / TRAINING, _tree(like))
    return Checkpoint(place, Progress(found["state"], Means(found["values"], found["rows"])), tally)


def _array_types(progress: Progress) -> dict[str, str]:
    """Return the dtype and shape of each array by name, and the parameters' tree structure with its empty branches."""
    arrays, _ = jax.tree_util.tree_flatten_with_path(progress)
    nested = str(jax.tree_util.tree_structure(progress.state.params))
    return {"params": nested} | {
        jax.tree_util.keystr(path): f"{np.dtype(x.dtype).name}{list(x.shape)}" for path, x in arrays
    }


def _checked(folder: Path, place: Place) -> Path:
    """Check the files of a checkpoint and return its folder."""
    if not (folder / str(place)).is_dir():  # not `places`, since another host may still see an older directory listing
        raise UserError(f"{folder} has no checkpoint of {place.words()}: the run folder is not complete")
    if wrong := damage(folder, place):
        raise UserError(f"{folder / str(place)} cannot be used: {wrong}")
    return folder / str(place)


def _read_description(path: Path) -> tuple[dict[str, str], Tally]:
    """Read the dtype and shape of each array of a checkpoint, and its tally."""
    found: Any = read_json(path / TALLY, Mapping[str, Any], DAMAGED)
    if found.get("version") != FORMAT_VERSION:
        raise OtherVersion(f"{path} was written by another version of slmrec_jax; train again")
    arrays, tally = found.get("arrays"), found.get("tally")
    wrong = fault(arrays, Mapping[str, str], "arrays") or fault(tally, Tally, "tally")
    if wrong is None and set(tally) != set(Tally._fields):
        wrong = f"tally does not have the fields {', '.join(Tally._fields)}"
    if wrong:
        raise UserError(f"{path / TALLY}: {wrong}: {DAMAGED}")
    return arrays, Tally(**tally)
