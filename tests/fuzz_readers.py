# ruff: noqa: E402, S311
"""Feeds damaged and hostile files to every reader: the outcome is data, or one line that names the file.

    python tests/fuzz_readers.py --inputs 20000

Nothing else may be raised, nothing may run, write or hang, and memory stays within `MEMORY_PER_BYTE` times the size of
the files plus a constant. Inputs that break this are kept under `--keep`. The same seed makes the same inputs. What a
small Parquet file may unpack to is lowered to `UNPACKED`, so that it shows if one unpacks further.
"""

import argparse
import codecs
import faulthandler
import gzip
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import safetensors.numpy
import scipy.sparse as sp

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from foreign_files import arrow, npy, object_npy, parquet, tensor_file, tensor_pickle, torch_stream, torch_zip
from hostile_files import FRESH, Files, Special, damage, make_special, packed_tables

from slmrec_jax.data import Feature, Words, load, make_dataset, write_store
from slmrec_jax.data.readers import engine, parquet_files
from slmrec_jax.data.readers.feature_tables import read_vectors
from slmrec_jax.data.readers.json_lists import read_item_lists
from slmrec_jax.data.readers.npy_files import read_table
from slmrec_jax.data.readers.tables import read_parquet
from slmrec_jax.data.untrusted.object_arrays import read_lists
from slmrec_jax.data.untrusted.pickles import read_sparse
from slmrec_jax.data.untrusted.torch_files import read_tensor
from slmrec_jax.errors import UserError
from slmrec_jax.serving import exports
from slmrec_jax.serving.served import Served
from slmrec_jax.types import Interactions

MEMORY_PER_BYTE = 200
MEMORY, MEMORY_OF_FOLDER = 4 * 2**20, 96 * 2**20
"""Bytes that reading may take beside those for each byte of the files. A small file may contain an id of a million, and
counts of a million users and items take the latter."""
UNPACKED = 2**22
SECONDS, BLOCKED = 10, 600
"""A reader hangs if it takes more processor time, or time by the clock, which says little on a busy machine."""


class Sample(NamedTuple):
    """Valid files, and the function that reads the folder that they are in."""

    files: Files
    read: Callable[[Path], object]
    memory: int = MEMORY


# --- what is damaged ---------------------------------------------------------------------------------------------


def samples() -> dict[str, Sample]:
    """One sample or more of every reader, by name."""
    made = {}

    def add(name: str, file: str, content: bytes, read: Callable[..., object], *arguments: object, **options: int):
        made[name] = Sample({file: content}, lambda folder: read(folder / file, *arguments), **options)

    dense = np.array([[0, 2, 0, 1], [1, 0, 0, 0], [0, 0, 3, 0]])
    for layout in ("coo_matrix", "csr_matrix", "csc_array"):
        for protocol in (2, 3, 4, 5):
            content = pickle.dumps(getattr(sp, layout)(dense), protocol)
            add(f"sparse {layout} {protocol}", "m.pkl", content, read_sparse)
    for protocol in (2, 3, 4, 5):
        content = object_npy([[0, np.int64(5), 300], [1], [2, 70000]], protocol)
        add(f"lists {protocol}", "l.npy", content, read_lists)
    for name, content in tensors().items():
        add(f"tensor {name}", "t.pt", content, read_tensor)
    add("table", "t.npy", npy(TABLE), read_table)
    add("item lists", "l.json", json.dumps({"0": [3, 1], "1": [], "2": [0]}).encode(), read_item_lists)
    for name, (file, key, content) in vectors().items():
        add(f"vectors {name}", file, content, read_vectors, key, memory=MEMORY_OF_FOLDER)
    for name, content in tables().items():
        add(f"columns {name}", "t.parquet", content, read_parquet, ["v"], memory=MEMORY_OF_FOLDER)
    made["export"] = Sample(exported(), exports.read_export, MEMORY_OF_FOLDER)
    for name, (format, files) in folders().items():
        made[f"folder {name}"] = Sample(
            files, lambda folder, format=format: load(str(folder), format=format), MEMORY_OF_FOLDER
        )
    return made


TABLE = np.arange(10, dtype=np.float32).reshape(5, 2)
PAIRS = [(0, 3), (0, 1), (1, 0), (2, 2), (2, 4)]
WORDS = np.array([[0, 0, 4, 2], [7, 3, 3, 5]])


