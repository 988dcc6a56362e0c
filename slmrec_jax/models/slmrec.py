"""SLMRec's encoder: a LightGCN for each modality over one user table, then fusion (Tao et al., IEEE TMM 2022)."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from slmrec_jax import features, layers, propagation
from slmrec_jax.graph import Graph
from slmrec_jax.propagation import FrozenChain
from slmrec_jax.rows import concatenated, once, projected, rows_of
from slmrec_jax.types import (
    ALL,
    Augmentation,
    DenseFeature,
    Encode,
    Ids,
    Inputs,
    ModalityScale,
    Model,
    Params,
    Rows,
    Spec,
    View,
)

ID = "id"


class Channel(NamedTuple):
    """One modality's propagated rows."""

    users: Rows
    items: Rows


class Cache(NamedTuple):
    """What is computed once from the graph and the features."""

    features: Mapping[str, DenseFeature]
    """The frozen modalities as they enter the projection."""
    chains: Mapping[str, FrozenChain]
    """The propagated rows of those modalities for which this is cheaper."""


def slmrec(
    spec: Spec,
    *,
    num_layers: int = 3,
    fusion: Literal["concat", "mean", "sum"] = "concat",
    user_table: Literal["shared", "per_modality"] = "shared",
    normalize_features: bool = True,
    words: Literal["frozen", "trainable"] = "frozen",
    cached: Collection[str] = (),
    definition: bool = False,
) -> Model:
    """Z_m = M_L [E_u; F_m W_m + b_m] for each modality m, Z_id = M_L [E_u; E_i], and a fusion of them all.

    SLMRec, Eq. 2-7, read as the published code reads them. An item without a modality has a zero row there at layer 0
    (no bias either) and takes from its neighbours alone.

    Args:
        spec: sizes and modalities.
        num_layers: L.
        fusion: an affine map of the concatenation, one for users and one for items (published code), or the mean or
            the sum of the modalities.
        user_table: one E_u for every modality (paper and published code), or one each.
        normalize_features: divides feature rows by their L2 norm. Word means are never normalised.
        words: a modality of word ids is the mean of its word vectors. The published code computes it once from random
            vectors (`"frozen"`); it seems to have meant `"trainable"`.
        cached: the frozen modalities whose features go through the graph once, beforehand (`choose_chain`).
        definition: computes every propagation by segment sum over the whole graph, for comparison.
    """
    channels = (ID, *spec.modalities)
    trained = {name for name, modality in spec.modalities.items() if modality.words and words == "trainable"}

    def init(key: Key[Array, ""]) -> Params:
        keys = iter(jax.random.split(key, 4 + 2 * len(spec.modalities)))
        width = spec.dim * (len(channels) if user_table == "per_modality" else 1)
        params: dict[str, Params] = {
            "user": layers.xavier_uniform(next(keys), spec.num_users, width),
            "item": layers.xavier_uniform(next(keys), spec.num_items, spec.dim),
            "projection": {
                name: layers.linear(next(keys), features.width(modality), spec.dim)
                for name, modality in spec.modalities.items()
            },
            "words": {
                name: layers.xavier_normal(next(keys), spec.modalities[name].columns, features.WORD_DIM)
                for name in sorted(trained)
            },
        }
        if fusion == "concat":
            for side in ("fusion_user", "fusion_item"):
                params[side] = layers.linear(next(keys), spec.dim * len(channels), spec.dim)
        return params

    def frozen_features(given: Mapping[str, features.Given]) -> dict[str, DenseFeature]:
        return {
            name: features.frozen(given[name], modality, normalized=normalize_features)
            for name, modality in spec.modalities.items()
            if name not in trained
        }

    def prepare(inputs: Inputs) -> Inputs:
        frozen = frozen_features(inputs.features)
        chains = {name: propagation.frozen_chain(inputs.graph, frozen[name], num_layers) for name in cached}
        return inputs._replace(
            features={name: inputs.features[name] for name in sorted(trained)}, cache=Cache(frozen, chains)
        )

    def encode(params: Params, inputs: Inputs) -> Encode:
        graph = inputs.graph
        layer0 = {name: _layer0(name, params, inputs) for name in channels}
        user_rows = _split(params["user"], channels) if user_table == "per_modality" else {}
        from_users = _user_channels(graph, params["user"], channels if user_rows else (), num_layers)
        frozen = {
            name: _frozen_channel(chain, params["projection"][name]) for name, chain in inputs.cache.chains.items()
        }
        in_full = {name: layer0[name](ALL) for name in channels if name not in frozen}
        from_items = frozen | _item_channels(graph, in_full, num_layers)

        def by_chains(augmentation: Augmentation, scale: ModalityScale, key: Key[Array, ""]) -> dict[str, Channel]:
            rows, items = layer0, from_items
            if augmentation.inputs is not None:
                x = augmentation.inputs(key, {name: layer0[name](ALL) for name in channels})
                rows, items = {name: rows_of(x[name]) for name in channels}, _item_channels(graph, x, num_layers)
            return {
                name: _sum(from_users.get(name, from_users[ID]), items[name], rows[name], name, scale, num_layers)
                for name in channels
            }

        def by_layers(augmentation: Augmentation, scale: ModalityScale, key: Key[Array, ""]) -> dict[str, Channel]:
            x = {name: layer0[name](ALL) for name in channels}
            if augmentation.inputs is not None:
                x = dict(augmentation.inputs(key, x))
            users = jnp.stack([user_rows.get(name, params["user"]) for name in channels], axis=1)

            def stacked(factors: Mapping[str, Array]) -> Float[Array, "nodes channels dim"]:
                items = jnp.stack(
                    [x[name] * factors[name] if name in factors else x[name] for name in channels], axis=1
                )
                return jnp.concatenate([users, items])

            layer = augmentation.layer
            propagated = propagation.propagate(
                graph,
                stacked(scale.propagated),
                num_layers,
                aggregate=propagation.aggregate if definition else propagation.aggregate_by_halves,
                after_layer=None if layer is None else lambda index, rows: layer(key, index, rows),
            )
            read_out = propagated + stacked(scale.propagated if scale.layer0 is None else scale.layer0) / (
                num_layers + 1
            )
            halves = rows_of(read_out[: graph.num_users]), rows_of(read_out[graph.num_users :])
            return {name: Channel(*(_column(half, place) for half in halves)) for place, name in enumerate(channels)}

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            modality_key, key = jax.random.split(key)
            scale = (
                ModalityScale({}) if augmentation.modality is None else augmentation.modality(modality_key, channels)
            )
            by = by_layers if definition or augmentation.layer is not None else by_chains
            propagated = by(augmentation, scale, key)
            users = {name: propagated[name].users for name in channels}
            items = {name: propagated[name].items for name in channels}
            return View(
                _fuse(users, fusion, params.get("fusion_user")),
                _fuse(items, fusion, params.get("fusion_item")),
                users,
                items,
            )

        return view

    def cold_items(params: Params, given: Mapping[str, PyTree]) -> Float[Array, "items dim"]:
        # Without neighbours, the read-out is layer 0 divided by L + 1; without an id, its row there is 0.
        taken = frozen_features(given) | {
            name: features.word_means(given[name], params["words"][name]) for name in sorted(trained)
        }
        content = {
            name: projected(*taken[name], params["projection"][name])(ALL) / (num_layers + 1)
            for name in spec.modalities
        }
        rows = {ID: jnp.zeros_like(next(iter(content.values())))} | content
        return _fuse({name: rows_of(x) for name, x in rows.items()}, fusion, params.get("fusion_item"))(ALL)

    return Model(init, encode, prepare, cold_items if spec.modalities else None)


