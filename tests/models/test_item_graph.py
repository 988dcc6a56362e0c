"""A frozen graph between items beside an encoder."""

import dataclasses

import jax
import numpy as np
import pytest
import reference

from slmrec_jax.config import Config, FREEDOMConfig, SLMRecConfig
from slmrec_jax.errors import UserError
from slmrec_jax.models import RECIPES
from slmrec_jax.models.freedom import default_weights
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.types import ALL, NO_AUGMENTATION, Modality, Spec

BASE = Config(dim=8, num_layers=2, task="none")


def rows_of(config, dataset):
    """Return user rows, item rows and id rows of a recipe's first parameters."""
    model = RECIPES[config.model](config, make_spec(config, dataset)).model
    params, inputs = model.init(jax.random.key(0)), model.prepare(make_inputs(dataset))
    view = model.encode(params, inputs)(NO_AUGMENTATION, jax.random.key(0))
    return view.users(ALL), view.items(ALL), params["item"]


@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_slmrec_adds_the_mean_of_the_nearest_items(fusion, tiny):
    """`tiny` has items that lack a modality: there they have no nearest items."""
    options = SLMRecConfig(fusion=fusion, item_graph=0.3, graph_neighbours=4)
    users, items, ids = rows_of(dataclasses.replace(BASE, slmrec=options), tiny)
    plain_users, plain_items, _ = rows_of(
        dataclasses.replace(BASE, slmrec=dataclasses.replace(options, item_graph=0.0)), tiny
    )
    assert not all(feature.present.all() for feature in tiny.features.values())
    graphs = [reference.item_graph(x.values, x.present, 4, "ones") for x in tiny.features.values()]
    expected = np.mean(graphs, axis=0) @ np.asarray(ids, np.float64)
    np.testing.assert_allclose(items - plain_items, 0.3 * expected, atol=1e-6)
    np.testing.assert_array_equal(users, plain_users)


def test_without_a_weight_nothing_changes(tiny):
    plain, without = (
        rows_of(dataclasses.replace(BASE, slmrec=options), tiny)
        for options in (SLMRecConfig(), SLMRecConfig(item_graph=0.0, graph_neighbours=3))
    )
    jax.tree.map(np.testing.assert_array_equal, plain, without)


def test_freedom_adds_two_layers_of_a_weighted_graph(tiny):
    options = FREEDOMConfig(item_layers=2, neighbours=3, weights=(1.0, 3.0, 0.0))
    config = dataclasses.replace(BASE, model="freedom", freedom=options)
    users, items, ids = rows_of(config, tiny)
    graphs = [reference.item_graph(x.values, x.present, 3, "ones") for x in tiny.features.values()]
    mixed = 0.25 * graphs[0] + 0.75 * graphs[1]
    plain = reference.adjacency(tiny.num_users, tiny.num_items, *tiny.train)
    model = RECIPES["freedom"](config, make_spec(config, tiny)).model
    nodes = np.concatenate([model.init(jax.random.key(0))["user"], ids]).astype(np.float64)
    of_users, of_items = np.split(reference.read_out(plain, nodes, 2), [tiny.num_users])
    np.testing.assert_allclose(users, of_users, atol=1e-6)
    np.testing.assert_allclose(items, of_items + mixed @ mixed @ ids, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("visual", "textual"), (0.1, 0.9)),
        (("textual", "visual", "acoustic"), (0.45, 0.1, 0.45)),
        (("visual",), (1.0,)),
        (("textual", "acoustic"), (0.5, 0.5)),
    ],
)
def test_visual_features_weigh_a_tenth_by_default(names, expected):
    spec = Spec(2, 3, 2, 4, dict.fromkeys(names, Modality(3)))
    assert default_weights(spec) == dict(zip(names, expected, strict=True))


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0, 0.0)])
def test_freedom_refuses_weights_that_do_not_fit(weights, tiny):
    config = dataclasses.replace(BASE, model="freedom", freedom=FREEDOMConfig(weights=weights))
    with pytest.raises(UserError, match=r"freedom.weights=.* give one weight for each of the modalities"):
        RECIPES["freedom"](config, make_spec(config, tiny))
