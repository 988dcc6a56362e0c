"""BM3 (Zhou et al., WWW 2023): LightGCN rows and projected features that predict each other, without negatives."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Scalar

from slmrec_jax.config import Config
from slmrec_jax.encoding import features, layers
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.rows import memoized, rows_for_all, rows_of
from slmrec_jax.errors import setting
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.recipe import Recipe, check_modalities
from slmrec_jax.objectives.augmentations import dropout
from slmrec_jax.types import (
    ALL,
    ID,
    Augmentation,
    Context,
    Encode,
    Inputs,
    Loss,
    Metrics,
    Model,
    Params,
    Rows,
    Spec,
    Term,
    View,
)

Factors: TypeAlias = Callable[[Key[Array, ""], str, tuple[int, int]], Float[Array, "rows dim"]]
"""`(key, name, shape) -> factors`: dropout factors of a table's entries, each 0 or 1 / (1 - rate). The names are
`user`, `id` and the modalities."""


def bm3(spec: Spec, *, num_layers: int = 2, normalize_features: bool = False, definition: bool = False) -> Model:
    """Make BM3's encoder, which ranks with the rows p(u) and p(i).

    The predictor p is an affine map from `dim` to `dim` columns, and

        u = M_L [E_u; E_i],  i = M_L [E_u; E_i] + E_i,  x_m = (F_m + Δ_m) W_m + b_m.

    Features are trained starting from their given values, as in the published code. The parameter is only the
    difference Δ_m, which starts at 0 and has the same gradient as F_m. An item that lacks modality m has a zero row
    x_m.

    The modalities of the view are the rows before the predictor: `id` has u and i, and each item modality has x_m. The
    predictor mixes columns, so every device of a mesh holds whole tables. Items without interactions cannot be ranked
    (`Model.cold_items`), since features influence the ids in training but are not read in ranking.

    Args:
        spec: Sizes and modalities, at least one.
        num_layers: L.
        normalize_features: Whether to divide feature rows by their L2 norm.
        definition: Whether to propagate with `hop_by_definition`, for comparison.
    """
    ids = lightgcn(spec, num_layers=num_layers, init="xavier", definition=definition)

    def init(key: Key[Array, ""]) -> Params:
        ids_key, predictor_key, *keys = jax.random.split(key, 2 + len(spec.modalities))
        tables = ids.init(ids_key)
        return {
            "user": tables["user"],
            "item": tables["item"],
            "predictor": layers.linear(predictor_key, spec.dim, spec.dim),
            "modalities": features.init_trained(keys, spec),
        }

    def prepare(inputs: Inputs) -> Inputs:
        given = features.frozen_features(inputs.features, spec.modalities, normalized=normalize_features)
        return inputs._replace(features={}, cache=given)

    def encode(params: Params, inputs: Inputs) -> Encode:
        encode_ids = ids.encode(params, inputs)
        own = rows_of(params["item"])
        content = features.trained(inputs.cache, params["modalities"], spec)

        def predicted(rows: Rows) -> Rows:
            return memoized(lambda ids: layers.affine(params["predictor"], rows(ids)))

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            propagated = encode_ids(augmentation, key)
            users, items = propagated.users, memoized(lambda ids: propagated.items(ids) + own(ids))
            return View(predicted(users), predicted(items), {ID: users}, {ID: items, **content})

        return view

    return Model(init, encode, prepare, by_columns=False)


def bootstrap_agreement(
    contrast_weight: float = 2.0, dropout_rate: float = 0.3, factors: Factors | None = None
) -> Loss:
    """Make BM3's loss, which pairs predicted rows with targets and uses no negatives.

    Let C(a, b) = 1 - cos(a, b). The loss is the mean, over the batch's unmasked rows of a user u and their item i, of

        C(p(u), i') + C(p(i), u') + λ Σ_m [C(p(x_m), i') + C(p(x_m), x_m')].

    The targets u', i' and x_m' are the rows before the predictor, with stopped gradient and dropout. All micro-batches
    of a step share one dropout mask per table. An item that lacks modality m has no terms for m (the published code has
    no such items).

    Args:
        contrast_weight: λ.
        dropout_rate: The share of a target's entries that are dropped, in [0, 1); the others are scaled by 1 / (1 -
            rate).
        factors: Makes the dropout factors; by default they are drawn from the step's key.
    """

    def drawn(key: Key[Array, ""], name: str, shape: tuple[int, int]) -> Float[Array, "rows dim"]:
        kept: Array = dropout(key, jnp.ones(shape), dropout_rate)
        return kept

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        view, batch, graph = context.view, context.batch, context.inputs.graph
        names = [name for name in view.item_modalities if name != ID]
        keys = jax.random.split(context.key, 2 + len(names))

        def target(key: Key[Array, ""], name: str, rows: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
            ids, count = (batch.users, graph.num_users) if name == "user" else (batch.items, graph.num_items)
            kept = rows_for_all(rows_of((factors or drawn)(key, name, (count, rows.shape[1]))))
            return layers.normalize(jax.lax.stop_gradient(rows) * kept(ids))

        def distance(predicted: Float[Array, "batch dim"], target: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
            return 1.0 - jnp.sum(layers.normalize(predicted) * target, axis=1)

        user_target = target(keys[0], "user", view.user_modalities[ID](batch.users))
        item_target = target(keys[1], ID, view.item_modalities[ID](batch.items))
        alignment = distance(view.users(batch.users), item_target) + distance(view.items(batch.items), user_target)
        contrast = jnp.zeros_like(alignment)
        for name, key in zip(names, keys[2:], strict=True):
            rows = view.item_modalities[name](batch.items)
            predicted = layers.affine(context.model_params["predictor"], rows)
            terms = distance(predicted, item_target) + distance(predicted, target(key, name, rows))
            contrast += take(context.inputs.cache[name].present, batch.items) * terms
        parts = {"alignment": layers.mean(alignment, batch.mask), "contrast": layers.mean(contrast, batch.mask)}
        return parts["alignment"] + contrast_weight * parts["contrast"], parts

    return Loss(apply)


def table_norms() -> Loss:
    """Make BM3's regulariser, (‖u‖_F + ‖i‖_F) / items: unsquared norms of all rows before the predictor."""

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        tables = context.view.user_modalities[ID](ALL), context.view.item_modalities[ID](ALL)
        norms = sum(jnp.sqrt(jnp.sum(jnp.square(table))) for table in tables)
        return norms / context.inputs.graph.num_items, {}

    return Loss(apply)


def bm3_recipe(config: Config, spec: Spec) -> Recipe:
    """Make BM3: its loss without negatives, and the norms of its tables.

    Raises:
        UserError: There are no features.
    """
    options = config.bm3
    check_modalities(spec, setting("model", "bm3"))
    model = bm3(
        spec,
        num_layers=config.num_layers,
        normalize_features=options.normalize_features,
        definition=config.propagation == "definition",
    )
    terms = {
        "main": Term(1.0, bootstrap_agreement(options.contrast_weight, options.dropout_rate)),
        "norms": Term(options.norm_weight, table_norms()),
    }
    return Recipe(model, terms)
