"""The contribution of each modality, measured by evaluating a trained system without it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from slmrec_jax.data.new_items import missing_feature
from slmrec_jax.devices import compiler_options
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.analysis import Difference, paired_bootstrap
from slmrec_jax.training.inputs import given_features, make_inputs
from slmrec_jax.training.run import Run
from slmrec_jax.training.setup import outline
from slmrec_jax.training.storage.checkpoint import restore_state
from slmrec_jax.training.storage.folder import CHECKPOINTS
from slmrec_jax.types import Embeddings, Inputs


class Masking(NamedTuple):
    """The changes of a test metric when single modalities are masked."""

    changes: Mapping[str, Difference]
    """The metric without a modality minus the metric with all, paired by user, by modality."""
    reason: str = ""
    """The reason why `changes` is empty, if it is."""


def mask_modalities(run: Run, metric: str) -> Masking:
    """Test a finished run without each modality in turn, with unchanged parameters, by a metric such as `recall@20`.

    Items are treated as if the data lacked the modality, which in SLMRec's encoder equals feature masking (FM) in all
    layers. Under a protocol that ranks with the embeddings from before an epoch's last step, both values use the state
    after it.
    """
    if not run.dataset.features:
        return Masking({}, f"{run.dataset.name} has no modalities")
    try:
        return _mask(run, metric)
    except UserError as error:  # a user's own method or non-finite scores; the page shows the reason
        return Masking({}, str(error))


def embedder(run: Run) -> Callable[[str | None], Embeddings]:
    """Return a function that embeds with a run's best parameters as if no item had the given modality.

    `None` embeds with all modalities. This equals the run's embeddings, unless its protocol ranks with those from
    before an epoch's last step.

    Raises:
        UserError: The run was trained with a user's own method.
    """
    planned = outline(run.config, run.dataset)
    like = jax.eval_shape(planned.method.init, jax.random.key(0))
    state = restore_state(run.folder / CHECKPOINTS, run.result["best_epoch"], like)
    # Rank with the current parameters: under a protocol with stale embeddings, the state also holds those of an earlier
    # step.
    current = run.config.eval._replace(stale_embeddings=False)
    method = outline(replace(run.config, eval=current), run.dataset).method
    compiled = jax.jit(method.embed, compiler_options=compiler_options())
    inputs = make_inputs(run.dataset, run.config.missing)

    def embed(modality: str | None) -> Embeddings:
        given = inputs if modality is None else without(run, inputs, modality)
        return Embeddings(*compiled(state, method.prepare(given)))

    return embed


def ignores_modalities(run: Run) -> str:
    """Return the reason why masking has no effect on a system that ranks without modalities."""
    return f"{run.config.model} does not read modalities when it ranks"


def _mask(run: Run, metric: str) -> Masking:
    embed = embedder(run)
    plan = evaluation.final_plan(run.dataset, "test", run.config.eval, run.config.ks, run.config.seed)

    def measure(embeddings: Embeddings) -> Float[np.ndarray, " users"]:
        return evaluation.evaluate(plan, embeddings).per_user[metric]

    whole = embed(None)
    with_all, changes = measure(whole), {}
    for name in run.dataset.features:
        masked = embed(name)
        if not all(np.array_equal(*tables) for tables in zip(whole, masked, strict=True)):
            changes[name] = paired_bootstrap(measure(masked), with_all)
    return Masking(changes, "" if changes else ignores_modalities(run))


def without(run: Run, inputs: Inputs, modality: str) -> Inputs:
    """Return a run's inputs as if no item had the modality, regardless of the setting for missing features."""
    count = run.dataset.num_items
    removed = {modality: missing_feature(run.dataset.features[modality], count)}
    return inputs._replace(features={**inputs.features, **given_features(removed, count, "masked", removed)})
