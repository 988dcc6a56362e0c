"""Matrix factorisation (MF-BPR, Rendle et al., UAI 2009), without or with item features."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from slmrec_jax.config import Config
from slmrec_jax.encoding import features, layers
from slmrec_jax.encoding.rows import concatenated, feature_rows, memoized, projected, rows_of, with_biases
from slmrec_jax.errors import setting
from slmrec_jax.models.recipe import Recipe, check_modalities, single_view
from slmrec_jax.objectives import losses
from slmrec_jax.types import ALL, ID, NO_AUGMENTATION, DenseFeature, Encode, Inputs, Model, Params, Spec, Term, View


def mf(spec: Spec, *, use: Literal["none", "concat", "linear"] = "none", item_bias: bool = False) -> Model:
    """Make the encoder y_ui = p_u · q_i (+ b_i) with Xavier-normal tables.

    The baseline in the SLMRec paper represents items by "the concatenation of ID embedding and multimodal features" and
    does not define users. We interpret it as q_i = [e_i; F_1 W_1 + b_1; …], with p_u of the same width. An item that
    lacks a modality has zeros in its place.

    `use="none"` ignores features, `"concat"` is the interpretation above, and `"linear"` makes q_i an affine map of
    [e_i; F_1; …] to `spec.dim` columns. `item_bias` adds b_i.
    """
    modalities = {} if use == "none" else spec.modalities
    parts = 1 + (len(modalities) if use == "concat" else 0)
    raw_columns = sum(features.width(modality) for modality in modalities.values())

    def init(key: Key[Array, ""]) -> Params:
        keys = iter(jax.random.split(key, 3 + len(modalities)))
        params: dict[str, Params] = {
            "user": layers.xavier_normal(next(keys), spec.num_users, parts * spec.dim),
            "item": layers.xavier_normal(next(keys), spec.num_items, spec.dim),
        }
        if use == "concat":
            params["projection"] = {
                name: layers.linear(next(keys), features.width(modality), spec.dim)
                for name, modality in modalities.items()
            }
        if use == "linear":
            params["combine"] = layers.linear(next(keys), spec.dim + raw_columns, spec.dim)
        if item_bias:
            params["item_bias"] = jnp.zeros(spec.num_items)
        return params

    def prepare(inputs: Inputs) -> Inputs:
        return inputs._replace(
            features={}, cache=features.frozen_features(inputs.features, modalities, normalized=True)
        )

    def encode(params: Params, inputs: Inputs) -> Encode:
        cache: dict[str, DenseFeature] = inputs.cache
        users, items = rows_of(params["user"]), rows_of(params["item"])
        if use == "concat":
            content = [projected(cache[name], params["projection"][name]) for name in modalities]
            items = concatenated([items, *content])
        if use == "linear":
            raw = concatenated([items, *(feature_rows(cache[name]) for name in modalities)])
            items = memoized(lambda ids: layers.affine(params["combine"], raw(ids)))
        ranked = with_biases(users, items, rows_of(params["item_bias"])) if item_bias else (users, items)
        return single_view(View(*ranked, {ID: users}, {ID: items}))

    def cold_items(params: Params, given: Mapping[str, features.DeviceFeature]) -> Float[Array, "items columns"]:
        inputs = prepare(Inputs(None, given))
        rows = len(next(iter(inputs.cache.values())).values)
        unknown = {"item": jnp.zeros((rows, spec.dim)), "item_bias": jnp.zeros(rows)}
        return encode({**params, **unknown}, inputs)(NO_AUGMENTATION, jax.random.key(0)).items(ALL)

    return Model(init, encode, prepare, cold_items if modalities else None)


def mf_recipe(config: Config, spec: Spec) -> Recipe:
    """Make MF: BPR and the L2 of the rows that a batch uses.

    Raises:
        UserError: The config needs features, but there are none.
    """
    options = config.mf
    if options.features != "none":
        check_modalities(spec, setting("mf.features", options.features))
    model = mf(spec, use=options.features, item_bias=options.item_bias)
    l2 = Term(options.l2, losses.embedding_l2("view"))
    return Recipe(model, {"bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)), "l2": l2})
