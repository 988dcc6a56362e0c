"""Exported folders: equal recommendations without the model's code, and files for other libraries."""

import json
import os
import stat
import subprocess
import sys
import warnings
from importlib.util import find_spec

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy

from slmrec_jax import Config, UserError, data, train
from slmrec_jax.commands.main import main
from slmrec_jax.data.dataset import SPLITS
from slmrec_jax.serving import exports
from slmrec_jax.serving.exports import read_export, write_export
from slmrec_jax.serving.served import recommend, served_of
from slmrec_jax.types import Embeddings, Interactions

pytestmark = pytest.mark.usefixtures("optax_promotion")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run whose protocol ranks by sigmoids, so that the score matters."""
    from slmrec_jax import with_protocol

    config = with_protocol(Config(model="mf", dim=8, batch_size=512, epochs=2, ks=(5,)), "slmrec")
    with jax.numpy_dtype_promotion("standard"):
        return train(config, tiny, out=tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def folder(run, tiny, tmp_path_factory):
    """The folder that the command writes."""
    out = tmp_path_factory.mktemp("export") / "out"
    arguments = ["--faiss"] if _has_faiss() else []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "builtin type .* has no __module__ attribute", DeprecationWarning)  # faiss
        patch.setattr(data, "demo", lambda: tiny)
        assert main(["export", str(run.folder), str(out), *arguments]) == 0
    return out


def _has_faiss():
    return find_spec("faiss") is not None


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def small(**changes):
    """An export without training."""
    dataset = data.make_dataset(
        "shop",
        *(data.dataset.Interactions(np.array([0, 1]), np.array([place, 2])) for place in range(3)),
        num_users=2,
        num_items=4,
        user_ids=np.array(["<a>", "b"]),
    )
    rng = np.random.default_rng(0)
    made = served_of(dataset, Embeddings(rng.normal(size=(2, 3)), rng.normal(size=(4, 3))), "dot")
    return made._replace(**changes)


def test_recommendations_are_those_of_the_run(run, folder):
    ours, theirs = recommend(read_export(folder), None, 7), run.recommend(None, 7)
    for found, expected in zip(ours[:3], theirs[:3], strict=True):
        assert found.tolist() == expected.tolist()
    chosen = recommend(read_export(folder), ["user-0031", "user-0002"], 3)
    expected = run.recommend(["user-0031", "user-0002"], 3)
    assert chosen.items.tolist() == expected.items.tolist()


def test_the_command_imports_no_training(run, folder):
    arguments = ["recommend", str(folder), "--users", "user-0003", "-k", "4", "--format", "jsonl"]
    training = ["flax", "optax", "orbax", "jraph", "tensorboardX", "slmrec_jax.models", "slmrec_jax.methods"]
    code = f"""
import json, sys
from slmrec_jax.commands.main import main
assert main({arguments}) == 0
print(json.dumps([name for name in {[*training, "slmrec_jax.training.run"]} if name in sys.modules]))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    recommended, imported = map(json.loads, said.splitlines())
    assert imported == []
    expected = run.recommend(["user-0003"], 4)
    assert recommended["items"] == expected.items[0].tolist()
    np.testing.assert_allclose(recommended["scores"], expected.scores[0], rtol=1e-5)


def test_other_libraries_read_the_files(run, folder, tiny):
    for side, ids, table in zip(("users", "items"), (tiny.user_ids, tiny.item_ids), run.embeddings, strict=True):
        read = pa.parquet.read_table(folder / f"{side}.parquet")
        assert read["id"].to_pylist() == ids.tolist()
        np.testing.assert_array_equal(np.array(read["embedding"].to_pylist(), np.float32), table)
        np.testing.assert_array_equal(safetensors.numpy.load_file(folder / "embeddings.safetensors")[side], table)
    known = pa.parquet.read_table(folder / "known.parquet")
    pairs = {pair for split in SPLITS for pair in zip(*map(np.ndarray.tolist, getattr(tiny, split)), strict=True)}
    assert set(zip(known["user_row"].to_pylist(), known["item_row"].to_pylist(), strict=True)) == pairs
    meta = json.loads((folder / "meta.json").read_text())
    assert (meta["users"], meta["items"], meta["dim"], meta["known"]) == (60, 80, 8, len(pairs))
    assert (meta["protocol"], meta["score"], meta["fingerprint"]) == ("slmrec", "sigmoid", tiny.fingerprint)
    assert meta["test"] == run.result["test"]
    assert meta["versions"]["jax"] == jax.__version__


def test_faiss_finds_what_the_inner_product_ranks_first(run, folder):
    faiss = pytest.importorskip("faiss")
    index = faiss.read_index(str(folder / "items.faiss"))
    users, items = (np.asarray(table) for table in run.embeddings)
    _, found = index.search(users[:9], 5)
    np.testing.assert_array_equal(found, np.argsort(-(users[:9] @ items.T), axis=1, kind="stable")[:, :5])


