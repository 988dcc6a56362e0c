"""Open text files, compressed or not, in UTF-8 or with a byte-order mark."""

import codecs
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from slmrec_jax.errors import UserError

_COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""The compression by suffix."""
_MAX_RATIO, _ALWAYS_ALLOWED = 50, 2**24
"""The limits on unpacked sizes: a multiple of the file's own size, and the bytes allowed for any file."""
_MARKS = {  # UTF-32 first, because its mark begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_FIRST = 2**20
"""The bytes that are searched for the first line. A header must fit into them."""


class FirstLine(NamedTuple):
    """The first non-empty line of a file, and the file's encoding."""

    text: str
    encoding: str
    whole: bool
    """Whether the line was read as a whole; false if only the beginning of a very long line was read."""


def uncompressed(file: Path) -> Path:
    """Remove the suffix of a compressed file: `interactions.csv.gz` becomes `interactions.csv`."""
    return file.with_suffix("") if file.suffix in _COMPRESSED else file


def open_bytes(file: Path) -> io.BufferedReader:
    """Open a file for reading bytes, decompressed if its suffix is that of a compressed file.

    Reading raises `UserError` if the file unpacks to far more than its size, and `OSError` if it is damaged.
    """
    packed = file.open("rb")  # opened by Python, since Arrow accepts only UTF-8 paths
    return io.BufferedReader(_Unpacked(file, packed)) if file.suffix in _COMPRESSED else packed


def first_line(file: Path) -> FirstLine:
    """Read the first non-empty line of a file in UTF-8, or in another encoding given by a byte-order mark."""
    with open_bytes(file) as opened:
        start = opened.read(_FIRST)
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    text = codecs.getincrementaldecoder(encoding)("replace").decode(start).removeprefix("\ufeff")
    line, *more = [line for line in re.split(r"\r\n|\r|\n", text) if line][:2] or [""]
    if "\0" in line:
        raise UserError(f"{file}: NUL in row 1, as in UTF-16 without a byte-order mark; save the table as UTF-8")
    return FirstLine(line, encoding, whole=bool(more) or len(start) < _FIRST)


def has_line_breaks(file: Path, separator: str, encoding: str) -> bool:
    """Return whether a quoted cell contains a line break. An unclosed quote, which would swallow rows, is rejected."""
    with open_bytes(file) as opened:
        if not any(b'"' in block for block in iter(lambda: opened.read(_FIRST), b"")):
            return False
    opens, closes = re.compile(f'(^|{re.escape(separator)})"'), re.compile('([^"]++|"")*+"')
    row, begun, several = 0, 0, False  # `begun` is the row in which a still open cell begins
    with io.TextIOWrapper(open_bytes(file), encoding.replace("utf-8", "utf-8-sig"), "replace", newline="") as text:
        for line in text:
            place = 0
            row += not begun and line.strip("\r\n") != ""
            while True:
                if not begun:
                    if (start := opens.search(line, place)) is None:
                        break
                    place = start.end()
                closed = closes.match(line, place)
                if closed is None:
                    begun, several = begun or row, True
                    break
                place = closed.end()
                if begun and line[place : place + 1] not in (separator, "\r", "\n", ""):
                    raise _open_quote(file, begun)
                begun = 0
    if begun:
        raise _open_quote(file, begun)
    return several


def _open_quote(file: Path, row: int) -> UserError:
    return UserError(
        f"{file}: row {row}: a cell begins with a quote that is never closed; close it, or put the cell in quotes and "
        f"each quote in it twice"
    )


class _Unpacked(io.RawIOBase):
    """The content of a compressed file, with a limit on its size."""

    def __init__(self, file: Path, packed: io.BufferedReader) -> None:
        self._file, self._packed = file, packed
        self._unpacked: Any = pa.input_stream(packed, compression=_COMPRESSED[file.suffix])
        self._left = max(_ALWAYS_ALLOWED, _MAX_RATIO * file.stat().st_size)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._packed.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        data = self._unpacked.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UserError(
                f"{self._file}: it unpacks to more than {_MAX_RATIO} times its size; unpack it first if intended"
            )
        buffer[: len(data)] = data
        return len(data)
