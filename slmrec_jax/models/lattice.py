"""LATTICE (Zhang et al., MM 2021): graph propagation of ids, with a learned item-item graph."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from slmrec_jax.config import Config
from slmrec_jax.encoding import features, layers, propagation
from slmrec_jax.encoding.graph import Graph
from slmrec_jax.encoding.item_graphs import Neighbours, item_graph, nearest_items, similarities, symmetric
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.propagation import Halves
from slmrec_jax.encoding.rows import memoized, rows_of, sum_of
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.errors import setting
from slmrec_jax.models.recipe import Recipe, check_modalities, single_view
from slmrec_jax.objectives import losses
from slmrec_jax.types import (
    ALL,
    ID,
    DenseFeature,
    Encode,
    Inputs,
    Model,
    Params,
    Spec,
    Term,
    View,
)


class HeldGraph(NamedTuple):
    """The item graph that a pass's first step built."""

    graph: Operator
    fresh: Bool[Array, ""]
    """Whether this step builds the graph again, with a gradient, instead of reading it."""


class LatticeInputs(NamedTuple):
    """The content of `Inputs.cache`."""

    features: dict[str, DenseFeature]
    ids: Int[Array, "modalities items k"]
    """The nearest items by the given features."""
    values: Float[Array, "modalities items k"]
    """The normalised values of the graphs of nearest items."""
    held: HeldGraph | None = None
    """The held graph; if it is `None`, every pass builds the graph from the parameters."""


def lattice(
    spec: Spec, *, num_layers: int = 2, item_layers: int = 1, neighbours: int = 10, original_share: float = 0.9
) -> Model:
    """Make LATTICE's encoder: rows z_u and z_i + nrm(h_i), where h = S^l E_i.

    z is the mean of layers 0..L of (D + I)^-1 (A + I) on [E_u; E_i]: ids propagate with self-loops and plain means, not
    with LightGCN's R̂. The item graph is S = (1 - λ) sym(Σ_m w_m S_m(F_m W_m + b_m)) + λ Σ_m w_m sym(S_m(F_m)), where
    S_m(X) holds the cosines of each item's row of X with its k nearest, sym(S) = D^-1/2 S D^-1/2 with the row sums D on
    both sides, and w = softmax(`weights`).

    In steps that build the learned part, its values have a gradient (`LatticeInputs.held`), which also trains F_m
    (`features.trained`). Items without a modality have no entries in its graphs. The published code stores S as a dense
    matrix; here each row has at most 2 k entries per modality.

    Args:
        spec: Sizes and modalities, at least one.
        num_layers: L.
        item_layers: l, at least 1.
        neighbours: k, including the item itself.
        original_share: λ.
    """
    names = tuple(spec.modalities)
    build = learned_graph(spec, neighbours=neighbours, original_share=original_share)

    def init(key: Key[Array, ""]) -> Params:
        user_key, item_key, *keys = jax.random.split(key, 2 + len(names))
        return {
            "user": layers.xavier_uniform(user_key, spec.num_users, spec.dim),
            "item": layers.xavier_uniform(item_key, spec.num_items, spec.dim),
            "weights": jnp.full(len(names), 1.0 / len(names), jnp.float32),
            "modalities": features.init_trained(keys, spec),
        }

    def prepare(inputs: Inputs) -> Inputs:
        taken = features.frozen_features(inputs.features, spec.modalities, normalized=False)
        found = [nearest_items(taken[name], neighbours) for name in names]
        values = [symmetric(each.ids, each.similarities) for each in found]
        cache = LatticeInputs(taken, jnp.stack([each.ids for each in found]), jnp.stack(values))
        return inputs._replace(features={}, cache=cache)

    def encode(params: Params, inputs: Inputs) -> Encode:
        cache: LatticeInputs = inputs.cache

        def propagate(graph: Operator, rows: Array) -> Array:
            for _ in range(item_layers):
                rows = matmul(graph, rows)
            return rows

        def build_and_propagate(params: Params) -> Array:
            return propagate(build(params, cache), params["item"])

        if cache.held is None:
            near = build_and_propagate(params)
        else:
            held, fresh = cache.held
            # Only the first branch differentiates with respect to the graph's values, which costs as much as several
            # products.
            near = jax.lax.cond(fresh, build_and_propagate, lambda params: propagate(held, params["item"]), params)
        ids = mean_with_loops(inputs.graph, Halves(params["user"], params["item"]), num_layers)
        users, near_rows = rows_of(ids.users), rows_of(near)
        items = sum_of([rows_of(ids.items), memoized(lambda ids: layers.normalize(near_rows(ids)))], 1.0)

        return single_view(View(users, items, {ID: users}, {ID: items}))

    return Model(init, encode, prepare, by_columns=False)


