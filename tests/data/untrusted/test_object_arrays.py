"""Arrays of lists: what NumPy writes is read as NumPy means it; anything else is refused, and nothing runs."""

import io
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from foreign_files import EVIL, npy, npy_header, object_npy, reading, refusal

from slmrec_jax.data.untrusted.object_arrays import read_lists

LISTS = [[0, 5, 300], [1], [], [70000, 2**40], [2**62]]


@pytest.fixture
def read(tmp_path):
    def read_as_lists(path):
        ids, offsets = read_lists(path)
        assert ids.dtype == offsets.dtype == np.int64
        return [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]

    return reading(tmp_path / "val.npy", read_as_lists)


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_lists_of_python_integers(read, protocol):
    assert read(object_npy(LISTS, protocol)) == LISTS


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "i8", "u8"])
def test_reads_lists_of_numpy_integers(read, protocol, kind):
    lists = [[1, *np.array([0, 127, 10], kind)], [2, *np.array([99], kind)]]
    assert read(object_npy(lists, protocol)) == [[1, 0, 127, 10], [2, 99]]


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_byte_order_of_a_number_counts(read, protocol):
    content = object_npy([[1, np.int64(7)]], protocol)
    assert content.count(b"<") == 1
    assert read(content.replace(b"<", b">")) == [[1, 7 * 2**56]]


@pytest.mark.parametrize("old", [b"numpy.core.multiarray\n", b"numpy.core._multiarray_umath\n"])
def test_reads_what_older_numpy_wrote(read, old):
    content = object_npy([[1, np.int64(7)]], 2)
    assert b"numpy._core.multiarray\n" in content
    assert read(content.replace(b"numpy._core.multiarray\n", old)) == [[1, 7]]


@pytest.mark.filterwarnings("ignore:.*align should be passed")
def test_reads_what_numpy_save_writes(read):
    array = np.empty(2, object)
    array[:] = [[0, 1], [2]]
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    assert read(buffer.getvalue()) == [[0, 1], [2]]


@pytest.mark.parametrize("protocol", [2, 4])
def test_lists_of_one_length_may_be_a_table(read, protocol):
    table = [[0, 5], [1, 7], [2, 6]]
    assert read(npy(np.array(table, ">u4"))) == table
    assert read(npy(np.asfortranarray(np.array(table)))) == table
    assert read(npy_header("|O", "(3, 2)") + pickle.dumps(np.array(table, object), protocol)) == table


def test_reads_no_lists(read):
    assert read(object_npy([])) == []
    assert read(npy(np.zeros((0, 3), int))) == []


def test_a_list_that_is_repeated_is_read_twice(read):
    row = [4, 5]
    assert read(object_npy([row, row])) == [row, row]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("where", ["instead", "in a list"])
def test_code_is_refused_with_its_place(read, name, where):
    header = npy_header("|O", "(1,)")
    evil = EVIL[name] if where == "instead" else b"\x80\x02](" + EVIL[name].removesuffix(b".") + b"e."
    line = refusal(read, header + evil)
    place = int(line.split("byte ")[1].split(":")[0])
    assert len(header) <= place < len(header + evil)


