"""Checkpoints on disk: written whole, with the SHA-256 of every file, and checked before they are read.

The only module that knows Orbax. A checkpoint is a folder called after its place: `6` after six epochs, `6+120` a
hundred and twenty steps later. It gets that name when all its files, and their manifest, are on disk; what has no
manifest, or another one than its files make, is no checkpoint. (Orbax itself moves a finished folder without waiting
for the disk, and has no checksums.)
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy
from flax.training.train_state import TrainState
from jax.sharding import SingleDeviceSharding
from jaxtyping import UInt8

from slmrec_jax.data.readers.refusals import one_line
from slmrec_jax.durable import FULL, PART, check_room, move_folder, remove_folder
from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.loop import Means, Progress, no_steps
from slmrec_jax.training.storage.records import read_bytes, read_json, seal
from slmrec_jax.types import Embeddings

MANIFEST, TALLY, TRAINING, EMBEDDINGS = "manifest.sha256", "tally.json", "training", "embeddings.safetensors"

ROWS = "users and items by falling training degree"
"""Whose rows tables hold: they mean nothing in another order."""

READ_BACK_BYTES = 2**26
"""How much of a checkpoint is held a second time while it is checked; a larger array is held alone."""

UNSAFE = frozenset("[]*?\\")
"""Characters of a path that Orbax, or the storage below it, does not take literally."""

DRAWS = "dropout by the words of its keys"
"""How steps draw: to train on otherwise would be another run."""


_OVERHEAD = 2**17
"""Bytes that a checkpoint takes beside its arrays, at most."""
DAMAGED = "the checkpoint is damaged"


class Place(NamedTuple):
    """Where in a run a checkpoint stands; later ones are larger."""

    epochs: int
    """How many are done."""
    steps: int = 0
    """How many of the next one."""

    def __str__(self) -> str:
        return f"{self.epochs}+{self.steps}" if self.steps else str(self.epochs)

    def words(self) -> str:
        """For people."""
        return f"step {self.steps} of epoch {self.epochs + 1}" if self.steps else f"epoch {self.epochs}"


class Tally(NamedTuple):
    """What a run counts beside its state."""

    skipped_steps: int = 0
    rollbacks: int = 0
    seconds: float = 0.0
    """Of training, in the epoch under way."""


class _About(TypedDict):
    """What a checkpoint's `tally.json` says."""

    rows: str
    draws: NotRequired[str]
    arrays: Mapping[str, str]
    tally: "_Counts"


class _Counts(TypedDict):
    skipped_steps: int
    rollbacks: int
    seconds: float


class Checkpoint(NamedTuple):
    """What training goes on from."""

    place: Place
    progress: Progress
    tally: Tally
    embeddings: Embeddings | None = None
    """What was evaluated, after an epoch."""


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and read it back; when this returns it is on disk and restores to the same bits.

    Args:
        folder: Folder of the checkpoints; created if absent.
        checkpoint: What to write, in the place of an earlier attempt.

    Raises:
        OSError: There is no such checkpoint now.
    """
    place = folder.resolve() / str(checkpoint.place)
    part = place.with_name(place.name + PART)
    for earlier in (place, part):
        if earlier.exists():
            remove_folder(earlier)
    try:
        _write(part, checkpoint)
        move_folder(part, place)
    except OSError:
        with suppress(OSError):
            shutil.rmtree(part)  # it takes up the room that is lacking
        raise


def _write(part: Path, checkpoint: Checkpoint) -> None:
    state, means = checkpoint.progress
    part.mkdir(parents=True)
    arrays = jax.tree.leaves((checkpoint.progress, checkpoint.embeddings))
    check_room(part, sum(array.nbytes for array in arrays) + _OVERHEAD)
    tree = {"state": state, "values": dict(means.values), "rows": means.rows}
    _save(part / TRAINING, tree)
    _check_restores(part / TRAINING, tree)
    if checkpoint.embeddings is not None:
        # Not by Orbax, of which each call takes a tenth of a second of a core, beside the next steps.
        tables = {name: np.ascontiguousarray(rows) for name, rows in checkpoint.embeddings._asdict().items()}
        (part / EMBEDDINGS).write_bytes(safetensors.numpy.save(tables))
    about = {"rows": ROWS, "draws": DRAWS, "arrays": describe(checkpoint.progress), "tally": checkpoint.tally._asdict()}
    (part / TALLY).write_text(json.dumps(seal(about), indent=2) + "\n", encoding="utf-8")
    (part / MANIFEST).write_text(_manifest(part), encoding="utf-8")


def places(folder: Path) -> list[Place]:
    """List the checkpoints of a folder, the newest last, not yet checked.

    Raises:
        UserError: The folder cannot be read.
    """
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"cannot read {folder} ({error.strerror}): check its permissions") from None
    found = [re.fullmatch(r"(\d{1,18})(?:\+(\d{1,18}))?", name, re.ASCII) for name in names]
    return sorted(Place(int(match[1]), int(match[2] or 0)) for match in found if match)


def remove(folder: Path, unwanted: Collection[Place]) -> None:
    """Deletes checkpoints, and what was left of others under way."""
    for name in (*map(str, unwanted), *(path.name for path in folder.glob(f"*{PART}"))):
        remove_folder(folder / name)


def damage(folder: Path, place: Place) -> str | None:
    """Say what is wrong with a checkpoint's files, or return `None` where they are as they were written."""
    path = folder / str(place)
    try:
        stored, found = read_bytes(path / MANIFEST, DAMAGED), _manifest(path).encode()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"cannot read {error.filename} ({error.strerror}): check its permissions"
    if stored == found:
        return None
    before, now = (dict(_entry(line) for line in text.splitlines()) for text in (stored, found))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            what = "is not there" if name not in now else "was not saved with it" if name not in before else "differs"
            return f"{name.decode(errors='replace')} {what}; {DAMAGED}"
    return f"{MANIFEST} is not as it was written; {DAMAGED}"