def _layer0(name: str, params: Params, inputs: Inputs) -> Rows:
    """X_m, the items' rows before propagation."""
    if name == ID:
        return rows_of(params["item"])
    if name in params["words"]:
        feature = features.word_means(inputs.features[name], params["words"][name])
    else:
        feature = inputs.cache.features[name]
    return projected(feature.values, feature.present, params["projection"][name])


def _frozen_channel(chain: FrozenChain, projection: layers.Linear) -> Channel:
    users, items = (projected(*half, projection) for half in zip(chain.values, chain.present, strict=True))
    return Channel(users, items)


def _user_channels(graph: Graph, users: Array, names: tuple[str, ...], num_layers: int) -> dict[str, Channel]:
    """The user chain, under the name of each modality or, where they share it, of `ID`."""
    chain = propagation.user_chain(graph, users, num_layers)
    return _channels(chain, names or (ID,))


def _item_channels(graph: Graph, x: Mapping[str, Array], num_layers: int) -> dict[str, Channel]:
    """The item chains of several modalities, side by side in one wide product."""
    chain = propagation.item_chain(graph, jnp.concatenate(list(x.values()), axis=1), num_layers)
    return _channels(chain, tuple(x))


def _channels(chain: propagation.Halves, names: tuple[str, ...]) -> dict[str, Channel]:
    users, items = (_split(half, names) for half in chain)
    return {name: Channel(rows_of(users[name]), rows_of(items[name])) for name in names}


def _split(wide: Array, names: tuple[str, ...]) -> dict[str, Array]:
    return dict(zip(names, jnp.split(wide, len(names), axis=1), strict=True))


def _sum(user: Channel, item: Channel, layer0: Rows, name: str, scale: ModalityScale, num_layers: int) -> Channel:
    """User chain plus item chain, the latter with its factors: one for what is propagated, one for layer 0."""
    factor = scale.propagated.get(name, 1.0)

    def users(ids: Ids) -> Array:
        return user.users(ids) + factor * item.users(ids)

    def items(ids: Ids) -> Array:
        total = user.items(ids) + factor * item.items(ids)
        if scale.layer0 is None:
            return total
        return total + (scale.layer0.get(name, 1.0) - factor) / (num_layers + 1) * layer0(ids)

    return Channel(once(users), once(items))


def _column(table: Rows, place: int) -> Rows:
    return lambda ids: table(ids)[:, place]


def _fuse(rows: Mapping[str, Rows], fusion: str, params: layers.Linear | None) -> Rows:
    def fused(ids: Ids) -> Array:
        if params is not None:
            return layers.affine(params, concatenated(list(rows.values()))(ids))
        total = jnp.sum(jnp.stack([row(ids) for row in rows.values()]), axis=0)
        return total / len(rows) if fusion == "mean" else total

    return once(fused)
