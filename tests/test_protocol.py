from typing import NamedTuple

import numpy as np
import pytest
import reference

from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.protocol import PROTOCOLS, Protocol, evaluate, plan
from slmrec_jax.types import Embeddings, Interactions

NUM_USERS, NUM_ITEMS = 12, 60
SPLITS = ("train", "valid", "test")


class Splits(NamedTuple):
    num_items: int
    train: Interactions
    valid: Interactions
    test: Interactions


def pairs(rows):
    return Interactions(*np.array(sorted(rows), np.int32).reshape(-1, 2).T)


@pytest.fixture(scope="module")
def rows():
    """Pairs by split. User 0 has all of them, user 1 no training, user 2 no test, user 3 neither held-out split."""
    draw = np.random.default_rng(0)
    split = draw.choice(4, size=(NUM_USERS, NUM_ITEMS), p=[0.4, 0.2, 0.2, 0.2])
    by_split = {name: {(int(u), int(i)) for u, i in np.argwhere(split == number)} for number, name in enumerate(SPLITS)}
    without = {"train": {1}, "valid": {3}, "test": {2, 3}}
    return {name: {pair for pair in by_split[name] if pair[0] not in without[name]} for name in SPLITS}


@pytest.fixture(scope="module")
def dataset(rows):
    return Splits(NUM_ITEMS, *(pairs(rows[name]) for name in SPLITS))


@pytest.fixture(scope="module")
def embeddings():
    draw = np.random.default_rng(1)
    return Embeddings(*(draw.integers(-4, 5, (count, 4)).astype(np.float32) for count in (NUM_USERS, NUM_ITEMS)))


def expected_users(rows, split, protocol):
    new_too = not protocol.drop_new_users
    trained = {user for user, _ in rows["train"]}
    return sorted({user for user, _ in rows[split] if new_too or user in trained})


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_equals_the_definition(rows, dataset, embeddings, name, split):
    protocol = PROTOCOLS[name]
    known = rows["train"] | (rows["valid"] if split == "test" and name == "strict" else set())
    users = expected_users(rows, split, protocol)
    result = evaluate(plan(dataset, split, protocol, [5]), embeddings)
    cutoffs = sorted({5, *protocol.cutoffs})
    ranked = reference.ranking(*embeddings, users, known, max(cutoffs), sigmoid=name == "slmrec")

    assert result.users.tolist() == users
    assert {int(key.split("@")[1]) for key in result.means} == set(cutoffs)
    for row, user in enumerate(users):
        relevant = {item for owner, item in rows[split] if owner == user}
        for k in cutoffs:
            expected = reference.metrics_of_user(ranked[row].tolist(), relevant, k, max(cutoffs))
            for metric in ("recall", "precision", "hit", "map", "mrr", "ndcg"):
                definition = "found_ndcg" if metric == "ndcg" and name == "mmssl" else metric
                assert result.per_user[f"{metric}@{k}"][row] == pytest.approx(expected[definition], abs=1e-12)
    for key, values in result.per_user.items():
        assert result.means[key] == pytest.approx(values.mean())


def test_the_sigmoid_of_slmrec_changes_this_ranking(dataset, embeddings):
    by_sigmoid, by_dot = (
        evaluate(plan(dataset, "test", PROTOCOLS["slmrec"]._replace(score=score)), embeddings)
        for score in ("sigmoid", "dot")
    )
    assert by_sigmoid.means != by_dot.means


def test_every_metric_that_selects_is_measured(dataset, embeddings):
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        measured = evaluate(plan(dataset, protocol.split, protocol), embeddings).means
        assert protocol.metric is None or protocol.metric in measured


def test_users_absent_from_training_are_dropped_only_where_told(dataset):
    dropping = {name for name, protocol in PROTOCOLS.items() if 1 not in plan(dataset, "test", protocol).users}
    assert dropping == {"mmrec"}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_refuses_an_empty_split(dataset, split):
    empty = dataset._replace(**{split: pairs([])})
    with pytest.raises(UserError, match=f"no user has an interaction in the {split} split"):
        plan(empty, split, PROTOCOLS["strict"])


def test_refuses_when_only_new_users_are_held_out(dataset):
    with pytest.raises(UserError, match="no user with training interactions"):
        plan(dataset._replace(test=pairs([(1, 0)])), "test", PROTOCOLS["mmrec"])


def test_refuses_cutoffs_beyond_the_items(dataset):
    with pytest.raises(UserError, match="k = 61 items were asked for, of 60"):
        plan(dataset, "test", PROTOCOLS["strict"], [61])


def test_a_new_protocol_needs_no_edit_of_the_package(dataset, embeddings):
    mine = Protocol("mine", "valid", "map@3", patience=None, cutoffs=(3,), mask_valid_at_test=True)
    assert set(evaluate(plan(dataset, "test", mine), embeddings).means) == {
        f"{metric}@3" for metric in ("recall", "ndcg", "precision", "hit", "map", "mrr")
    }


@pytest.mark.parametrize("metric", ["recall@7", "accuracy@10", "recall"])
def test_a_metric_that_is_not_measured_cannot_select(dataset, metric):
    with pytest.raises(UserError, match=r"there is no metric .* there are: recall@10, "):
        plan(dataset, "valid", PROTOCOLS["strict"]._replace(metric=metric))
