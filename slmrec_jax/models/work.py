"""The work of SLMRec's steps, by which `auto` micro-batches are chosen.

The factors are fits to times on a CPU (`benchmarks/bench_micro_batches.py`). They are counts and constants, so that a
choice depends on the settings and the data alone.
"""

from collections.abc import Collection

from slmrec_jax.config import Config
from slmrec_jax.config.checks import GRAPH_TASKS
from slmrec_jax.encoding import features
from slmrec_jax.types import Spec, Work

ENTRY = 4.0
"""A multiply-add of a sparse product, whose rows are read in no order, against one of a dense product."""

TABLE = 60.0
"""An entry of a table, its gradient and its moments in the update of a step."""

DROPOUT = 40.0
"""An entry of a layer that is dropped or kept."""

DISTINCT = 0.3
"""The pairs of distinct rows and columns of a softmax, as a share of the pairs of all."""


def slmrec_work(config: Config, spec: Spec, cached: Collection[str]) -> Work:
    """Return the work of a step; `cached` are the modalities whose features were propagated in advance."""
    options, layers, nodes = config.slmrec, config.num_layers, spec.num_users + spec.num_items
    channels = 1 + len(spec.modalities)
    width_of = {name: features.width(modality) for name, modality in spec.modalities.items()}
    projected = [width for name, width in width_of.items() if name not in cached]
    widths = [width for name, width in width_of.items() if name in cached]
    user_tables = channels if options.user_table == "per_modality" else 1
    hops = layers * (user_tables + 1 + len(projected))
    dropped = 0
    tasks = config.tasks
    if "fd" in tasks and options.fd_mode == "layer":
        hops += channels * (1 + 4 * (layers - 1))
        dropped = 2 * channels * layers
        if tasks & GRAPH_TASKS:
            hops += channels  # no first hop that the views share
    elif tasks & GRAPH_TASKS:
        hops += 2 * (user_tables + channels) * layers
    elif "fd" in tasks or ("fm" in tasks and options.fm_granularity == "item"):
        hops += 2 * channels * layers
    softmaxes = 1 + ("fac" in tasks) * len(spec.modalities) + 2 * bool(tasks - {"fac"})
    rows = config.batch_size
    # Each of these is computed forwards and backwards.
    step = (
        2 * ENTRY * hops * spec.num_interactions * spec.dim
        + (TABLE + DROPOUT * dropped) * nodes * spec.dim
        + 2 * ENTRY * bool(options.item_graph) * options.graph_neighbours * len(width_of) * spec.num_items * spec.dim
        + 3 * spec.num_items * sum(projected) * spec.dim
    )
    batch = 3 * DISTINCT * softmaxes * rows**2 * spec.dim + 4 * rows * sum(widths) * spec.dim
    if options.mask_false_negatives:
        batch += ENTRY * spec.num_interactions  # which each micro-batch looks through
    return Work(step, batch)
