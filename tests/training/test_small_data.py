"""What is said of small data before a run starts, and what is changed for them."""

import dataclasses

import numpy as np
import pytest

from slmrec_jax import Config, UserError
from slmrec_jax.config import MMSSLConfig, SLMRecConfig, with_protocol
from slmrec_jax.data import make_dataset
from slmrec_jax.errors import naming_flags
from slmrec_jax.methods import make_method
from slmrec_jax.training.inputs import make_spec
from slmrec_jax.training.small_data import batch_warnings, fit_cutoffs
from slmrec_jax.types import Interactions

CONFIG = Config(dim=8, num_layers=1, task="none", batch_size=4)


def data(train, num_users=10, num_items=12, valid=((0, 11),)):
    pairs = [Interactions(*np.array(split).T) for split in (train, valid, valid)]
    return make_dataset("small", *pairs, num_users=num_users, num_items=num_items)


TWENTY = [(user, item) for user in range(10) for item in (user, user + 1)]


def said(config, dataset):
    return batch_warnings(make_method(config, make_spec(config, dataset)), config, dataset)


@pytest.mark.parametrize(
    ("change", "train", "lines"),
    [
        ({}, TWENTY, []),
        ({"batch_size": 1}, TWENTY, ["batches of one interaction have no negatives: main is 0 and trains nothing"]),
        (
            {"batch_size": 1, "task": "fd"},
            TWENTY,
            ["main and ssl are 0 and train nothing; give batch_size at least 2"],
        ),
        ({"batch_size": 1, "slmrec": SLMRecConfig(main_negatives="sampled")}, TWENTY, []),
        ({"batch_size": 1, "model": "mf"}, TWENTY, []),
        (
            {"batch_size": 4},
            [*TWENTY, (0, 5)],
            ["no negatives: main is 0 there; a batch_size other than 4 avoids that"],
        ),
        ({}, [(0, 1)], ["training has one item, so no batch has negatives: main is 0"]),
        (
            {},
            [(user, 3) for user in range(10)],
            ["training has one item", "an epoch has 3 steps of at most 4 interactions: batch_size=2 makes it 5"],
        ),
        ({"batch_size": 100}, TWENTY, ["an epoch has 1 step of at most 20 interactions: batch_size=4 makes it 5"]),
        ({"batch_size": 5}, TWENTY, ["an epoch has 4 steps of at most 5 interactions: batch_size=4 makes it 5"]),
        ({"batch_size": 3}, [(0, 1), (1, 2), (2, 4)], ["an epoch has 1 step of at most 3 interactions: batch_size=2"]),
        ({"batch_size": 2, "model": "mf"}, [(0, 1), (1, 2)], []),
        (
            {"model": "mf"},
            TWENTY + [(9, item) for item in range(9)] + [(9, 11)],
            ["no negative can be drawn, since they have interacted with every item: 1 of 10"],
        ),
        (
            {"model": "mf", "negatives": "popular"},
            TWENTY + [(9, item) for item in range(9)],
            ["no negative can be drawn, since they have interacted with every item: 1 of 10"],
        ),
        ({"model": "mf"}, TWENTY + [(9, item) for item in range(9)], []),
    ],
)
def test_batches_that_teach_nothing_and_epochs_of_few_steps_are_named(change, train, lines):
    found = said(dataclasses.replace(CONFIG, **change), data(train))
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert expected in line


def test_the_command_is_told_a_flag():
    with naming_flags():
        assert "--batch-size 4 makes it 5" in said(dataclasses.replace(CONFIG, batch_size=100), data(TWENTY))[0]


def test_mmssl_contrasts_within_the_batch(tiny):
    config = Config(model="mmssl", dim=8, batch_size=1, mmssl=MMSSLConfig(heads=2, topk_rate=0.05))
    assert "contrast is 0" in said(config, tiny)[0]
    without = dataclasses.replace(config, mmssl=dataclasses.replace(config.mmssl, contrast_weight=0.0))
    assert said(without, tiny) == []


@pytest.mark.parametrize("protocol", ["strict", "mmrec", "mmssl"])
def test_a_recall_that_is_always_1_does_not_select(protocol):
    """12 items, of which each evaluated user knows two: recall@10 tells no epoch from another."""
    config = with_protocol(Config(), protocol)
    fitted, lines = fit_cutoffs(config, data(TWENTY))
    assert fitted.eval.metric == "ndcg@10"
    assert set(fitted.ks) | set(fitted.eval.cutoffs) == {10}
    assert lines == ["12 items to rank: no metrics at 20, 50, and ndcg@10 selects instead of recall@20"]
    assert fit_cutoffs(fitted, data(TWENTY)) == (fitted, [])


def test_a_recall_that_can_differ_selects():
    """A user who knows nothing has 12 candidates."""
    fitted, lines = fit_cutoffs(Config(), data(TWENTY, num_users=11, valid=((0, 11), (10, 3))))
    assert fitted.eval.metric == "recall@10"
    assert lines == ["12 items to rank: no metrics at 20, 50, and recall@10 selects instead of recall@20"]


def test_what_was_asked_for_is_not_changed():
    asked = Config(ks=(5,), eval=Config().eval._replace(cutoffs=(3, 5), metric="recall@5"))
    assert fit_cutoffs(asked, data(TWENTY)) == (asked, [])
    with pytest.raises(UserError, match="ks: the cut-off 13 is beyond the 12 items to rank: give at most 12"):
        fit_cutoffs(Config(ks=(5, 13)), data(TWENTY))


def test_large_data_are_left_alone(tiny):
    assert fit_cutoffs(Config(), tiny) == (Config(), [])