def learned_graph(
    spec: Spec, *, neighbours: int = 10, original_share: float = 0.9
) -> Callable[[Params, LatticeInputs], Operator]:
    """Return a function that builds S (see `lattice`) from the model's parameters and its prepared inputs.

    It is differentiable with respect to the parameters; the choice of nearest items is treated as constant.
    """

    def build(params: Params, cache: LatticeInputs) -> Operator:
        weights = jax.nn.softmax(params["weights"])
        projected = [rows(ALL) for rows in features.trained(cache.features, params["modalities"], spec).values()]
        present = [cache.features[name].present for name in spec.modalities]
        # A loop, since a program with a separate search per modality takes long to compile.
        found = jax.lax.map(
            lambda each: nearest_items(DenseFeature(*each), neighbours),
            (jax.lax.stop_gradient(jnp.stack(projected)), jnp.stack(present)),
        )
        cosines = [similarities(x, Neighbours(*of)) for x, of in zip(projected, zip(*found, strict=True), strict=True)]
        # The row sums are those of the mixture.
        columns = jnp.concatenate(list(found.ids), axis=1)
        values = jnp.concatenate([weight * of for weight, of in zip(weights, cosines, strict=True)], axis=1)
        learned = (1.0 - original_share) * symmetric(columns, values)
        original = original_share * weights[:, None, None] * cache.values
        return item_graph([columns, *cache.ids], [learned, *original])

    return build


def mean_with_loops(graph: Graph, x: Halves, num_layers: int) -> Halves:
    """Compute the mean of layers 0..L of (D + I)^-1 (A + I) applied to x.

    A has a 1 for each interaction, and D holds the degrees. A = D^1/2 P D^1/2, where P is the normalised adjacency
    matrix of `propagation`.
    """
    degrees = (jnp.diff(side.offsets).astype(jnp.float32)[:, None] for side in graph.adjacency)
    roots = Halves(*(jnp.sqrt(of) for of in degrees))
    total = x
    for _ in range(num_layers):
        summed = propagation.hop(graph, Halves(*(root * rows for root, rows in zip(roots, x, strict=True))))
        x = Halves(
            *((root * near + rows) / (root * root + 1.0) for root, near, rows in zip(roots, summed, x, strict=True))
        )
        total = Halves(*(a + b for a, b in zip(total, x, strict=True)))
    return Halves(*(rows / (num_layers + 1) for rows in total))


def lattice_recipe(config: Config, spec: Spec) -> Recipe:
    """Make LATTICE's encoder with BPR and the L2 of the batch's final rows, for `methods.lattice`.

    Raises:
        UserError: There are no features.
    """
    options = config.lattice
    check_modalities(spec, setting("model", "lattice"))
    model = lattice(
        spec,
        num_layers=config.num_layers,
        item_layers=options.item_layers,
        neighbours=options.neighbours,
        original_share=options.original_share,
    )
    terms = {
        "bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)),
        "l2": Term(options.l2, losses.embedding_l2("fused", "squared")),
    }
    return Recipe(model, terms)
