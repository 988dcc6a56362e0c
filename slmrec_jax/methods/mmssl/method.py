"""MMSSL's step: a discriminator and a recommender as generator, each with its own optimizer (Wei et al., WWW 2023)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array, Bool, Float, Key, Scalar

from slmrec_jax.config import Config, MMSSLConfig, filled_in
from slmrec_jax.encoding import layers
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.rows import distinct_ids
from slmrec_jax.errors import UserError, setting
from slmrec_jax.methods.micro_batches import mean_in_turn
from slmrec_jax.methods.mmssl.game import adversarial_game
from slmrec_jax.methods.mmssl.graph_updates import GraphUpdates, all_users, last_batches
from slmrec_jax.methods.mmssl.graphs import ModalityGraphs, empty_graph, pad_graph
from slmrec_jax.methods.mmssl.recommender import Encoded, mmssl, no_dropout, training_graph
from slmrec_jax.methods.optimizers import make_optimizer
from slmrec_jax.models.recipe import check_modalities
from slmrec_jax.objectives.augmentations import dropout
from slmrec_jax.objectives.sampling import SAMPLINGS, Sizes
from slmrec_jax.objectives.softmax import two_view_cross_entropy
from slmrec_jax.types import Batch, Distinct, Embeddings, Inputs, Method, Metrics, Params, Spec, Work


@no_type_check  # JAX also fills the fields with shapes and flags
class AdversarialState(TrainState):  # type: ignore[no-untyped-call]
    """The state of the recommender and of the discriminator, and the modality graphs."""

    discriminator: Params
    discriminator_opt_state: optax.OptState
    graphs: ModalityGraphs
    """The graphs after the last step that was not skipped."""
    has_graphs: Bool[Array, ""]
    """False before the first such step, when `graphs` are empty."""
    collected: Any
    """The data that `GraphUpdates` keeps between steps."""


def mmssl_method(config: Config, spec: Spec) -> Method:
    """Make MMSSL's method: each step updates the discriminator on its loss, then the recommender on its own loss.

    The discriminator D learns to distinguish real rows (`real_rows`) from the rows q^m that each modality suggests for
    the same users, with a gradient penalty (WGAN-GP) at random points between them:

        L_D = mean D(q) - mean D(real) + weight · penalty.

    The recommender minimises BPR + L2 of the batch's rows + L2 of the modality rows + contrast - weight · mean D(q). D
    always uses the statistics of its batch. Its input has users × modalities rows, each over all items, in several
    copies, so `choose_seats` limits how many users of a batch take part; the method's notes state the number.

    The preset `published` uses the same step with different parts. Departure from the published code: the discriminator
    and the recommender share one pass; the published code makes a separate pass for each, with different dropout.

    Raises:
        UserError: There are no features, or the number of heads does not divide `dim`.
    """
    check_modalities(spec, setting("model", "mmssl"))
    options = config.mmssl
    if options.attention != "collapsed" and config.dim % options.heads:
        raise UserError(
            f"{setting('mmssl.heads', options.heads)} does not divide {setting('dim', config.dim)}: give one that does"
        )
    model = mmssl(spec, options)
    temperature = options.contrast_temperature if options.contrast_weight else None
    rows = min(config.batch_size, spec.num_users if options.sampling == "users" else spec.num_interactions)
    updates = _choose_updates(config, spec, rows)
    game, note = adversarial_game(config, spec, rows)
    chosen = config.optimizer
    optimizer = (
        make_optimizer(chosen)
        if chosen.chain
        else optax.adamw(filled_in(chosen.learning_rate), weight_decay=filled_in(chosen.weight_decay))
    )

    def init(key: Key[Array, ""]) -> AdversarialState:
        model_key, game_key = jax.random.split(key)
        against, opt_state = game.init(game_key)
        params = model.init(model_key)
        return AdversarialState(
            step=jnp.zeros((), jnp.int32),  # `TrainState.create` uses a Python int: a second trace
            apply_fn=model.encode,
            params=params,
            tx=optimizer,
            opt_state=optimizer.init(params),
            discriminator=against,
            discriminator_opt_state=opt_state,
            graphs={name: empty_graph(spec.num_users, spec.num_items, updates.capacity) for name in spec.modalities},
            has_graphs=jnp.zeros((), jnp.bool_),
            collected=updates.init(),
        )

    def current_graphs(state: AdversarialState, inputs: Inputs) -> ModalityGraphs:
        """Return the graphs of the state; before its first, the training graph for each modality."""
        training = training_graph(inputs.graph)
        return jax.lax.cond(  # type: ignore[no-any-return]
            state.has_graphs,
            lambda: state.graphs,
            lambda: {name: pad_graph(training, updates.capacity) for name in spec.modalities},
        )

    def step(state: AdversarialState, inputs: Inputs, batch: Batch) -> tuple[AdversarialState, Metrics]:
        graphs = current_graphs(state, inputs)
        drop_key, against_key, game_key = (jax.random.fold_in(batch.key, place) for place in range(3))

        def encode(params: Params) -> Encoded:
            drop = partial(dropout, drop_key, rate=options.feature_dropout)
            return model.encode(params, inputs, graphs, drop)

        def loss(encoded: Encoded, against: Params, batch: Batch) -> tuple[Scalar, Metrics]:
            terms = recommendation_terms(encoded, batch, temperature)
            terms |= game.terms(against, encoded, inputs, batch, game_key)
            return weighted(terms, options), terms

        encoded, pull_back = jax.vjp(encode, state.params)
        against, opt_state, of_game = game.step(
            state.discriminator, state.discriminator_opt_state, encoded, inputs, batch, against_key
        )
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, terms), of_encoded = mean_in_turn(lambda batch: gradient(encoded, against, batch), batch)
        (gradients,) = pull_back(of_encoded)
        after: AdversarialState = state.apply_gradients(  # type: ignore[no-untyped-call]
            grads=gradients, discriminator=against, discriminator_opt_state=opt_state
        )
        graphs, collected = jax.lax.cond(
            updates.due(jnp.asarray(state.step)),
            lambda: updates.rebuild(
                state.collected, inputs.graph, lambda: model.encode(after.params, inputs, graphs, no_dropout)
            ),
            lambda: (graphs, updates.collect(state.collected, inputs.graph, batch, encoded)),
        )
        after = after.replace(graphs=graphs, has_graphs=jnp.ones((), jnp.bool_), collected=collected)
        return after, {"loss": value, **terms, **of_game}

    def embed(state: AdversarialState, inputs: Inputs) -> Embeddings:
        encoded = model.encode(state.params, inputs, current_graphs(state, inputs), no_dropout)
        return Embeddings(encoded.users, encoded.items)

    # A method only receives states that its own `init` made.
    return Method(
        init,
        step,  # type: ignore[arg-type]
        embed,  # type: ignore[arg-type]
        model.prepare,
        num_negatives=config.bpr_negatives,
        in_batch=() if temperature is None else ("contrast",),
        sampling=options.sampling,
        notes=(updates.note, note),
        by_columns=False,  # attention and the discriminator mix columns
        micro_batches=True,
        # Milliseconds on TikTok's copy (9,308 users, 6,710 items, batches of 2048) on two CPU cores. The ratio
        # depends on the data; `auto` needs only its order of magnitude.
        work=Work(140.0, 135.0) if options.adversarial_weight else Work(125.0, 34.0),
    )


def recommendation_terms(encoded: Encoded, batch: Batch, temperature: float | None) -> dict[str, Scalar]:
    """Compute the unweighted terms of the recommender's loss that need no discriminator.

    `bpr`: mean softplus(y_uj - y_ui). `l2`: mean ½ (|h_u|² + |h_i|² + |h_j|²) of the final rows. `feature_l2`: ½ Σ_m
    (|F_u^m|² + |F_i^m|²) / items, over all nodes. `contrast`: Σ_m `cross_view(V_u^m, h_u)` at `temperature`; omitted if
    that is `None`.
    """
    users, positives = take(encoded.users, batch.users), take(encoded.items, batch.items)
    negatives = take(encoded.items, batch.negatives)
    margins = jnp.einsum("bd,bkd->bk", users, positives[:, None] - negatives)
    of_users, of_items, of_negatives = (jnp.sum(jnp.square(x), axis=-1) for x in (users, positives, negatives))
    features = [*encoded.user_features.values(), *encoded.item_features.values()]
    feature_squares = jnp.stack([jnp.sum(jnp.square(x)) for x in features])
    terms = {
        "bpr": layers.mean(jnp.mean(jax.nn.softplus(-margins), axis=1), batch.mask),
        "l2": layers.mean(0.5 * (of_users + of_items + jnp.mean(of_negatives, axis=1)), batch.mask),
        "feature_l2": 0.5 * jnp.sum(feature_squares) / encoded.items.shape[0],
    }
    if temperature is None:
        return terms
    distinct = distinct_ids(batch.users, batch.mask, encoded.users.shape[0])
    contrasts = [cross_view(view, encoded.users, distinct, temperature) for view in encoded.user_views.values()]
    return terms | {"contrast": jnp.sum(jnp.stack(contrasts))}


def cross_view(
    views: Float[Array, "users dim"], final: Float[Array, "users dim"], users: Distinct, temperature: float
) -> Scalar:
    """Compute the mean over b of -log(e^{s(z_b, h_b) / τ} / (Σ_{c≠b} e^{s(z_b, z_c) / τ} + Σ_c e^{s(z_b, h_c) / τ})).

    s is the cosine, z are the users' rows of one modality's view, and h their final rows. In a graph without edges, the
    rows z are 0; the value is then the mean of log(2 (batch - n_b) + 1), where n_b is the number of rows of user b, and
    nothing is learnt. The published code draws distinct users; here, a repeated user is not a negative of themselves.
    The smallest possible term is representable in float32 if the
    temperature τ is at least 0.025.
    """
    z, h = (layers.normalize(take(rows, users.ids)) for rows in (views, final))
    return two_view_cross_entropy(z, h, users.counts, temperature)


def weighted(terms: Mapping[str, Scalar], options: MMSSLConfig) -> Scalar:
    """Compute the recommender's loss: the weighted sum of its terms."""
    weights = {
        "bpr": 1.0,
        "l2": options.l2,
        "feature_l2": options.feature_l2,
        "contrast": options.contrast_weight,
        "generator": options.adversarial_weight,
    }
    return jnp.sum(jnp.stack([weights[name] * value for name, value in terms.items()]))


def _choose_updates(config: Config, spec: Spec, rows: int) -> GraphUpdates:
    """Make the graph updates of a config whose batches have `rows` rows."""
    options = config.mmssl
    every, k = options.refresh_every, int(spec.num_items * options.topk_rate)
    sizes = Sizes(config.batch_size, config.num_micro_batches)
    steps = SAMPLINGS[options.sampling].num_steps(spec.num_interactions, sizes)
    rule: dict[str, Any] = {"similarity": options.similarity, "mask_training": options.mask_training}
    if options.graphs == "all_users":
        return all_users(spec, min(max(k, 1), spec.num_items), every or steps, **rule)
    if every == 0 or every >= steps > 1:
        most = f" and at most {steps - 1}" if steps > 1 else ""
        fewer = f"; fewer {setting('micro_batches')} make more steps" if sizes.micro_batches > 1 else ""
        raise UserError(
            f"{setting('mmssl.refresh_every')} is {every}, but a pass has {steps} step{'s' if steps > 1 else ''}: "
            f"graphs of the last batches need at least 1{most}{fewer}"
        )
    return last_batches(spec, min(k, spec.num_items), every, steps, rows * sizes.micro_batches, **rule)