def restore_newest(
    folder: Path,
    candidates: Sequence[Place],
    like: Progress,
    say: Callable[[str], None],
    accept: Callable[[Place], str | None],
) -> Checkpoint | None:
    """The newest good checkpoint; `None` where there is none at all, because training had not come so far.

    Args:
        folder: of the checkpoints.
        candidates: which of them, the newest last.
        like: the progress of the same model, or its shapes.
        say: told of each checkpoint that is passed over.
        accept: what speaks against going on from a place, if anything does.

    Raises:
        UserError: none is good, or the newest good one is of another model or version.
    """
    for place in reversed(candidates):
        wrong = damage(folder, place) or accept(place)
        try:
            about = {} if wrong else _about(folder / str(place))
        except UserError as error:
            wrong = str(error)
        if wrong is None:
            if about.get("draws") != DRAWS:
                raise UserError(
                    f"{folder / str(place)} was written by another version, which drew otherwise; train again"
                )
            return restore(folder, place, like)
        say(f"WARNING: the checkpoint of {place.words()} cannot be used ({wrong}); going back to an older one")
    if candidates:
        raise UserError(f"{folder}: no checkpoint can be used; start a new run with another {setting('out')}")
    return None


def restore(folder: Path, place: Place, like: Progress) -> Checkpoint:
    """What training goes on from at a place.

    Args:
        folder: of the checkpoints.
        place: which.
        like: the progress of the same model, or its shapes.

    Raises:
        UserError: that checkpoint is not there, damaged, or of another model.
    """
    path = _checked(folder, place)
    about = _about(path)
    if about["rows"] != ROWS:
        raise UserError(f"{path} was written by another version, whose tables stand in another order; train again")
    saved, wanted = about["arrays"], describe(like)
    if saved != wanted:
        name = next(name for name in sorted({*saved, *wanted}) if saved.get(name) != wanted.get(name))
        raise UserError(
            f"{path} is a checkpoint of another model: it has {saved.get(name, 'no array')} "
            f"at {name} where this config makes {wanted.get(name, 'none')}; use the config it was made with"
        )
    state, means = like
    shapes = {"state": state, "values": dict(means.values), "rows": means.rows}
    restored = _load(path / TRAINING, jax.tree.map(_with_place, shapes))
    progress = Progress(restored["state"], Means(restored["values"], restored["rows"]))
    return Checkpoint(place, progress, Tally(**about["tally"]))


def restore_state(folder: Path, epoch: int, like: TrainState) -> TrainState:
    """The state after an epoch, for those who do not train on.

    Args:
        folder: of the checkpoints.
        epoch: which.
        like: a state of the same model, or its shapes.

    Raises:
        UserError: that checkpoint is not there, damaged, or of another model.
    """
    about = _about(_checked(folder, Place(epoch)))
    names = (re.fullmatch(r"\.means\.values\['(.*)'\]", name) for name in about["arrays"])
    means = jax.eval_shape(lambda: no_steps(found[1] for found in names if found))
    return restore(folder, Place(epoch), Progress(like, means)).progress.state


