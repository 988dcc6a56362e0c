"""Rankings without training equal their definitions."""

from dataclasses import replace

import numpy as np
import pytest

from slmrec_jax.config import PROTOCOLS, Config, with_protocol
from slmrec_jax.data import make_dataset
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.protocol import evaluate, final_plan, plan_evaluation
from slmrec_jax.studies import untrained
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.types import Interactions


def test_popularity_counts_training_interactions(tiny):
    users, items = (np.asarray(x) for x in UNTRAINED["popularity"](Config(), tiny))
    counts = np.bincount(tiny.train.items, minlength=tiny.num_items)
    np.testing.assert_allclose((users @ items.T)[3] * counts.max(), counts, rtol=1e-6)


def test_popularity_ranks_the_same_by_sigmoids(tiny):
    found = UNTRAINED["popularity"](Config(), tiny)
    plans = [plan_evaluation(tiny, "test", PROTOCOLS["strict"]._replace(score=score)) for score in ("dot", "sigmoid")]
    assert evaluate(plans[0], found).means == evaluate(plans[1], found).means


def test_item_knn_sums_cosines_to_the_users_items(tiny):
    users, items = (np.asarray(x, np.float64) for x in UNTRAINED["itemknn"](Config(), tiny))
    degrees = [np.bincount(ids, minlength=count) for ids, count in zip(tiny.train, (60, 80), strict=True)]
    for user in (0, 7, 31):
        own = tiny.train.items[tiny.train.users == user]
        expected = np.zeros(tiny.num_items)
        for item in own:
            weight = 1 / np.sqrt(degrees[0][user] * degrees[1][item])
            for feature in tiny.features.values():
                values = feature.values.astype(np.float64)
                norms = np.maximum(np.linalg.norm(values, axis=1), 1e-12)
                expected += weight * (values @ values[item]) / norms / norms[item]
        np.testing.assert_allclose(users[user] @ items.T, expected, atol=1e-5)


def test_item_knn_needs_content(tiny):
    bare = make_dataset("bare", tiny.train, tiny.valid, tiny.test, num_users=60, num_items=80)
    with pytest.raises(UserError, match="bare has no features"):
        UNTRAINED["itemknn"](Config(), bare)


@pytest.mark.parametrize("steps", untrained.STEPS)
def test_walks_are_products_of_transition_probabilities(tiny, steps):
    """From both sides, as the rows depend on which side is smaller; a node without interactions ends a walk."""
    for (users, items), sizes in ((tiny.train, (60, 81)), (tiny.train[::-1], (81, 60))):
        linked = np.zeros(sizes)
        linked[users, items] = 1
        to_items, to_users = (each / np.maximum(each.sum(axis=1, keepdims=True), 1) for each in (linked, linked.T))
        expected = np.linalg.matrix_power(to_items @ to_users, steps // 2) @ to_items
        found = untrained.walks(build_graph(Interactions(users, items), *sizes), steps)
        assert found.users.shape[1] == found.items.shape[1] == 60
        np.testing.assert_allclose(np.asarray(found.users) @ np.asarray(found.items).T, expected, rtol=1e-4, atol=1e-7)


def test_the_length_of_walks_is_chosen_on_validation(tiny):
    config = with_protocol(Config(), "mmrec")
    plan, graph = final_plan(tiny, "valid", config.eval, (), 0), build_graph(tiny.train, 60, 80)
    values = {steps: evaluate(plan, untrained.walks(graph, steps)).means["recall@20"] for steps in untrained.STEPS}
    best = max(values, key=lambda steps: values[steps])
    worst = min(values, key=lambda steps: values[steps])
    assert values[worst] < values[best]
    found, expected = UNTRAINED["randomwalk"](config, tiny), untrained.walks(graph, best)
    for table, wanted in zip(found, expected, strict=True):  # walks of two lengths share one of their tables
        np.testing.assert_array_equal(table, wanted)
    no_valid = replace(tiny, valid=Interactions(tiny.valid.users[:0], tiny.valid.items[:0]))
    np.testing.assert_array_equal(UNTRAINED["randomwalk"](config, no_valid).items, untrained.walks(graph, 3).items)


def test_the_length_of_walks_does_not_depend_on_the_seed(tiny):
    """With few users of validation, samples differ in the length that is best."""
    config = with_protocol(Config(), "mmrec")
    config = replace(config, eval=config.eval._replace(users=7))
    found = [UNTRAINED["randomwalk"](replace(config, seed=seed), tiny) for seed in (0, 1, 7)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.users, found[0].users)
        np.testing.assert_array_equal(other.items, found[0].items)


def test_walks_from_users_end_at_items_after_odd_steps(tiny):
    with pytest.raises(ValueError, match="steps is 4"):
        untrained.walks(build_graph(tiny.train, 60, 80), 4)


def test_walks_that_need_too_much_memory_are_refused(tiny, monkeypatch):
    monkeypatch.setattr(untrained, "MOST_NUMBERS", 140 * 60 - 1)
    with pytest.raises(UserError, match=r"randomwalk would need 0\.1 GiB for demo, but 0\.0 GiB is the most"):
        UNTRAINED["randomwalk"](Config(), tiny)
    monkeypatch.setattr(untrained, "MOST_NUMBERS", 140 * 60)
    UNTRAINED["randomwalk"](Config(), tiny)
