"""What each modality contributes: a trained system evaluated again without it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from slmrec_jax.data.new_items import missing_feature
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.analysis import Difference, paired_bootstrap
from slmrec_jax.training.inputs import given_features, make_inputs
from slmrec_jax.training.run import Run
from slmrec_jax.training.setup import outline
from slmrec_jax.training.storage.checkpoint import restore_state
from slmrec_jax.training.storage.folder import CHECKPOINTS
from slmrec_jax.types import Embeddings, Inputs


class Masking(NamedTuple):
    """A metric at test without single modalities."""

    changes: Mapping[str, Difference]
    """By modality: the metric without it minus the metric with all; users are paired."""
    reason: str = ""
    """Why there is nothing to show, where `changes` is empty."""


def mask_modalities(run: Run, metric: str, seed: int = 0) -> Masking:
    """Takes one modality after another from all items of a trained system, and tests it.

    The parameters stay. An item without the modality is what it would be had the data lacked it: in SLMRec's encoder
    this is the mask of feature masking (FM) in all layers. Under a protocol that ranks by the vectors before an epoch's
    last step, both figures are of the state after it.

    Args:
        run: finished.
        metric: a key such as `recall@20`.
        seed: of the bootstrap.
    """
    if not run.dataset.features:
        return Masking({}, f"{run.dataset.name} has no modalities")
    try:
        return _mask(run, metric, seed)
    except UserError as error:  # a method of the person's own, or scores that are not finite: the page says so
        return Masking({}, str(error))


def _mask(run: Run, metric: str, seed: int) -> Masking:
    planned = outline(run.config, run.dataset)
    like = jax.eval_shape(planned.method.init, jax.random.key(0))
    state = restore_state(run.folder / CHECKPOINTS, run.result["best_epoch"], like)
    # By the state itself, which may hold the embeddings of an earlier one.
    current = run.config.eval._replace(stale_embeddings=False)
    method = outline(replace(run.config, eval=current), run.dataset).method
    compiled = jax.jit(method.embed)
    inputs = make_inputs(run.dataset, run.config.missing)
    plan = evaluation.plan(run.dataset, "test", run.config.eval, run.config.ks)

    def embed(given: Inputs) -> Embeddings:
        found: Embeddings = compiled(state, method.prepare(given))
        return found

    def measure(found: Embeddings) -> Float[np.ndarray, " users"]:
        return evaluation.evaluate(plan, found).per_user[metric]

    whole = embed(inputs)
    with_all, changes = measure(whole), {}
    for name in run.dataset.features:
        found = embed(without(run, inputs, name))
        if not all(np.array_equal(*tables) for tables in zip(whole, found, strict=True)):
            changes[name] = paired_bootstrap(measure(found), with_all, seed=seed)
    return Masking(
        changes, "" if changes else f"{setting('model', run.config.model)} does not read modalities when it ranks"
    )


def without(run: Run, inputs: Inputs, modality: str) -> Inputs:
    """A run's inputs as if no item had the modality, whatever the run does about missing features."""
    count = run.dataset.num_items
    taken = {modality: missing_feature(run.dataset.features[modality], count)}
    return inputs._replace(features={**inputs.features, **given_features(taken, count, "masked", taken)})
