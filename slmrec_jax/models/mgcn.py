"""MGCN (Yu et al., ACM MM 2023): ids purified by features, one item graph per modality, and attention."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Scalar

from slmrec_jax.config import Config
from slmrec_jax.encoding import features, layers
from slmrec_jax.encoding.item_graphs import item_graph, nearest_items, symmetric
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.rows import memoized, product_rows, rows_of, sum_of
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.errors import setting
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.recipe import Recipe, check_modalities
from slmrec_jax.objectives import losses
from slmrec_jax.objectives.softmax import self_cross_entropy
from slmrec_jax.types import (
    ALL,
    ID,
    Augmentation,
    Context,
    DenseFeature,
    Distinct,
    Encode,
    Ids,
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

SIDE = "side"


def mgcn(
    spec: Spec,
    *,
    num_layers: int = 2,
    item_layers: int = 1,
    neighbours: int = 10,
    normalize_features: bool = False,
    definition: bool = False,
) -> Model:
    """Make MGCN's encoder, whose user and item rows are content + side.

    The content is M_L [E_u; E_i]. In each modality m, items and users have the rows

        x_i = A_m^l (E_i ⊙ σ(gate_m((F_m + Δ_m) W_m + b_m))),  x_u = R̂ x_i,

    where A_m = D^-1/2 S D^-1/2, S holds each item's cosines with its k nearest items, and D the row sums of S. The
    weights are the softmax over modalities of the scores q · tanh(x_m V + c):

        common = Σ_m weight_m x_m,
        side   = (Σ_m (x_m - common) ⊙ σ(prefer_m(content)) + common) / (modalities + 1).

    Features are trained starting from their given values: the parameter Δ_m starts at 0. The item graphs always use the
    given values. An item that lacks a modality has no neighbours and a zero row there. The view's modalities are `id`,
    which is the content, and `side`. Augmentations only change the read-out of the ids. The affine maps mix columns, so
    every device of a mesh holds whole tables.

    Args:
        spec: Sizes and modalities, at least one.
        num_layers: L.
        item_layers: l.
        neighbours: k.
        normalize_features: Whether to divide feature rows by their L2 norm before the projection.
        definition: Whether to compute the read-out with `hop_by_definition`, for comparison.
    """
    ids = lightgcn(spec, num_layers=num_layers, init="xavier", definition=definition)

    def init(key: Key[Array, ""]) -> Params:
        ids_key, hidden_key, out_key, *keys = jax.random.split(key, 3 + len(spec.modalities))
        tables, dim = ids.init(ids_key), spec.dim

        def maps(place: int) -> dict[str, layers.Linear]:
            own = zip(spec.modalities, keys, strict=True)
            return {name: layers.linear(jax.random.fold_in(key, place), dim, dim) for name, key in own}

        return {
            "user": tables["user"],
            "item": tables["item"],
            "modalities": features.init_trained(keys, spec),
            "gate": maps(1),
            "prefer": maps(2),
            "query": {
                "hidden": layers.linear(hidden_key, dim, dim),
                "out": layers.xavier_uniform(out_key, dim, 1),
            },
        }

    def prepare(inputs: Inputs) -> Inputs:
        given = features.frozen_features(inputs.features, spec.modalities, normalized=normalize_features)
        graphs = {name: _item_graph(feature, neighbours) for name, feature in given.items()}
        return inputs._replace(features={}, cache=(given, graphs))

    def encode(params: Params, inputs: Inputs) -> Encode:
        given, graphs = inputs.cache
        encode_ids = ids.encode(params, inputs)
        users, items = {}, {}
        for name, content in features.trained(given, params["modalities"], spec).items():
            x = params["item"] * jax.nn.sigmoid(layers.affine(params["gate"][name], content(ALL)))
            for _ in range(item_layers):
                x = matmul(graphs[name], x)
            items[name] = rows_of(x)
            users[name] = product_rows(inputs.graph.adjacency, x, matmul(inputs.graph.adjacency, x))

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            content = encode_ids(augmentation, key)
            user_side, item_side = _side(users, content.users, params), _side(items, content.items, params)
            return View(
                sum_of([content.users, user_side], 1.0),
                sum_of([content.items, item_side], 1.0),
                {ID: content.users, SIDE: user_side},
                {ID: content.items, SIDE: item_side},
            )

        return view

    return Model(init, encode, prepare, by_columns=False)


def side_agreement(temperature: float = 0.2) -> Loss:
    """Make MGCN's contrastive loss: each user and item of the batch identifies its content row from its side row.

    The loss is the sum, over users and items, of the mean of -log (exp(cos(s_b, c_b) / τ) / Σ_c exp(cos(s_b, c_c) / τ))
    over the batch's unmasked rows b; c also runs over these rows. Repeated users or items count as often as they occur.

    Args:
        temperature: τ > 0.
    """

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        def agreement(rows: Mapping[str, Rows], of: Distinct) -> Scalar:
            side, content = layers.normalize(rows[SIDE](of)), layers.normalize(rows[ID](of))
            return self_cross_entropy(side / temperature, content, of.counts)

        users = agreement(context.view.user_modalities, context.users)
        items = agreement(context.view.item_modalities, context.items)
        return users + items, {"users": users, "items": items}

    return Loss(apply, in_batch=True)


def mgcn_recipe(config: Config, spec: Spec) -> Recipe:
    """Make MGCN: BPR, the L2 of the batch's final rows, and the contrastive loss between side and content.

    The published code also multiplies the learning rate by 0.96 every 50 epochs; `optimizer.chain` can do the same.

    Raises:
        UserError: There are no features.
    """
    options = config.mgcn
    check_modalities(spec, setting("model", "mgcn"))
    model = mgcn(
        spec,
        num_layers=config.num_layers,
        item_layers=options.item_layers,
        neighbours=options.neighbours,
        normalize_features=options.normalize_features,
        definition=config.propagation == "definition",
    )
    terms = {
        "bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)),
        "contrast": Term(options.contrast_weight, side_agreement(options.contrast_temperature)),
        "l2": Term(options.l2, losses.embedding_l2("fused")),
    }
    return Recipe(model, terms)


def _item_graph(feature: DenseFeature, neighbours: int) -> Operator:
    nearest = nearest_items(feature, neighbours)
    return item_graph([nearest.ids], [symmetric(nearest.ids, nearest.similarities)])


def _side(modalities: Mapping[str, Rows], content: Rows, params: Params) -> Rows:
    """Compute the side rows, which modalities add to the content."""
    query = params["query"]

    def rows(ids: Ids) -> Float[Array, "rows dim"]:
        of_each = {name: modality(ids) for name, modality in modalities.items()}
        scores = [jnp.tanh(layers.affine(query["hidden"], x)) @ query["out"] for x in of_each.values()]
        weights = jax.nn.softmax(jnp.stack(scores), axis=0)
        common = jnp.sum(weights * jnp.stack(list(of_each.values())), axis=0)
        total = common
        for name, x in of_each.items():
            total += (x - common) * jax.nn.sigmoid(layers.affine(params["prefer"][name], content(ids)))
        return total / (len(of_each) + 1)

    return memoized(rows)
