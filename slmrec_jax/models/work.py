"""The work of SLMRec's steps, used to choose `auto` micro-batches.

The factors were fitted to CPU times (`benchmarks/bench_micro_batches.py`). The work is computed from counts and
constants, so that the choice depends only on the settings and the data.
"""

from collections.abc import Collection

from slmrec_jax.config import Config
from slmrec_jax.config.checks import GRAPH_TASKS
from slmrec_jax.encoding import features
from slmrec_jax.types import Spec, Work

ENTRY = 4.0
"""The cost of a multiply-add of a sparse product, which reads rows in random order, relative to a dense product."""

TABLE = 60.0
"""The cost, in dense multiply-adds, of updating a table entry with its gradient and moments in a step."""

DROPOUT = 40.0
"""The cost, in dense multiply-adds, of dropping or keeping an entry of a layer."""

DISTINCT = 0.3
"""The number of pairs of distinct rows and columns of a softmax, as a share of all pairs."""


def slmrec_work(config: Config, spec: Spec, cached: Collection[str]) -> Work:
    """Estimate the work of a step. `cached` are the modalities whose features were propagated in advance."""
    options, num_layers, num_nodes = config.slmrec, config.num_layers, spec.num_users + spec.num_items
    channels = 1 + len(spec.modalities)
    width_of = {name: features.width(modality) for name, modality in spec.modalities.items()}
    projected = [width for name, width in width_of.items() if name not in cached]
    widths = [width for name, width in width_of.items() if name in cached]
    user_tables = channels if options.user_table == "per_modality" else 1
    hops = num_layers * (user_tables + 1 + len(projected))
    dropped = 0
    tasks = config.tasks
    if "fd" in tasks and options.fd_mode == "layer":
        hops += channels * (1 + 4 * (num_layers - 1))
        dropped = 2 * channels * num_layers
        if tasks & GRAPH_TASKS:
            hops += channels  # the views do not share a first hop
    elif tasks & GRAPH_TASKS:
        hops += 2 * (user_tables + channels) * num_layers
    elif "fd" in tasks or ("fm" in tasks and options.fm_granularity == "item"):
        hops += 2 * channels * num_layers
    softmaxes = 1 + ("fac" in tasks) * len(spec.modalities) + 2 * bool(tasks - {"fac"})
    rows = config.batch_size
    # Each of these is computed in the forward and the backward pass.
    step = (
        2 * ENTRY * hops * spec.num_interactions * spec.dim
        + (TABLE + DROPOUT * dropped) * num_nodes * spec.dim
        + 2 * ENTRY * bool(options.item_graph) * options.graph_neighbours * len(width_of) * spec.num_items * spec.dim
        + 3 * spec.num_items * sum(projected) * spec.dim
    )
    batch = 3 * DISTINCT * softmaxes * rows**2 * spec.dim + 4 * rows * sum(widths) * spec.dim
    if options.mask_false_negatives:
        batch += ENTRY * spec.num_interactions  # each micro-batch scans them
    return Work(step, batch)
