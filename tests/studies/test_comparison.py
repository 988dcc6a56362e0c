"""Comparisons: p-values and the table."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from made_results import measurements
from rich.console import Console

from slmrec_jax.commands.tables import metrics_table
from slmrec_jax.config import IN_MEMORY, Config, with_defaults
from slmrec_jax.errors import UserError
from slmrec_jax.studies.comparison import Comparison
from slmrec_jax.studies.runs import check_runs
from slmrec_jax.studies.significance import p_values
from slmrec_jax.training.train import train


def test_a_real_difference_is_shown_and_equality_is_not():
    rng = np.random.default_rng(0)
    best = rng.random(400)
    found = p_values({"worse": best - 0.05 + 0.1 * rng.normal(size=400), "best": best, "other": best.copy()})
    assert set(found) == {"worse", "other"}
    assert found["worse"] < 1e-6
    assert found["other"] == 1.0


def test_p_values_are_those_of_the_paired_test_after_holm():
    rng = np.random.default_rng(1)
    values = {name: rng.random(50) - shift for name, shift in (("a", 0.0), ("b", 0.02), ("c", 0.1), ("d", 0.12))}
    best = max(values, key=lambda name: values[name].mean())
    raw = {name: scipy.stats.ttest_rel(values[best], values[name]).pvalue for name in values if name != best}
    ordered = sorted(raw, key=raw.get)
    expected = np.maximum.accumulate([min(1.0, (3 - place) * raw[name]) for place, name in enumerate(ordered)])
    assert p_values(values) == pytest.approx(dict(zip(ordered, expected, strict=True)))


def test_corrected_p_values_keep_their_order():
    """Holm multiplies the second of two nearly equal p-values by less, and still returns no smaller value."""
    rng = np.random.default_rng(6)
    best, noise = rng.random(60) + 0.02, 0.1 * rng.normal(size=60)
    values = {"best": best, "first": best - 0.025 + noise, "second": best - 0.0249 + noise}
    raw = {name: scipy.stats.ttest_rel(best, values[name]).pvalue for name in ("first", "second")}
    assert raw["first"] < raw["second"] < 2 * raw["first"] < 1
    assert p_values(values) == pytest.approx(dict.fromkeys(raw, 2 * raw["first"]))


def test_one_user_shows_nothing():
    assert p_values({"best": np.array([1.0]), "worse": np.array([0.0])}) == {"worse": 1.0}


def test_the_same_difference_for_every_user_is_shown():
    values = np.linspace(0, 1, 9)
    assert p_values({"best": values + 0.5, "worse": values})["worse"] == 0.0


def test_a_difference_that_is_the_same_but_for_rounding_is_shown():
    values = np.linspace(0, 1, 9)
    rounded = values + 0.1 + 1e-16 * np.arange(9)
    assert np.ptp(rounded - values) > 0
    assert p_values({"best": rounded, "worse": values})["worse"] == 0.0


def test_false_alarms_are_as_rare_as_the_level_says():
    """Four equal systems, many times. The choice of the best one by the same values exceeds the level a little."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(400):
        common = rng.random(60)
        found = p_values({name: common + 0.1 * rng.normal(size=60) for name in "abcd"})
        alarms += min(found.values()) < 0.05
    assert 0 < alarms <= 0.12 * 400


def test_the_table_marks_the_best_and_what_may_be_as_good():
    rows = {name: {"recall@20": (mean, 0.01)} for name, mean in (("a", 0.3), ("b", 0.29), ("c", 0.1))}
    comparison = Comparison(rows, ("recall@20",), {"recall@20": {"b": 0.4, "c": 0.001}}, "test", measurements({}))
    best, alike, worse = comparison.table().columns[1].cells
    assert "[bold]0.3000" in best
    assert "≈" in alike
    assert "≈" not in worse


def test_brackets_in_the_name_of_a_data_set_are_shown(capsys):
    rows = {"a": {"recall@20": (0.3, 0.0)}}
    comparison = Comparison(rows, ("recall@20",), {"recall@20": {}}, "test, [red]shop[/red]", measurements({}))
    Console(width=200).print(comparison.table())
    Console(width=200).print(metrics_table({"test": {"recall@20": 0.3}}, "[red]runs[/red]"))
    said = capsys.readouterr().out
    assert "test, [red]shop[/red]" in said
    assert "[red]runs[/red]" in said


@pytest.mark.usefixtures("optax_promotion")
def test_a_run_with_auto_micro_batches_is_continued(tiny, tmp_path):
    config = with_defaults(Config(model="mf", dim=4, batch_size=16, micro_batches="auto", epochs=1, ks=(5,)))
    folder = tmp_path / "run"
    train(config, tiny, out=folder)
    check_runs({folder: replace(config, data=IN_MEMORY)}, tiny)
    with pytest.raises(UserError, match="another config, dim"):
        check_runs({folder: replace(config, data=IN_MEMORY, dim=8)}, tiny)
