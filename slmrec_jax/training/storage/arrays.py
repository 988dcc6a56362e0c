"""Arrays on disk, written and read with Orbax. No other module imports Orbax.

Orbax writes no checksums, and does not sync to disk before it moves a finished folder into place. The modules
`manifest` and `durable` add both.
"""

import errno
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from jaxtyping import UInt8

from slmrec_jax.durable import FULL
from slmrec_jax.errors import UserError, one_line
from slmrec_jax.training.storage.manifest import DAMAGED

READ_BACK_BYTES = 2**26
"""The bytes of a checkpoint that are read back at a time; a larger array is read by itself."""

_UNSAFE = frozenset("[]*?\\")
"""Characters that Orbax, or the storage library below it, does not treat literally in a path."""

_LATE_SECONDS = 0.2
"""The time for which Orbax's threads may still print after a failure."""


def save_arrays(path: Path, tree: Any) -> None:
    """Write a pytree of arrays as a new folder, then read it back and compare the bits.

    If several processes hold the arrays, each writes and reads its own shards, and all must call this function.

    Raises:
        OSError: The disk reports an error, or the arrays read back differ.
    """
    try:
        with _orbax(path, ocp.StandardCheckpointHandler()) as (checkpointer, safe_path):
            checkpointer.save(safe_path, args=ocp.args.StandardSave(tree))
        _check_written(path, tree)
    except OSError:
        raise
    except Exception as error:  # disk errors arrive as many exception types
        for code in (*FULL, errno.EIO, errno.EROFS, errno.EACCES):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), str(path)) from error
        raise OSError(f"{type(error).__name__}: {one_line(error)}") from error


def load_arrays(path: Path, like: Any) -> Any:
    """Read the arrays that `save_arrays` wrote, regardless of the devices they were saved from.

    `like` is a pytree of the same arrays or of their shapes. Arrays are placed with its shardings, or else on the first
    device.

    Raises:
        UserError: The arrays cannot be read, or do not match `like`.
    """
    first = SingleDeviceSharding(jax.local_devices()[0])

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        place = getattr(leaf, "sharding", None) or first
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)  # type: ignore[no-untyped-call]

    shapes = jax.tree.map(shape, like)
    try:
        with _orbax(path, ocp.StandardCheckpointHandler()) as (checkpointer, safe_path):
            return checkpointer.restore(safe_path, args=ocp.args.StandardRestore(shapes))
    except Exception as error:  # Orbax has no exception of its own for unreadable files
        raise UserError(f"{path} cannot be restored ({one_line(error)}): {DAMAGED}") from error


def _check_written(path: Path, tree: Any) -> None:
    """Read the arrays back, a few at a time, and compare them bitwise with the tree."""
    leaves, structure = jax.tree.flatten(tree)
    places = jax.tree.unflatten(structure, [_read_back_to(leaf) for leaf in leaves])
    blocks = np.cumsum([leaf.nbytes for leaf in leaves]) // READ_BACK_BYTES
    with _orbax(path, ocp.PyTreeCheckpointHandler()) as (checkpointer, safe_path):
        for block in np.unique(blocks):
            wanted = [leaf if of == block else ocp.PLACEHOLDER for leaf, of in zip(leaves, blocks, strict=True)]
            arguments = ocp.args.PyTreeRestore(jax.tree.unflatten(structure, wanted), restore_args=places)
            found = jax.tree.leaves(checkpointer.restore(safe_path, args=arguments))
            pairs = [pair for pair in zip(found, leaves, strict=True) if pair[0] is not ocp.PLACEHOLDER]
            parts = (part for pair in pairs for part in _own_parts(*pair))
            if not all(_same_bits(saved, leaf) for saved, leaf in parts):
                raise OSError("the written arrays read back differently")


def _read_back_to(leaf: Any) -> ocp.RestoreArgs:
    """Return how to read a leaf back: to the host, or to its own sharding if other processes hold parts of it."""
    if _is_whole(leaf):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding)


def _own_parts(saved: Any, leaf: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of saved and original shards that this process holds."""
    if _is_whole(leaf):
        yield saved, leaf
        return
    for one, other in zip(saved.addressable_shards, leaf.addressable_shards, strict=True):
        yield one.data, other.data


def _is_whole(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _same_bits(saved: Any, leaf: Any) -> bool:
    """Compare bits block by block, since each comparison allocates an array."""
    one, other = _bits(saved), _bits(leaf)
    starts = range(0, max(len(one), len(other)), READ_BACK_BYTES)
    blocks = (slice(start, start + READ_BACK_BYTES) for start in starts)
    return all(np.array_equal(one[block], other[block]) for block in blocks)


def _bits(array: Any) -> UInt8[np.ndarray, " bytes"]:
    return np.asarray(array).reshape(-1).view(np.uint8)


@contextmanager
def _orbax(path: Path, handler: Any) -> Iterator[tuple[ocp.Checkpointer, Path]]:
    """Yield a checkpointer, and a path to the same folder that Orbax handles correctly; silence Orbax's threads.

    Orbax matches patterns against whole paths, so it does not find files below a `[`, and its storage library treats a
    backslash as a slash. A folder with such a path is reached through a symbolic link.
    """
    path = path.resolve()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if _UNSAFE.intersection(str(path)):
            link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slmrec_jax-"))) / "folder"
            link.symlink_to(path.parent, target_is_directory=True)
            path = link / path.name
        yield stack.enter_context(ocp.Checkpointer(handler)), path


@contextmanager
def _quiet() -> Iterator[None]:
    """Prevent Orbax's threads from printing tracebacks of an error that Orbax also raises.

    The threads log the first error. Threads that end later find the event loop closed, which Python reports.
    """
    logger, report = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level

    def report_others(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = report_others
    try:
        yield
    except Exception:
        time.sleep(_LATE_SECONDS)
        raise
    finally:
        sys.unraisablehook = report
        logger.setLevel(level)
