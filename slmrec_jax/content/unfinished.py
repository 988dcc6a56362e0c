"""Storage of finished batches on disk, so that a stopped run can continue.

The folder holds `plan`, the digest of everything that the vectors depend on; `rows`, the concatenated vectors in
float16; and `log`, one line per batch, written after the batch's rows are on disk. A batch that does not match its
line, and all batches after it, are computed again.
"""

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16

from slmrec_jax.durable import append, sync, write_whole
from slmrec_jax.errors import UserError

_PLAN, _ROWS, _LOG = "plan", "rows", "log"


@dataclass
class Done:
    """The totals of the finished batches, updated after each batch."""

    inputs: int = 0
    """The number of inputs of these batches."""
    columns: int = 0
    """The dimension of the vectors; 0 before the first vector."""
    items: list[int] = field(default_factory=list)
    """The items that have a vector, in order."""
    faults: dict[int, str] = field(default_factory=dict)
    """The reasons why other items have none, by item."""

    def add(self, batch: Mapping[str, Any]) -> None:
        """Add a batch, given its log line."""
        self.inputs += batch["inputs"]
        self.columns = batch["columns"] or self.columns
        self.items += batch["items"]
        self.faults |= {int(item): reason for item, reason in batch["faults"].items()}


@contextmanager
def held(folder: Path, plan: str) -> Iterator[Done]:
    """Make or take over the folder of a plan, and yield the finished work. Content of another plan is deleted.

    Raises:
        UserError: Another process uses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is making these vectors; wait for it, or stop it") from None
        yield _take_over(folder, plan)
    finally:
        os.close(descriptor)


def _take_over(folder: Path, plan: str) -> Done:
    if not (folder / _PLAN).is_file() or (folder / _PLAN).read_text(errors="replace") != plan:
        with suppress(FileNotFoundError):
            (folder / _PLAN).unlink()
        (folder / _ROWS).write_bytes(b"")
        write_whole(folder / _LOG, "")
        sync(folder / _ROWS)
        write_whole(folder / _PLAN, plan)
        return Done()
    done, lines, size = Done(), [], 0
    with (folder / _ROWS).open("rb") as rows:
        for line in (folder / _LOG).read_text(errors="replace").splitlines():
            try:
                batch = json.loads(line)
                content = rows.read(batch["bytes"])
                whole = len(content) == batch["bytes"] and zlib.crc32(content) == batch["crc32"]
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                break
            done.add(batch)
            size += len(content)
            lines.append(f"{line}\n")
    os.truncate(folder / _ROWS, size)
    write_whole(folder / _LOG, "".join(lines))
    return done


def add_batch(
    folder: Path,
    done: Done,
    inputs: int,
    items: list[int],
    values: Float16[np.ndarray, "rows columns"],
    faults: dict[int, str],
) -> None:
    """Store the vectors of a batch, then record it as finished."""
    content = values.tobytes()
    with (folder / _ROWS).open("ab") as rows:
        rows.write(content)
        rows.flush()
        os.fsync(rows.fileno())
    batch = {
        "inputs": inputs,
        "columns": values.shape[1],
        "items": items,
        "faults": faults,
        "bytes": len(content),
        "crc32": zlib.crc32(content),
    }
    append(folder / _LOG, json.dumps(batch) + "\n")
    done.add(batch)


def stored_rows(folder: Path, done: Done) -> Float16[np.ndarray, "rows columns"]:
    """Return the vectors of all finished batches as a view of their file."""
    return np.memmap(folder / _ROWS, np.float16, "r", shape=(len(done.items), done.columns))
