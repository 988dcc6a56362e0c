"""What is measured of one ranking, and the scores of systems."""

import numpy as np
import pytest
import scipy.stats
from made_results import BASE, measured, measurements

from slmrec_jax.config import PROTOCOLS, Config
from slmrec_jax.evaluation import catalogue
from slmrec_jax.evaluation.groups import measure_by_degree
from slmrec_jax.evaluation.protocol import evaluate, plan_evaluation
from slmrec_jax.evaluation.ranking import rank
from slmrec_jax.studies.measurements import main_metric, measure_ranking, scores_of
from slmrec_jax.studies.untrained import UNTRAINED


@pytest.fixture(scope="module", params=["all", "cold"])
def ranking(request, tiny):
    """A plan, embeddings, and what is measured at the cut-off 5."""
    if request.param == "cold":
        cold = tiny.train.items >= 60
        trained = tiny.train._replace(users=tiny.train.users[~cold], items=tiny.train.items[~cold])
        tiny = type(tiny)(**{**vars_of(tiny), "train": trained})
    rules = PROTOCOLS["strict"]._replace(candidates=request.param, cutoffs=(5, 10), metric="recall@5")
    planned = plan_evaluation(tiny, "test", rules)
    embeddings = UNTRAINED["itemknn"](Config(), tiny)
    ranked = rank(planned.ranking, embeddings).items
    return planned, embeddings, ranked, tiny, measure_ranking(planned, ranked, tiny, "recall@5", 7)


def vars_of(dataset):
    names = ("name", "num_users", "num_items", "train", "valid", "test", "features", "user_ids", "item_ids")
    return {name: getattr(dataset, name) for name in names}


def test_one_ranking_gives_what_evaluation_measures(ranking):
    planned, embeddings, _, dataset, found = ranking
    expected = evaluate(planned, embeddings)
    assert found.test.means == expected.means
    for metric, values in expected.per_user.items():
        np.testing.assert_array_equal(found.per_user[metric], values)
    np.testing.assert_array_equal(found.test.users, expected.users)
    for side in ("users", "items"):
        groups = measure_by_degree(planned, embeddings, dataset.train, side, (0, 10))
        names = {"0-9": "0-9", "10 or more": "10+"}
        assert [name for name in found.groups if name.startswith(side)] == [
            f"{side} {names[each.group.label]}" for each in groups
        ]
        for each in groups:
            key = f"recall@5 {side} {names[each.group.label]}"
            assert found.values[key] == each.group.means["recall@5"]
            np.testing.assert_array_equal(found.per_user[key], each.per_user["recall@5"])
    assert found.seed == 7


def test_the_catalogue_is_that_of_the_first_places_and_the_candidates(ranking):
    planned, _, ranked, dataset, found = ranking
    lists = [[item for item in row[:5].tolist() if item >= 0] for row in ranked]
    degrees = np.bincount(dataset.train.items, minlength=dataset.num_items)
    items = range(dataset.num_items) if planned.ranking.candidates is None else planned.ranking.candidates.tolist()
    counts = np.array([sum(item in row for row in lists) for item in items])
    num_users = len(np.unique(dataset.train.users))
    assert found.catalogue["coverage@5"] == np.mean(counts > 0)
    assert found.catalogue["gini@5"] == pytest.approx(np.mean(np.abs(counts[:, None] - counts)) / 2 / counts.mean())
    novelty = [np.mean([-np.log2(max(degrees[item], 1) / num_users) for item in row]) for row in lists]
    popularity = [np.mean(degrees[row]) for row in lists]
    for name, expected in (("novelty@5", novelty), ("popularity@5", popularity)):
        np.testing.assert_allclose(found.per_user[name], expected, rtol=1e-12)
        assert found.catalogue[name] == pytest.approx(np.mean(expected))
    assert "coverage@5" not in found.per_user


def by_system(scores, metric):
    return {score.system: score for score in scores if score.metric == metric}