def tensors() -> Files:
    six = np.arange(6.0)
    pickled = tensor_pickle((2, 3), storage="DoubleStorage")
    words = tensor_pickle((2, 4), storage="LongStorage", parameter=True)
    half = tensor_pickle((3, 2), (1, 3), storage="BFloat16Storage", offset=0)
    return {
        "archive": torch_zip(pickled, six.tobytes()),
        "archive of words": torch_zip(words, WORDS.tobytes(), folder="feat_t"),
        "stream": torch_stream(pickled, six.tobytes(), size=6),
        "stream of bfloat16": torch_stream(half, six.astype("<u2").tobytes(), size=6),
    }


def vectors() -> dict[str, tuple[str, str | None, bytes]]:
    """By name: the file, its column of raw ids, and its content."""
    rows = "".join(f"{x},{y}\n" for x, y in TABLE.tolist())
    keyed = "".join(f"i{n}\t{x} {y}\n" for n, (x, y) in enumerate(TABLE.tolist()))
    return {
        "csv": ("v.csv", None, rows.encode()),
        "csv with a header": ("v.csv", None, f"x,y\n{rows}".encode()),
        "tsv with ids": ("v.tsv", "item", f"item\tv\n{keyed}".encode()),
        "float8": ("v.safetensors", None, tensor_file("F8_E4M3", [5, 2], bytes(range(40, 50)))),
        "parquet": ("v.parquet", "item", parquet(pa.table({"item": range(5), "v": TABLE.tolist()}))),
        "parquet of columns": ("v.parquet", None, parquet(pa.table({"x": TABLE[:, 0], "y": TABLE[:, 1]}))),
    }


def tables() -> Files:
    """Parquet in the encodings that texts, numbers and times may have."""
    texts = [f"user-{n % 7}" for n in range(60)]
    prefixed = {"use_dictionary": False, "column_encoding": {"v": "DELTA_BYTE_ARRAY"}}
    plain = {"use_dictionary": False, "compression": "none"}
    fixed = pa.array(TABLE.tolist(), pa.list_(pa.float32(), 2))
    return {
        "of text": parquet(pa.table({"v": texts}), row_group_size=25),
        "of prefixed text": parquet(pa.table({"v": texts}), **prefixed),
        "of plain text": parquet(pa.table({"v": texts}), data_page_version="2.0", **plain),
        "of packed text": parquet(pa.table({"v": texts}), compression="zstd", data_page_version="2.0"),
        "of categories": parquet(pa.table({"v": pa.array(texts).dictionary_encode()})),
        "of numbers": parquet(pa.table({"v": np.arange(60)}), compression="zstd"),
        "of lists": parquet(pa.table({"v": fixed}), **plain),
        "of times": parquet(pa.table({"v": pa.array([3, 1, 2], pa.timestamp("us", "Asia/Tokyo"))})),
    }


def exported() -> Files:
    """The files that `export` writes."""
    ids, pairs = np.array(["ann", "bob", "cy"]), Interactions(*np.array(PAIRS[:3]).T)
    embeddings = exports.Embeddings(TABLE[:3], TABLE)
    export = Served("toy", embeddings, ids, np.arange(5), (pairs,), "dot")
    return written(lambda folder: exports.write_export(export, folder))


