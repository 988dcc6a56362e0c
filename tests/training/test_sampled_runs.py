"""Runs that rank for a sample of users during training."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from slmrec_jax import Config, UserError, load_run, train
from slmrec_jax.commands.main import main
from slmrec_jax.config import check_config, with_protocol
from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.reporting.facts import gather_facts
from slmrec_jax.reporting.report import write_report

pytestmark = pytest.mark.usefixtures("cheap_runs", "optax_promotion")

CONFIG = Config(model="mf", dim=4, batch_size=128, epochs=4, ks=(5, 20), eval=PROTOCOLS["strict"]._replace(users=20))


@pytest.fixture(scope="module")
def sampled(tiny, tmp_path_factory):
    said = []
    with jax.numpy_dtype_promotion("standard"):
        run = train(CONFIG, tiny, out=tmp_path_factory.mktemp("run") / "run", callbacks=[said.append])
    return run, said


def bare(history):
    """Records without what a clock says."""
    return [{name: value for name, value in record.items() if not name.endswith("seconds")} for record in history]


def test_every_epoch_ranks_for_the_same_sample_and_says_its_interval(sampled, tiny):
    run, said = sampled
    best = run.result["best_epoch"]
    measured = evaluation.evaluate(
        evaluation.plan_evaluation(tiny, "valid", CONFIG.eval, CONFIG.ks, users=20), run.embeddings
    )
    record = run.history[best - 1]
    assert record["metrics"] == measured.means
    assert record["half_widths"] == measured.half_widths
    key = "recall@20"
    line = next(event.text for event in said if event.kind == "epoch" and event.epoch == best)
    assert f"valid {key} {measured.means[key]:.4f} ± {measured.half_widths[key]:.4f}" in line


def test_the_result_says_what_was_sampled_and_the_test_takes_all(sampled, tiny):
    run, _ = sampled
    everyone = evaluation.evaluate(evaluation.plan_evaluation(tiny, "test", CONFIG.eval, CONFIG.ks), run.embeddings)
    assert run.result["test"] == everyone.means
    assert set(run.result["sampled"]) == {"valid"}
    valid = run.result["sampled"]["valid"]
    assert (valid["users"], valid["of"]) == (20, len(np.unique(tiny.valid.users)))
    assert load_run(run.folder, tiny).result == run.result


@pytest.mark.slow
def test_a_resumed_run_ranks_for_the_same_users(sampled, tiny, tmp_path):
    train(dataclasses.replace(CONFIG, epochs=2), tiny, out=tmp_path / "run")
    resumed = train(CONFIG, tiny, out=tmp_path / "run", resume=True)
    assert bare(resumed.history) == bare(sampled[0].history)
    assert resumed.result["sampled"] == sampled[0].result["sampled"]


def test_an_evaluation_of_the_run_takes_the_same_sample(sampled, capsys, tmp_path):
    run, _ = sampled
    assert run.evaluate("valid").means == run.result["valid"]
    assert run.evaluate("valid", "mmrec").population >= 20
    assert len(run.evaluate("valid", "mmrec").users) == 20
    assert run.evaluate("test").half_widths == {}
    assert all(group.half_widths for group in run.evaluate_by("users", "valid"))
    assert main(["evaluate", str(run.folder), "--split", "valid", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["sampled"] == run.result["sampled"]["valid"]
    assert main(["evaluate", str(run.folder), "--split", "valid"]) == 0
    shown = capsys.readouterr().out
    assert f"valid: 20 of {run.result['sampled']['valid']['of']} users, ± 95 %" in shown
    assert f"± {run.result['sampled']['valid']['half_widths']['recall@20']:.4f}" in shown
    assert main(["evaluate", str(run.folder), "--split", "valid", "--by", "users"]) == 0
    assert "±" in capsys.readouterr().out


@pytest.mark.slow
def test_the_report_says_by_which_sample_the_epoch_was_selected(sampled, tmp_path):
    run, _ = sampled
    write_report(gather_facts([run.folder]), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    value = run.history[run.result["best_epoch"] - 1]["selected"]["recall@20"]
    assert f"was selected by valid recall@20 {value:.4f} ±" in page


@pytest.mark.parametrize("field", ["users", "test_users"])
def test_fewer_than_one_user_is_refused(field):
    config = Config(eval=PROTOCOLS["strict"]._replace(**{field: 0}))
    with pytest.raises(UserError, match=rf"eval.{field}.* is 0: give at least 1"):
        check_config(config)


def test_a_config_with_samples_is_written_and_read(tmp_path):
    config = Config(eval=PROTOCOLS["mmrec"]._replace(users=10_000, test_users=5))
    for name in ("config.json", "config.toml"):
        config.save(tmp_path / name)
        assert Config.load(tmp_path / name) == config
    assert with_protocol(config, "strict").eval.users is None
