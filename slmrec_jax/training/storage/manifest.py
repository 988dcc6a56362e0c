"""The SHA-256 of every file of a folder, in `sha256sum` format, to detect any change to the folder."""

import hashlib
import os
from pathlib import Path

from slmrec_jax.errors import UserError
from slmrec_jax.training.storage.records import read_small_file

MANIFEST = "manifest.sha256"
DAMAGED = "the checkpoint is damaged"


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder's current files."""
    (folder / MANIFEST).write_bytes(_manifest(folder))


def check_manifest(folder: Path) -> None:
    """Reject a folder with a file that is missing, added, different from its manifest, or unreadable."""
    stored = read_small_file(folder / MANIFEST, DAMAGED)
    try:
        found = _manifest(folder)
    except OSError as error:
        raise UserError(f"cannot read {error.filename} ({error.strerror}): check its permissions") from None
    if stored == found:
        return
    before, now = ({line[66:]: line[:64] for line in text.splitlines()} for text in (stored, found))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            what = "is missing" if name not in now else "was not saved with it" if name not in before else "differs"
            raise UserError(f"{name.decode(errors='replace')} {what}; {DAMAGED}")
    raise UserError(f"{MANIFEST} was changed after it was written; {DAMAGED}")


def _manifest(folder: Path) -> bytes:
    lines = b""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines += f"{digest}  ".encode() + os.fsencode(path.relative_to(folder).as_posix()) + b"\n"
    return lines