def restore_embeddings(folder: Path, epoch: int) -> Embeddings:
    """What an epoch ranked with.

    Raises:
        UserError: that epoch's checkpoint is not there, damaged, or of another version.
    """
    path = _checked(folder, Place(epoch)) / EMBEDDINGS
    if not path.is_file():
        raise UserError(f"{path} is not there: the checkpoint was written by another version; train again")
    try:
        saved = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}): {DAMAGED}") from None
    tables = [saved.get(side) for side in Embeddings._fields]
    if not all(table is not None and table.ndim == 2 and table.dtype == np.float32 for table in tables):
        raise UserError(f"{path} does not hold a table of users and one of items: {DAMAGED}")
    return Embeddings(*map(jnp.asarray, tables))


def describe(progress: Progress) -> dict[str, str]:
    """The name, shape and type of each array, and how the parameters are nested (empty places included)."""
    arrays, _ = jax.tree_util.tree_flatten_with_path(progress)
    nested = str(jax.tree_util.tree_structure(progress.state.params))
    return {"params": nested} | {
        jax.tree_util.keystr(path): f"{np.dtype(x.dtype).name}{list(x.shape)}" for path, x in arrays
    }


def _checked(folder: Path, place: Place) -> Path:
    path = folder / str(place)
    if place not in places(folder):
        raise UserError(f"{folder} has no checkpoint of {place.words()}: the run folder is not complete")
    wrong = damage(folder, place)
    if wrong is not None:
        raise UserError(f"{path} cannot be used: {wrong}")
    return path.resolve()


def _about(path: Path) -> dict[str, Any]:
    return read_json(path / TALLY, _About, DAMAGED)


def _manifest(folder: Path) -> str:
    """A line for each file, as `sha256sum` writes and checks them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return "".join(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(line: bytes) -> tuple[bytes, bytes]:
    return line[66:], line[:64]


def _save(path: Path, tree: Any) -> None:
    try:
        with _for_orbax(path) as there, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(there, args=ocp.args.StandardSave(tree))
    except OSError:
        raise
    except Exception as error:  # what the disk refuses comes out of Orbax's storage in many types
        for code in (*FULL, errno.EIO, errno.EROFS, errno.EACCES):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), str(path)) from error
        raise OSError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


def _check_restores(path: Path, tree: Any) -> None:
    """Restore what was saved, a few arrays at a time, and compare the bits.

    Raises:
        OSError: It cannot be restored, or differs.
    """
    leaves, structure = jax.tree.flatten(tree)
    as_numpy = jax.tree.unflatten(structure, [ocp.RestoreArgs(restore_type=np.ndarray)] * len(leaves))
    blocks = np.cumsum([leaf.nbytes for leaf in leaves]) // READ_BACK_BYTES
    try:
        with _for_orbax(path) as there, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            for block in np.unique(blocks):
                wanted = [leaf if of == block else ocp.PLACEHOLDER for leaf, of in zip(leaves, blocks, strict=True)]
                arguments = ocp.args.PyTreeRestore(jax.tree.unflatten(structure, wanted), restore_args=as_numpy)
                found = jax.tree.leaves(checkpointer.restore(there, args=arguments))
                pairs = [pair for pair in zip(found, leaves, strict=True) if pair[0] is not ocp.PLACEHOLDER]
                if not all(np.array_equal(_bits(saved), _bits(leaf)) for saved, leaf in pairs):
                    raise OSError("what was written reads back as something else")
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"what was written cannot be read back ({type(error).__name__})") from error


def _bits(array: Any) -> UInt8[np.ndarray, " bytes"]:
    return np.asarray(array).reshape(-1).view(np.uint8)


def _with_place(shape: Any) -> jax.ShapeDtypeStruct:
    """On this machine's first device, wherever it was saved from."""
    device = SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=device)  # type: ignore[no-untyped-call]


def _load(path: Path, like: Any) -> Any:
    try:
        with _for_orbax(path) as there, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            return checkpointer.restore(there, args=ocp.args.StandardRestore(like))
    except Exception as error:  # Orbax and its storage have no type of their own for what they cannot read
        raise UserError(f"{path} cannot be restored ({one_line(error)}): {DAMAGED}") from error


@contextmanager
def _for_orbax(path: Path) -> Iterator[Path]:
    """Yield a path to the same place that Orbax handles correctly, and silence it meanwhile.

    Orbax matches patterns against whole paths, so that it loses what lies under `[`, and its storage takes a
    backslash for a slash. Such a path is reached through a symbolic link. Its threads log as an error, with a
    traceback, what it raises as well.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        if not UNSAFE.intersection(str(path)):
            yield path
        else:
            with tempfile.TemporaryDirectory(prefix="slmrec_jax-") as links:
                link = Path(links) / "folder"
                link.symlink_to(path.parent, target_is_directory=True)
                yield link / path.name
    finally:
        logger.setLevel(level)
