"""MMSSL's recommender: modality features, and id views on one graph per modality (Wei et al., WWW 2023)."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from slmrec_jax.config import MMSSLConfig
from slmrec_jax.encoding import features, layers, propagation
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.rows import concatenated, projected
from slmrec_jax.methods.mmssl.graphs import (
    Bipartite,
    ModalityGraphs,
    aggregate_items,
    aggregate_users,
    interaction_graph,
)
from slmrec_jax.types import ALL, DenseFeature, Inputs, Params, Spec

TRAINING_GRAPH = "training"
"""The key of the training interactions' graph in `Graph.derived`."""

Similarity: TypeAlias = Literal["cosine", "dot"]

Drop = Callable[[Float[Array, "items columns"]], Float[Array, "items columns"]]


class Encoded(NamedTuple):
    """The output of one forward pass of the recommender."""

    users: Float[Array, "users dim"]
    """The rows used for ranking."""
    items: Float[Array, "items dim"]
    user_features: Mapping[str, Float[Array, "users dim"]]
    """F_u^m: the aggregated features of the user's items, by modality."""
    item_features: Mapping[str, Float[Array, "items dim"]]
    user_views: Mapping[str, Float[Array, "users dim"]]
    """V_u^m: the aggregated id rows of the user's neighbours in the modality's graph."""
    item_views: Mapping[str, Float[Array, "items dim"]]


class MMSSL(NamedTuple):
    """The recommender as pure functions."""

    init: Callable[[Key[Array, ""]], Params]
    encode: Callable[[Params, Inputs, ModalityGraphs, Drop], Encoded]
    """`(params, inputs, graphs, drop) -> encoded`; `drop` is the dropout on projected features."""
    prepare: Callable[[Inputs], Inputs]


def no_dropout(x: Float[Array, "items columns"]) -> Float[Array, "items columns"]:
    """Return the rows unchanged."""
    return x


def mmssl(spec: Spec, options: MMSSLConfig) -> MMSSL:
    """Make the encoder h = (mean over id layers 0..L) + ω Σ_m nrm(F^m), for users and items.

    Let A be the training interactions and G^m the graph of modality m, each normalised as in `Bipartite`:

        X^m   = drop(F_m W_m + b_m),   F_u^m = A_u X^m,        F_i^m = A_i F_u^m,
        V_u^m = G_u^m E_i,             V_i^m = G_i^m E_u,
        layer 0 of the ids             = E + η nrm(mean_m attend(V^1, .., V^M)_m).

    The graphs are constant within a step. An item that lacks a modality gets no bias b_m either. The published code
    supports two modalities; this code supports any number.

    Args:
        spec: Sizes and modalities, at least one.
        options: `attention`: each view of a node attends to all of its views, as in the paper; or (`"collapsed"`) one
            map V -> V Σ_h W_h, which is what the published code effectively computes: it broadcasts values over the
            keys, so its weights sum to 1. `id_propagation`: LightGCN's layers on D_u^-1/2 R D_i^-1/2; or
            (`"sequential"`) the published code's rounds on A, in which items receive from users that have just received
            from items, so no user's own id row ever reaches an item. `id_layers` is L, `view_weight` η,
            `feature_weight` ω.
    """
    names = tuple(spec.modalities)

    def init(key: Key[Array, ""]) -> Params:
        user_key, item_key, attention_key, *keys = jax.random.split(key, 3 + len(names))
        return {
            "user": layers.xavier_uniform(user_key, spec.num_users, spec.dim),
            "item": layers.xavier_uniform(item_key, spec.num_items, spec.dim),
            "projection": {
                name: layers.linear(key, features.width(spec.modalities[name]), spec.dim)
                for key, name in zip(keys, names, strict=True)
            },
            "attention": _init_attention(attention_key, options, len(names), spec.dim),
        }

    def prepare(inputs: Inputs) -> Inputs:
        taken = features.frozen_features(inputs.features, spec.modalities, normalized=options.normalize_features)
        derived = {TRAINING_GRAPH: interaction_graph(inputs.graph)}
        return inputs._replace(graph=inputs.graph._replace(derived=derived), features={}, cache=taken)

    def attend(params: Params, views: Mapping[str, Float[Array, "nodes dim"]]) -> Float[Array, "nodes dim"]:
        stacked = jnp.stack([views[name] for name in names])
        if options.attention == "collapsed":
            return collapsed_attention(params, stacked)
        return cross_modal_attention(params, stacked, options.heads)

    def encode(params: Params, inputs: Inputs, graphs: ModalityGraphs, drop: Drop) -> Encoded:
        graph, training = inputs.graph, training_graph(inputs.graph)
        # Concatenated, all modalities are propagated in one graph product.
        cache: Mapping[str, DenseFeature] = inputs.cache
        content = concatenated([projected(cache[name], params["projection"][name]) for name in names])
        user_rows = aggregate_items(training, drop(content(ALL)))
        item_rows = aggregate_users(training, user_rows)
        user_features, item_features = (
            dict(zip(names, jnp.split(rows, len(names), axis=1), strict=True)) for rows in (user_rows, item_rows)
        )
        user_views = {name: aggregate_items(graphs[name], params["item"]) for name in names}
        item_views = {name: aggregate_users(graphs[name], params["user"]) for name in names}
        sequential = options.id_propagation == "sequential"

        def with_views(table: Array, views: Mapping[str, Array]) -> Array:
            if options.view_weight == 0:  # XLA would compute the views and multiply them by 0
                return table
            return table + options.view_weight * layers.normalize(attend(params["attention"], views))

        users, items = propagate_ids(
            with_views(params["user"], user_views),
            with_views(params["item"], item_views),
            lambda x: aggregate_items(training, x) if sequential else propagation.to_users(graph, x),
            lambda x: aggregate_users(training, x) if sequential else propagation.to_items(graph, x),
            options.id_layers,
            sequential=sequential,
            last_softmax=options.last_softmax,
        )
        users += options.feature_weight * sum(layers.normalize(user_features[name]) for name in names)
        items += options.feature_weight * sum(layers.normalize(item_features[name]) for name in names)
        return Encoded(users, items, user_features, item_features, user_views, item_views)

    return MMSSL(init, encode, prepare)


