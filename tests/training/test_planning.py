"""Plans: what training would take on a device, and the stand-ins for data of which only the sizes are known."""

import dataclasses
import re

import numpy as np
import pytest

from slmrec_jax import Config, with_protocol
from slmrec_jax.data.sizes import sized_dataset
from slmrec_jax.devices import compiling_for
from slmrec_jax.errors import UserError
from slmrec_jax.hardware.compilers import target_of
from slmrec_jax.hardware.programs import program_cost
from slmrec_jax.hardware.targets import HARDWARE
from slmrec_jax.training import planning
from slmrec_jax.training.memory import tree_bytes
from slmrec_jax.training.planning import plan, time_line
from slmrec_jax.training.setup import compiled, outline

pytestmark = pytest.mark.usefixtures("optax_promotion")

CONFIG = Config(model="lightgcn", dim=8, batch_size=64, num_layers=2)


@pytest.mark.parametrize(("users", "items", "interactions"), [(7, 5, 35), (7, 5, 1), (40, 90, 700), (1, 1, 1)])
def test_a_stand_in_has_the_sizes_and_no_degree_beyond_them(users, items, interactions):
    dataset = sized_dataset(users, items, interactions, {"visual": 3})
    assert len(dataset.train.users) == len(dataset.train.items) == interactions
    of_users, of_items = dataset.degrees()
    assert of_users.max() <= items
    assert of_items.max() <= users
    assert (np.diff(of_users) <= 0).all() or interactions == users * items
    assert dataset.features["visual"].values.shape == (items, 3)
    assert dataset.features["visual"].values.strides == (0, 0)  # without memory


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 5, 3, {}), "users is 0: give 1 to 2147483647"),
        ((2, 10**15, 3, {}), "items is 1000000000000000: give 1 to 2147483647"),
        ((2, 5, 11, {}), "interactions=11: there are 10 pairs"),
        ((2, 5, 3, {"visual": 0}), "visual.* is 0: give 1 to"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        sized_dataset(*sizes)


def test_a_config_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="batch_size is 0: give at least 1"):
        plan(dataclasses.replace(CONFIG, batch_size=0), sized_dataset(5, 4, 9, {}), "cpu")


@pytest.mark.parametrize("protocol", ["strict", "slmrec", "lightgcn", "mmrec"])
def test_every_protocol_can_be_planned_by_sizes(protocol):
    config = with_protocol(dataclasses.replace(CONFIG, model="mf"), protocol)
    assert plan(config, sized_dataset(30, 40, 90, {}), "cpu").steps_per_epoch == 2


def test_a_plan_for_this_machine():
    planned = plan(CONFIG, sized_dataset(50, 40, 300, {}), "cpu")
    assert planned.fits
    assert planned.steps_per_epoch == 5
    assert planned.speed is None
    assert planned.programs["step"].cost.num_bytes > 0
    assert planned.memory.state > 3 * 4 * 8 * 90  # parameters and two moments


@pytest.mark.slow
@pytest.mark.parametrize("task", ["fac", "fd+fm"])
@pytest.mark.parametrize("device", ["h100", "v5e"])
def test_a_plan_for_a_device_that_is_not_attached(device, task):
    try:
        target_of(device)
    except UserError as error:
        pytest.skip(str(error))
    dataset = sized_dataset(60, 50, 400, {"visual": 6, "textual": 4})
    config = dataclasses.replace(CONFIG, model="slmrec", task=task)
    planned = plan(config, dataset, device)
    assert planned.fits
    assert set(planned.programs) == {"step", "order", "embed", "ranking"}
    assert 0 < planned.programs["step"].cost.seconds < planned.epoch_seconds < 1
    assert planned.programs["step"].cost.collectives == ()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "h100", "v5e"])
def test_a_segment_reuses_the_buffers_of_its_progress_and_asks_the_host_for_nothing(device):
    try:
        target = target_of(device)
    except UserError as error:
        pytest.skip(str(error))
    dataset = sized_dataset(60, 50, 400, {"visual": 6})
    with compiling_for(target):
        loop = compiled(outline(dataclasses.replace(CONFIG, model="slmrec", task="fac"), dataset)).loop
        progress = tree_bytes(loop.shapes())
    assert loop.run.memory_analysis().alias_size_in_bytes >= progress
    assert not re.search("infeed|outfeed|callback|SendToHost", loop.run.as_text())


def test_what_does_not_fit(monkeypatch):
    small = target_of("cpu")._replace(memory_bytes=1000)  # in place of what is free
    monkeypatch.setattr(planning, "target_of", lambda name, count: small)
    assert not plan(CONFIG, sized_dataset(50, 40, 300, {}), "cpu").fits


def test_training_on_a_known_device_says_what_a_step_would_take(monkeypatch, tiny):
    setup = compiled(outline(CONFIG, tiny))
    assert time_line(setup) is None  # a CPU
    monkeypatch.setattr(planning, "hardware_of_kind", lambda kind: HARDWARE["h100"])
    assert "a step takes about" in time_line(setup)
    assert "3352 GB/s" in time_line(setup)
    monkeypatch.setattr(planning, "program_cost", lambda text, speed: program_cost("", speed))
    assert time_line(setup) is None  # a text that cannot be read
