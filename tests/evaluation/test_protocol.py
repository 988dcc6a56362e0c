"""Evaluations under each protocol, against a plain float64 definition."""

from dataclasses import replace

import numpy as np
import pytest
import reference

from slmrec_jax.config.protocols import DEFAULT_CUTOFFS, PROTOCOLS, Protocol
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.protocol import cold_items, evaluate, limit_cutoffs, plan_evaluation, split_warnings
from slmrec_jax.types import Embeddings, Interactions

NUM_USERS, NUM_ITEMS = 12, 60
SPLITS = ("train", "valid", "test")


def make_splits(num_items, train, valid, test):
    user_ids, item_ids = np.arange(NUM_USERS), np.arange(num_items)
    return Dataset("toy", NUM_USERS, num_items, train, valid, test, {}, user_ids, item_ids)


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
    return make_splits(NUM_ITEMS, *(pairs(rows[name]) for name in SPLITS))


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
    result = evaluate(plan_evaluation(dataset, split, protocol, [5]), embeddings)
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
        evaluate(plan_evaluation(dataset, "test", PROTOCOLS["slmrec"]._replace(score=score)), embeddings)
        for score in ("sigmoid", "dot")
    )
    assert by_sigmoid.means != by_dot.means


def test_every_metric_that_selects_is_measured(dataset, embeddings):
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        measured = evaluate(plan_evaluation(dataset, protocol.split, protocol), embeddings).means
        assert protocol.metric is None or protocol.metric in measured


def test_only_mmrec_drops_users_absent_from_training(dataset):
    dropping = {
        name for name, protocol in PROTOCOLS.items() if 1 not in plan_evaluation(dataset, "test", protocol).users
    }
    assert dropping == {"mmrec"}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_refuses_an_empty_split(dataset, split):
    empty = replace(dataset, **{split: pairs([])})
    with pytest.raises(UserError, match=f"no user has an interaction in the {split} split"):
        plan_evaluation(empty, split, PROTOCOLS["strict"])


def test_refuses_when_only_new_users_are_held_out(dataset):
    with pytest.raises(UserError, match="no user with training interactions"):
        plan_evaluation(replace(dataset, test=pairs([(1, 0)])), "test", PROTOCOLS["mmrec"])


def test_refuses_cutoffs_beyond_the_items(dataset):
    with pytest.raises(UserError, match="ks: the cut-off 61 is beyond the 60 items to rank: give at most 60"):
        plan_evaluation(dataset, "test", PROTOCOLS["strict"], [61])
    with pytest.raises(UserError, match=r"eval\.cutoffs: the cut-off 61 is beyond the 60 items"):
        plan_evaluation(dataset, "test", PROTOCOLS["strict"]._replace(cutoffs=(10, 61)))


