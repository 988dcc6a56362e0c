import dataclasses
import json

import pytest

from slmrec_jax.config import (
    IN_MEMORY,
    PRESETS,
    PROTOCOLS,
    Config,
    OptimizerConfig,
    Source,
    first_change,
    from_json,
    source_of,
    to_json,
    with_preset,
    with_protocol,
    with_source,
)
from slmrec_jax.errors import UserError


@pytest.mark.parametrize("preset", PRESETS["slmrec"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_config_survives_json(preset, protocol):
    config = with_protocol(with_preset(Config(modalities=("visual",), ks=(3, 4)), preset), protocol)
    config = dataclasses.replace(config, optimizer=OptimizerConfig(chain=("adam(1e-3)",)))
    assert from_json(json.loads(json.dumps(to_json(config))), "here") == config


@pytest.mark.parametrize("change", [{"colour": 1}, {"slmrec": {"beta": 1}}, {"slmrec": 5}])
def test_json_of_another_version_is_refused(change):
    with pytest.raises(UserError, match=r"here is not a config of this version"):
        from_json(to_json(Config()) | change, "here")
    with pytest.raises(UserError, match="batch_size is missing"):
        from_json({}, "here")


def test_how_data_are_read_is_part_of_a_config():
    config = Config(data="shop", split="mmrec", min_rating=4.0, k_core=5, user_column="buyer")
    assert source_of(from_json(json.loads(json.dumps(to_json(config))), "config.json")) == source_of(config)
    assert source_of(config) == Source("shop", split="mmrec", min_rating=4.0, k_core=5, user_column="buyer")
    assert source_of(with_source(Config(), source_of(config))) == source_of(config)
    assert with_source(config, None) == dataclasses.replace(Config(), data=IN_MEMORY)


def test_the_first_change_is_named_by_its_flag():
    before = to_json(Config())
    assert first_change(before, before) is None
    assert first_change(before, to_json(Config(dim=32))) == "dim (64, not 32)"
    assert first_change(before, to_json(with_protocol(Config(), "mmrec"))) == "eval.name (strict, not mmrec)"
    assert (
        first_change({"space": {"lr": 1, "wd": 1}}, {"space": {"lr": 1}}) == "space ({'lr': 1, 'wd': 1}, not {'lr': 1})"
    )
