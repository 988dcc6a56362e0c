"""FREEDOM (Zhou and Shen, MM 2023): LightGCN on a pruned graph, with a frozen item-item graph."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Scalar

from slmrec_jax.config import Config
from slmrec_jax.encoding import features
from slmrec_jax.errors import UserError, setting
from slmrec_jax.models.item_graph import with_item_graph
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.recipe import Recipe, check_modalities
from slmrec_jax.objectives import losses
from slmrec_jax.objectives.pruning import degree_pruning
from slmrec_jax.types import ID, Augmentation, Context, Encode, Inputs, Loss, Metrics, Model, Params, Spec, Term, View


def freedom(
    spec: Spec,
    *,
    num_layers: int = 2,
    item_layers: int = 1,
    neighbours: int = 10,
    weights: Mapping[str, float] | None = None,
    definition: bool = False,
) -> Model:
    """Make FREEDOM's encoder: rows z_u and z_i + h_i, where z = M_L [E_u; E_i].

    The term h = (Σ_m w_m A_m)^l E_i propagates over graphs of the nearest items (`with_item_graph`). The rows of
    modality m are x^m = (F_m + Δ_m) W_m + b_m, where F_m + Δ_m are the trained features; an item without the modality
    has x^m = 0. These rows are not used for ranking: the loss compares them with users (`content_bpr`).

    Args:
        spec: Sizes and modalities, at least one. The published code supports exactly two.
        num_layers: L.
        item_layers: l, at least 1.
        neighbours: The number of items that each item is connected to in a modality, including itself.
        weights: w_m by modality; by default `default_weights`.
        definition: Whether to propagate with `hop_by_definition`, for comparison.
    """
    encoder = lightgcn(spec, num_layers=num_layers, init="xavier", definition=definition)

    def init(key: Key[Array, ""]) -> Params:
        tables_key, *keys = jax.random.split(key, 1 + len(spec.modalities))
        return encoder.init(tables_key) | {"modalities": features.init_trained(keys, spec)}

    def prepare(inputs: Inputs) -> Inputs:
        taken = features.frozen_features(inputs.features, spec.modalities, normalized=False)
        return inputs._replace(features={}, cache=taken)

    def encode(params: Params, inputs: Inputs) -> Encode:
        encode_ids = encoder.encode(params, inputs)
        content = features.trained(inputs.cache, params["modalities"], spec)

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            ids = encode_ids(augmentation, key)
            return ids._replace(
                user_modalities=dict.fromkeys((ID, *content), ids.users), item_modalities={ID: ids.items, **content}
            )

        return view

    # The projections of features mix columns.
    alone = Model(init, encode, prepare, by_columns=False)
    return with_item_graph(
        alone, spec, weights=weights or default_weights(spec), neighbours=neighbours, num_layers=item_layers
    )


def default_weights(spec: Spec) -> dict[str, float]:
    """Return the weight of each modality in the item graph: 0.1 for `visual`, and equal shares of 0.9 for the others.

    For visual and textual features, these are the published weights. Without `visual`, or with `visual` only, all
    weights are equal.
    """
    others = [name for name in spec.modalities if name != "visual"]
    if not others or len(others) == len(spec.modalities):
        return dict.fromkeys(spec.modalities, 1.0 / len(spec.modalities))
    return {name: 0.1 if name == "visual" else 0.9 / len(others) for name in spec.modalities}


def content_bpr(num_negatives: int = 1) -> Loss:
    """Make Σ_m BPR of final user rows with item rows x^m: Σ_m mean_b softplus(u · x^m_j - u · x^m_i).

    Args:
        num_negatives: The number of negatives per positive, over which the mean is taken.
    """
    bpr = losses.bpr(num_negatives=num_negatives)

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        view = context.view
        if set(view.item_modalities) <= {ID}:
            raise UserError("content_bpr needs item rows of content modalities, but the view has none: leave it out")
        of_each = {
            name: bpr.apply({}, context._replace(view=view._replace(items=rows)))[0]
            for name, rows in view.item_modalities.items()
            if name != ID
        }
        return jnp.sum(jnp.stack(list(of_each.values()))), of_each

    return Loss(apply, num_negatives=num_negatives)


def freedom_recipe(config: Config, spec: Spec) -> Recipe:
    """Make FREEDOM: BPR of the ranking rows and of each modality's rows, on a pruned graph.

    The published code draws the pruned graph once per epoch. Here each step draws one from the batch's key, so that a
    step is a function of only state, data and batch. Ranking propagates on the whole graph, as published.

    Raises:
        UserError: There are no features, or the number of weights is not the number of modalities, or all weights are
            0.
    """
    options = config.freedom
    check_modalities(spec, setting("model", "freedom"))
    model = freedom(
        spec,
        num_layers=config.num_layers,
        item_layers=options.item_layers,
        neighbours=options.neighbours,
        weights=_given_weights(options.weights, spec),
        definition=config.propagation == "definition",
    )
    terms = {
        "bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)),
        "content": Term(options.content_weight, content_bpr(config.bpr_negatives)),
    }
    return Recipe(model, terms, augmentation=degree_pruning(options.prune_rate))


def _given_weights(weights: tuple[float, ...], spec: Spec) -> dict[str, float] | None:
    """Return the weights by modality, divided by their sum; `None` if none are given."""
    if not weights:
        return None
    if len(weights) != len(spec.modalities) or not sum(weights) > 0:
        raise UserError(
            f"{setting('freedom.weights', weights)}: give one weight for each of the modalities "
            f"{', '.join(spec.modalities)}, not all of them 0"
        )
    return {name: weight / sum(weights) for name, weight in zip(spec.modalities, weights, strict=True)}
