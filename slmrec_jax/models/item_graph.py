"""A wrapper that adds a frozen item-item graph to any encoder: its item rows gain (Σ_m w_m A_m)^l E (FREEDOM)."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Array, Key, PyTree

from slmrec_jax.encoding import features
from slmrec_jax.encoding.item_graphs import item_graph, nearest_items, symmetric
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.rows import product_rows, sum_of
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.meshes import held_whole
from slmrec_jax.types import Augmentation, Encode, Inputs, Model, Params, Spec, View, Whole


class _Cache(NamedTuple):
    of_encoder: PyTree
    graph: Whole
    """The operator Σ_m w_m A_m."""


def with_item_graph(
    model: Model, spec: Spec, *, weights: Mapping[str, float], neighbours: int = 10, num_layers: int = 1
) -> Model:
    """Add h = (Σ_m w_m A_m)^l E to the item rows of an encoder, where E is its parameter `item`.

    A_m connects each item to its k nearest items by the given features of modality m, with value 1 / k each (FREEDOM,
    Zhou and Shen, MM 2023). It is made in `prepare`, which is the only place that needs the features, and stays
    constant in training. h is not added to users, to the rows of single modalities, or to the rows of `cold_items`,
    since the graph contains only the items of the training data. Augmentations do not change h.

    Args:
        model: The encoder. Its parameter `item` has one row per item, with as many columns as its item rows.
        spec: Sizes and modalities, at least one.
        weights: w_m, by modality.
        neighbours: k, including the item itself.
        num_layers: l, at least 1.
    """

    def prepare(inputs: Inputs) -> Inputs:
        graph = frozen_item_graph(inputs.features, spec, weights, neighbours)
        prepared = model.prepare(inputs)
        return prepared._replace(cache=_Cache(prepared.cache, Whole(graph)))

    def encode(params: Params, inputs: Inputs) -> Encode:
        cache: _Cache = inputs.cache
        graph: Operator = held_whole(cache.graph)
        before, rows = params["item"], params["item"]
        for _ in range(num_layers):
            before, rows = rows, matmul(graph, rows)
        added = product_rows(graph, before, rows)
        encode_alone = model.encode(params, inputs._replace(cache=cache.of_encoder))

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            alone = encode_alone(augmentation, key)
            return alone._replace(items=sum_of([alone.items, added], 1.0))

        return view

    return model._replace(encode=encode, prepare=prepare)


def frozen_item_graph(
    given: Mapping[str, features.DeviceFeature], spec: Spec, weights: Mapping[str, float], neighbours: int
) -> Operator:
    """Build Σ_m w_m A_m, where A_m = D^-1/2 A D^-1/2 and A has k ones per row, so that all entries of A_m are 1 / k."""
    ids, values = [], []
    for name, modality in spec.modalities.items():
        feature = features.frozen(given[name], modality, normalized=False)
        found = nearest_items(feature, neighbours)
        ids.append(found.ids)
        values.append(weights[name] * symmetric(found.ids, found.counts))
    return item_graph(ids, values)
