"""SLMRec's objective: the main loss and the self-supervised tasks that a config selects."""

from collections.abc import Collection
from functools import reduce

from slmrec_jax.config import Config, SLMRecConfig
from slmrec_jax.errors import UserError, setting
from slmrec_jax.models.item_graph import with_item_graph
from slmrec_jax.models.recipe import Recipe, cached_modalities, check_modalities, check_names
from slmrec_jax.models.slmrec import slmrec
from slmrec_jax.models.work import slmrec_work
from slmrec_jax.objectives import losses
from slmrec_jax.objectives.augmentations import both, edge_dropout, feature_dropout, feature_masking, node_dropout
from slmrec_jax.types import Loss, Spec, Term

UNCORRECTED, CORRECTED = 0.065, 0.115
"""Bounds on the hit rate of popularity (`Spec.popularity_hit_rate`): `auto` applies no correction up to the first, and
full correction from the second."""


def slmrec_recipe(config: Config, spec: Spec, *, augmented: bool = True) -> Recipe:
    """Make SLMRec: the main loss and the self-supervised tasks of the config.

    Args:
        config: Every choice.
        spec: The sizes of the data.
        augmented: Whether terms may make augmented views. False saves memory if no term does.

    Returns:
        The model, the terms by name, log lines and the work of a step, for `gradient_method`.

    Raises:
        UserError: All weights are 0, the task needs modalities and there are none, or a modality is called `id`.
    """
    options = config.slmrec
    if config.main_weight == 0 and (not config.tasks or options.alpha == 0):
        other = f"{setting('slmrec.alpha')} is 0" if config.tasks else "there is no task"
        raise UserError(f"nothing to train: {setting('main_weight')} is 0 and {other}; change one of them")
    check_names(spec)
    correction, reason = choose_correction(config, spec)
    main = losses.info_nce(
        options.temperature,
        options.main_negatives,
        options.num_negatives,
        options.mask_false_negatives,
        correction,
    )
    terms = {"main": Term(config.main_weight, main)}
    if config.tasks & {"fac", "fm"} and not spec.modalities:
        raise UserError(
            f"{setting('task', config.task)} needs a modality, but there is none: use "
            f"{setting('task', 'fd')}, ed, nd, rw or none"
        )
    terms |= {name: Term(options.alpha, loss) for name, loss in _tasks(config.tasks, options).items()}
    fusion, notes = options.fusion, []
    if config.main_weight != 0:
        notes.append(f"popularity correction: {correction:g} ({reason})")
    by_task = bool(config.tasks - {"fac"}) and options.contrast_on == "fused" and options.ssl_entities == "both"
    trains_fusion = config.main_weight != 0 or by_task
    if fusion == "concat" and not trains_fusion:
        fusion = "mean"
        notes.append("fusion: mean, since neither a main loss nor the task would train an affine one on both sides")
    cached, reasons = cached_modalities(config, spec, options.words)
    model = slmrec(
        spec,
        num_layers=config.num_layers,
        fusion=fusion,
        user_table=options.user_table,
        normalize_features=options.normalize_features,
        words=options.words,
        cached=cached,
        frozen_rows=config.frozen_rows,
        augmented=augmented,
        definition=config.propagation == "definition",
    )
    if options.item_graph:
        check_modalities(spec, setting("slmrec.item_graph", options.item_graph))
        weights = dict.fromkeys(spec.modalities, options.item_graph / len(spec.modalities))
        model = with_item_graph(model, spec, weights=weights, neighbours=options.graph_neighbours)
    return Recipe(model, terms, (*notes, *reasons), slmrec_work(config, spec, cached))


def choose_correction(config: Config, spec: Spec) -> tuple[float, str]:
    """Return the popularity correction β of the config, with the reason.

    `auto` is 0 if a ranking by popularity has a low hit rate, 1 if it has a high one, and linear in between: where
    popularity alone predicts well, embeddings must not unlearn it. docs/systems.md has the evidence. Uniformly drawn
    negatives need no correction.
    """
    asked = config.slmrec.popularity_correction
    if asked != "auto":
        return asked, "as configured"
    if config.slmrec.main_negatives == "sampled" and config.negatives == "uniform":
        return 0.0, "negatives are drawn uniformly"
    rate = spec.popularity_hit_rate
    if rate is None:
        return 0.0, "the spec does not say how well popularity predicts"
    share = (rate - UNCORRECTED) / (CORRECTED - UNCORRECTED)
    return round(min(max(share, 0.0), 1.0), 2), f"popularity alone hits {rate:.1%} of the interactions"


def _tasks(tasks: Collection[str], options: SLMRecConfig) -> dict[str, Loss]:
    """Return the self-supervised losses by name: FAC, and one on a pair of views augmented by all other tasks."""
    losses_of: dict[str, Loss] = {}
    if "fac" in tasks:
        losses_of["ssl"] = losses.fine_and_coarse(options.ssl_temperature, options.fac_similarity)
    augmentations = {
        "fm": feature_masking(options.fm_mode, options.fm_granularity),
        "fd": feature_dropout(options.dropout_rate, options.fd_mode),
        "ed": edge_dropout(options.edge_rate),
        "nd": node_dropout(options.edge_rate),
        "rw": edge_dropout(options.edge_rate, "layer"),
    }
    asked = [views for name, views in augmentations.items() if name in tasks]
    if asked:
        losses_of["views" if losses_of else "ssl"] = losses.view_agreement(
            reduce(both, asked), options.ssl_temperature, options.ssl_entities, options.contrast_on
        )
    return losses_of