def test_scores_have_deviation_rank_and_p_value():
    noise = np.array([0.1, -0.05, 0.02, 0.0])
    seeds = [BASE, BASE + 0.1]
    systems = {
        "two": [measured(each, seed=seed) for seed, each in enumerate(seeds)],
        "tie": [measured(BASE + 0.05, seed=None)],
        "low": [measured(BASE - noise)],
    }
    found = by_system(scores_of(measurements(systems)), "recall@20")
    assert found["two"].mean == pytest.approx(BASE.mean() + 0.05)
    assert found["two"].deviation == pytest.approx(np.std([each.mean() for each in seeds], ddof=1))
    assert [each.seeds for each in found.values()] == [2, 1, 1]
    assert [each.deviation for each in found.values()][1:] == [None, None]
    assert [each.rank for each in found.values()] == [1, 1, 3]
    raw = scipy.stats.ttest_rel(BASE + 0.05, BASE - noise).pvalue
    assert found["low"].p_value == pytest.approx(2 * raw)  # Holm: two tests
    assert sorted([found["two"].p_value, found["tie"].p_value], key=str) == [1.0, None]  # one of them is the best


def test_lower_is_better_where_it_is():
    noise = np.array([0.1, 0.3, 0.2, 0.0])
    systems = {
        "wide": [measured(0.5, coverage=0.9, novelty=2 + noise)],
        "narrow": [measured(0.5, coverage=0.1, novelty=3 - noise)],
    }
    scores = scores_of(measurements(systems))
    ranks = {
        metric: [each.rank for each in by_system(scores, metric).values()] for metric in ("coverage@20", "gini@20")
    }
    assert ranks == {"coverage@20": [1, 2], "gini@20": [1, 2]}
    assert [each.p_value for each in by_system(scores, "gini@20").values()] == [None, None]  # no user has one
    novelty = by_system(scores, "novelty@20")
    assert (novelty["narrow"].rank, novelty["narrow"].p_value) == (1, None)
    assert novelty["wide"].p_value == pytest.approx(scipy.stats.ttest_rel(3 - noise, 2 + noise).pvalue)


def test_a_metric_that_is_lower_for_the_best_is_tested_against_the_lowest():
    noise = np.array([1.0, 3.0, 2.0, 0.0])
    few, many = measured(0.5), measured(0.5)
    found = {
        name: [each._replace(recommended={"popularity@20": values}, catalogue={"popularity@20": values.mean()})]
        for name, each, values in (("few", few, 9 + noise), ("many", many, 14 - noise))
    }
    scores = by_system(scores_of(measurements(found)), "popularity@20")
    assert (scores["few"].rank, scores["few"].p_value) == (1, None)
    assert scores["many"].p_value == pytest.approx(scipy.stats.ttest_rel(9 + noise, 14 - noise).pvalue)


def test_systems_that_cannot_be_compared_have_no_rank():
    systems = {"a": [measured(0.5)], "b": [measured(0.25)]}
    scores = scores_of(measurements(systems, comparable=False))
    assert {(score.rank, score.p_value) for score in scores} == {(None, None)}


def test_only_metrics_that_all_have_are_scored():
    other = measured(0.5)
    other = other._replace(test=other.test._replace(means={"hit@20": 0.5}))
    scores = scores_of(measurements({"a": [measured(0.5)], "b": [other]}, comparable=False))
    assert {score.metric for score in scores} == {"coverage@20", "gini@20", "novelty@20"}


def test_the_main_metric_is_the_one_that_selects():
    config = Config()
    assert main_metric(["recall@10", "recall@20", "ndcg@20", "recall@50"], config) == "recall@20"
    assert main_metric(["recall@10", "recall@5", "ndcg@20"], config) == "recall@10"


def test_a_list_is_no_longer_than_the_catalogue():
    """Every item is in the only list: all are covered, equally."""
    exposures = catalogue.exposure(np.arange(4, dtype=np.int32)[None], 4)
    assert (catalogue.coverage(exposures), catalogue.gini(exposures)) == (1.0, 0.0)
