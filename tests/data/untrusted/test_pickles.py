"""Pickled matrices: what SciPy writes is read as SciPy means it; anything else is refused, and nothing runs."""

import os
import pickle
import random
import struct
import sys

import foreign_files
import numpy as np
import pytest
import scipy.sparse as sp
from foreign_files import reading, refusal

from slmrec_jax.data.untrusted.pickles import read_sparse
from slmrec_jax.errors import UserError

DENSE = np.array([[0, 2, 0], [1, 0, 0], [0, 0, 0], [5, 0, 7]])
KINDS = [f"{layout}_{kind}" for layout in ("coo", "csr", "csc") for kind in ("matrix", "array")]


@pytest.fixture
def read(tmp_path):
    return reading(tmp_path / "matrix.pkl", read_sparse)


def dense(pattern):
    made = np.zeros(pattern.shape, np.int64)
    np.add.at(made, (pattern.rows, pattern.columns), 1)
    assert pattern.rows.dtype == pattern.columns.dtype == np.int32
    return made


def altered(matrix, **attributes):
    for name, value in attributes.items():
        setattr(matrix, name, value)
    return matrix


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_reads_what_scipy_writes(read, kind, protocol):
    matrix = getattr(sp, kind)(DENSE.astype(np.float64))
    assert (dense(read(pickle.dumps(matrix, protocol))) == (DENSE != 0)).all()


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("dtype", ["?", "i1", "<i4", ">i8", "u2", "<f4", ">f8", "f2"])
def test_reads_every_type_of_number(read, dtype, protocol):
    matrix = sp.coo_matrix(DENSE)
    matrix.data = matrix.data.astype(dtype)
    matrix.coords = tuple(ids.astype(">i8") for ids in matrix.coords)
    assert (dense(read(pickle.dumps(matrix, protocol))) == (DENSE != 0)).all()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_reads_an_empty_matrix(read, kind, protocol):
    pattern = read(pickle.dumps(getattr(sp, kind)((3, 4)), protocol))
    assert pattern.shape == (3, 4)
    assert len(pattern.rows) == len(pattern.columns) == 0


def test_stored_zeros_are_no_entries(read):
    matrix = sp.coo_matrix((np.array([1.0, 0.0]), (np.array([0, 1]), np.array([1, 0]))), shape=(2, 2))
    assert (dense(read(pickle.dumps(matrix))) == [[0, 1], [0, 0]]).all()


def test_reads_sizes_given_as_numpy_scalars(read):
    matrix = altered(sp.csr_matrix(DENSE), _shape=(np.int64(4), np.int32(3)))
    assert read(pickle.dumps(matrix)).shape == (4, 3)


def old_array(code, values):
    """An array as NumPy 1 under Python 2 wrote it with protocol 2."""
    content = np.asarray(values, code).tobytes()
    kind = code[1:].encode()
    return b"".join(
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR",
            b"(K\x01" + b"K" + bytes([len(values)]) + b"\x85",
            b"cnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\x00K\x01\x87R",
            b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<i", len(content)) + content + b"tb",
        )
    )


def old_coo(rows=(0, 1), columns=(1, 0), data=(1.0, 1.0), shape=b"K\x02K\x02\x86"):
    """A matrix as SciPy 0.19 under Python 2 wrote it."""
    return b"".join(
        (
            b"\x80\x02cscipy.sparse.coo\ncoo_matrix\n)\x81}(",
            b"U\x03row" + old_array("<i4", rows) + b"U\x03col" + old_array("<i4", columns),
            b"U\x04data" + old_array("<f8", data) + b"U\x06_shape" + shape + b"ub.",
        )
    )


