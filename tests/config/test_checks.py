import ast
import copy
import dataclasses
import inspect
import math
from typing import get_type_hints

import pytest

from slmrec_jax.config import Config, OptimizerConfig, SLMRecConfig, check_config
from slmrec_jax.errors import UserError, naming_flags, setting
from slmrec_jax.forms import field_names


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": 1}, "dim is 1"),
        ({"ks": ()}, "ks is empty"),
        ({"ks": (0,)}, "ks is 0"),
        ({"eval": Config().eval._replace(cutoffs=())}, "eval.cutoffs is empty"),
        ({"main_weight": float("nan")}, "main_weight is nan"),
        ({"slmrec": SLMRecConfig(temperature=0.0)}, "slmrec.temperature is 0"),
        ({"slmrec": SLMRecConfig(dropout_rate=1.0)}, "slmrec.dropout_rate is 1"),
        ({"optimizer": OptimizerConfig(learning_rate=-1.0)}, "optimizer.learning_rate is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"eval": Config().eval._replace(evaluate_every=0)}, "eval.evaluate_every is 0"),
        ({"eval": Config().eval._replace(cutoffs=(0, 20))}, "eval.cutoffs is 0"),
        ({"task": "magic"}, "task is magic: give none, fac, fd, fm, ed, nd, rw or several, such as fac"),
        ({"task": "fac+fac"}, "task is fac.fac: give none"),
        ({"task": "fac+none"}, "task is fac.none: give none"),
        ({"task": "fac+ed", "num_layers": 0}, "task=.fac.ed. augments what is propagated"),
        ({"model": "simgcl", "num_layers": 0}, "model=.simgcl. augments what is propagated"),
        ({"task": "ed+rw"}, "2 augmentations of the graph: keep one of ed, rw"),
        ({"task": "fd+fm", "slmrec": SLMRecConfig(fd_mode="input", fm_granularity="item")}, "cannot both"),
    ],
)
def test_values_that_cannot_be_meant(change, named):
    with pytest.raises(UserError, match=named):
        check_config(dataclasses.replace(Config(), **change))
    check_config(Config())


