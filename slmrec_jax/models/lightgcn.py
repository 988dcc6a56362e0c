"""LightGCN (He et al., SIGIR 2020), on ids only or with modalities."""

from typing import Literal

import jax
from jaxtyping import Array, Key

from slmrec_jax.config import Config
from slmrec_jax.errors import setting
from slmrec_jax.models.recipe import Recipe, cached_modalities, check_modalities
from slmrec_jax.models.slmrec import slmrec
from slmrec_jax.objectives import losses
from slmrec_jax.types import Model, Params, Spec, Term


def lightgcn(
    spec: Spec, *, num_layers: int = 3, init: Literal["normal", "xavier"] = "normal", definition: bool = False
) -> Model:
    """Make the encoder Z = M_L [E_u; E_i]: SLMRec's encoder without modalities. The spec's modalities are ignored.

    By default, tables are initialised from a normal distribution with standard deviation 0.1, which the authors'
    PyTorch code reports to be better than the paper's Xavier-uniform tables (`init="xavier"`). `definition` propagates
    with `hop_by_definition` over the whole graph, for comparison.
    """
    encoder = slmrec(spec._replace(modalities={}), num_layers=num_layers, fusion="sum", definition=definition)
    if init == "xavier":
        return encoder

    def normal(key: Key[Array, ""]) -> Params:
        user_key, item_key = jax.random.split(key)
        tables = {
            "user": 0.1 * jax.random.normal(user_key, (spec.num_users, spec.dim)),
            "item": 0.1 * jax.random.normal(item_key, (spec.num_items, spec.dim)),
        }
        return encoder.init(key) | tables

    return encoder._replace(init=normal)


def lightgcn_recipe(config: Config, spec: Spec) -> Recipe:
    """Make LightGCN: BPR and the L2 of the layer-0 rows that a batch uses.

    Raises:
        UserError: The config needs features, but there are none.
    """
    options = config.lightgcn
    notes: tuple[str, ...] = ()
    definition = config.propagation == "definition"
    if options.features == "fused":
        check_modalities(spec, setting("lightgcn.features", "fused"))
        cached, notes = cached_modalities(config, spec, words="frozen")
        model = slmrec(
            spec, num_layers=config.num_layers, cached=cached, frozen_rows=config.frozen_rows, definition=definition
        )
    else:
        model = lightgcn(spec, num_layers=config.num_layers, init=options.init, definition=definition)
    terms = {
        "bpr": Term(1.0, losses.bpr(options.score, config.bpr_negatives)),
        "l2": Term(options.l2, losses.embedding_l2("layer0", options.norm)),
    }
    return Recipe(model, terms, notes)