def test_reads_old_module_paths_and_python_2(read):
    assert (dense(read(old_coo())) == [[0, 1], [1, 0]]).all()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_old_names_in_every_protocol(read, protocol):
    content = pickle.dumps(sp.csr_matrix(DENSE), protocol)
    if protocol < 4:
        content = content.replace(b"scipy.sparse._csr\n", b"scipy.sparse.csr\n")
        content = content.replace(b"numpy._core.", b"numpy.core.")
    else:
        # Names are text with its length before it here, and a frame around all: both change.
        for new, old in ((b"scipy.sparse._csr", b"scipy.sparse.csr"), (b"numpy._core.", b"numpy.core.")):
            for tail in (b"", b"multiarray", b"numeric"):
                new_text, old_text = (b"\x8c" + bytes([len(name + tail)]) + name + tail for name in (new, old))
                content = content.replace(new_text, old_text)
        content = content[:2] + content[11:]
    assert (dense(read(content)) == (DENSE != 0)).all()


# --- what is refused ---------------------------------------------------------------------------------------------


class Reduces:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


SENTINEL = "SLMREC_SENTINEL"
COMMAND = f"import os; os.environ[{SENTINEL!r}] = 'ran'"
EVIL = foreign_files.EVIL | {
    "system": pickle.dumps(Reduces(os.system, ("true",)), 2),
    "exec": pickle.dumps(Reduces(exec, (COMMAND,)), 4),
    "nested": pickle.dumps(Reduces(getattr, (Reduces(__import__, ("os",)), "system")), 4),
    "global": b"\x80\x02c__builtin__\neval\n(U\x011tR.",
    "bytes of builtins": b"\x80\x04\x8c\x08builtins\x8c\x05bytes\x93)R.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93)R.",
    "ext": b"\x80\x02\x82\x01)R.",
    "persid": b"Psomewhere\n.",
    "binpersid": b"\x80\x02U\x01aQ.",
    "buffer": b"\x80\x05\x97.",
    "newobj_ex": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)}\x92.",
    "in a state": old_coo(shape=b"cos\nsystem\nU\x04true\x85R"),
    "line break in a name": b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.",
}


@pytest.fixture(scope="module")
def audited():
    """Names of calls with which a pickle could do harm, as they happen; a hook stays for the life of Python."""
    seen = []
    watched = ("pickle.find_class", "os.system", "exec", "compile", "import", "subprocess.Popen", "os.exec")
    on = [True]
    sys.addaudithook(lambda event, _: seen.append(event) if on[0] and event in watched else None)
    yield seen
    on[0] = False


@pytest.mark.parametrize("name", EVIL)
def test_nothing_runs(read, audited, name):
    before = len(audited)
    line = refusal(read, EVIL[name])
    assert audited[before:] == []
    assert SENTINEL not in os.environ
    assert "byte " in line


def test_the_audit_would_notice(audited):
    before = len(audited)
    pickle.loads(b"\x80\x02cos\ngetcwd\n)R.")
    assert "pickle.find_class" in audited[before:]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("stack global", "byte 18: asks for 'builtins.eval'"),
        ("global", "byte 2: asks for '__builtin__.eval'"),
        ("inst", "byte 0|byte 1: the opcode STRING"),
        ("persid", "byte 0: the opcode PERSID"),
        ("ext", "byte 2: the opcode EXT1"),
    ],
)
def test_the_line_says_what_and_where(read, name, place):
    assert any(part in refusal(read, EVIL[name]) for part in place.split("|"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "byte 0: the file ends"),
        (b"\x1f\x8b\x08gzip", "byte 0: '\\x1f' is not an opcode"),
        (b"\x80\x02N.", "it holds nothing"),
        (b"\x80\x02.", "takes a value that is not there"),
        (b"\x80\x02N(\x85.", "takes a value that is not there"),
        (b"\x80\x02t.", "a mark that is not there"),
        (b"\x80\x02h\x07.", "recalls value 7"),
        (b"\x80\x02}U\x01aK\x01sb.", "takes a value"),
        (b"\x80\x02}(K\x01K\x01ub.", "not pairs of a name"),
        (b"\x80\x02}}b.", "a state to a value that takes none"),
        (b"\x80\x02cnumpy\nndarray\n)\x81}b}b.", "a state to a value that takes none"),
        (b"\x80\x02K\x01)R.", "calls a value that is not a name"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "it holds numpy.ndarray"),
        (b"\x80\x04\x8e" + b"\xff" * 8, "byte 2"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62), "byte 2"),
        (b"\x80\x02" + b"(" * 20_000, "more than 10000 opcodes"),
        (b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 100 + b".", "it holds a tuple of 2"),
        (old_coo(rows=(0, 2)), "entry 1 has row 2, outside 0..1"),
        (old_coo(columns=(-1, 0)), "entry 0 has column -1"),
        (old_coo(rows=(0,)), "1 row indices of int32 for 2 entries"),
        (old_coo(data=(1.0, np.nan)), "NaN or infinite"),
        (old_coo(shape=b"K\x02\x85"), "shape is a tuple of 1"),
        (old_coo(shape=b"K\x02\x88\x86"), "shape has a bool"),
        (old_coo(shape=b"K\x02J\xff\xff\xff\x7f\x86"), "shape has 2147483647 columns for 2 entries"),
        (old_coo(shape=b"K\x02\x8a\xff" + b"\x7f" * 255 + b"\x86"), "an absurd number of columns"),
        (old_coo(shape=b"K\x02\x8a\x01\xff\x86"), "shape has -1 columns"),
        (old_coo().replace(b"U\x01<N", b"U\x01>N", 1), "row"),
        (old_coo().replace(b"U\x02f8", b"U\x02O8"), "data is of type 'O8'"),
        (old_coo().replace(b"U\x02f8", b"U\x02f4"), "data has 16 bytes for 2 values"),
    ],
)
def test_malformed_files_get_one_line(read, content, found):
    assert found in refusal(read, content)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array"])
