"""SLMRec's encoder: a LightGCN for each modality over one user table, then fusion (Tao et al., IEEE TMM 2022)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from slmrec_jax.encoding import features, layers, propagation
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.propagation import FrozenChain, Halves
from slmrec_jax.encoding.rows import concatenated, memoized, projected, rows_of, sum_of
from slmrec_jax.errors import UserError
from slmrec_jax.types import (
    ALL,
    Augmentation,
    DenseFeature,
    Encode,
    FrozenRows,
    Ids,
    Inputs,
    LayerStage,
    ModalityScale,
    Model,
    Params,
    Rows,
    Site,
    Spec,
    View,
)

ID = "id"


class Channel(NamedTuple):
    """One modality's propagated rows."""

    users: Rows
    items: Rows


def slmrec(
    spec: Spec,
    *,
    num_layers: int = 3,
    fusion: Literal["concat", "mean", "sum"] = "concat",
    user_table: Literal["shared", "per_modality"] = "shared",
    normalize_features: bool = True,
    words: Literal["frozen", "trainable"] = "frozen",
    cached: Collection[str] = (),
    frozen_rows: FrozenRows = "float32",
    augmented: bool = True,
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
        cached: the frozen modalities whose features go through the graph once, in advance (`choose_chain`). With
            another graph than that they are propagated in each step, for which their features are needed.
        frozen_rows: how these are held.
        augmented: keeps the features of those too, which views by augmentations and other graphs need; without, it
            is memory saved.
        definition: computes every propagation by segment sum over the whole graph, for comparison.
    """
    channels = (ID, *spec.modalities)
    owner = {name: ID if user_table == "shared" else name for name in channels}  # of the user table
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

    def frozen(given: Mapping[str, features.Given], name: str) -> DenseFeature:
        return features.frozen(given[name], spec.modalities[name], normalized=normalize_features)

    def prepare(inputs: Inputs) -> Inputs:
        kept, chains = {}, {}
        for name in spec.modalities:  # one after another: what is not kept is gone before the next
            if name in trained:
                continue
            feature = frozen(inputs.features, name)
            if name in cached:
                chains[name] = propagation.frozen_chain(inputs.graph, feature, num_layers, frozen_rows)
            if augmented or name not in cached:
                kept[name] = feature
        # In `cache` the frozen modalities as they enter the projection; their chains belong to the graph.
        return inputs._replace(
            graph=inputs.graph._replace(derived=chains),
            features={name: inputs.features[name] for name in sorted(trained)},
            cache=kept,
        )

    def encode(params: Params, inputs: Inputs) -> Encode:
        graph = inputs.graph
        users0 = {ID: params["user"]} if user_table == "shared" else _split(params["user"], channels)
        layer0 = {name: _layer0(name, params, inputs) for name in channels}
        # The first hop of a view whose input is not augmented is that of all others: each is computed once.
        first_items = {name: _whole(propagation.to_items, graph, rows_of(table)) for name, table in users0.items()}
        first_users = {name: _whole(propagation.to_users, graph, x) for name, x in layer0.items()}

        def chained(name: str) -> Channel:
            if name in graph.derived:
                return _frozen_channel(graph.derived[name], params["projection"][name])
            return read_out(propagation.item_chain(graph, layer0[name](ALL), num_layers, first_users[name](ALL)))

        def read_out(tables: propagation.Layers) -> Channel:
            return Channel(*(sum_of(of_side, 1.0 / (num_layers + 1)) for of_side in tables))

        if not definition:
            from_users = {
                name: read_out(propagation.user_chain(graph, table, num_layers, first_items[name](ALL)))
                for name, table in users0.items()
            }
            from_items = {name: chained(name) for name in channels}

        def by_chains(
            augmentation: Augmentation, scale: ModalityScale, inputs_key: Key[Array, ""], layers_key: Key[Array, ""]
        ) -> dict[str, Channel]:
            rows, items = layer0, from_items
            if augmentation.inputs is not None:
                x = augmentation.inputs(inputs_key, {name: layer0[name](ALL) for name in channels})
                rows = {name: rows_of(x[name]) for name in channels}
                items = {name: read_out(propagation.item_chain(graph, x[name], num_layers)) for name in channels}
            return {
                name: _sum(from_users[owner[name]], items[name], rows[name], name, scale, num_layers)
                for name in channels
            }

        def by_layers(
            augmentation: Augmentation, scale: ModalityScale, inputs_key: Key[Array, ""], layers_key: Key[Array, ""]
        ) -> dict[str, Channel]:
            rows = layer0
            if augmentation.inputs is not None:
                x = augmentation.inputs(inputs_key, {name: layer0[name](ALL) for name in channels})
                rows = {name: rows_of(x[name]) for name in channels}
            hop = propagation.hop_by_definition if definition else propagation.hop
            result = {}
            # All keys in one draw: each is a hundred operations, and long programs take long to compile and to load.
            for name, keys in zip(channels, jax.random.split(layers_key, (len(channels), num_layers, 2)), strict=True):
                factor = scale.propagated.get(name, 1.0)
                if definition or augmentation.inputs is not None:
                    first = hop(graph, Halves(users0[owner[name]], factor * rows[name](ALL)))
                else:
                    first = Halves(factor * first_users[name](ALL), first_items[owner[name]](ALL))
                halves = _augmented_layers(graph, first, name, augmentation.layer, keys, hop)
                kept = factor if scale.layer0 is None else scale.layer0.get(name, 1.0)
                result[name] = Channel(
                    sum_of(
                        [rows_of(x) for x in (users0[owner[name]], *(layer.users for layer in halves))],
                        1.0 / (num_layers + 1),
                    ),
                    _with_layer0(rows[name], kept, [layer.items for layer in halves]),
                )
            return result

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            modality_key, inputs_key, layers_key = jax.random.split(key, 3)
            scale = (
                ModalityScale({}) if augmentation.modality is None else augmentation.modality(modality_key, channels)
            )
            by = by_layers if definition or augmentation.layer is not None else by_chains
            propagated = by(augmentation, scale, inputs_key, layers_key)
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
        taken = {
            name: features.word_means(given[name], params["words"][name]) if name in trained else frozen(given, name)
            for name in spec.modalities
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
        feature = inputs.cache.get(name)
        if feature is None:
            return _not_kept(name)
    return projected(feature.values, feature.present, params["projection"][name])


def _not_kept(name: str) -> Rows:
    def refuse(ids: Ids) -> Array:
        raise UserError(
            f"the features of {name} were not kept, and are needed for views by augmentations and for another graph: "
            f"prepare the inputs with that graph, or make the model with augmented=True"
        )

    return refuse


def _frozen_channel(chain: FrozenChain, projection: layers.Linear) -> Channel:
    users, items = (projected(*half, projection) for half in zip(chain.values, chain.present, strict=True))
    return Channel(users, items)


def _split(wide: Array, names: tuple[str, ...]) -> dict[str, Array]:
    return dict(zip(names, jnp.split(wide, len(names), axis=1), strict=True))


def _whole(hop: Callable[[Graph, Array], Array], graph: Graph, table: Rows) -> Rows:
    """A half product of a whole table, computed when it is first asked for."""
    return memoized(lambda ids: hop(graph, table(ids)))


def _augmented_layers(
    graph: Graph,
    first: Halves,
    name: str,
    augment: LayerStage | None,
    keys: Key[Array, "layers sides"],
    hop: Callable[[Graph, Halves], Halves],
) -> list[Halves]:
    """Layers 1..L of a modality, each augmented before it feeds the next, from what the first hop makes."""
    halves, tables = first, []
    for layer in range(1, keys.shape[0] + 1):
        if layer > 1:
            halves = hop(graph, halves)
        if augment is not None:
            user_key, item_key = keys[layer - 1]
            halves = Halves(
                augment(user_key, Site(layer, name, "users"), halves.users),
                augment(item_key, Site(layer, name, "items"), halves.items),
            )
        tables.append(halves)
    return tables


def _with_layer0(layer0: Rows, factor: Array | float, tables: Sequence[Array]) -> Rows:
    """The mean of layer 0, with its factor, and the other layers."""
    scale = 1.0 / (len(tables) + 1)
    others = sum_of([rows_of(x) for x in tables], scale) if tables else None
    return memoized(lambda ids: scale * factor * layer0(ids) + (0.0 if others is None else others(ids)))


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

    return Channel(memoized(users), memoized(items))


def _fuse(rows: Mapping[str, Rows], fusion: str, params: layers.Linear | None) -> Rows:
    def fused(ids: Ids) -> Array:
        if params is not None:
            return layers.affine(params, concatenated(list(rows.values()))(ids))
        total = jnp.sum(jnp.stack([row(ids) for row in rows.values()]), axis=0)
        return total / len(rows) if fusion == "mean" else total

    return memoized(fused)
