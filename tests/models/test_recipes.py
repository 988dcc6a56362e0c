"""Every recipe makes a method, or says what it needs."""

import dataclasses
from functools import partial

import jax
import pytest

from slmrec_jax.config import Config, FREEDOMConfig, LightGCNConfig, MFConfig, SLMRecConfig
from slmrec_jax.errors import UserError, naming_flags
from slmrec_jax.methods import METHODS, make_method
from slmrec_jax.models import RECIPES, make_recipe
from slmrec_jax.models.lattice import lattice_recipe
from slmrec_jax.models.slmrec_recipe import choose_correction
from slmrec_jax.objectives.augmentations import edge_dropout
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.types import NO_AUGMENTATION, Modality, Spec

WITH = Spec(5, 6, 9, 4, {"visual": Modality(3), "words": Modality(7, words=True)})
WITHOUT = WITH._replace(modalities={})


@pytest.mark.parametrize(
    "change",
    [
        {"model": "vbpr"},
        {"model": "freedom"},
        {"model": "bm3"},
        {"model": "mgcn"},
        {"model": "lattice"},
        {"model": "mmgcn"},
        {"model": "mf", "mf": MFConfig(features="concat")},
        {"model": "lightgcn", "lightgcn": LightGCNConfig(features="fused")},
        {"task": "fac"},
        {"task": "none", "slmrec": SLMRecConfig(item_graph=0.3)},
    ],
)
def test_a_recipe_that_needs_modalities_says_so(change):
    config = dataclasses.replace(Config(), **change)
    with pytest.raises(UserError, match="needs a modality"):
        make_method(config, WITHOUT)
    make_method(config, WITH)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "fac"},
        {"model": "bm3"},
        {"model": "freedom"},
        {"model": "lightgcn", "lightgcn": LightGCNConfig(features="fused")},
    ],
)
def test_a_modality_with_the_name_of_the_items_own_rows_is_refused(change):
    """Its rows would replace those of the ids."""
    spec = WITH._replace(modalities={"id": Modality(3), "visual": Modality(3)})
    with pytest.raises(UserError, match="a modality is called 'id', the name of the items' own rows: rename"):
        make_method(dataclasses.replace(Config(), **change), spec)


def test_an_unknown_model_is_named():
    for make in (make_method, make_recipe):
        with pytest.raises(UserError, match="model is 'slmrce', of type str: give one of "):
            make(Config(model="slmrce"), WITH)


def test_weights_are_named_as_flags():
    config = Config(model="freedom", freedom=FREEDOMConfig(weights=(0.1, 0.2, 0.3)))
    with naming_flags(), pytest.raises(UserError, match=r"^--freedom\.weights 0\.1 0\.2 0\.3: give one weight"):
        make_method(config, WITH)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"task": "none"}, "there is no task"), ({"slmrec": SLMRecConfig(alpha=0.0)}, r"slmrec\.alpha is 0")],
)
def test_an_objective_without_any_weight_is_refused(change, said):
    with pytest.raises(UserError, match=f"nothing to train: main_weight is 0 and {said}"):
        make_method(dataclasses.replace(Config(), main_weight=0.0, **change), WITH)


@pytest.mark.parametrize("model", RECIPES)
def test_the_key_decides_the_initial_parameters(model):
    start = jax.jit(lambda key: jax.tree.leaves(make_method(Config(model=model), WITH).init(key).params))
    first, again, other = (start(jax.random.key(seed)) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("make", [RECIPES["mf"], RECIPES["vbpr"], RECIPES["mmgcn"], lattice_recipe])
def test_a_system_that_makes_no_augmented_views_says_so(make, tiny):
    """A loss that compares two views would see the same one twice."""
    data = tiny.with_modalities(("visual",))
    config = Config(dim=4, batch_size=8, num_layers=1)
    model, inputs = make(config, make_spec(config, data)).model, make_inputs(data)

    def encode(key, augmentation):
        view = model.encode(model.init(key), model.prepare(inputs))(augmentation, key)
        return view.users(jax.numpy.arange(3))

    assert jax.eval_shape(partial(encode, augmentation=NO_AUGMENTATION), jax.random.key(0)).shape[0] == 3
    with pytest.raises(UserError, match="makes no augmented views"):
        jax.eval_shape(partial(encode, augmentation=edge_dropout(0.1)[0]), jax.random.key(0))


@pytest.mark.parametrize(("entities", "untrained"), [("both", False), ("items", True)])
def test_a_fusion_that_nothing_trains_on_one_side_is_a_mean(entities, untrained):
    config = Config(task="fd", main_weight=0.0, slmrec=SLMRecConfig(ssl_entities=entities))
    notes = make_recipe(config, WITH).notes
    assert any(note.startswith("fusion: mean") for note in notes) == untrained


def test_every_recipe_is_a_system():
    assert set(RECIPES) <= set(METHODS)


@pytest.mark.parametrize(
    ("options", "rate", "negatives", "correction"),
    [
        ({}, 0.04, "uniform", 0.0),
        ({}, 0.065, "uniform", 0.0),
        ({}, 0.09, "uniform", 0.5),
        ({}, 0.3, "uniform", 1.0),
        ({"popularity_correction": -0.2}, 0.3, "uniform", -0.2),
        ({"main_negatives": "sampled"}, 0.3, "uniform", 0.0),
        ({"main_negatives": "sampled"}, 0.3, "popular", 1.0),
    ],
)
def test_auto_corrects_popularity_where_it_predicts_well(options, rate, negatives, correction):
    config = Config(slmrec=SLMRecConfig(**options), negatives=negatives)
    assert choose_correction(config, WITH._replace(popularity_hit_rate=rate))[0] == correction


def test_a_recipe_is_made_by_the_name_of_its_system():
    assert set(make_recipe(Config(model="lightgcn"), WITHOUT).terms) == {"bpr", "l2"}
    with pytest.raises(UserError, match=r"mmssl.* has no recipe; choose one of slmrec, bm3"):
        make_recipe(Config(model="mmssl"), WITH)