def written(write: Callable[[Path], object]) -> Files:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "toy"
        write(folder)
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def folders() -> dict[str, tuple[str, Files]]:
    """By name: the format, and the files."""
    matrix = sp.coo_matrix((np.ones(5), tuple(zip(*PAIRS, strict=True))), shape=(3, 5))
    matrices = {f"{split}Mat.pkl": pickle.dumps(matrix, 3) for split in ("trn", "val", "tst")}
    features = {"image_feat.npy": npy(TABLE), "text_feat.npy": npy(TABLE.astype(np.float16))}
    lists = {f"{split}.json": b'{"0": [3, 1], "1": [0], "2": [2, 4]}' for split in ("train", "val", "test")}
    arrays = {
        "train.npy": npy(np.array(PAIRS)),
        "val.npy": object_npy([[0, 2], [1]], 2),
        "test.npy": object_npy([[2, 0]]),
    }
    tensor = torch_stream(tensor_pickle((5, 2)), TABLE.tobytes(), size=10)
    words = torch_zip(tensor_pickle((2, 4), storage="LongStorage"), WORDS.tobytes())
    labelled = "".join(f"{user}\t{item}\t{n % 3}\n" for n, (user, item) in enumerate(PAIRS * 2))
    typed = "".join(f"u{user}\ti{item}\t{n}\n" for n, (user, item) in enumerate(PAIRS))
    plain = [{"user": f"u{user}", "item": item, "split": "train"} for user, item in PAIRS]
    plain[1]["split"], plain[3]["split"] = "valid", "test"
    rows = "user,item,split\n" + "".join(f"{row['user']},{row['item']},{row['split']}\n" for row in plain)
    lightgcn = {
        "train.txt": b"0 3 1\n1 0\n2 2 4\n",
        "test.txt": b"0 2\n1 \n",
        "item_list.txt": b"org_id remap_id\na 0\nb 1\nc 2\nd 3\ne 4\n",
    }
    mmrec = {
        "toy.inter": f"userID\titemID\tx_label\n{labelled}".encode(),
        **features,
        "i_id_mapping.csv": b"asin\titemID\na\t0\nb\t1\nc\t2\nd\t3\ne\t4\n",
    }
    neurec = {
        "toy.train": b"7,3,1,5\n8,1,1,6\n7,4,1,7\n",
        "toy.test": b"7,1,1,9\n8,0,1,9\n",
        "toy_visual_feat.pt": tensor,
        "toy_textual_feat.pt": words,
    }
    recbole = {
        f"toy.{part}.inter": f"user_id:token\titem_id:token\ttimestamp:float\n{typed}".encode()
        for part in ("train", "valid", "test")
    } | {"toy.itememb": b"iid:token\titem_emb:float_seq\ni0\t1 2\ni3\t3 4\n"}
    text = {"toy.csv": rows.encode(), "image.npy": npy(TABLE), "text_feat.csv": b"item,x,y\n1,0.5,2\n4,1.5,3\n"}
    encoded = {
        "train.csv": rows.encode("utf-16"),
        "valid.csv.gz": gzip.compress(rows.encode(), mtime=0),
        "test.csv": rows.encode("utf-32"),
    }
    packed = {
        "toy.parquet": parquet(pa.Table.from_pylist(plain)),
        "audio.parquet": parquet(pa.table({"item": list(range(5)), "vector": TABLE.tolist()})),
        "text.safetensors": safetensors.numpy.save({"item": np.arange(5), "values": TABLE}),
    }
    vectors = {"item": [0, 3, 4], "image_emb": TABLE[:3].tolist(), "text_emb": [[0.5], None, [1.5]]}
    saved = {
        "toy.csv": rows.encode(),
        "clip/state.json": b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}',
        "clip/dataset_info.json": b"{}",
        "clip/data-00000-of-00001.arrow": arrow(pa.table(vectors)),
    }
    return {
        "slmrec": ("slmrec", stored()),
        "diffmm": ("diffmm", matrices | features),
        "mmssl": ("mmssl", lists | features),
        "mmssl with a matrix": ("mmssl", {**lists, **features, "train_mat": pickle.dumps(matrix.tocsr(), 4)}),
        "mmgcn": ("mmgcn", {**arrays, "feat_v.pt": tensor, "feat_t.pt": words, "feat_a.npy": npy(TABLE)}),
        "lightgcn": ("lightgcn", lightgcn),
        "lightgcn pairs": ("lightgcn", {"data1.txt": b"1\t3\t1\r\n2\t1\t1\r\n", "test1.txt": b"1\t2\t1\r\n"}),
        "mmrec": ("mmrec", mmrec),
        "neurec": ("neurec", neurec),
        "recbole": ("recbole", recbole),
        "plain text": ("plain", text),
        "plain text of other encodings": ("plain", encoded),
        "plain parquet": ("plain", packed),
        "plain with a saved data set": ("plain", saved),
    }


def stored() -> Files:
    """The package's own format."""
    features = {"visual": Feature(TABLE, np.arange(5) != 2), "textual": Words(*WORDS, 8)}
    pairs = Interactions(*np.array(PAIRS).T)
    ids = np.array(["ann", "bob", "cy"])
    dataset = make_dataset("toy", pairs, pairs, pairs, num_users=3, num_items=5, features=features, user_ids=ids)
    return written(lambda folder: write_store(dataset, folder))


# --- what is looked for ------------------------------------------------------------------------------------------

_FORBIDDEN = (
    "exec", "compile", "import", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "subprocess.Popen", "pty.spawn", "socket.", "ctypes.", "pickle.find_class", "marshal.", "code.__new__", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.putenv", "shutil.",
    "tempfile.", "urllib.", "http.", "builtins.input", "webbrowser.", "sqlite3.", "function.__new__", "setopencodehook",
)  # fmt: skip
_watching, _events = [False], []


def _in_private_folder(event: str, arguments: tuple[object, ...]) -> bool:
    """Return whether an event is about an engine's own temporary folder."""
    path = str(arguments[1] if event == "os.symlink" else arguments[0])
    if event in ("os.remove", "os.rmdir") and not os.path.isabs(path):  # from the descriptor of a folder
        path = os.readlink(f"/proc/self/fd/{arguments[1]}")
    return path.startswith(os.path.join(tempfile.gettempdir(), engine.PREFIX))


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching[0]:
        return
    if event == "compile" and arguments[1] == "<unknown>":  # the parser of literals, by which NumPy reads headers
        return
    if event.startswith(_FORBIDDEN) and not _in_private_folder(event, arguments):
        _events.append(f"{event} {str(arguments)[:80]}")
    elif event == "open":
        _, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            _events.append(f"open for writing {str(arguments)[:80]}")


