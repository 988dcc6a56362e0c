"""Readers answer in one line, with the reason and without waiting, if a data file is something else or unreadable."""

import bz2
import contextlib
import gzip
import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from foreign_files import npy, refusal

from slmrec_jax.data import load
from slmrec_jax.data.formats.lightgcn import _read_lines
from slmrec_jax.data.new_items import read_new_items
from slmrec_jax.data.readers.headers import column_names
from slmrec_jax.data.readers.json_lists import read_item_lists
from slmrec_jax.data.readers.npy_files import read_numbers
from slmrec_jax.data.readers.safetensors_files import read_tensors
from slmrec_jax.data.readers.tables import read_parquet, read_text
from slmrec_jax.data.untrusted.object_arrays import read_lists
from slmrec_jax.data.untrusted.pickles import read_sparse
from slmrec_jax.data.untrusted.torch_files import read_tensor
from slmrec_jax.serving import exports
from slmrec_jax.serving.served import Served
from slmrec_jax.types import Interactions

READERS = {
    "npy": lambda file: read_numbers(file, "numbers"),
    "lists": read_lists,
    "pickle": read_sparse,
    "torch": read_tensor,
    "json": read_item_lists,
    "lines": _read_lines,
    "safetensors": lambda file: read_tensors(file, "numbers"),
    "parquet": lambda file: read_parquet(file, ["v"]),
    "text": lambda file: read_text(file, ",", ["v"]),
    "columns": column_names,
}
KINDS = {
    "a pipe": (os.mkfifo, "not a regular file but a pipe"),
    "a link to a pipe": (lambda path: link(path, os.mkfifo), "not a regular file but a pipe"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file but a device"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "cannot be read (Too many levels"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "a link to a file that does not exist"),
    "a folder": (Path.mkdir, "not a regular file but a folder"),
    "a socket": (lambda path: bind(path), "not a regular file but a socket"),
}


def link(path, make):
    make(path.with_name(".other"))
    path.symlink_to(".other")


def bind(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # a socket's path must be short
        made.bind(path.name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_something_other_than_a_file_is_named(tmp_path, reader, kind):
    make, line = KINDS[kind]
    file = tmp_path / "data.parquet"
    make(file)
    assert f"{file}: {line}" in refusal(READERS[reader], file)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_is_named(tmp_path, reader):
    assert f"{tmp_path}/nowhere: there is no such file" in refusal(READERS[reader], tmp_path / "nowhere")


FOLDERS = {
    "toy.valid.inter": ("recbole", "a split"),
    "feat_v.pt": ("mmgcn", "a modality"),
    "item_list.txt": ("lightgcn", "raw ids"),
    "visual_feat.npy": ("mmrec", "a modality"),
    "image.csv": ("plain", "a modality"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOLDERS)
def test_something_other_than_a_file_is_not_passed_over(tmp_path, name, kind):
    make, line = KINDS[kind]
    make(tmp_path / name)
    assert f"{tmp_path / name}: {line}" in refusal(load, str(tmp_path), format=FOLDERS[name][0])


def test_hidden_entries_and_other_folders_are_ignored(tmp_path):
    (tmp_path / "t.csv").write_text("user,item,split\n1,1,train\n1,2,valid\n")
    (tmp_path / ".#lock").symlink_to("nowhere")
    (tmp_path / "runs.v1").mkdir()
    assert load(str(tmp_path)).num_items == 2


def test_an_entry_whose_name_cannot_be_printed(tmp_path):
    (tmp_path / "a\x1b[31m.npy").symlink_to("nowhere")
    assert "is not a regular file; remove it" in refusal(load, str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["meta.json", "users.parquet", "known.parquet", "embeddings.safetensors"])
def test_exports_and_stores_wait_for_nothing(tmp_path, name, kind):
    make, line = KINDS[kind]
    folder = export(tmp_path / "out")
    (folder / name).unlink()
    make(folder / name)
    assert f"{folder / name}: {line}" in refusal(exports.read_export, folder)


def export(folder):
    tables = exports.Embeddings(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    ids = np.array(["a", "b"])
    made = Served("toy", tables, ids, ids, (Interactions(np.array([0]), np.array([1])),), "dot")
    exports.write_export(made, folder)
    return folder


# --- permissions -------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded():
    """A file and a folder that may not be read, even if the tests run as root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as base:
        file, folder = Path(base) / "visual.npy", Path(base) / "features"
        file.write_bytes(npy(np.ones((2, 2))))
        folder.mkdir()
        os.chmod(base, 0o755)  # noqa: S103
        for path in (file, folder):
            path.chmod(0)
        if user == 0:
            os.seteuid(65534)
        try:
            yield file, folder
        finally:
            os.seteuid(user)
            folder.chmod(0o700)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_without_permission_is_not_called_damaged(guarded, reader):
    line = refusal(READERS[reader], guarded[0])
    assert line == f"{guarded[0]}: cannot be read (Permission denied); check the path and its permissions"


def test_a_folder_without_permission(guarded, tiny):
    folder, known = guarded[1], tiny
    for path, read in {
        folder: lambda: load(str(folder)),
        folder / "meta.json": lambda: exports.read_export(folder),
        folder / "x.npy": lambda: read_new_items(folder / "x.npy", known),
    }.items():
        assert refusal(read) == f"{path}: cannot be read (Permission denied); check the path and its permissions"


def test_an_error_of_a_library_has_a_reason(monkeypatch, tmp_path):
    (tmp_path / "t.csv").write_text("user,item\n1,2\n")
    for error, said in ((OSError("no \x1b"), r"no \x1b"), (OSError(), "OSError"), (OSError(5, "I/O"), os.strerror(5))):
        monkeypatch.setattr("slmrec_jax.data.read_folder", lambda *_, error=error: (_ for _ in ()).throw(error))
        assert f"cannot be read ({said})" in refusal(load, str(tmp_path))


def test_a_path_need_not_be_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    (folder / "features").mkdir(parents=True)
    rows = "user,item,split\nu,0,train\nu,1,valid\nv,2,train\n"
    for number, (suffix, pack) in enumerate({".gz": gzip.compress, ".bz2": bz2.compress}.items()):
        (folder / "features" / f"taste{number}.csv{suffix}").write_bytes(pack(b"item,x\n0,1\n1,2\n2,3\n"))
    (folder / "interactions.csv.gz").write_bytes(gzip.compress(rows.encode()))
    with (folder / "clip.parquet").open("wb") as file:
        pq.write_table(pa.table({"v": [[1.0], [2.0], [3.0]]}), file)
    (folder / "features" / "image.safetensors").write_bytes(safetensors.numpy.save({"v": np.ones((3, 2), np.float32)}))
    assert set(load(folder).features) == {"clip", "taste0", "taste1", "visual"}
