"""Queries equal their definitions in float64: new users by their history, and similar items."""

import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax import UserError
from slmrec_jax.serving.served import NEW_USER, Served, fold_in, recommend, similar_items, with_new_users
from slmrec_jax.types import Embeddings, Interactions

RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(9, 4)).astype(np.float32)
ITEMS[4] = 0
NO_PAIRS = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
SERVED = Served(
    "shop",
    Embeddings(RNG.normal(size=(2, 4)).astype(np.float32), ITEMS),
    np.array(["u1", "u2"]),
    np.array([f"i{place}" for place in range(9)]),
    (Interactions(np.array([0, 0], np.int32), np.array([1, 2], np.int32)), NO_PAIRS),
    "dot",
)


def unit(rows):
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, where=norms > 0, out=np.zeros_like(rows))


def test_a_new_user_is_the_mean_of_the_rows_of_their_items():
    histories = [[0, 3, 5], [4], [2, 1]]
    users = np.repeat(np.arange(3, dtype=np.int32), [len(each) for each in histories])
    rows = fold_in(Interactions(users, np.concatenate(histories).astype(np.int32)), 3, jnp.asarray(ITEMS))
    np.testing.assert_allclose(rows, [ITEMS[each].mean(axis=0) for each in histories], rtol=1e-5, atol=1e-6)


def test_a_new_user_gets_the_best_items_beyond_their_history():
    found = recommend(with_new_users(SERVED, ["i0", "i3"]), k=9)
    scores = ITEMS.astype(np.float64) @ ITEMS[[0, 3]].astype(np.float64).mean(axis=0)
    expected = [f"i{item}" for item in np.argsort(-scores) if item not in (0, 3)]
    assert found.users.tolist() == [NEW_USER]
    assert found.items[0, :7].tolist() == expected
    assert np.isneginf(found.scores[0, 7:]).all()


def test_new_users_have_names():
    both = recommend(with_new_users(SERVED, {"anna": ["i0"], 7: np.array(["i3", "i5"])}), k=3)
    assert both.users.tolist() == ["anna", "7"]
    for name, items in (("anna", "i0"), ("7", ["i3", "i5"])):
        alone = recommend(with_new_users(SERVED, items), k=3)
        assert both.items[both.users.tolist().index(name)].tolist() == alone.items[0].tolist()


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], "no items were named"),
        ({}, "history is empty"),
        (["i0", "x"], "there is no item 'x'"),
        ({"anna": ["i0"], "ben": []}, "no items were named"),
    ],
)
def test_a_history_that_cannot_be_used_is_refused(history, expected):
    with pytest.raises(UserError, match=expected):
        with_new_users(SERVED, history)


def test_similar_items_are_those_of_the_largest_cosine():
    found = similar_items(SERVED, ["i3", "i0"], 4)
    cosines = unit(ITEMS) @ unit(ITEMS).T
    for item, similar, scores in zip(found.items, found.similar, found.scores, strict=True):
        row = int(item[1:])
        order = [other for other in np.argsort(-cosines[row], kind="stable") if other != row][:4]
        assert similar.tolist() == [f"i{other}" for other in order]
        np.testing.assert_allclose(scores, cosines[row][order], rtol=1e-5, atol=1e-6)


def test_an_item_is_not_similar_to_itself():
    found = similar_items(SERVED, "i3", 100)
    assert found.similar.shape == (1, 8)
    assert "i3" not in found.similar[0]
