"""Any encoder with a frozen graph between items beside it: Σ_m w_m A_m E is added to the item rows (FREEDOM)."""

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
    """Return the encoder with h = (Σ_m w_m A_m)^l E added to its item rows, where E is its parameter `item`.

    A_m joins each item with its k nearest by the features of modality m, as they are given, each with value 1 / k
    (FREEDOM, Zhou and Shen, MM 2023). It does not change in training, is made in `prepare`, and needs the features only
    there. Users and the rows of single modalities have no h, nor have the rows of `cold_items`: the graph joins the
    items of the training data alone. Augmentations do not change h.

    Args:
        model: The encoder. Its parameter `item` has a row for each item, as wide as its item rows.
        spec: Sizes and modalities, at least one.
        weights: w_m, by modality.
        neighbours: k, the item itself among them.
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
    """Return Σ_m w_m A_m, where A_m = D^-1/2 A D^-1/2 has k ones in each row, so that all of its entries are 1 / k."""
    ids, values = [], []
    for name, modality in spec.modalities.items():
        feature = features.frozen(given[name], modality, normalized=False)
        found = nearest_items(feature, neighbours)
        ids.append(found.ids)
        values.append(weights[name] * symmetric(found.ids, found.counts))
    return item_graph(ids, values)
