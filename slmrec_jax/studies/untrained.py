"""Rankings without training: baselines that every trained system should beat."""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.encoding import features, layers, vectors
from slmrec_jax.encoding.graph import Graph, build_graph
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.protocol import evaluate, final_plan
from slmrec_jax.studies.measurements import main_metric
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.types import ALL, Embeddings

STEPS = (3, 5, 7, 9)
"""The lengths of random walks that validation chooses from."""

MOST_NUMBERS = 2**30
"""The most numbers that the rows of random walks may have, 4 GiB. Choosing the number of steps takes three times as
much memory."""


def popularity(config: Config, dataset: Dataset) -> Embeddings:
    """Rank items by their number of training interactions, in the same order for every user."""
    counts = np.bincount(dataset.train.items, minlength=dataset.num_items)
    # Shares are at most 1, whereas sigmoids of large counts would tie under a protocol that ranks by sigmoids.
    shares = jnp.asarray(counts / counts.max(), jnp.float32)
    return Embeddings(jnp.ones((dataset.num_users, 1)), shares[:, None])


def item_knn(config: Config, dataset: Dataset) -> Embeddings:
    """Rank items by the weighted sum of their cosines with the user's items, over all modalities and neighbours.

    The weights are LightGCN's, 1 / sqrt(user degree · item degree), so that popular items count less.

    Raises:
        UserError: The data set has no features.
    """
    if not dataset.features:
        raise UserError(f"itemknn ranks by content, but {dataset.name} has no features: leave it out")
    spec, inputs = make_spec(config, dataset), make_inputs(dataset, config.missing)
    tables = [
        # `frozen` does not normalise means of word vectors.
        layers.normalize(vectors.rows(features.frozen(inputs.features[name], modality, normalized=True), ALL))
        for name, modality in spec.modalities.items()
    ]
    items = jnp.concatenate(tables, axis=1)
    return Embeddings(matmul(inputs.graph.adjacency, items), items)


def random_walk(config: Config, dataset: Dataset) -> Embeddings:
    """Rank items by the probability that a random walk over training interactions leads from the user to the item.

    Each step goes to any neighbour with the same probability (Cooper et al., "Random Walks in Recommender Systems:
    Exact Computation and Simulations", WWW 2014 Companion). The number of steps is the one in `STEPS` that is best on
    validation by the metric that selects epochs, or by recall at the largest cut-off if no metric does; without
    validation it is the first.

    The probabilities are exact, so rows have as many columns as there are users or items, whichever are fewer.

    Raises:
        UserError: The rows would have more than `MOST_NUMBERS` numbers.
    """
    numbers = (dataset.num_users + dataset.num_items) * min(dataset.num_users, dataset.num_items)
    if numbers > MOST_NUMBERS:
        raise UserError(
            f"randomwalk would need {math.ceil(numbers * 40 / 2**30) / 10} GiB for {dataset.name}, but "
            f"{MOST_NUMBERS * 4 / 2**30:.1f} GiB is the most: leave it out"
        )
    graph = build_graph(dataset.train, dataset.num_users, dataset.num_items)
    if len(dataset.valid.users) == 0:
        return walks(graph, STEPS[0])
    # A ranking without training has no seed, so users are sampled alike for all callers.
    plan = final_plan(dataset, "valid", config.eval, config.ks, seed=0)

    def value(found: Embeddings) -> float:
        means = evaluate(plan, found).means
        return means[main_metric(list(means), config)]

    return max((walks(graph, steps) for steps in STEPS), key=value)


def walks(graph: Graph, steps: int) -> Embeddings:
    """Return rows whose inner products are the probabilities of random walks from users to items.

    The probabilities are D_u^-1/2 R̂ (R̂ᵀ R̂)^((steps - 1) / 2) D_i^1/2, with R̂ = D_u^-1/2 R D_i^-1/2. The product is cut
    in its middle, at the side with fewer nodes. Each node of that side has a column, which hops carry to both sides.

    Args:
        graph: The training interactions.
        steps: The number of steps of a walk, odd.

    Returns:
        Float32 rows of min(users, items) columns. A node without interactions has a row of zeros.

    Raises:
        ValueError: `steps` is even or below 1.
    """
    if steps < 1 or steps % 2 == 0:
        raise ValueError(f"steps is {steps}: a walk from a user ends at an item after an odd number of steps")
    by_items = graph.num_items <= graph.num_users
    hop = graph.adjacency if by_items else graph.adjacency.T
    before = now = jnp.eye(min(graph.num_users, graph.num_items))
    hops = steps // 2 + 1
    for _ in range(hops):
        before, now, hop = now, matmul(hop, now), hop.T
    own, across = (now, before) if hops % 2 == 0 else (before, now)
    users, items = (across, own) if by_items else (own, across)
    of_users, of_items = (
        jnp.sqrt(jnp.diff(matrix.offsets).astype(jnp.float32))[:, None]
        for matrix in (graph.adjacency.matrix, graph.adjacency.transposed)
    )
    return Embeddings(users / jnp.maximum(of_users, 1), items * of_items)


UNTRAINED: Mapping[str, Callable[[Config, Dataset], Embeddings]] = {
    "popularity": popularity,
    "itemknn": item_knn,
    "randomwalk": random_walk,
}
"""The rankings by the names that `compare` and `blend` accept."""
