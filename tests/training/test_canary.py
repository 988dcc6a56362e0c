import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax import Config, UserError, train
from slmrec_jax.training import canary
from slmrec_jax.training.canary import check_jax, compute, expected


def with_wrong(name, compute):
    """As `compute`, where the last number of what is called so is doubled, and one more."""

    def wrong(inputs):
        results = compute(inputs)
        *before, last = results[name]
        return results | {name: (*before, last.at[(-1,) * last.ndim].apply(lambda x: x + x + np.ones((), x.dtype)))}

    return wrong


def known(inputs):
    """What is expected, where compiling the computations for each case would take long."""
    return jax.tree.map(lambda x: jnp.asarray(x, np.uint32 if x.dtype == np.uint32 else np.float32), expected())


def test_this_jax_computes_rightly():
    check_jax()


@pytest.mark.parametrize("name", expected())
def test_a_wrong_computation_is_refused_by_name(name, monkeypatch):
    monkeypatch.setattr(canary, "compute", with_wrong(name, known))
    with pytest.raises(UserError, match=f"^jax .* computes {name} wrongly, .*: install .*$"):
        check_jax()


def test_no_run_begins_where_something_is_computed_wrongly(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(canary, "compute", with_wrong("sums by segment", compute))
    with pytest.raises(UserError, match="computes sums by segment wrongly"):
        train(Config(), tiny, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_search_begins_there_either(tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="the extra `tune` is not installed")
    from slmrec_jax.studies.tuning.search import tune
    from slmrec_jax.studies.tuning.space import make_space

    monkeypatch.setattr(canary, "compute", with_wrong("random bits", known))
    config = Config(model="mf")
    with pytest.raises(UserError, match="computes random bits wrongly"):
        tune(config, make_space(config, "grid", ()), "grid", [0], None, tmp_path / "search", lambda event: None)
    assert not (tmp_path / "search").exists()