def unchecked(name, value):
    """A config with one setting changed, by its dotted name, past the check of annotations that only tests have."""
    config = copy.copy(Config())
    section, _, field = name.rpartition(".")
    part = copy.copy(getattr(config, section)) if section else config
    if isinstance(part, tuple):
        part = part._replace(**{field: value})
    else:
        object.__setattr__(part, field, value)
    if section:
        object.__setattr__(config, section, part)
    return config


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("negatives", "rare", "negatives is 'rare': give one of uniform, popular"),
        ("mmssl.graphs", "some", "mmssl.graphs is 'some'"),
        ("lightgcn.features", "fuse", "lightgcn.features is 'fuse'"),
        ("eval", Config().eval._replace(name="mine"), "eval.name is 'mine': give one of strict, slmrec"),
    ],
)
def test_a_choice_that_is_none_is_refused_from_python_too(name, value, said):
    with pytest.raises(UserError, match=said):
        check_config(unchecked(name, value))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", "1", "'1', of type str: give a whole number"),
        ("epochs", True, "True, of type bool: give a whole number"),
        ("epochs", 1.0, "1.0, of type float: give a whole number"),
        ("main_weight", "1", "'1', of type str: give a number"),
        ("main_weight", float("inf"), "inf: give a finite number"),
        ("modalities", "visual", "'visual', of type str: give a tuple, each text"),
        ("ks", [10, 20], "[10, 20], of type list: give a tuple, each a whole number"),
        ("ks", (10, "20"), "(10, '20'), of type tuple: give a tuple, each a whole number"),
        ("data", None, "None, of type NoneType: give text"),
        ("task", None, "None, of type NoneType: give text"),
        ("model", ["mf"], "['mf'], of type list: give one of 'slmrec', 'mf'"),
        ("eval", ["strict"], "['strict'], of type list: give a slmrec_jax.config.Protocol"),
        ("eval", Config().eval._replace(patience="20"), "'20', of type str: give a whole number or nothing"),
        ("slmrec", {"alpha": 0.1}, "{'alpha': 0.1}, of type dict: give a slmrec_jax.config.SLMRecConfig"),
        ("slmrec.alpha", None, "None, of type NoneType: give a number"),
        ("slmrec.normalize_features", 1, "1, of type int: give true or false"),
        ("mmssl.discriminator_dropout", (0.1,), "(0.1,), of type tuple: give a tuple of 2, each a number"),
        ("micro_batches", "many", "'many', of type str: give a whole number or 'auto'"),
        ("mmssl.topk_rate", "0.1", "'0.1', of type str: give a number"),
        ("optimizer.chain", "adam(1e-3)", "'adam(1e-3)', of type str: give a tuple, each text"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(name, value, said):
    with pytest.raises(UserError) as raised:
        check_config(unchecked(name, value))
    where = "eval.patience" if isinstance(value, tuple) and name == "eval" else name
    assert str(raised.value).startswith(f"{where} is {said}")


LOWEST = {
    "at least 0": (
        "split_seed k_core main_weight seed checkpoint_every_steps num_layers slmrec.alpha mf.l2 lightgcn.l2 vbpr.l2 "
        "bm3.contrast_weight bm3.norm_weight mgcn.contrast_weight mgcn.l2 "
        "freedom.content_weight freedom.weights lattice.l2 slmrec.item_graph "
        "mmgcn.l2 sgl.weight sgl.l2 simgcl.noise simgcl.weight simgcl.l2 "
        "mmssl.topk_rate mmssl.refresh_every mmssl.id_layers mmssl.l2 mmssl.feature_l2 mmssl.contrast_weight "
        "mmssl.adversarial_weight mmssl.adversarial_users mmssl.penalty_weight mmssl.own_weight "
        "optimizer.weight_decay eval.patience eval.round_digits"
    ),
    "at least 1": (
        "epochs steps_per_epoch batch_size micro_batches bpr_negatives ks slmrec.num_negatives mmgcn.latent_dim "
        "mmssl.heads "
        "freedom.item_layers freedom.neighbours lattice.item_layers lattice.neighbours mgcn.neighbours "
        "mgcn.item_layers slmrec.graph_neighbours "
        "eval.cutoffs eval.evaluate_every eval.users eval.test_users"
    ),
    "at least 2": "dim",
    "at least 0.025": "mmssl.contrast_temperature",
    "more than 0": (
        "slmrec.temperature slmrec.ssl_temperature sgl.temperature simgcl.temperature "
        "mmssl.discriminator_learning_rate "
        "mgcn.contrast_temperature mmssl.real_temperature optimizer.learning_rate"
    ),
    "a share of at least 0 and less than 1": (
        "bm3.dropout_rate freedom.prune_rate lattice.original_share slmrec.dropout_rate slmrec.edge_rate sgl.rate "
        "mmssl.feature_dropout mmssl.discriminator_dropout"
    ),
}
"""What a setting allows, in the words of the refusal."""

RANGES = [(name, said) for said, names in LOWEST.items() for name in names.split()]


@pytest.mark.parametrize(("name", "said"), RANGES)
def test_a_number_out_of_range_is_refused_and_the_last_one_within_is_not(name, said):
    low = 0 if said.startswith("a share") else ast.literal_eval(said.split()[-1])
    below, within = (low, math.ulp(0.0)) if said.startswith("more") else (low - 1, low)
    place = {"ks": (5,), "eval.cutoffs": (5,), "mmssl.discriminator_dropout": (0.5,), "freedom.weights": (1.0,)}.get(
        name
    )
    beyond = [below, 1.0] if said.startswith("a share") else [below]
    for number in beyond:
        with pytest.raises(UserError) as raised:
            check_config(unchecked(name, (*place, number) if place else number))
        assert str(raised.value) == f"{name} is {number}: give {said}"
    check_config(unchecked(name, (*place, within) if place else within))


def settings_with_ranges(part, section=""):
    """The names of numbers whose annotation excludes some."""
    for field, hint in get_type_hints(type(part), include_extras=True).items():
        value = getattr(part, field)
        if field_names(hint):
            yield from settings_with_ranges(value, f"{section}{field}.")
        elif "Limit" in str(hint) and not isinstance(value, str):
            yield f"{section}{field}"


def test_every_range_is_tested():
    assert set(settings_with_ranges(Config())) == {name for name, _ in RANGES}


def test_whole_numbers_are_numbers_too():
    for name in ("main_weight", "slmrec.alpha", "mmssl.topk_rate"):
        check_config(unchecked(name, 1))


def test_what_is_no_config_is_refused():
    with pytest.raises(UserError, match=r"config is 'slmrec', of type str: give a slmrec_jax.Config"):
        inspect.unwrap(check_config)("slmrec")  # without the check of annotations that tests have


def test_messages_name_settings_as_the_caller_gives_them():
    config = dataclasses.replace(Config(), slmrec=SLMRecConfig(num_negatives=0))
    with pytest.raises(UserError, match=r"^slmrec\.num_negatives is 0"):
        check_config(config)
    with pytest.raises(UserError, match=r"^--slmrec\.num-negatives is 0"), naming_flags():
        check_config(config)
    assert setting("slmrec.fd_mode", "layer") == "slmrec.fd_mode='layer'"
    assert setting("resume", True) == "resume=True"
    with naming_flags():
        assert setting("slmrec.fd_mode", "layer") == "--slmrec.fd-mode layer"
        assert setting("resume", True) == "--resume"
        assert setting("out", "my runs") == "--out 'my runs'"
    assert setting("out") == "out"
