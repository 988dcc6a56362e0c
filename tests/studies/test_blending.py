"""Blends equal the sum of standardised scores, and their weights are chosen on validation."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from slmrec_jax import Config, Run, UserError, blend, with_protocol
from slmrec_jax.evaluation.protocol import evaluate
from slmrec_jax.serving.exports import read_export
from slmrec_jax.serving.served import recommend, similar_items, with_history
from slmrec_jax.studies import blending
from slmrec_jax.studies.untrained import UNTRAINED
from slmrec_jax.types import Embeddings, Interactions

CONFIG = with_protocol(Config(model="mf", ks=(5,)), "mmrec")
NONE = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))


def run_of(dataset, users, items, name="a", config=CONFIG):
    """A run with these tables, as if it had been trained."""
    tables = Embeddings(jnp.asarray(users, jnp.float32), jnp.asarray(items, jnp.float32))
    return Run(config, dataset, tables, {"seconds": {}, "best_epoch": 1}, [], Path("runs") / name)


def random_runs(dataset, *scales, config=CONFIG):
    """Runs with random tables of different widths, each times its scale."""
    runs = []
    for place, scale in enumerate(scales):
        rng = np.random.default_rng(place)
        tables = (scale * rng.normal(1, 1, (count, 3 + place)) for count in (dataset.num_users, dataset.num_items))
        runs.append(run_of(dataset, *tables, name=f"run-{place}", config=config))
    return runs


def scores_of(embeddings):
    users, items = (np.asarray(table, np.float64) for table in embeddings)
    return users @ items.T


def standardized(scores):
    centred = scores - scores.mean(axis=1, keepdims=True)
    return centred / centred.std(axis=1, keepdims=True)


def test_scores_are_the_weighted_sum_of_standardised_scores(tiny):
    runs = random_runs(tiny, 0.01, 30, 1)
    blended = blend(runs, (1, 3, 0.5))
    np.testing.assert_allclose(blended.weights, np.array([1, 3, 0.5]) / 4.5, rtol=1e-12)
    wanted = sum(
        weight * standardized(scores_of(run.embeddings)) for run, weight in zip(runs, blended.weights, strict=True)
    )
    found = scores_of(blended.embeddings)
    np.testing.assert_allclose(found - found.mean(axis=1, keepdims=True), wanted, rtol=1e-4, atol=1e-4)


def test_items_of_each_run_have_the_share_of_its_weight(tiny):
    """Otherwise one run would decide alone what is similar, and what is recommended to new users."""
    blended = blend(random_runs(tiny, 0.01, 30), (1, 3))
    variances = np.asarray(blended.embeddings.items, np.float64).var(axis=0)
    np.testing.assert_allclose([variances[:3].sum(), variances[3:].sum()], [0.25, 0.75], rtol=1e-5)


def test_a_user_whose_scores_are_equal_is_left_to_the_other_runs(tiny):
    one, other = random_runs(tiny, 1, 1)
    silent = np.asarray(one.embeddings.users).copy()
    silent[7] = 0
    blended = blend([replace(one, embeddings=one.embeddings._replace(users=jnp.asarray(silent))), other], (1, 1))
    found = scores_of(blended.embeddings)[7]
    np.testing.assert_allclose(found - found.mean(), standardized(scores_of(other.embeddings))[7] / 2, atol=1e-5)


def test_a_user_whose_scores_differ_by_rounding_alone_has_no_say(tiny):
    """A large row along a direction in which items do not differ must not drown the other run's scores."""
    one, other = random_runs(tiny, 1, 1)
    items = np.asarray(one.embeddings.items).copy()
    items[:, 0] = 1 + 1e-7 * np.arange(tiny.num_items)
    users = np.asarray(one.embeddings.users).copy()
    users[7] = [500, 0, 0]
    blended = blend([run_of(tiny, users, items), other], (1, 1))
    found = scores_of(blended.embeddings)[7]
    np.testing.assert_allclose(found - found.mean(), standardized(scores_of(other.embeddings))[7] / 2, atol=1e-5)


def knowing(dataset, users, name):
    """A run that ranks first what is held out of these users for validation, and knows nothing about the others."""
    wanted = np.random.default_rng(len(name)).normal(0, 0.1, (dataset.num_users, dataset.num_items))
    wanted[dataset.valid.users, dataset.valid.items] += np.isin(dataset.valid.users, users)
    return run_of(dataset, wanted, np.eye(dataset.num_items), name)


