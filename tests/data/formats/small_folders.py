"""Small folders of data: what the tests of formats write, and how they read it."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slmrec_jax.data import load
from slmrec_jax.errors import UserError

SHARED = Path(os.environ.get("SLMREC_SHARED") or Path(__file__).parents[4] / "shared" / "data")
ROWS = [(f"u{user}", f"i{user + step}", 10 * user + step) for user in range(4) for step in range(4)]


def write(folder, files):
    """Write bytes, text, or an array as `.npy`, by file name."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def text(rows, separator=",", header="user,item,timestamp", end="\n"):
    lines = [header.replace(",", separator)] * bool(header) + [separator.join(map(str, row)) for row in rows]
    return "".join(line + end for line in lines)


def read(folder, files, **how):
    return load(write(folder, files), **how)


def refusal(folder, files=None, **how):
    """Return the one line with which a folder is refused, without the path of the folder."""
    with pytest.raises(UserError) as caught:
        read(folder, files or {}, **how)
    line = str(caught.value)
    assert line.isprintable()
    return line.replace(f"{folder}/", "")


def pairs(split):
    return list(zip(split.users.tolist(), split.items.tolist(), strict=True))


def splits(dataset):
    return [pairs(split) for split in dataset.splits.values()]


def sizes(dataset):
    return [len(split.users) for split in dataset.splits.values()]


def parquet(columns):
    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer)
    return buffer.getvalue()


def shared_folder(path):
    """Return a folder of real data, or skip the test where there is none."""
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (SLMREC_SHARED names another place)")
    return path
