"""SLMRec's encoder (Tao et al., IEEE TMM 2022): one LightGCN per modality with a shared user table, then fusion."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from slmrec_jax.encoding import features, layers, propagation
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.propagation import Channel, FrozenChain, Halves
from slmrec_jax.encoding.rows import concatenated, memoized, projected, rows_of, sum_of, whole_for_many
from slmrec_jax.errors import UserError
from slmrec_jax.meshes import held_whole
from slmrec_jax.types import (
    ALL,
    ID,
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
    Whole,
)


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
    """Make SLMRec's encoder: Z_m = M_L [E_u; F_m W_m + b_m] per modality m, Z_id = M_L [E_u; E_i], and their fusion.

    It follows SLMRec, Eq. 2-7, as in the published code. An item without a modality has a zero row, without bias, in
    layer 0 of that modality.

    Args:
        spec: Sizes and modalities.
        num_layers: L.
        fusion: `"concat"`: an affine map of the concatenation, one for users and one for items (published code).
            `"mean"` or `"sum"`: the mean or sum over the modalities.
        user_table: One E_u shared by all modalities (paper and published code), or one per modality.
        normalize_features: Whether to divide feature rows by their L2 norm. Word means are never normalised.
        words: A modality of word ids is the mean of its word vectors. These are `"frozen"` random vectors (published
            code), or `"trainable"`, which that code seems to have intended.
        cached: The frozen modalities whose features are propagated only once, in `prepare` (`choose_chain`). On other
            graphs they are propagated in each step, which needs their features.
        frozen_rows: The dtype of the propagated features.
        augmented: Whether to keep the features of cached modalities. Augmented views and other graphs need them.
        definition: Whether to propagate layer by layer over the whole graph, for comparison (`hop_by_definition`).
    """
    channels = (ID, *spec.modalities)
    owner = {name: ID if user_table == "shared" else name for name in channels}  # of each channel's user table
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

    def frozen(given: Mapping[str, features.DeviceFeature], name: str) -> DenseFeature:
        return features.frozen(given[name], spec.modalities[name], normalized=normalize_features)

    def prepare(inputs: Inputs) -> Inputs:
        kept, chains = {}, {}
        for name in spec.modalities:  # one at a time, so that a feature that is not kept is freed before the next
            if name in trained:
                continue
            feature = frozen(inputs.features, name)
            if name in cached:
                chains[name] = propagation.frozen_chain(inputs.graph, feature, num_layers, frozen_rows)
            if augmented or name not in cached:
                kept[name] = Whole(feature)
        # `cache` holds the frozen modalities before projection. Their chains belong to the graph.
        return inputs._replace(
            graph=inputs.graph._replace(derived=chains),
            features={name: inputs.features[name] for name in sorted(trained)},
            cache=kept,
        )

    def encode(params: Params, inputs: Inputs) -> Encode:
        graph = inputs.graph
        users0 = {ID: params["user"]}
        if user_table == "per_modality":
            users0 = dict(zip(channels, jnp.split(params["user"], len(channels), axis=1), strict=True))
        layer0 = {name: _item_layer0(name, params, inputs) for name in channels}
        # All views with unaugmented inputs share the first hop.
        first_items = {name: _product(propagation.to_items, graph, rows_of(table)) for name, table in users0.items()}
        first_users = {name: _product(propagation.to_users, graph, x) for name, x in layer0.items()}

        def chained(name: str) -> Channel:
            if name in graph.derived:
                chain: FrozenChain = graph.derived[name]
                halves = zip(chain.values, chain.present, strict=True)
                return Channel(*(projected(DenseFeature(*half), params["projection"][name]) for half in halves))
            return propagation.item_chain([graph], layer0[name](ALL), num_layers, first_users[name](ALL))

        if not definition:
            from_users = {
                name: propagation.user_chain([graph], table, num_layers, first_items[name](ALL))
                for name, table in users0.items()
            }
            from_items = {name: chained(name) for name in channels}

        def by_chains(name: str, rows: Rows, scale: ModalityScale, user: Channel, graphs: Sequence[Graph]) -> Channel:
            """Add the user chain and the item chain, which has separate factors for propagated rows and layer 0."""
            item = from_items[name]
            if rows is not layer0[name] or graphs:
                item = propagation.item_chain(graphs or [graph], rows(ALL), num_layers)
            factor = scale.propagated.get(name, 1.0)

            def items(ids: Ids) -> Array:
                total = user.items(ids) + factor * item.items(ids)
                if scale.layer0 is None:
                    return total
                return total + (scale.layer0.get(name, 1.0) - factor) / (num_layers + 1) * rows(ids)

            return Channel(memoized(lambda ids: user.users(ids) + factor * item.users(ids)), memoized(items))

        def by_layers(
            name: str,
            rows: Rows,
            scale: ModalityScale,
            graphs: Sequence[Graph],
            augment: LayerStage | None,
            keys: Key[Array, "layers sides"],
        ) -> Channel:
            """Return the mean of layers computed one by one, each augmented before it feeds the next."""
            hop = propagation.hop_by_definition if definition else propagation.hop
            users = users0[owner[name]]
            factor = scale.propagated.get(name, 1.0)
            layer0_factor = factor if scale.layer0 is None else scale.layer0.get(name, 1.0)
            if definition or rows is not layer0[name] or graphs:
                halves = hop(graphs[0] if graphs else graph, Halves(users, factor * rows(ALL)))
            else:
                halves = Halves(factor * first_users[name](ALL), first_items[owner[name]](ALL))
            user_tables, item_tables = [rows_of(users)], []
            for layer in range(1, num_layers + 1):
                if layer > 1:
                    halves = hop(graphs[layer - 1] if graphs else graph, halves)
                if augment is not None:
                    user_key, item_key = keys[layer - 1]
                    halves = Halves(
                        augment(user_key, Site(layer, name, "users"), halves.users),
                        augment(item_key, Site(layer, name, "items"), halves.items),
                    )
                user_tables.append(rows_of(halves.users))
                item_tables.append(rows_of(halves.items))
            share = 1.0 / (num_layers + 1)
            others = sum_of(item_tables, share)

            def items(ids: Ids) -> Array:
                own = share * layer0_factor * rows(ids)
                return own + others(ids) if num_layers else own

            return Channel(sum_of(user_tables, share), memoized(items))

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            modality_key, inputs_key, layers_key = jax.random.split(key, 3)
            graphs: Sequence[Graph] = ()  # one graph per layer, if edges are augmented
            if augmentation.edges is not None:
                graphs = augmentation.edges(jax.random.fold_in(key, 3), graph, num_layers)
            scale = augmentation.modality(modality_key, channels) if augmentation.modality else ModalityScale({})
            rows: Mapping[str, Rows] = layer0
            if augmentation.inputs is not None:
                x = augmentation.inputs(inputs_key, {name: layer0[name](ALL) for name in channels})
                rows = {name: rows_of(x[name]) for name in channels}
            if definition or augmentation.layer is not None:
                # Split all keys at once: each split is a hundred operations, and long programs are slow to compile.
                keys = jax.random.split(layers_key, (len(channels), num_layers, 2))
                propagated = {
                    name: by_layers(name, rows[name], scale, graphs, augmentation.layer, of_channel)
                    for name, of_channel in zip(channels, keys, strict=True)
                }
            else:
                of_users = from_users
                if graphs:
                    of_users = {
                        name: propagation.user_chain(graphs, table, num_layers) for name, table in users0.items()
                    }
                propagated = {
                    name: by_chains(name, rows[name], scale, of_users[owner[name]], graphs) for name in channels
                }
            users = {name: propagated[name].users for name in channels}
            items = {name: propagated[name].items for name in channels}
            fused_items = _fuse(items, fusion, params.get("fusion_item"))
            return View(
                _fuse(users, fusion, params.get("fusion_user")),
                whole_for_many(fused_items, graph.num_items),
                users,
                items,
            )

        return view

    def cold_items(params: Params, given: Mapping[str, PyTree]) -> Float[Array, "items dim"]:
        # Without neighbours, the read-out is layer 0 divided by L + 1. Without an id, the row of channel `id` is 0.
        taken = {name: Whole(frozen(given, name)) for name in spec.modalities if name not in trained}
        inputs = Inputs(None, given, taken)
        content = {name: _item_layer0(name, params, inputs)(ALL) / (num_layers + 1) for name in spec.modalities}
        rows = {ID: jnp.zeros_like(next(iter(content.values())))} | content
        return _fuse({name: rows_of(x) for name, x in rows.items()}, fusion, params.get("fusion_item"))(ALL)

    return Model(init, encode, prepare, cold_items if spec.modalities else None)


def _item_layer0(name: str, params: Params, inputs: Inputs) -> Rows:
    """Return X_m, the item rows before propagation."""
    if name == ID:
        return rows_of(params["item"])
    if name in params["words"]:
        feature = features.word_means(inputs.features[name], params["words"][name])
    elif name in inputs.cache:
        feature = held_whole(inputs.cache[name])
    else:

        def refuse(ids: Ids) -> Array:
            raise UserError(
                f"the features of {name} were not kept, but augmented views and other graphs need them: prepare the "
                f"inputs with that graph, or make the model with slm.slmrec_recipe(config, spec), which keeps them"
            )

        return refuse
    return projected(feature, params["projection"][name])


def _product(product: Callable[[Graph, Array], Array], graph: Graph, table: Rows) -> Rows:
    """Return the propagation of a table to the other side, computed when first needed."""
    return memoized(lambda ids: product(graph, table(ids)))


def _fuse(rows: Mapping[str, Rows], fusion: str, params: layers.Linear | None) -> Rows:
    def fused(ids: Ids) -> Array:
        if params is not None:
            return layers.affine(params, concatenated(list(rows.values()))(ids))
        total = jnp.sum(jnp.stack([row(ids) for row in rows.values()]), axis=0)
        return total / len(rows) if fusion == "mean" else total

    return memoized(fused)
