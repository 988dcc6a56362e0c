"""The spaces that a search draws from, and the config file of its best trial."""

import dataclasses
import runpy

import pytest

from slmrec_jax import Config, UserError, with_preset, with_protocol
from slmrec_jax.config import BASE, MFConfig, OptimizerConfig
from slmrec_jax.errors import naming_flags
from slmrec_jax.studies.tuning.config_file import config_source
from slmrec_jax.studies.tuning.space import SPACES, Choices, Range, grid, make_space

IMPORT = "from slmrec_jax.config import Config"
UNKNOWN = ("slmrec.magic=0,1", "epoch=1,2", "eval.magic=1,2", "out=a,b")
FIXED = ("epochs=1,2", "ks=5,10", "eval.patience=1,2", "missing=masked,zero", "on-nan=stop,skip", "split=ratio,file")
FIXED += ("checkpoint-every-steps=0,5", "propagation=auto,chains")


@pytest.mark.parametrize("sampler", SPACES)
@pytest.mark.parametrize("model", BASE)
def test_every_model_has_a_space_of_its_own_settings(sampler, model):
    space = make_space(Config(model=model), sampler, ())
    assert "optimizer.learning_rate" in space
    if sampler == "grid":
        assert space["optimizer.learning_rate"] == Choices((1e-4, 1e-3, 1e-2, 1e-1))


def test_the_papers_grid_of_slmrec():
    points = grid(make_space(Config(), "grid", ()))
    assert len(points) == len({tuple(point.values()) for point in points}) == 4 * 4 * 4 * 4 * 5


def test_texts_override_the_table_and_add_to_it():
    space = make_space(Config(), "tpe", ("lr=1e-3", "slmrec.fac-similarity=dot,cosine", "dim=16..64"))
    assert space["optimizer.learning_rate"] == Choices((1e-3,))
    assert space["slmrec.fac_similarity"] == Choices(("dot", "cosine"))
    assert space["dim"] == Range(16, 64, log=False, whole=True)
    assert space["slmrec.alpha"] == Range(0.01, 1.0, log=True, whole=False)
    assert space["slmrec.popularity_correction"] == Range(-0.5, 1.25, log=False, whole=False)


def test_a_setting_of_numbers_and_names_takes_both_and_a_task_is_text():
    space = make_space(Config(), "tpe", ("slmrec.popularity-correction=auto,0,1", "task=fac,fac+ed"))
    assert space["slmrec.popularity_correction"] == Choices(("auto", 0.0, 1.0))
    assert space["task"] == Choices(("fac", "fac+ed"))


@pytest.mark.parametrize(
    ("sampler", "text", "said"),
    [
        ("tpe", "lr", "write it like"),
        ("tpe", "lr=", "write it like"),
        ("tpe", "lr=fast", "not a number"),
        ("tpe", "lr=nan", "not finite"),
        ("tpe", "dim=1.5", "not a whole number"),
        ("tpe", "lr=0..1:log", "lower number above 0"),
        ("tpe", "lr=2..1", "lower number"),
        ("tpe", "lr=1..2:sqrt", "low..high"),
        ("tpe", "task=fac..fd", "a range holds numbers"),
        ("tpe", "slmrec.popularity-correction=auto..1", "'auto' is not a number"),
        ("tpe", "lr=0.1,0.1", "twice"),
        ("tpe", "lr=-1,1", "give more than 0"),
        ("tpe", "task=magic", "task is magic: give none, fac, fd"),
        ("tpe", "mf.l2=0,1", "slmrec does not read"),
        *(("tpe", text, "no setting of that name") for text in UNKNOWN),
        *(("tpe", text, f"one value of this setting: give it with --{text.split('=')[0]}$") for text in FIXED),
        ("tpe", "seed=0,1", "give it with --seeds$"),
        ("tpe", "since=1,2", "give it with --from$"),
        ("tpe", "eval=1,2", "only numbers and names"),
        ("tpe", "optimizer.chain=adam,sgd", "only numbers and names"),
        ("tpe", "slmrec.mask-false-negatives=yes", "not one of true, false"),
        ("grid", "lr=1e-4..1e-1:log", "one by one"),
    ],
)
def test_an_invalid_space_is_refused(sampler, text, said):
    with naming_flags(), pytest.raises(UserError, match=said) as raised:
        make_space(Config(), sampler, (text,))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["lr", "wd"])
def test_settings_that_a_chain_of_transformations_does_not_read_are_not_searched(name):
    config = Config(optimizer=OptimizerConfig(chain=("adamw(1e-3)",)))
    space = make_space(config, "tpe", ())
    assert not {"optimizer.learning_rate", "optimizer.weight_decay"} & set(space)
    assert "slmrec.alpha" in space
    with pytest.raises(UserError, match=r"optimizer\.chain is set") as raised:
        make_space(config, "tpe", (f"{name}=0.1,0.2",))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        with_preset(with_protocol(Config(data='a"\n"""\nb\\', task="fm"), "mmrec"), "paper"),
        Config(model="mf", mf=MFConfig(l2=0.1 + 0.2), optimizer=OptimizerConfig(1e-3, chain=('adamw("1")',))),
        dataclasses.replace(Config(), eval=Config().eval._replace(metric="ndcg@10", patience=None)),
    ],
)
def test_the_file_returns_the_config_and_executes_nothing_else(config, tmp_path):
    head = ["said\nimport os; os.abort()", "\r\x0c raise SystemExit", '"""']
    (tmp_path / "best.py").write_text(config_source(config, head))
    assert runpy.run_path(str(tmp_path / "best.py"))["get_config"]() == config


def test_the_head_of_the_file_keeps_its_blank_lines():
    assert config_source(Config(), ["one", "", "two"]).splitlines()[:5] == ["# one", "#", "# two", "", IMPORT]