@pytest.mark.parametrize(
    ("num_items", "cutoffs", "ks", "metric"),
    [
        (50, (10, 20), (10, 20, 50), "recall@20"),
        (49, (10, 20), (10, 20), "recall@20"),
        (19, (10,), (10,), "recall@10"),
        (12, (10,), (10,), "recall@10"),
        (9, (9,), (9,), "recall@9"),
        (1, (1,), (1,), "recall@1"),
    ],
)
def test_defaults_adapt_to_a_small_catalogue(num_items, cutoffs, ks, metric):
    assert limit_cutoffs(PROTOCOLS["strict"], DEFAULT_CUTOFFS, num_items) == (
        PROTOCOLS["strict"]._replace(cutoffs=cutoffs, metric=metric),
        ks,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("num_items", [1, 2, 12, 30])
def test_every_protocol_fits_every_catalogue(protocol, num_items):
    """Fitting twice changes nothing, with or without cut-offs of its own."""
    for asked in (DEFAULT_CUTOFFS, (1,), ()):
        fitted, ks = limit_cutoffs(protocol, asked, num_items)
        assert max((*fitted.cutoffs, *ks)) <= num_items
        assert (fitted.metric is None) == (protocol.metric is None)
        assert fitted.metric is None or int(fitted.metric.split("@")[1]) in (*fitted.cutoffs, *ks)
        assert limit_cutoffs(fitted, ks, num_items) == (fitted, ks)


def test_a_chosen_metric_does_not_adapt():
    asked = PROTOCOLS["strict"]._replace(metric="ndcg@20")
    assert limit_cutoffs(asked, (5,), 12)[0].metric == "ndcg@20"


def test_a_new_protocol_needs_no_edit_of_the_package(dataset, embeddings):
    mine = Protocol("mine", "valid", "map@3", patience=None, cutoffs=(3,), mask_valid_at_test=True)
    assert set(evaluate(plan_evaluation(dataset, "test", mine), embeddings).means) == {
        f"{metric}@3" for metric in ("recall", "ndcg", "precision", "hit", "map", "mrr")
    }


@pytest.mark.parametrize("metric", ["recall@7", "accuracy@10", "recall"])
def test_a_metric_that_is_not_measured_cannot_select(dataset, metric):
    with pytest.raises(UserError, match=r"there is no metric .* give one of recall@10, "):
        plan_evaluation(dataset, "valid", PROTOCOLS["strict"]._replace(metric=metric))


@pytest.fixture(scope="module")
def with_cold_items(rows):
    """The same pairs, but no training interactions of items 40 and above."""
    train = {(user, item) for user, item in rows["train"] if item < 40} | {(5, item) for item in range(40)}
    return make_splits(NUM_ITEMS, pairs(train), pairs(rows["valid"]), pairs(rows["test"]))


def test_cold_items_ranked_among_themselves_are_a_smaller_catalogue(rows, with_cold_items, embeddings):
    np.testing.assert_array_equal(cold_items(with_cold_items), np.arange(40, NUM_ITEMS))
    protocol = PROTOCOLS["strict"]._replace(candidates="cold")
    found = evaluate(plan_evaluation(with_cold_items, "test", protocol), embeddings)

    shifted = [{(u, i - 40) for u, i in rows[split] if i >= 40} for split in ("valid", "test")]
    alone = make_splits(20, Interactions(*np.zeros((2, 0), np.int32)), *(pairs(split) for split in shifted))
    expected = evaluate(
        plan_evaluation(alone, "test", PROTOCOLS["strict"]), Embeddings(embeddings.users, embeddings.items[40:])
    )
    np.testing.assert_array_equal(found.users, expected.users)
    for key, values in expected.per_user.items():
        np.testing.assert_array_equal(found.per_user[key], values)
    # Validation items are masked among the candidates too.
    unmasked = evaluate(
        plan_evaluation(with_cold_items, "test", protocol._replace(mask_valid_at_test=False)), embeddings
    )
    assert unmasked.means != found.means


def test_ranking_cold_items_needs_cold_items(dataset):
    cold = PROTOCOLS["strict"]._replace(candidates="cold")
    few = replace(dataset, num_items=65, test=pairs({(0, 64)}))
    assert plan_evaluation(few, "test", cold).cutoffs == (len(cold_items(few)),)
    with pytest.raises(UserError, match="with a cold item in the test split"):
        plan_evaluation(replace(few, test=Interactions(dataset.train.users[:1], dataset.train.items[:1])), "test", cold)


def test_doubtful_splits_are_named(dataset, with_cold_items):
    strict = PROTOCOLS["strict"]
    assert split_warnings(dataset, "valid", strict) == []
    known = replace(dataset, valid=Interactions(dataset.train.users[:3], dataset.train.items[:3]))
    assert "all 3 interactions are also in train" in split_warnings(known, "valid", strict)[0]
    cold = replace(with_cold_items, valid=pairs({(0, 50), (4, 41)}))
    assert "eval.candidates='cold'" in split_warnings(cold, "valid", strict)[0]
    assert split_warnings(cold, "valid", strict._replace(candidates="cold")) == []