def training_graph(graph: Graph) -> Bipartite:
    """Return the training graph with MMSSL's normalisation: the prepared one, or one built from `graph`."""
    prepared: Bipartite | None = graph.derived.get(TRAINING_GRAPH)
    return interaction_graph(graph) if prepared is None else prepared


def propagate_ids(
    users: Float[Array, "users dim"],
    items: Float[Array, "items dim"],
    to_users: Callable[[Array], Array],
    to_items: Callable[[Array], Array],
    num_layers: int,
    *,
    sequential: bool,
    last_softmax: bool,
) -> tuple[Float[Array, "users dim"], Float[Array, "items dim"]]:
    """Compute the mean of layers 0..L, given layer 0.

    `to_users` and `to_items` aggregate the rows of the other side. If `sequential`, items receive from the users of the
    same layer instead of the previous layer. If `last_softmax`, a softmax over the columns is applied to the last
    layer.
    """
    total_users, total_items = users, items
    for layer in range(1, num_layers + 1):
        last = last_softmax and layer == num_layers
        activate = (lambda x: jax.nn.softmax(x, axis=-1)) if last else (lambda x: x)
        next_users = activate(to_users(items))
        items = activate(to_items(next_users if sequential else users))
        users = next_users
        total_users, total_items = total_users + users, total_items + items
    return total_users / (num_layers + 1), total_items / (num_layers + 1)


def cross_modal_attention(
    params: Params, views: Float[Array, "modalities nodes dim"], heads: int
) -> Float[Array, "nodes dim"]:
    """Compute attention between a node's views, softmax(q · k / sqrt(dim / H)) v per head, averaged over queries.

    The mean is taken over the weights, which is equivalent. With one modality there is nothing to weight, so there are
    no query and key maps.
    """
    num_modalities, num_nodes, dim = views.shape

    def by_head(name: str) -> Float[Array, "modalities nodes heads width"]:
        rows: Array = (views @ params[name]).reshape(num_modalities, num_nodes, heads, dim // heads)
        return rows

    values = by_head("value")
    if num_modalities > 1:
        # Elementwise products and sums, because CPUs are slow at many small matrix products.
        scores = jnp.sum(by_head("query")[:, None] * by_head("key")[None, :], axis=-1) / (dim // heads) ** 0.5
        weights = jnp.mean(jax.nn.softmax(scores, axis=1), axis=0)
        values = weights[..., None] * values
    attended: Array = jnp.sum(values, axis=0).reshape(num_nodes, dim) @ params["output"]
    return attended


def collapsed_attention(params: Params, views: Float[Array, "modalities nodes dim"]) -> Float[Array, "nodes dim"]:
    """Compute (mean_m V^m) Σ_h W_h, which exactly equals the published code's attention."""
    return jnp.mean(views, axis=0) @ jnp.sum(params["heads"], axis=0)


def comparable_rows(
    encoded: Encoded, name: str, similarity: Similarity
) -> tuple[Float[Array, "users dim"], Float[Array, "items dim"]]:
    """Return a modality's rows such that their inner products rank items for each user by the given similarity.

    For the cosine, only items are normalised, since a user's norm is a common factor of all their scores.
    """
    items = encoded.item_features[name]
    return encoded.user_features[name], layers.normalize(items) if similarity == "cosine" else items


def similarity_rows(
    users: Float[Array, "batch dim"], items: Float[Array, "items dim"], unseen: Float[Array, "batch items"] | None
) -> Float[Array, "batch items"]:
    """Compute q: each user's inner products with all items, times `unseen` if given, divided by the row's L2 norm.

    In the published code, `unseen` is 0 at the user's training items and 1 elsewhere.
    """
    scores = users @ items.T
    return layers.normalize(scores if unseen is None else scores * unseen)


def _init_attention(key: Key[Array, ""], options: MMSSLConfig, modalities: int, dim: int) -> Params:
    if options.attention == "collapsed":
        # The published code initialises one matrix of heads · dim rows, which determines the bound of the distribution.
        return {"heads": layers.xavier_uniform(key, options.heads * dim, dim).reshape(options.heads, dim, dim)}
    names = ("query", "key", "value", "output") if modalities > 1 else ("value", "output")
    return {
        name: layers.xavier_uniform(key, dim, dim)
        for key, name in zip(jax.random.split(key, len(names)), names, strict=True)
    }