class Outcome(NamedTuple):
    """The outcome of one input: read, refused, or what is wrong."""

    kind: str
    detail: str
    seconds: float
    memory: int


def examine(sample: Sample, files: Files, folder: Path) -> Outcome:
    """Write the files to an empty folder and read them under watch."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if isinstance(content, Special):
            make_special(folder / name, content.kind)
        else:
            (folder / name).write_bytes(content)
    size = sum(len(content) for content in files.values() if not isinstance(content, Special))
    allowed = sample.memory + MEMORY_PER_BYTE * size
    _events.clear()
    resident = _resident()
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(BLOCKED, exit=True)  # for what does not return to Python
    _watching[0] = True
    try:
        sample.read(folder)
        kind, detail = "read", ""
    except UserError as error:
        kind, detail = "refused", str(error)
    except _Hangs:
        kind, detail = "HANGS", f"more than {SECONDS} s of the processor"
    except BaseException as error:
        kind, detail = "RAISES", f"{type(error).__name__}: {error}"
    finally:
        _watching[0] = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    seconds = time.process_time() - start
    memory = max(tracemalloc.get_traced_memory()[1] - before, _resident() - resident)
    if _events:
        kind, detail = "RUNS", "; ".join(_events)
    elif kind == "refused" and not (
        detail.isprintable() and (str(folder) in detail or f"data set {folder.name}" in detail)
    ):
        kind = "SAYS"
    elif memory > allowed:
        kind, detail = "SWELLS", f"{memory} bytes of memory for {size}"
    return Outcome(kind, detail, seconds, memory)


def _resident() -> int:
    """Return the most bytes that this process has had, which an input raises that needs more than all before."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Hangs(BaseException):
    """Too much time was taken. Not `TimeoutError`, which readers would report as an error of the system."""


def _alarm(*_: object) -> None:
    if _watching[0]:
        raise _Hangs


_hooked: list[bool] = []


def start_watch() -> None:
    """Watch what runs from here on; an audit hook stays for the life of Python, so there is only one."""
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    codecs.lookup("unicode_escape")  # error lines may be the first to need it, and that imports it
    signal.signal(signal.SIGPROF, _alarm)
    tracemalloc.start()


def check_valid(chosen: dict[str, Sample], folder: Path) -> None:
    """Read each sample twice, since the first time may import modules, or end the program if one is not read."""
    for name, sample in chosen.items():
        folder.mkdir()
        for _ in range(2):
            outcome = examine(sample, sample.files, folder)
        if outcome.kind != "read":
            sys.exit(f"{name}: the valid sample is not read: {outcome.kind} {outcome.detail}")
        shutil.rmtree(folder)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="samples whose name starts so")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that break a rule")
    options = parser.parse_args(arguments)
    made = samples()
    FRESH.update({name: content for sample in made.values() for name, content in sample.files.items()})
    chosen = {name: sample for name, sample in made.items() if name.startswith(options.only)}
    source = random.Random(options.seed)
    parquet_files.SMALL = UNPACKED
    packed_tables()  # what making them takes is no reader's memory
    start_watch()
    begun = time.perf_counter()
    counts: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    slowest, hungriest, faults = (0.0, ""), (0, ""), 0
    with tempfile.TemporaryDirectory() as base:
        check_valid(chosen, Path(base) / "valid")
        for number in range(options.inputs):
            name = source.choice(list(chosen))
            files = damage(chosen[name].files, source)
            folder = Path(base) / f"input-{number}"
            folder.mkdir()
            outcome = examine(chosen[name], files, folder)
            counts[name][outcome.kind] += 1
            slowest = max(slowest, (outcome.seconds, f"{name}, input {number}"))
            hungriest = max(hungriest, (outcome.memory, f"{name}, input {number}"))
            if outcome.kind not in ("read", "refused"):
                faults += 1
                print(f"{name}, input {number}: {outcome.kind} {outcome.detail[:300]}")
                if options.keep:
                    shutil.copytree(folder, options.keep / folder.name, dirs_exist_ok=True)
            shutil.rmtree(folder)
    for name, kinds in counts.items():
        print(f"{name:24} " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}); most memory {hungriest[0] / 2**20:.0f} MiB ({hungriest[1]})")
    print(f"{options.inputs} inputs, seed {options.seed}, {time.perf_counter() - begun:.0f} s: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