def test_weights_are_chosen_on_validation(tiny):
    half = np.arange(0, tiny.num_users, 2)
    runs = [
        knowing(tiny, half, "half"),
        knowing(tiny, half + 1, "others"),
        run_of(tiny, np.random.default_rng(5).normal(size=(tiny.num_users, 4)), np.ones((tiny.num_items, 4)), "noise"),
    ]
    blended = blend(runs)
    alone = [run.evaluate("valid").means["recall@20"] for run in runs]
    found = blended.evaluate("valid").means["recall@20"]
    assert found > 1.2 * max(alone)
    assert min(blended.weights[:2]) > 0.2
    assert sum(blended.weights) == pytest.approx(1)
    given = blend(runs, blended.weights).evaluate("valid").means["recall@20"]
    assert given == found


def test_a_run_that_only_harms_has_no_weight(tiny):
    everyone = np.arange(tiny.num_users)
    good = knowing(tiny, everyone, "good")
    bad = run_of(tiny, -np.asarray(good.embeddings.users), np.eye(tiny.num_items), "bad")
    assert blend([bad, good]).weights == (0.0, 1.0)


def test_equal_ratios_are_measured_once_and_the_best_addition_counts(tiny, monkeypatch):
    """Here a third of the first run is best, so later additions only make the blend worse."""
    measured = []

    def evaluate(plan, embeddings):
        items = np.asarray(embeddings.items, np.float64)
        share = {3: 1.0, 4: 0.0, 7: items[:, :3].var(axis=0).sum()}[items.shape[1]]
        measured.append(float(share))
        return SimpleNamespace(means=dict.fromkeys(("recall@5", "recall@10", "recall@20"), -abs(measured[-1] - 1 / 3)))

    monkeypatch.setattr(blending.evaluation, "evaluate", evaluate)
    weights = blend(random_runs(tiny, 1, 1)).weights
    assert weights == pytest.approx((1 / 3, 2 / 3))
    assert len(measured) == len({round(share, 6) for share in measured})


def test_scores_stay_apart_under_a_protocol_that_ranks_sigmoids(tiny):
    """Items share an offset, which standardising makes large; sigmoids of such scores would all tie."""
    good = knowing(tiny, np.arange(tiny.num_users), "good")
    users = np.concatenate([0.1 * np.asarray(good.embeddings.users), np.full((tiny.num_users, 1), 3.0)], axis=1)
    items = np.concatenate([np.eye(tiny.num_items), np.ones((tiny.num_items, 1))], axis=1)
    config = with_protocol(Config(model="mf", ks=(5, 20)), "slmrec")
    runs = [run_of(tiny, users, items, name, config) for name in "ab"]
    alone = runs[0].evaluate("valid").means["recall@20"]
    assert blend(runs).evaluate("valid").means["recall@20"] >= 0.99 * alone > 0.9


def test_the_first_runs_rules_hold(tiny):
    one, other = random_runs(tiny, 1, 1)
    other = replace(other, config=with_protocol(Config(model="mf", ks=(3,)), "strict"))
    assert set(blend([one, other]).plan("valid").cutoffs) == {5, 10, 20}
    assert set(blend([other, one]).plan("valid").cutoffs) == {3, 10, 20}


def test_a_blend_recommends_evaluates_and_is_exported_like_a_run(tiny, tmp_path):
    blended = blend(random_runs(tiny, 1, 2), (1, 1))
    user = tiny.user_ids[3]
    found = blended.recommend(user, 4)
    known = {tiny.item_ids[item] for split in tiny.splits.values() for item in split.items[split.users == 3]}
    assert not known & set(found.items[0])
    assert set(blended.evaluate().means) == set(blended.runs[0].evaluate().means)
    blended.export(tmp_path / "exported")
    export = read_export(tmp_path / "exported")
    np.testing.assert_array_equal(recommend(export, [user], 4).items, found.items)
    listed = [(each["folder"], each["seed"], each["weight"]) for each in export.about["runs"]]
    assert listed == [("run-0", 0, 0.5), ("run-1", 0, 0.5)]
    assert export.about["test"] == blended.evaluate().means
    assert export.about["fingerprint"] == tiny.fingerprint
    history = tiny.item_ids[:2].tolist()
    both = blended.recommend(history=history, k=4), recommend(with_history(export, None, history), None, 4)
    np.testing.assert_array_equal(both[0].items, both[1].items)
    np.testing.assert_array_equal(blended.similar(history, 3).similar, similar_items(export, history, 3).similar)
    with pytest.raises(UserError, match="users or history"):
        blended.recommend(user, history=history)


def test_a_run_without_weight_takes_no_columns(tiny):
    blended = blend(random_runs(tiny, 1, 1, 1), (1, 0, 1))
    assert blended.embeddings.users.shape[1] == blended.embeddings.items.shape[1] == 3 + 5
    assert len(blended.runs) == 3


