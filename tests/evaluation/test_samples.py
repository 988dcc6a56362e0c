"""Samples of users: what decides them, what their intervals cover, and plans made from them."""

import numpy as np
import pytest

from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.evaluation.groups import measure_by_degree
from slmrec_jax.evaluation.metrics import means
from slmrec_jax.evaluation.protocol import evaluate, final_plan, plan_evaluation, plan_run, selecting_plan
from slmrec_jax.evaluation.samples import half_widths, sample_users
from slmrec_jax.types import Embeddings, Interactions

USERS, ITEMS = 200, 50


def some_split(seed, share):
    drawn = np.argwhere(np.random.default_rng(seed).random((USERS, ITEMS)) < share).astype(np.int32)
    return Interactions(drawn[:, 0].copy(), drawn[:, 1].copy())


@pytest.fixture(scope="module")
def dataset():
    splits = (some_split(seed, share) for seed, share in ((0, 0.2), (1, 0.04), (2, 0.04)))
    return Dataset("toy", USERS, ITEMS, *splits, {}, np.arange(USERS), np.arange(ITEMS))


@pytest.fixture(scope="module")
def embeddings():
    draw = np.random.default_rng(3)
    return Embeddings(*(draw.integers(-4, 5, (count, 4)).astype(np.float32) for count in (USERS, ITEMS)))


def test_a_sample_is_a_pure_function_of_seed_and_users():
    users = np.arange(10, 1010, dtype=np.int32)
    first = sample_users(users, 50, 0)
    np.random.default_rng(0).random(5)  # other draws do not matter
    np.testing.assert_array_equal(sample_users(users.copy(), 50, 0), first)
    assert (np.diff(first) > 0).all()
    assert np.isin(first, users).all()
    assert len(first) == 50
    assert not np.array_equal(sample_users(users, 50, 1), first)


@pytest.mark.parametrize("count", [None, 7, 8, 10**9])
def test_a_sample_of_all_is_all(count):
    users = np.array([1, 3, 4, 8, 9, 11, 20], np.int32)
    np.testing.assert_array_equal(sample_users(users, count, 0), users)


def test_every_user_is_as_likely():
    users = np.arange(20)
    counts = np.bincount(np.concatenate([sample_users(users, 5, seed) for seed in range(2000)]), minlength=20)
    assert (abs(counts - 500) < 5 * np.sqrt(2000 * 0.25 * 0.75)).all()


@pytest.mark.parametrize(("count", "population"), [(200, 300), (200, 20_000)])
def test_intervals_cover_the_mean_of_all_in_95_percent_of_samples(count, population):
    """With half of the users sampled, an interval without the finite population correction covers too much."""
    draw = np.random.default_rng(0)
    values = draw.binomial(10, draw.beta(1, 3, population)) / 10
    users, trials, covered = np.arange(population), 2000, 0
    for seed in range(trials):
        chosen = {"recall@20": values[sample_users(users, count, seed)]}
        covered += (
            abs(means(chosen)["recall@20"] - values.mean()) <= half_widths(chosen, count / population)["recall@20"]
        )
    assert 0.935 < covered / trials < 0.965


def test_there_is_no_interval_of_all_users_and_one_user_says_nothing():
    assert half_widths({"hit@1": np.array([0.0, 1.0])}, 1.0) == {}
    assert half_widths({"hit@1": np.array([0.5])}, 0.1) == {"hit@1": 1.0}


def test_intervals_by_hand():
    widths = half_widths({"hit@1": np.array([0.0, 1.0, 1.0, 0.0])}, 0.75)
    assert widths["hit@1"] == pytest.approx(1.96 * np.sqrt(1 / 3 / 4 * 0.25), rel=1e-4)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("candidates", ["all", "cold"])
def test_a_plan_of_a_sample_is_the_plan_of_all_for_these_users(dataset, embeddings, name, candidates):
    if candidates == "cold":
        warm = dataset.train.items < ITEMS - 20
        train = Interactions(dataset.train.users[warm], dataset.train.items[warm])
        dataset = Dataset(
            "toy", USERS, ITEMS, train, dataset.valid, dataset.test, {}, *(np.arange(n) for n in (USERS, ITEMS))
        )
    protocol = PROTOCOLS[name]._replace(candidates=candidates, cutoffs=(5, 10), metric=None)
    for split in ("valid", "test"):
        whole = plan_evaluation(dataset, split, protocol)
        sampled = plan_evaluation(dataset, split, protocol, users=40, seed=3)
        np.testing.assert_array_equal(sampled.users, sample_users(whole.users, 40, 3))
        assert sampled.population == len(whole.users)
        assert set(sampled.held_out.users.tolist()) == set(sampled.users.tolist())
        of_all, of_sample = evaluate(whole, embeddings), evaluate(sampled, embeddings)
        rows = np.searchsorted(whole.users, sampled.users)
        for key, values in of_all.per_user.items():
            np.testing.assert_array_equal(of_sample.per_user[key], values[rows])
        assert of_all.half_widths == {}
        assert of_sample.half_widths == half_widths(of_sample.per_user, 40 / len(whole.users))


def test_training_samples_and_the_test_takes_all_unless_it_is_asked_not_to(dataset):
    protocol = PROTOCOLS["strict"]._replace(users=30)
    plans = plan_run(dataset, protocol, (), seed=5)
    everyone = plan_evaluation(dataset, "test", PROTOCOLS["strict"])
    assert plans.selecting is plans.final["valid"]
    assert len(plans.selecting.users) == 30
    np.testing.assert_array_equal(plans.final["test"].users, everyone.users)
    on_test = plan_run(dataset, PROTOCOLS["slmrec"]._replace(users=30), (), seed=5)
    assert len(on_test.selecting.users) == 30
    np.testing.assert_array_equal(on_test.final["test"].users, everyone.users)
    plain = plan_run(dataset, PROTOCOLS["slmrec"], (), seed=5)
    assert plain.selecting is plain.final["test"]


def test_the_seed_decides_the_sample_of_training_and_not_that_of_the_test(dataset):
    protocol = PROTOCOLS["strict"]._replace(users=30, test_users=25)
    first, again, other = (selecting_plan(dataset, protocol, (), seed).users for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    tests = [final_plan(dataset, "test", protocol, (), seed).users for seed in (0, 1)]
    np.testing.assert_array_equal(*tests)
    assert len(tests[0]) == 25


def test_groups_of_a_sample_have_intervals(dataset, embeddings):
    sampled = plan_evaluation(dataset, "test", PROTOCOLS["strict"], users=40)
    groups = [found.group for found in measure_by_degree(sampled, embeddings, dataset.train, "users")]
    assert sum(group.num_nodes for group in groups) == 40
    assert all(set(group.half_widths) == set(group.means) for group in groups)
    whole = measure_by_degree(plan_evaluation(dataset, "test", PROTOCOLS["strict"]), embeddings, dataset.train, "users")
    assert all(found.group.half_widths == {} for found in whole)
