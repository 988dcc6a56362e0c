"""MMSSL's recommender: modality features and modality-aware id views on graphs of their own (Wei et al., WWW 2023)."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from slmrec_jax.encoding import features, layers
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.methods.mmssl.graphs import Bipartite, interactions, to_items, to_users
from slmrec_jax.types import DenseFeature, Inputs, Params, Spec

INTERACTIONS = "interactions"

Drop = Callable[[Float[Array, "items columns"]], Float[Array, "items columns"]]


class Encoded(NamedTuple):
    """One pass of the recommender."""

    users: Float[Array, "users dim"]
    """What ranks."""
    items: Float[Array, "items dim"]
    user_features: Mapping[str, Float[Array, "users dim"]]
    """F_u^m: the features of the user's items, by modality."""
    item_features: Mapping[str, Float[Array, "items dim"]]
    user_views: Mapping[str, Float[Array, "users dim"]]
    """V_u^m: id rows of the user's neighbours in the modality's graph."""
    item_views: Mapping[str, Float[Array, "items dim"]]


class MMSSL(NamedTuple):
    """The recommender as pure functions."""

    init: Callable[[Key[Array, ""]], Params]
    encode: Callable[[Params, Inputs, Mapping[str, Bipartite], Drop], Encoded]
    """`(params, inputs, graphs, drop)`; `drop` is the dropout on projected features (`kept` for none)."""
    prepare: Callable[[Inputs], Inputs]


def kept(x: Float[Array, "items columns"]) -> Float[Array, "items columns"]:
    """No dropout."""
    return x


def mmssl(
    spec: Spec,
    *,
    attention: Literal["cross_modal", "collapsed"] = "cross_modal",
    heads: int = 4,
    id_propagation: Literal["simultaneous", "sequential"] = "simultaneous",
    id_layers: int = 2,
    last_softmax: bool = False,
    view_weight: float = 0.36,
    feature_weight: float = 0.55,
    normalize_features: bool = False,
) -> MMSSL:
    """What ranks is h = (mean over id layers 0..L) + ω Σ_m nrm(F^m), for users and items.

    With A the training interactions and G^m the graph of modality m, each normalised as `Bipartite` has it:

        X^m   = drop(F_m W_m + b_m),   F_u^m = A_u X^m,        F_i^m = A_i F_u^m,
        V_u^m = G_u^m E_i,             V_i^m = G_i^m E_u,
        layer 0 of the ids             = E + η nrm(mean_m attend(V^1, .., V^M)_m).

    The graphs are constants of a step. An item that lacks a modality has no bias
    b_m either. The published code takes two modalities; this takes any number.

    Args:
        spec: sizes and modalities, at least one.
        attention: each view of a node attends to all views of that node (multi-head, scaled dot products), as the
            paper draws it; or the published code's, where values are broadcast over the keys, so that the weights sum
            out and the whole block is one map V -> V Σ_h W_h.
        heads: of the attention; in the collapsed one, how many maps are summed.
        id_propagation: LightGCN's layers on D_u^-1/2 R D_i^-1/2; or the published code's rounds on A, where items hear
            users that have just heard items, so that no item ever receives a user's own id row.
        id_layers: L.
        last_softmax: a softmax over the features of the last round, as in the published code.
        view_weight: η.
        feature_weight: ω.
        normalize_features: divides feature rows by their L2 norm beforehand; the published code does not.
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
            "attention": _attention(attention_key, attention, heads, len(names), spec.dim),
        }

    def prepare(inputs: Inputs) -> Inputs:
        taken = {
            name: features.frozen(inputs.features[name], modality, normalized=normalize_features)
            for name, modality in spec.modalities.items()
        }
        derived = {INTERACTIONS: interactions(inputs.graph)}
        return inputs._replace(graph=inputs.graph._replace(derived=derived), features={}, cache=taken)

    def mixed(params: Params, views: Mapping[str, Float[Array, "nodes dim"]]) -> Float[Array, "nodes dim"]:
        stacked = jnp.stack([views[name] for name in names])
        if attention == "collapsed":
            return collapsed_attention(params, stacked)
        return cross_modal_attention(params, stacked, heads)

    def encode(params: Params, inputs: Inputs, graphs: Mapping[str, Bipartite], drop: Drop) -> Encoded:
        training = training_graph(inputs.graph)
        # Side by side, all modalities go through the graph as one product.
        user_rows = to_users(training, drop(_projected(params["projection"], inputs.cache)))
        item_rows = to_items(training, user_rows)
        user_features, item_features = (
            dict(zip(names, jnp.split(rows, len(names), axis=1), strict=True)) for rows in (user_rows, item_rows)
        )
        user_views = {name: to_users(graphs[name], params["item"]) for name in names}
        item_views = {name: to_items(graphs[name], params["user"]) for name in names}
        user_ids = params["user"] + view_weight * layers.normalize(mixed(params["attention"], user_views))
        item_ids = params["item"] + view_weight * layers.normalize(mixed(params["attention"], item_views))
        if id_propagation == "simultaneous":
            adjacency = inputs.graph.adjacency
            hear_items, hear_users = (lambda x: matmul(adjacency, x)), (lambda x: matmul(adjacency.T, x))
        else:
            hear_items, hear_users = (
                (lambda x: to_users(training, x)),
                (lambda x: to_items(training, x)),
            )
        users, items = propagate_ids(
            user_ids,
            item_ids,
            hear_items,
            hear_users,
            id_layers,
            sequential=id_propagation == "sequential",
            last_softmax=last_softmax,
        )
        users += feature_weight * sum(layers.normalize(user_features[name]) for name in names)
        items += feature_weight * sum(layers.normalize(item_features[name]) for name in names)
        return Encoded(users, items, user_features, item_features, user_views, item_views)

    return MMSSL(init, encode, prepare)


def training_graph(graph: Graph) -> Bipartite:
    """The training interactions with MMSSL's normalisation: as `prepare` left them, or made from this graph."""
    prepared: Bipartite | None = graph.derived.get(INTERACTIONS)
    return interactions(graph) if prepared is None else prepared


