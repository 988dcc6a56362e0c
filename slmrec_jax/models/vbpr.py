"""VBPR (He and McAuley, AAAI 2016): matrix factorisation with a content preference."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from slmrec_jax.config import Config
from slmrec_jax.encoding import features, layers, vectors
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.rows import concatenated, memoized, projected, rows_of, with_biases
from slmrec_jax.errors import setting
from slmrec_jax.models.recipe import Recipe, check_modalities, single_view
from slmrec_jax.objectives import losses
from slmrec_jax.types import ALL, ID, NO_AUGMENTATION, DenseFeature, Encode, Inputs, Model, Params, Spec, Term, View


def vbpr(
    spec: Spec, *, variant: Literal["multimodal", "original"] = "multimodal", normalize_features: bool = False
) -> Model:
    """Make the encoder y_ui = e_u · e_i + t_u · (F_i W + b), where F_i concatenates the features of all modalities.

    The original is y_ui = b_i + e_u · e_i + t_u · (F_i W) + β · F_i: with an item bias and a content bias, but no bias
    in the map. Its global and user biases are left out, since they affect neither the ranking nor BPR. User rows are
    [e_u; t_u].

    `variant="multimodal"` is the form in the SLMRec paper and the MMRec toolbox. `normalize_features` divides feature
    rows by their L2 norm, which neither reference does. At least one modality is required.

    F is one table. Its dtype is a half-precision one if all modalities have that dtype and are not normalised;
    otherwise it is float32.
    """
    columns = sum(features.width(modality) for modality in spec.modalities.values())

    def init(key: Key[Array, ""]) -> Params:
        user_key, item_key, map_key = jax.random.split(key, 3)
        params: dict[str, Params] = {
            "user": layers.xavier_uniform(user_key, spec.num_users, 2 * spec.dim),
            "item": layers.xavier_uniform(item_key, spec.num_items, spec.dim),
            "content": {"kernel": layers.xavier_normal(map_key, columns, spec.dim)},
        }
        if variant == "multimodal":
            params["content"]["bias"] = jnp.zeros(spec.dim)
        else:
            params |= {"item_bias": jnp.zeros(spec.num_items), "content_bias": jnp.zeros(columns)}
        return params

    def prepare(inputs: Inputs) -> Inputs:
        taken = features.frozen_features(inputs.features, spec.modalities, normalized=normalize_features).values()
        # Concatenated columns must have the same dtype and no row factors.
        alike = len({feature.values.dtype for feature in taken}) == 1 and not any(feature.scales for feature in taken)
        side_by_side = jnp.concatenate(
            [feature.values if alike else vectors.rows(feature, ALL) for feature in taken], axis=1
        )
        # An item with at least one modality gets the map's bias.
        any_present = jnp.max(jnp.stack([feature.present for feature in taken]), axis=0)
        return inputs._replace(features={}, cache=DenseFeature(side_by_side, any_present))

    def encode(params: Params, inputs: Inputs) -> Encode:
        content: DenseFeature = inputs.cache
        bias = params["content"].get("bias", jnp.zeros(spec.dim))
        mapped = projected(content, {"kernel": params["content"]["kernel"], "bias": bias})
        users, items = rows_of(params["user"]), concatenated([rows_of(params["item"]), mapped])
        ranked = users, items
        if variant == "original":
            item_bias, content_bias = params["item_bias"], params["content_bias"]
            biases = memoized(lambda ids: take(item_bias, ids) + vectors.rows(content, ids) @ content_bias)
            ranked = with_biases(users, items, biases)
        return single_view(View(*ranked, {ID: users}, {ID: items}))

    def cold_items(params: Params, given: Mapping[str, features.DeviceFeature]) -> Float[Array, "items columns"]:
        inputs = prepare(Inputs(None, given))
        rows = len(inputs.cache.values)
        unknown = {"item": jnp.zeros((rows, spec.dim)), "item_bias": jnp.zeros(rows)}
        return encode({**params, **unknown}, inputs)(NO_AUGMENTATION, jax.random.key(0)).items(ALL)

    return Model(init, encode, prepare, cold_items)


def vbpr_recipe(config: Config, spec: Spec) -> Recipe:
    """Make VBPR: BPR and the L2 of the rows that a batch uses.

    Raises:
        UserError: There are no features.
    """
    options = config.vbpr
    check_modalities(spec, setting("model", "vbpr"))
    model = vbpr(spec, variant=options.variant, normalize_features=options.normalize_features)
    l2 = Term(options.l2, losses.embedding_l2("view", options.norm))
    return Recipe(model, {"bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)), "l2": l2})