def test_a_missing_faiss_is_reported_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'slmrec-jax\[faiss\]'"):
        write_export(small(), tmp_path / "out", faiss=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there already exists"):
        write_export(small(), tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(("size", "faiss"), [(0, False), (1200, False), (3000, True)])
def test_a_full_disk_leaves_nothing(run, tmp_path, capsys, size, faiss, refusing_disk):
    """The disk is full at the first table, a later one, and the index; each library has its own exceptions."""
    if faiss:
        pytest.importorskip("faiss")
    export = served_of(run.dataset, run.embeddings, "dot")
    refusing_disk(size)
    with pytest.raises(UserError, match=r"cannot write .*out: File too large; free some space, or give another fol"):
        write_export(export, tmp_path / "new" / "out", faiss=faiss)
    assert list(tmp_path.iterdir()) == []


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_export(small(), tmp_path / "out")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o644}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755


def test_id_vector_and_recommendation_belong_together(tmp_path):
    """Unordered ids; each user is near one item."""
    users, items = np.array(["u9", "u1", "u5", "u3"]), np.array([70, 10, 90, 30])
    own = dict(zip(users.tolist(), items.tolist(), strict=True))
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    known = Interactions(np.array([0], np.int32), np.array([1], np.int32))
    dataset = data.make_dataset("shop", known, none, none, num_users=4, num_items=4, user_ids=users, item_ids=items)
    made = served_of(dataset, Embeddings(np.eye(4), 2 * np.eye(4)), "dot")
    write_export(made, tmp_path / "out", faiss=_has_faiss())
    found = recommend(read_export(tmp_path / "out"), None, 1)
    assert dict(zip(found.users.tolist(), found.items[:, 0].tolist(), strict=True)) == own
    assert recommend(read_export(tmp_path / "out"), ["u3", "u9"], 1).items[:, 0].tolist() == [30, 70]
    vectors = {}
    for side in ("users", "items"):
        table = pa.parquet.read_table(tmp_path / "out" / f"{side}.parquet")
        vectors[side] = dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
        rows = safetensors.numpy.load_file(tmp_path / "out" / "embeddings.safetensors")[side]
        np.testing.assert_array_equal(rows, table["embedding"].to_pylist())
    for user, item in own.items():
        assert np.dot(vectors["users"][user], vectors["items"][item]) == 2
    pairs = pa.parquet.read_table(tmp_path / "out" / "known.parquet").to_pylist()
    assert [(users[pair["user_row"]], items[pair["item_row"]]) for pair in pairs] == [("u9", 10)]
    if _has_faiss():
        import faiss

        index = faiss.read_index(str(tmp_path / "out" / "items.faiss"))
        _, nearest = index.search(np.array([vectors["users"][user] for user in own], np.float32), 1)
        ids = pa.parquet.read_table(tmp_path / "out" / "items.parquet")["id"].to_pylist()
        assert [ids[row] for row in nearest[:, 0]] == list(own.values())


def test_a_single_user_is_named_by_a_string_or_a_number(tmp_path):
    ids = np.array([12, 1, 2])
    export = small(user_ids=ids[:2], known=())
    for named in ("12", 12, np.int64(12), np.array(12), np.str_("12"), ["12"], [12], np.array([12])):
        assert recommend(export, named, 1).users.tolist() == [12], repr(named)
    assert recommend(export, (str(each) for each in (1, 12)), 1).users.tolist() == [1, 12]
    for empty in ([], np.array([])):
        with pytest.raises(UserError, match="no users were named"):
            recommend(export, empty, 1)
    with pytest.raises(UserError, match="there is no user '1 2'"):
        recommend(export, "1 2", 1)


def test_what_was_written_is_read(tmp_path):
    write_export(small(score="sigmoid", about={"model": "mf"}), tmp_path / "out")
    read = read_export(tmp_path / "out")
    assert (read.name, read.score, read.about["model"]) == ("shop", "sigmoid", "mf")
    assert read.user_ids.tolist() == ["<a>", "b"]
    assert [pair.tolist() for pair in read.known[0]] == [[0, 0, 0, 1], [0, 1, 2, 2]]
    assert recommend(read, ["<a>"], 2).items[0, 0] == 3  # the only unknown item
    with pytest.raises(UserError, match="no user 'x'; ids look like '<a>'"):
        recommend(read, ["x"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda out: (out / "meta.json").unlink(), "there is no such file; expected a folder"),
        (lambda out: (out / "meta.json").write_text("["), "not readable as JSON"),
        (lambda out: (out / "meta.json").write_text("{}"), "does not say that this is an export"),
        (lambda out: edit(out, version=9), "the version is 9"),
        (lambda out: edit(out, score="cosine"), "score is 'cosine'"),
        (lambda out: edit(out, users=-1), "users is -1"),
        (lambda out: edit(out, dim=4), r"expected users as \[2, 4\] numbers"),
        (lambda out: edit(out, known=3), "4 rows, but meta.json says 3"),
        (lambda out: (out / "embeddings.safetensors").write_bytes(b"x" * 20), "not a readable .safetensors"),
        (lambda out: (out / "embeddings.safetensors").unlink(), "embeddings.safetensors: there is no such file"),
        (lambda out: (out / "items.parquet").write_bytes(b"PAR1"), "not a readable Parquet file"),
        (lambda out: write_known(out, [0, 0, 0, 1], [0, 1, 2, 4]), "items"),
    ],
)
def test_damaged_folders_are_refused_with_one_line(tmp_path, change, said):
    write_export(small(), tmp_path / "out")
    change(tmp_path / "out")
    with pytest.raises(UserError, match=said) as refusal:
        read_export(tmp_path / "out")
    assert "\n" not in str(refusal.value)


def edit(out, **changes):
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps(meta | changes))


def write_known(out, users, items):
    pa.parquet.write_table(pa.table({"user_row": users, "item_row": items}), out / "known.parquet")


def test_recommend_takes_a_run_or_an_export(capsys, folder):
    assert "RUN is missing" in refused(capsys, "recommend")
    assert "leave out --data" in refused(capsys, "recommend", str(folder), "--data", "demo")
    assert "--cold-items needs the run" in refused(capsys, "recommend", str(folder), "--cold-items", "x.npy")
    assert "config.json is missing" in refused(capsys, "recommend", str(folder.parent))