def propagate_ids(
    users: Float[Array, "users dim"],
    items: Float[Array, "items dim"],
    hear_items: Callable[[Array], Array],
    hear_users: Callable[[Array], Array],
    num_layers: int,
    *,
    sequential: bool,
    last_softmax: bool,
) -> tuple[Float[Array, "users dim"], Float[Array, "items dim"]]:
    """The mean of layers 0..L.

    Args:
        users: layer 0.
        items: layer 0.
        hear_items: what users sum, of the items' rows.
        hear_users: what items sum, of the users' rows.
        num_layers: L.
        sequential: whether items hear the users of the same layer, or those of the layer before.
        last_softmax: whether the last layer goes through a softmax over its columns.
    """
    total_users, total_items = users, items
    for layer in range(1, num_layers + 1):
        last = last_softmax and layer == num_layers
        activate = (lambda x: jax.nn.softmax(x, axis=-1)) if last else (lambda x: x)
        heard = activate(hear_items(items))
        items = activate(hear_users(heard if sequential else users))
        users = heard
        total_users, total_items = total_users + users, total_items + items
    return total_users / (num_layers + 1), total_items / (num_layers + 1)


def cross_modal_attention(
    params: Params, views: Float[Array, "modalities nodes dim"], heads: int
) -> Float[Array, "nodes dim"]:
    """The mean over a node's views of what each gets attending to all: softmax(q · k / sqrt(dim / heads)) v, per head.

    The mean is taken of the weights, which is the same. With one modality there is nothing to weigh, and no map of
    queries or keys.
    """
    modalities, nodes, dim = views.shape

    def by_head(name: str) -> Float[Array, "modalities nodes heads width"]:
        rows: Array = (views @ params[name]).reshape(modalities, nodes, heads, dim // heads)
        return rows

    values = by_head("value")
    if modalities > 1:
        # Sums of products, since a CPU is slow at so many products of matrices so small.
        scores = jnp.sum(by_head("query")[:, None] * by_head("key")[None, :], axis=-1) / (dim // heads) ** 0.5
        weights = jnp.mean(jax.nn.softmax(scores, axis=1), axis=0)
        values = weights[..., None] * values
    attended: Array = jnp.sum(values, axis=0).reshape(nodes, dim) @ params["output"]
    return attended


def collapsed_attention(params: Params, views: Float[Array, "modalities nodes dim"]) -> Float[Array, "nodes dim"]:
    """(mean_m V^m) Σ_h W_h: what the published attention amounts to, exactly."""
    return jnp.mean(views, axis=0) @ jnp.sum(params["heads"], axis=0)


def similarity_rows(
    users: Float[Array, "batch dim"], items: Float[Array, "items dim"], kept: Float[Array, "batch items"] | None = None
) -> Float[Array, "batch items"]:
    """q: each user's inner products with all items, divided by the row's L2 norm.

    Args:
        users: rows of the batch's users.
        items: rows of all items.
        kept: factors on the scores; the published code has 0 at the user's training items.
    """
    scores = users @ items.T
    return layers.normalize(scores if kept is None else scores * kept)


def compared(items: Float[Array, "items dim"], similarity: Literal["cosine", "dot"]) -> Float[Array, "items dim"]:
    """Items as a user's row is to meet them: the cosine's user side is the same for all items of a row of q."""
    return layers.normalize(items) if similarity == "cosine" else items


def _projected(projection: Params, given: Mapping[str, DenseFeature]) -> Float[Array, "items columns"]:
    """The projected features of all modalities side by side."""
    rows = [
        values @ projection[name]["kernel"] + present[:, None] * projection[name]["bias"][None, :]
        for name, (values, present) in given.items()
    ]
    return jnp.concatenate(rows, axis=1)


def _attention(key: Key[Array, ""], kind: str, heads: int, modalities: int, dim: int) -> Params:
    if kind == "collapsed":
        # One matrix of heads · dim rows in the published code, which is what its initialiser's bound sees.
        return {"heads": layers.xavier_uniform(key, heads * dim, dim).reshape(heads, dim, dim)}
    names = ("query", "key", "value", "output") if modalities > 1 else ("value", "output")
    return {
        name: layers.xavier_uniform(key, dim, dim)
        for key, name in zip(jax.random.split(key, len(names)), names, strict=True)
    }
