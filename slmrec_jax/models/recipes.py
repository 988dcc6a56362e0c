"""The systems by name: each is an encoder and the losses it trains with, made from a config."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from slmrec_jax.config import Config, MMGCNConfig, SLMRecConfig
from slmrec_jax.encoding import features, propagation
from slmrec_jax.errors import UserError, setting
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.mf import mf
from slmrec_jax.models.mmgcn import mmgcn, table_l2
from slmrec_jax.models.slmrec import ID, slmrec
from slmrec_jax.models.vbpr import vbpr
from slmrec_jax.models.work import slmrec_work
from slmrec_jax.objectives import losses
from slmrec_jax.objectives.augmentations import both, feature_dropout, feature_masking
from slmrec_jax.types import Loss, Model, Spec, Term, Work


class Recipe(NamedTuple):
    """The parts of a system that gradient descent needs."""

    model: Model
    terms: Mapping[str, Term]
    notes: tuple[str, ...] = ()
    """Decisions made while the recipe was built, for the log."""
    work: Work | None = None
    """As `Method.work`."""


def slmrec_recipe(config: Config, spec: Spec, *, augmented: bool = True) -> Recipe:
    """Return SLMRec: the main loss and the self-supervised task of the config.

    Args:
        config: Every choice.
        spec: The sizes of the data.
        augmented: False saves memory if the caller adds no terms that make augmented views.

    Returns:
        The model, the terms by name and notes for the log, for `gradient_method`.

    Raises:
        UserError: Nothing has a weight, or the task needs modalities and there are none.
    """
    options = config.slmrec
    if config.main_weight == 0 and (config.task == "none" or options.alpha == 0):
        raise UserError(
            f"nothing to train: {setting('main_weight')} is 0 and there is no task; give one of them a weight"
        )
    if ID in spec.modalities:
        raise UserError(f"a modality is called {ID!r}, as SLMRec calls the items' own channel: rename its feature file")
    main = losses.info_nce(
        options.temperature, options.main_negatives, options.num_negatives, options.mask_false_negatives
    )
    terms = {"main": Term(config.main_weight, main)}
    if config.task != "none":
        if config.task != "fd" and not spec.modalities:
            raise UserError(
                f"{setting('task', config.task)} needs a modality, and there is none: take {setting('task', 'fd')} or "
                f"none"
            )
        terms["ssl"] = Term(options.alpha, _task(config.task, options))
    fusion, notes = options.fusion, []
    trains_fusion = config.main_weight != 0 or (config.task != "fac" and options.contrast_on == "fused")
    if fusion == "concat" and not trains_fusion:
        fusion = "mean"
        notes.append("fusion: mean, since neither a main loss nor the task would train an affine one")
    cached, reasons = _cached(config, spec, options.words)
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
    return Recipe(model, terms, (*notes, *reasons), slmrec_work(config, spec, cached))


def mf_recipe(config: Config, spec: Spec) -> Recipe:
    """Return MF: BPR and the L2 of the rows that a batch uses.

    Raises:
        UserError: It needs features and there are none.
    """
    options = config.mf
    if options.features != "none":
        check_modalities(spec, setting("mf.features", options.features))
    model = mf(spec, use=options.features, item_bias=options.item_bias)
    l2 = Term(options.l2, losses.embedding_l2("view"))
    return Recipe(model, {"bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)), "l2": l2})


def lightgcn_recipe(config: Config, spec: Spec) -> Recipe:
    """Return LightGCN: BPR and the L2 of the layer-0 rows that a batch uses.

    Raises:
        UserError: It needs features and there are none.
    """
    options = config.lightgcn
    notes: tuple[str, ...] = ()
    definition = config.propagation == "definition"
    if options.features == "fused":
        check_modalities(spec, setting("lightgcn.features", "fused"))
        cached, notes = _cached(config, spec, words="frozen")
        model = slmrec(
            spec, num_layers=config.num_layers, cached=cached, frozen_rows=config.frozen_rows, definition=definition
        )
    else:
        model = lightgcn(spec, num_layers=config.num_layers, init=options.init, definition=definition)
    terms = {
        "bpr": Term(1.0, losses.bpr(options.score, config.bpr_negatives)),
        "l2": Term(options.l2, losses.embedding_l2("layer0", options.norm)),
    }
    return Recipe(model, terms, notes)


def vbpr_recipe(config: Config, spec: Spec) -> Recipe:
    """Return VBPR: BPR and the L2 of the rows that a batch uses.

    Raises:
        UserError: There are no features.
    """
    options = config.vbpr
    check_modalities(spec, setting("model", "vbpr"))
    model = vbpr(spec, variant=options.variant, normalize_features=options.normalize_features)
    l2 = Term(options.l2, losses.embedding_l2("view", options.norm))
    return Recipe(model, {"bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)), "l2": l2})


def mmgcn_recipe(config: Config, spec: Spec) -> Recipe:
    """Return MMGCN: BPR and, if its tables are trained, their mean squares.

    Raises:
        UserError: There are no features, or a projected one is missing.
    """
    options = config.mmgcn
    check_modalities(spec, setting("model", "mmgcn"))
    unknown = set(options.projected) - set(spec.modalities) - set(MMGCNConfig().projected)
    if unknown:
        raise UserError(
            f"{setting('mmgcn.projected')}: there is no modality {min(unknown)!r}; there are: "
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


def check_modalities(spec: Spec, what: str) -> None:
    """Raise a `UserError` if the data have no modality; `what` is the setting that needs one."""
    if not spec.modalities:
        raise UserError(
            f"{what} needs a modality, and the data have none: give features, or take {setting('model', 'lightgcn')}"
        )


RECIPES: Mapping[str, Callable[[Config, Spec], Recipe]] = {
    # With only its own terms. Of the tasks, FAC alone makes no augmented views.
    "slmrec": lambda config, spec: slmrec_recipe(config, spec, augmented=config.task not in ("fac", "none")),
    "mf": mf_recipe,
    "lightgcn": lightgcn_recipe,
    "vbpr": vbpr_recipe,
    "mmgcn": mmgcn_recipe,
}


def _task(task: str, options: SLMRecConfig) -> Loss:
    if task == "fac":
        return losses.fine_and_coarse(options.ssl_temperature, options.fac_similarity)
    dropped = feature_dropout(options.dropout_rate, options.fd_mode)
    masked = feature_masking(options.fm_mode, options.fm_granularity)
    views = dropped if task == "fd" else masked if task == "fm" else both(masked, dropped)
    return losses.view_agreement(views, options.ssl_temperature, options.ssl_entities, options.contrast_on)


def _cached(config: Config, spec: Spec, words: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the modalities whose features are propagated once, and a line about each frozen modality."""
    cached, reasons = [], []
    for name, modality in spec.modalities.items():
        if config.propagation == "definition" or (modality.words and words == "trainable"):
            continue
        once, reason = propagation.choose_chain(
            spec,
            features.width(modality),
            num_layers=config.num_layers,
            batch_size=config.batch_size * config.num_micro_batches,
            held_as=config.frozen_rows,
        )
        if config.propagation == "chains":
            once, reason = True, "as told"
        if once:
            cached.append(name)
        reasons.append(f"{name}: {'propagated once' if once else 'projected in each step'} ({reason})")
    return cached, tuple(reasons)