def test_rankings_without_training_have_weights_too(tiny, tmp_path):
    runs = random_runs(tiny, 1, 1)
    found = {name: UNTRAINED[name](CONFIG, tiny) for name in ("randomwalk", "popularity")}
    blended = blend(runs, (1, 2, 3, 2), untrained=tuple(found))
    assert [member.name for member in blended.members] == ["runs/run-0", "runs/run-1", "randomwalk", "popularity"]
    tables = (*(run.embeddings for run in runs), *found.values())
    wanted = sum(w * standardized(scores_of(each)) for w, each in zip((1, 2, 3, 2), tables, strict=True)) / 8
    scores = scores_of(blended.embeddings)
    np.testing.assert_allclose(scores - scores.mean(axis=1, keepdims=True), wanted, rtol=1e-3, atol=1e-3)
    blended.export(tmp_path / "exported")
    about = read_export(tmp_path / "exported").about
    assert [each["weight"] for each in about["runs"]] == [1 / 8, 2 / 8]
    assert about["untrained"] == {"randomwalk": 3 / 8, "popularity": 2 / 8}


def test_weights_of_rankings_without_training_are_chosen_on_validation(tiny):
    one = random_runs(tiny, 1)
    alone = evaluate(one[0].plan("valid"), UNTRAINED["randomwalk"](CONFIG, tiny)).means["recall@20"]
    blended = blend(one, untrained=["randomwalk"])
    assert blended.weights[1] > 0.5
    assert blended.evaluate("valid").means["recall@20"] >= alone > 2 * one[0].evaluate("valid").means["recall@20"]


def test_runs_may_differ_in_their_modalities(tiny):
    one, other = random_runs(tiny, 1, 1)
    assert blend([one, replace(other, dataset=tiny.with_modalities(("visual",)))], (1, 1)).weights == (0.5, 0.5)


def test_runs_that_cannot_be_blended_are_refused(tiny):
    one, other = random_runs(tiny, 1, 1)
    exchanged = replace(tiny, valid=tiny.test, test=tiny.valid)
    for runs, said in [
        ([one], "at least two runs, or a run and untrained"),
        ([one, replace(other, dataset=exchanged)], "run-0 and .*run-1 have different users, items or splits"),
    ]:
        with pytest.raises(UserError, match=said):
            blend(runs)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("mf",), "untrained='mf': give some of popularity, itemknn, randomwalk"),
        (("popularity", "popularity"), "untrained='popularity': named twice; give weights instead"),
        ("popularity", "untrained is 'popularity', of type str: give a list of names"),
    ],
)
def test_names_of_no_ranking_without_training_are_refused(tiny, names, said):
    with pytest.raises(UserError, match=said):
        blend(random_runs(tiny, 1), untrained=names)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1,), "weights: 1 given for 2 rankings"),
        ((1, -1), "weights: -1 is not a weight"),
        ((1, np.nan), "weights: nan is not a weight"),
        ((np.inf, 1), "weights: inf is not a weight"),
        ((0, 0), "weights: all are 0"),
    ],
)
def test_invalid_weights_are_refused(tiny, weights, said):
    with pytest.raises(UserError, match=said):
        blend(random_runs(tiny, 1, 1), weights)


def test_arguments_of_another_type_are_refused(tiny, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    one, other = random_runs(tiny, 1, 1)
    for arguments, said in [
        ((one,), "runs is .*: give a list of what load_run returns"),
        (([one, "runs/other"],), "one of runs is 'runs/other', .*: give what load_run returns"),
        (([one, other], ("1", 2)), "weights is '1', of type str: give numbers"),
        (([one, other], 0.5), "weights is 0.5, of type float: give a list of numbers"),
    ]:
        with pytest.raises(UserError, match=said):
            blend(*arguments)
    with pytest.raises(UserError, match=r"one of untrained is \['popularity'\], of type list: give one of popularity"):
        blend([one], untrained=[["popularity"]])


def test_without_validation_weights_must_be_given(tiny):
    runs = random_runs(replace(tiny, valid=NONE), 1, 1)
    with pytest.raises(UserError, match="no validation interactions to choose weights by: give weights"):
        blend(runs)
    assert set(blend(runs, (1e308, 1e308)).weights) == {0.5}


def test_a_run_that_diverged_is_named(tiny):
    one, other = random_runs(tiny, 1, 1)
    broken = replace(other, embeddings=other.embeddings._replace(items=jnp.full((tiny.num_items, 4), jnp.nan)))
    for weights in (None, (1, 0)):
        with pytest.raises(UserError, match="run-1: its embeddings hold NaN"):
            blend([one, broken], weights)
