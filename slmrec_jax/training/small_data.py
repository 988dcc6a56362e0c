"""Adjustments and warnings before a run, for small data or an unsuitable batch size."""

import dataclasses
import math

import numpy as np

from slmrec_jax.config import Config
from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import setting
from slmrec_jax.evaluation.protocol import limit_cutoffs, num_candidates
from slmrec_jax.objectives.sampling import SAMPLINGS, Sizes
from slmrec_jax.types import Method

FEW_STEPS = 5
"""The number of steps per epoch below which an epoch trains little."""


def fit_cutoffs(config: Config, dataset: Dataset) -> tuple[Config, list[str]]:
    """Adapt the cut-offs and the selecting metric to a small catalogue, and return log lines about the changes.

    Cut-offs are limited by `within`. If no user has more candidates than the cut-off, recall is 1 for every ranking and
    would always select the first epoch; a default recall metric is then replaced by NDCG.

    Raises:
        UserError: A requested cut-off exceeds the number of items to rank.
    """
    asked, count = config.eval, num_candidates(dataset, config.eval)
    if count == 0:
        return config, []  # the evaluation reports it
    protocol, ks = limit_cutoffs(asked, config.ks, count)
    name, _, k = (protocol.metric or "").partition("@")
    default = PROTOCOLS.get(asked.name)
    if default is not None and asked.metric == default.metric and name == "recall":
        known = np.bincount(dataset.train.users, minlength=dataset.num_users)
        users = np.unique((dataset.valid if asked.split == "valid" else dataset.test).users)
        fewest = known[users].min(initial=count) if asked.candidates == "all" else 0
        if count - fewest <= int(k):
            protocol = protocol._replace(metric=f"ndcg@{k}")
    changes = []
    left_out = sorted({*asked.cutoffs, *config.ks} - {*protocol.cutoffs, *ks})
    if left_out:
        changes.append(f"no metrics at {', '.join(map(str, left_out))}")
    if protocol.metric != asked.metric:
        changes.append(f"{protocol.metric} selects instead of {asked.metric}")
    lines = [f"{count} items to rank: {', and '.join(changes)}"] if changes else []
    return dataclasses.replace(config, eval=protocol, ks=ks), lines


def batch_warnings(method: Method, config: Config, dataset: Dataset) -> list[str]:
    """Return warnings about batches without negatives, whose losses train nothing, and about passes with few steps."""
    users, items = dataset.train
    by_interactions = method.sampling == "interactions"
    rows = min(config.batch_size, len(users) if by_interactions else dataset.num_users)
    sampling, sizes = SAMPLINGS[method.sampling], Sizes(config.batch_size, config.num_micro_batches)
    steps = sampling.num_steps(len(users), sizes)
    lines = []
    if method.in_batch:
        several = len(method.in_batch) > 1
        losses, are, train = " and ".join(method.in_batch), *(("are", "train") if several else ("is", "trains"))
        if len(np.unique(items)) == 1:
            lines.append(
                f"WARNING: training has one item, so no batch has negatives: {losses} {are} 0 and {train} nothing"
            )
        elif rows == 1:
            lines.append(
                f"WARNING: batches of one interaction have no negatives: {losses} {are} 0 and {train} nothing; give "
                f"{setting('batch_size')} at least 2"
            )
        elif by_interactions and len(users) % rows == 1:
            count = sampling.num_batches(len(users), rows)
            lines.append(
                f"the last of {count} batches has one interaction and no negatives: {losses} {are} 0 there; a "
                f"{setting('batch_size')} other than {config.batch_size} avoids that"
            )
    if method.num_negatives:
        drawable = dataset.num_items if config.negatives == "uniform" else len(np.unique(items))
        full = int(np.sum(np.bincount(users) >= drawable))
        if full:
            lines.append(
                f"users for whom no negative can be drawn, since they have interacted with every item: {full} of "
                f"{dataset.num_users}; their interactions train nothing in a pairwise loss"
            )
    smaller = max(2, 1 << int(math.log2(max(1, len(users) / FEW_STEPS))))
    if config.steps_per_epoch is None and steps < FEW_STEPS and smaller < rows * sizes.micro_batches:
        better = f"{setting('batch_size', smaller)} makes it {sampling.num_steps(len(users), Sizes(smaller))}"
        if sizes.micro_batches > 1:
            better = f"fewer {setting('micro_batches')} than {sizes.micro_batches} make it more"
        lines.append(
            f"an epoch has {steps} step{'s' if steps > 1 else ''} of at most {rows * sizes.micro_batches} "
            f"interactions: {better}, which usually trains better"
        )
    return lines
