"""MMGCN (Wei et al., ACM MM 2019): one graph convolution per modality, linked by shared identity rows."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Scalar

from slmrec_jax.config import Config, MMGCNConfig
from slmrec_jax.encoding import features, layers, propagation, vectors
from slmrec_jax.encoding.layers import mean
from slmrec_jax.encoding.rows import projected as projected_rows
from slmrec_jax.encoding.rows import rows_for_all, rows_of
from slmrec_jax.errors import UserError, setting
from slmrec_jax.models.recipe import Recipe, check_modalities, single_view
from slmrec_jax.objectives import losses
from slmrec_jax.types import ALL, Context, DenseFeature, Encode, Inputs, Loss, Metrics, Model, Params, Spec, Term, View

NUM_LAYERS = 3
"""The number of layers, each with its own weights. The published code always has three."""

SLOPE = 0.01


def mmgcn(
    spec: Spec,
    *,
    tables: Literal["trained", "frozen"] = "trained",
    projected: Collection[str] = ("visual",),
    latent_dim: int = 256,
    normalize_features: bool = False,
    seed: int = 0,
    definition: bool = False,
) -> Model:
    """Make MMGCN's encoder: the mean over modalities of x_3, the last of three layers.

    For each modality, x_0 = nrm([P; T]), and

        h   = leaky(mean over the neighbours of x_l W_l),
        x̂   = leaky(x_l V_l + c_l) + E,
        x_{l+1} = leaky([h, x̂] G_l + g_l).

    T holds the item features, P the user preferences, and E an identity row per node, shared by all modalities. The
    published code does not register P and E as parameters, so they stay random. The weights W, V and G mix columns, so
    every device of a mesh holds whole tables.

    Args:
        spec: Sizes and modalities, at least one.
        tables: Whether E and every P are trained, or keep their random initial values.
        projected: The modalities with T = F W + b, of `latent_dim` columns. The others have T = F.
        latent_dim: The number of columns of projected modalities.
        normalize_features: Whether to divide feature rows by their L2 norm.
        seed: The seed of frozen tables.
        definition: Whether to aggregate with `hop_by_definition`, for comparison.
    """
    raw_columns = {name: features.width(modality) for name, modality in spec.modalities.items()}
    columns = {name: latent_dim if name in projected else width for name, width in raw_columns.items()}
    hop = propagation.hop_by_definition if definition else propagation.hop
    frozen = partial(features.frozen_features, modalities=spec.modalities, normalized=normalize_features)

    def draw_tables(key: Key[Array, ""]) -> Params:
        identity_key, *keys = jax.random.split(key, 1 + len(columns))
        preference = {
            name: layers.xavier_normal(key, spec.num_users, width)
            for key, (name, width) in zip(keys, columns.items(), strict=True)
        }
        identity = layers.xavier_normal(identity_key, spec.num_users + spec.num_items, spec.dim)
        return {"identity": identity, "preference": preference}

    def init(key: Key[Array, ""]) -> Params:
        tables_key, projection_key, *keys = jax.random.split(key, 2 + len(columns))
        params: dict[str, Params] = {
            "projection": {
                name: layers.linear(jax.random.fold_in(projection_key, place), raw_columns[name], latent_dim)
                for place, name in enumerate(columns)
                if name in projected
            },
            "layers": {
                name: [
                    _layer(jax.random.fold_in(key, layer), width if layer == 0 else spec.dim, spec.dim)
                    for layer in range(NUM_LAYERS)
                ]
                for key, (name, width) in zip(keys, columns.items(), strict=True)
            },
        }
        return params if tables == "frozen" else params | draw_tables(tables_key)

    def prepare(inputs: Inputs) -> Inputs:
        frozen_tables = draw_tables(jax.random.fold_in(jax.random.key(seed), 1)) if tables == "frozen" else {}
        return inputs._replace(features={}, cache=(frozen(inputs.features), frozen_tables))

    def encode(params: Params, inputs: Inputs) -> Encode:
        given, frozen_tables = inputs.cache
        drawn = params if tables == "trained" else frozen_tables
        mean_of_neighbours = partial(propagation.neighbour_mean, inputs.graph, hop=hop)
        nodes = {}
        for name in columns:
            x = jnp.concatenate([drawn["preference"][name], _item_rows(name, given[name], params)])
            nodes[name] = _propagated(params["layers"][name], x, mean_of_neighbours, drawn["identity"])
        joined = jnp.mean(jnp.stack(list(nodes.values())), axis=0)
        num_users = spec.num_users
        view = View(
            rows_of(joined[:num_users]),
            rows_of(joined[num_users:]),
            {name: rows_of(x[:num_users]) for name, x in nodes.items()},
            {name: rows_of(x[num_users:]) for name, x in nodes.items()},
        )
        return single_view(view)

    def cold_items(params: Params, given: Mapping[str, features.DeviceFeature]) -> Float[Array, "items dim"]:
        # The mean over no neighbours is 0, and the identity row of an untrained item is taken as 0.
        rows = [
            _propagated(params["layers"][name], _item_rows(name, feature, params), jnp.zeros_like, jnp.zeros(()))
            for name, feature in frozen(given).items()
        ]
        return jnp.mean(jnp.stack(rows), axis=0)

    return Model(init, encode, prepare, cold_items, by_columns=False)


def table_l2(projected: Collection[str] = ("visual",)) -> Loss:
    """Make MMGCN's regulariser: mean squares of the batch's identity rows and of projected modalities' preferences.

    The first term is the mean of E_u² + E_i² over columns and over the pairs of each user with their positive and with
    their negative. The second is the mean of P² over the whole table.
    """

    def apply(params: Params, context: Context) -> tuple[Scalar, Metrics]:
        batch, num_users = context.batch, context.inputs.graph.num_users
        identity, preference = context.model_params["identity"], context.model_params["preference"]
        nodes = rows_for_all(rows_of(identity))
        users, positives = jnp.square(nodes(batch.users)), jnp.square(nodes(num_users + batch.items))
        drawn = jnp.square(nodes(num_users + batch.negatives.reshape(-1)))
        negatives = jnp.mean(drawn.reshape(*batch.negatives.shape, -1), axis=1)
        of_pairs = mean(jnp.mean(users + (positives + negatives) / 2, axis=1), batch.mask)
        return of_pairs + sum(jnp.mean(jnp.square(preference[name])) for name in preference if name in projected), {}

    return Loss(apply, num_negatives=1)


def mmgcn_recipe(config: Config, spec: Spec) -> Recipe:
    """Make MMGCN: BPR and, if its tables are trained, their mean squares.

    Raises:
        UserError: There are no features, or a modality in `projected` does not exist.
    """
    options = config.mmgcn
    check_modalities(spec, setting("model", "mmgcn"))
    unknown = set(options.projected) - set(spec.modalities) - set(MMGCNConfig().projected)
    if unknown:
        raise UserError(
            f"{setting('mmgcn.projected')}: there is no modality {min(unknown)!r}: give some of "
            f"{', '.join(spec.modalities)}"
        )
    model = mmgcn(
        spec,
        tables=options.tables,
        projected=options.projected,
        latent_dim=options.latent_dim,
        normalize_features=options.normalize_features,
        seed=config.seed,
        definition=config.propagation == "definition",
    )
    terms = {"bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives))}
    if options.tables == "trained":
        terms["l2"] = Term(options.l2, table_l2(options.projected))
    return Recipe(model, terms)


def _layer(key: Key[Array, ""], inputs: int, dim: int) -> Params:
    aggregate_key, own_key, combine_key = jax.random.split(key, 3)
    return {
        "aggregate": layers.xavier_normal(aggregate_key, inputs, inputs),
        "own": layers.linear(own_key, inputs, dim),
        "combine": layers.linear(combine_key, inputs + dim, dim),
    }


def _item_rows(name: str, feature: DenseFeature, params: Params) -> Float[Array, "items columns"]:
    """Compute T, the item rows before propagation."""
    if name not in params["projection"]:
        return vectors.rows(feature, ALL)
    return projected_rows(feature, params["projection"][name])(ALL)


def _propagated(
    weights: Params,
    x: Float[Array, "nodes columns"],
    mean_of_neighbours: Callable[[Array], Array],
    identity: Float[Array, "..."],
) -> Float[Array, "nodes dim"]:
    """Compute x_3 of a modality from its preferences and features."""
    x = layers.normalize(x)
    for layer in weights:
        neighbours = _leaky(mean_of_neighbours(x @ layer["aggregate"]))
        own = _leaky(layers.affine(layer["own"], x)) + identity
        x = _leaky(layers.affine(layer["combine"], jnp.concatenate([neighbours, own], axis=1)))
    return x


def _leaky(x: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
    return jax.nn.leaky_relu(x, SLOPE)
