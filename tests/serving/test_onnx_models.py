"""ONNX models of an export rank as the package does, whatever runs them."""

import numpy as np
import pytest

from slmrec_jax import UserError, data
from slmrec_jax.serving import exports
from slmrec_jax.serving.exports import read_export, write_export
from slmrec_jax.serving.served import recommend, served_of, with_new_users
from slmrec_jax.types import Embeddings, Interactions

NUM_USERS, NUM_ITEMS, DIM = 30, 25, 6


def served(score="dot"):
    """Small whole numbers, whose sums are exact and often tie; user 3 knows nothing, and user 4 every item."""
    rng = np.random.default_rng(0)
    known = rng.random((NUM_USERS, NUM_ITEMS)) < 0.2
    known[3], known[4] = False, True
    pairs = Interactions(*(column.astype(np.int32) for column in np.nonzero(known)))
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    dataset = data.make_dataset("shop", pairs, none, none, num_users=NUM_USERS, num_items=NUM_ITEMS)
    tables = (rng.integers(-2, 3, (rows, DIM)).astype(np.float32) for rows in (NUM_USERS, NUM_ITEMS))
    return served_of(dataset, Embeddings(*tables), score)


def opened(folder, name):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    onnx.checker.check_model(str(folder / name), full_check=True)
    return runtime.InferenceSession(str(folder / name))


@pytest.mark.parametrize(("score", "without_known"), [("dot", False), ("sigmoid", False), ("dot", True)])
def test_users_get_what_recommend_gives_them(tmp_path, score, without_known):
    pytest.importorskip("onnx")
    made = served(score)
    if without_known:
        made = made._replace(known=(Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32)),))
    write_export(made, tmp_path / "out", onnx=True)
    expected = recommend(made, None, NUM_ITEMS)
    model = opened(tmp_path / "out", "users.onnx")
    users = np.random.default_rng(1).permutation(NUM_USERS)
    for k in (7, NUM_ITEMS + 9):  # there are no more than all items
        items, scores = model.run(["items", "scores"], {"users": users, "k": np.array([k])})
        count = min(k, NUM_ITEMS)
        np.testing.assert_allclose(scores, expected.scores[users, :count], rtol=1e-5)
        for mine, theirs, of in zip(items, expected.items[users, :count], scores, strict=True):
            left = np.isfinite(of)
            np.testing.assert_array_equal(made.item_ids[mine[left]], theirs[left])
    assert without_known or not np.isfinite(expected.scores[4]).any()
    assert recommend(read_export(tmp_path / "out"), None, 5).items.shape == (NUM_USERS, 5)


def test_histories_get_what_new_users_get(tmp_path):
    pytest.importorskip("onnx")
    made, histories = served(), {"one": [4], "four": [1, 2, 3, 9], "two": [24, 0]}
    write_export(made, tmp_path / "out", onnx=True)
    ids = {name: [made.item_ids[item] for item in items] for name, items in histories.items()}
    expected = recommend(with_new_users(made, ids), None, 12)
    rows = np.full((3, 6), -1)
    for row, items in zip(rows, histories.values(), strict=True):
        row[1 : 1 + len(items)] = items  # padding may be anywhere
    items, scores = opened(tmp_path / "out", "history.onnx").run(None, {"history": rows, "k": np.array([12])})
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-6)
    np.testing.assert_array_equal(made.item_ids[items], expected.items)


def test_the_models_hold_no_table(tmp_path):
    pytest.importorskip("onnx")
    write_export(served(), tmp_path / "out", onnx=True)
    assert all((tmp_path / "out" / name).stat().st_size < 4000 for name in ("users.onnx", "history.onnx"))


def test_a_missing_onnx_is_reported_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx=True needs the package onnx: pip install 'slmrec-jax\[onnx\]'"):
        write_export(served(), tmp_path / "out", onnx=True)
    assert list(tmp_path.iterdir()) == []
