"""JSON files of a run's folder: each object has a checksum of its content, and its form is checked on reading.

Without the checksum, a value that was edited or corrupted on disk could silently select a different epoch.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmrec_jax.durable import write_whole
from slmrec_jax.errors import UserError
from slmrec_jax.forms import fault

SEAL = "sha256"
"""The name of the checksum in each object."""

MAX_FILE_BYTES = 2**26
"""The size of the largest file that is read. The record of an epoch takes about 700 bytes."""


def seal(data: Mapping[str, Any]) -> dict[str, Any]:
    """Add the checksum of an object's content. The checksum does not depend on key order or formatting."""
    plain: dict[str, Any] = json.loads(json.dumps(data))  # as it will be read back: keys are strings, tuples are lists
    return {**plain, SEAL: _digest(plain)}


def unseal(text: str | bytes, form: Any, where: str, fix: str) -> dict[str, Any]:
    """Read a JSON object that `seal` made, check it, and return it without its checksum.

    `form` is a TypedDict, or `Mapping[str, Any]` for any object. Error messages begin with `where`, a file or a line of
    it, and end with `fix`.

    Raises:
        UserError: The text is not such an object, or was modified after it was written.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"cannot read {where} ({why}): {fix}") from None
    if not isinstance(data, dict):
        raise UserError(f"{where} does not hold a JSON object: {fix}")
    written = data.pop(SEAL, None)
    if wrong := fault(data, form):
        raise UserError(f"{where}: {wrong}: {fix}")
    if written != _digest(data):
        what = "has no checksum, as older versions wrote it" if written is None else "was changed after it was written"
        raise UserError(f"{where} {what}: {fix}")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object and its checksum atomically."""
    write_whole(path, json.dumps(seal(data), indent=2) + "\n")


def read_json(path: Path, form: Any, fix: str) -> dict[str, Any]:
    """Read a file written by `write_json`. For arguments and errors, see `unseal` and `read_small_file`."""
    return unseal(read_small_file(path, fix), form, str(path), fix)


def read_small_file(path: Path, fix: str) -> bytes:
    """Read a regular file of bounded size. Anything else raises a `UserError`, without blocking on a pipe or device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing: {fix}") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({os.strerror(error.errno or 0)}): check its permissions") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
        os.close(descriptor)
        raise UserError(f"{path} is not a regular file of at most {MAX_FILE_BYTES // 2**20} MiB: {fix}")
    with open(descriptor, "rb") as file:
        return file.read()


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