BODY = object_npy([[1, 2], [3]], 2)[len(npy_header("|O", "(2,)")) :]
REFUSED = {
    "a negative id": (object_npy([[0, 1], [2, -3]]), "list 1 has the id -3"),
    "an id beyond int64": (object_npy([[0, 2**63]]), "list 0 has the id 9223372036854775808"),
    "a vast id": (object_npy([[0, 2**999]]), "list 0 has the id an absurd number"),
    "a number of NumPy beyond int64": (object_npy([[np.uint64(2**63)]]), "list 0 has the id 9223372036854775808"),
    "a fraction": (object_npy([[0, 1.5]]), "list 0 has a float where an integer belongs"),
    "a truth": (object_npy([[0, True]]), "list 0 has a bool"),
    "text": (object_npy([[0, "one"]]), "list 0 has a str"),
    "a fraction of NumPy": (object_npy([[0, np.float64(1)]]), "list 0 has numpy._core.multiarray.scalar"),
    "nothing": (object_npy([[0], None]), "element 1 is nothing; expected a list"),
    "a list in a list": (object_npy([[0, [1]]]), "list 0 has a list"),
    "a tuple": (object_npy([[0], (1, 2)]), "element 1 is a tuple of 2"),
    "a dict": (npy_header("|O", "()") + pickle.dumps(np.array({"1": [2]}, object), 2), "an array of shape ()"),
    "keys that are ids": (npy_header("|O", "()") + pickle.dumps(np.array({1: [2]}, object), 2), "not pairs of a name"),
    "too few lists": (npy_header("|O", "(3,)") + BODY, "2 elements for a shape of (3,)"),
    "vastly many": (npy_header("|O", "(99999999999999,)") + BODY, "2 elements for a shape of (99999999999999,)"),
    "three dimensions": (npy_header("|O", "(1, 1, 2)") + BODY, "an array of shape (1, 1, 2)"),
    "rows of nothing": (npy_header("|O", "(5, 0)") + object_npy([], 2)[128:], "an array of shape (5, 0)"),
    "more after the end": (object_npy([[0]]) + b"x", "1 bytes follow the end"),
    "a number": (npy_header("|O", "(1,)") + pickle.dumps(7), "it holds an int"),
    "a bare list": (npy_header("|O", "(1,)") + pickle.dumps([[7]]), "it holds a list"),
    "no array in it": (
        npy_header("|O", "(1,)") + b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",
        "a form that NumPy",
    ),
    "no pickle": (npy_header("|O", "(1,)"), "the file ends in the middle"),
    "an append to a tuple": (npy_header("|O", "(1,)") + b"\x80\x02)K\x01a.", "appends to a value that is not a list"),
    "fractions in a table": (npy(np.ones((2, 2))), "an array of float64 of shape (2, 2)"),
    "a row": (npy(np.arange(3)), "an array of int64 of shape (3,)"),
    "a negative id in a table": (npy(np.array([[0, -1]])), "its ids are -1 to 0"),
    "an id beyond int64 in a table": (npy(np.array([[0, 2**63]], np.uint64)), "its ids are 0 to 9223372036854775808"),
    "text in a table": (npy(np.array([["a"]])), "it holds '<U1', not numbers"),
    "no .npy": (b"hello", "does not start as a .npy"),
    "an empty file": (b"", "does not start as a .npy"),
    "an archive": (b"PK\x03\x04", "does not start as a .npy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_files_get_one_line(read, name):
    content, found = REFUSED[name]
    assert found in refusal(read, content)


def header(**entries):
    return str({"descr": "<i8", "fortran_order": False, "shape": (1, 1), **entries}).encode()


HEADERS = {
    "a version of its own": (b"\x93NUMPY\x07\x00", "its version"),
    "no version": (b"\x93NUMPY", "its version"),
    "an end that is not there": (b"\x93NUMPY\x01\x00\xff\xff{", "reading array header, expected 65535 bytes got 1"),
    "a vast length": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "reading array header, expected 4294967295 bytes"),
    "code": (b"__import__('os').abort()", "its header is damaged: malformed node"),
    "an expression": (header().replace(b"(1, 1)", b"(1 + 1, 1)"), "its header is damaged: malformed node"),
    "deep nesting": (b"-" * 9000 + b"1", "its header is damaged: MemoryError"),
    "deeper nesting": (b"(" * 9000, "its header is damaged"),
    "a long sum": (b"1+" * 4000 + b"1", "its header is damaged"),
    "a list for a key": (b"{[]: 1}", "its header is damaged: unhashable"),
    "no text": (b"\0" * 99, "its header is damaged"),
    "a list": (b"[1]", "its header is damaged: Header is not a dictionary"),
    "a key of its own": (header(order=1), "not contain the correct keys"),
    "no shape": (b"{'descr': '<i8', 'fortran_order': False}", "correct keys: ['descr', 'fortran_order']"),
    "an order of no kind": (header(fortran_order=1), "fortran_order is not a valid bool"),
    "a negative size": (header(shape=(-1, 1)), "its shape has a size outside"),
    "two negative sizes": (header(shape=(-1, -1)), "its shape has a size outside"),
    "a vast size": (header(shape=(9999999999999999999, 1)), "its shape has a size outside"),
    "a size that has no decimal form": (header().replace(b"(1,", b"(0x" + b"f" * 9000 + b","), "a size outside"),
    "a vast product": (header(shape=(0, 999999999999, 99999999999)), "its shape is '(0, 9999"),
    "too many sizes": (header(shape=(1,) * 9), "its shape is '(1, 1"),
    "a type of parts": (header(descr=[("a", "<i8")]), "it holds \"[('a', '<i8')]\", not numbers"),
    "a type of repeated parts": (header(descr=("<i8", (3,))), "it holds \"('<i8', (3,))\", not numbers"),
    "a type of objects among others": (header(descr=[("a", "|O")]), "it holds objects, not numbers"),
    "a type that is none": (header(descr="<f3"), "not a valid dtype descriptor: '<f3'"),
    "a type of no form": (header(descr=()), "its header is damaged: tuple index out of range"),
    "too few bytes": (header(shape=(1, 2)) + b"12345678", "8 bytes for 2 values"),
    "too many bytes": (header() + b"123456789", "9 bytes for 1 values"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_bad_headers_get_one_line(read, name):
    content, found = HEADERS[name]
    if not content.startswith(b"\x93"):
        size = content.index(b"}") + 1 if b"}" in content else len(content)
        content = b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + content
    assert found in refusal(read, content)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }          \n",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (1L, 2L), }\n",
        b'{"shape": (1,2),"fortran_order":True , "descr":"<i8"}',
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_other_writers_are_read(read, header, version):
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    content = b"\x93NUMPY" + bytes([version, 0]) + length + header + np.array([3, 4]).tobytes()
    assert read(content) == [[3, 4]]


@pytest.mark.parametrize("protocol", [2, 4])
def test_truncated_anywhere(read, protocol):
    content = object_npy([[0, np.int64(5)], [1]], protocol)
    for end in range(len(content)):
        refusal(read, content[:end])


def test_a_list_that_multiplies_is_refused(read):
    many = 500
    body = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01\x85N\x89"
    body += b"](](" + b"K\x01" * many + b"eq\x00" + b"h\x00" * (many - 1) + b"etb."
    assert f"its lists have {many * many} ids in" in refusal(read, npy_header("|O", f"({many},)") + body)


@pytest.mark.parametrize("opcodes", [b"]", b"}", b"(", b"N\x94", b"]\x94", b")\x85"])
def test_memory_is_bounded_by_the_size_of_the_file(read, opcodes):
    content = npy_header("|O", "(1,)") + b"\x80\x04" + opcodes * (8_000 // len(opcodes))
    tracemalloc.start()
    try:
        refusal(read, content)
        assert tracemalloc.get_traced_memory()[1] < 160 * len(content)
    finally:
        tracemalloc.stop()