@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"indptr": np.array([0, 9, 1, 4, 4])}, "indptr"),
        ({"indptr": np.array([0, 1, 2, 2, 3])}, "indptr does not rise"),
        ({"indptr": np.array([1, 1, 2, 2, 4])}, "indptr does not rise"),
        ({"indptr": np.array([0, -(2**63), 2**63 - 1, 2, 4])}, "indptr does not rise"),
        ({"indptr": np.array([0, 4])}, "indptr is 2 of int64; expected 5 integers"),
        ({"indptr": np.array([0.0, 1, 2, 2, 4])}, "indptr is 5 of float64"),
        ({"indices": np.array([0, 1, 2, 4])}, "entry 3 has"),
        ({"indices": np.array([0, 1, 2])}, "there are 3"),
        ({"data": np.ones((2, 2))}, "data is not of one dimension"),
        ({"data": np.ones(4, complex)}, "data is of type 'c16'"),
        ({"data": [1, 1, 1, 1]}, "EMPTY_LIST"),
        ({"data": "text"}, "data is a str"),
    ],
)
def test_inconsistent_matrices_are_refused(read, kind, attributes, found):
    matrix = altered(getattr(sp, kind)(np.eye(4)), **attributes)
    assert found in refusal(read, pickle.dumps(matrix, 4))


@pytest.mark.parametrize("matrix", [sp.lil_matrix(DENSE), sp.dok_matrix(DENSE), DENSE, {"a": 1}, [DENSE]])
def test_other_pickles_are_refused(read, matrix):
    refusal(read, pickle.dumps(matrix))


@pytest.mark.parametrize(("kind", "protocol"), [("coo_matrix", 2), ("csr_array", 4), ("csc_matrix", 5)])
def test_truncated_anywhere(read, kind, protocol):
    content = pickle.dumps(getattr(sp, kind)(DENSE), protocol)
    for end in range(len(content)):
        refusal(read, content[:end])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_flipped_bytes_give_a_matrix_or_one_line(read, protocol):
    original = pickle.dumps(sp.csr_matrix(DENSE), protocol)
    source = random.Random(protocol)  # noqa: S311
    refused = []
    for _ in range(400):
        content = bytearray(original)
        for _ in range(source.choice((1, 1, 2, 5))):
            content[source.randrange(len(content))] = source.randrange(256)
        try:
            pattern = read(bytes(content))
        except UserError as error:
            refused.append(str(error))
        else:
            assert len(pattern.rows) == len(pattern.columns)
            for ids, size in zip((pattern.rows, pattern.columns), pattern.shape, strict=True):
                assert not len(ids) or 0 <= ids.min() <= ids.max() < size
    assert len(refused) > 100
    assert not any("\n" in line for line in refused)
