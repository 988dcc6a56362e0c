"""Every choice of a run as frozen data; each field is a flag of the command (`--slmrec.alpha 0.05`)."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from slmrec_jax.config.protocols import DEFAULT_CUTOFFS, PROTOCOLS, Protocol
from slmrec_jax.config.source import Source
from slmrec_jax.errors import UserError, check_type, setting, shown
from slmrec_jax.forms import fault, words
from slmrec_jax.types import FrozenRows

ModelName = Literal["slmrec", "mf", "lightgcn", "vbpr", "mmgcn", "mmssl"]
Task = Literal["fac", "fd", "fm", "fd+fm", "none"]
Missing = Literal["masked", "zero", "mean"]
Preset = Literal["reference", "paper"]
ProtocolName = Literal["strict", "slmrec", "mmrec", "mmssl", "lightgcn"]


@dataclass(frozen=True)
class SLMRecConfig:
    """SLMRec: the self-supervised task and all that its paper and its published code decide differently."""

    alpha: float = 0.1
    """Weight of the self-supervised task."""
    temperature: float = 0.3
    """Temperature of the main loss; 0.2 in paper and code."""
    ssl_temperature: float = 0.2
    """Temperature of the self-supervised task."""
    main_negatives: Literal["inbatch", "sampled"] = "inbatch"
    """Main loss: against the other items of the batch (code) or against sampled ones (paper)."""
    num_negatives: int = 64
    """How many negatives an interaction gets where they are sampled; the paper does not say."""
    mask_false_negatives: bool = False
    """Leaves the user's own training items out of the in-batch negatives; neither paper nor code does."""
    fac_similarity: Literal["dot", "cosine"] = "dot"
    """FAC compares by inner product (code) or by cosine (paper)."""
    dropout_rate: float = 0.3
    """FD: the share of entries dropped."""
    fd_mode: Literal["layer", "input"] = "layer"
    """FD drops after each propagation layer (code) or in the items' input (paper)."""
    fm_mode: Literal["swapped", "clean"] = "swapped"
    """FM: layer 0 from one mask and the other layers from the other (code), or one mask a view (paper)."""
    fm_granularity: Literal["batch", "item"] = "batch"
    """FM masks the same modality for all items of a step, or one for each item; with `item`, masks never swap."""
    ssl_entities: Literal["both", "items"] = "both"
    """FD and FM contrast users and items (code) or items alone (paper)."""
    contrast_on: Literal["fused", "modality"] = "fused"
    """FD and FM contrast the fused rows (code) or each modality's (paper)."""
    fusion: Literal["concat", "mean", "sum"] = "concat"
    """How modalities become one: an affine map of their concatenation (code), their mean or their sum."""
    user_table: Literal["shared", "per_modality"] = "shared"
    """One user table for all modalities (code) or one each."""
    normalize_features: bool = True
    """Divides each feature row by its L2 norm (code)."""
    words: Literal["frozen", "trainable"] = "frozen"
    """Word-id modalities: the mean of random vectors that stay (code), or of trained ones."""


PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "reference": {
        "temperature": 0.2,
        "main_negatives": "inbatch",
        "mask_false_negatives": False,
        "fac_similarity": "dot",
        "fd_mode": "layer",
        "fm_mode": "swapped",
        "fm_granularity": "batch",
        "ssl_entities": "both",
        "contrast_on": "fused",
        "fusion": "concat",
        "user_table": "shared",
        "normalize_features": True,
        "words": "frozen",
    },
    "paper": {
        "temperature": 0.2,
        "main_negatives": "sampled",
        "mask_false_negatives": False,
        "fac_similarity": "cosine",
        "fd_mode": "input",
        "fm_mode": "clean",
        "fm_granularity": "batch",
        "ssl_entities": "items",
        "contrast_on": "modality",
        "fusion": "concat",
        "user_table": "shared",
        "normalize_features": True,
        "words": "trainable",
    },
}
"""Every switch of `SLMRecConfig` on which the paper and the published code differ, or may differ, and their common
temperature. Without a preset the switches are the code's and the temperature is one that was chosen on validation."""


@dataclass(frozen=True)
class MFConfig:
    """Matrix factorisation with BPR (Rendle et al., UAI 2009)."""

    features: Literal["none", "concat", "linear"] = "none"
    """Items are ids alone; or, as the SLMRec paper's baseline, an id's row beside the projected row of each modality
    (users get as many columns); or one affine map of both."""
    item_bias: bool = False
    """A bias for each item."""
    l2: float = 0.2
    """Weight of the batch's rows in the loss: l2 / 2 · (|p_u|² + |q_i|² + |q_j|²) / batch."""


@dataclass(frozen=True)
class LightGCNConfig:
    """LightGCN with BPR: on ids alone, or with modalities as the SLMRec paper's baseline."""

    features: Literal["none", "fused"] = "none"
    """Ids alone, or SLMRec's encoder and fusion without its losses."""
    l2: float = 1e-3
    """Weight of the batch's layer-0 rows in the loss: l2 / 2 · (|e_u|² + |e_i|² + |e_j|²) / batch; the authors' is
    1e-4."""
    norm: Literal["squared", "frobenius"] = "squared"
    """The rows' norm in that term: squared (the authors' code), or Frobenius norms as they are (MMRec toolbox)."""
    init: Literal["normal", "xavier"] = "normal"
    """Of ids alone: tables start as normal with deviation 0.1 (the authors' code) or Xavier-uniform (paper)."""
    score: Literal["dot", "cosine"] = "dot"
    """What BPR compares; SLMRec's published code keeps a variant by cosine."""


@dataclass(frozen=True)
class VBPRConfig:
    """VBPR (He and McAuley, AAAI 2016) on the concatenated features."""

    variant: Literal["multimodal", "original"] = "multimodal"
    """As the SLMRec paper and MMRec have it, or with the original's item bias and visual bias."""
    l2: float = 0.1
    """Weight of the batch's rows in the loss, as MF's."""
    norm: Literal["squared", "frobenius"] = "squared"
    """The rows' norm in that term: squared, or Frobenius norms as they are (MMRec toolbox)."""
    normalize_features: bool = False
    """Divides each feature row by its L2 norm; the references do not."""


@dataclass(frozen=True)
class MMGCNConfig:
    """MMGCN (Wei et al., ACM MM 2019)."""

    tables: Literal["trained", "frozen"] = "trained"
    """Identity and preference tables: trained as the paper means them, or left random as in the published code."""
    latent_dim: int = 256
    """To how many columns the `projected` modalities and their preference tables go first."""
    projected: tuple[str, ...] = ("visual",)
    """Modalities that are projected first; the others keep their own columns."""
    l2: float = 0.1
    """Weight of the mean squares of the batch's identity rows and of the projected modalities' preference tables."""
    normalize_features: bool = False
    """Divides each feature row by its L2 norm; the published code does not."""


@dataclass(frozen=True)
class MMSSLConfig:
    """MMSSL (Wei et al., WWW 2023): what its paper means, or what its published code computes.

    What is `None` is the mode's own (`MMSSL_MODES`).
    """

    mode: Literal["intended", "published"] = "intended"
    """The paper's method without the accidents of the code; or that code, flag by flag."""
    attention: Literal["cross_modal", "collapsed"] | None = None
    """Across modalities; or one map without weights, which the code amounts to."""
    heads: int = 4
    graphs: Literal["all_users", "last_batches"] | None = None
    """Modality graphs: of the best items of all users; or of the users in the batches before, users and items
    mispaired where there are several items each, and without edges most of the time (code)."""
    topk_rate: float | None = None
    """The share of all items that a user is joined with in a modality's graph; rounds to 0 items on small data in
    the code, and never in `all_users`."""
    refresh_every: int | None = None
    """Steps between two graphs; 0 is once an epoch."""
    similarity: Literal["cosine", "dot"] | None = None
    """Of a user and an item by their modality rows: cosine; or the inner product, by which items with many
    interactions come first (code)."""
    mask_training: bool | None = None
    """Sets a user's training items to 0 wherever rows of similarities are compared (code)."""
    id_propagation: Literal["simultaneous", "sequential"] | None = None
    """LightGCN's layers; or rounds in which user ids never reach an item (code)."""
    id_layers: int = 2
    """Rounds over ids, instead of `num_layers`."""
    last_softmax: bool | None = None
    """A softmax over the features of the last round (code)."""
    sampling: Literal["interactions", "users"] | None = None
    """Each interaction once an epoch; or distinct users with one interaction each (code)."""
    view_weight: float = 0.36
    """Of the modality-aware id views in the ids' layer 0."""
    feature_weight: float = 0.55
    """Of each modality's normalised rows in the final ones."""
    feature_dropout: float = 0.2
    normalize_features: bool | None = None
    """Divides each feature row by its L2 norm; the published code does not."""
    l2: float = 1e-5
    """Weight of the batch's final rows in the loss, as MF's."""
    feature_l2: float = 1e-5
    """Weight of the modality rows of all nodes in the loss: feature_l2 / 2 · Σ_m (|F_u^m|² + |F_i^m|²) / items."""
    contrast_weight: float | None = None
    contrast_temperature: float | None = None
    adversarial_weight: float | None = None
    """Weight of the generator's term; 0 leaves the discriminator out."""
    adversarial_users: int | None = None
    """How many users of a batch the discriminator sees, as far as memory allows; 0 is all."""
    discriminator_activation: Literal["leaky", "identity"] | None = None
    discriminator_output: Literal["linear", "sigmoid"] | None = None
    """A score without bounds; or 100 times a sigmoid (code)."""
    discriminator_widths: Literal["capped", "full"] | None = None
    """A quarter and an eighth of the number of items; capped at 256 and 128."""
    discriminator_dropout: tuple[float, float] = (0.31, 0.5)
    discriminator_learning_rate: float = 3e-4
    penalty_weight: float = 0.3
    real_cooled: Literal["whole_logit", "noise_only"] | None = None
    """What the temperature of the discriminator's real rows divides."""
    real_temperature: float = 0.005
    own_weight: float | None = None
    """Of the recommender's own scores in the discriminator's real rows; the code's 100 leaves nothing else."""


MMSSL_MODES: Mapping[str, Mapping[str, Any]] = {
    "intended": {
        "attention": "cross_modal",
        "graphs": "all_users",
        "topk_rate": 1.5e-3,
        "refresh_every": 0,
        "similarity": "cosine",
        "mask_training": False,
        "id_propagation": "simultaneous",
        "last_softmax": False,
        "sampling": "interactions",
        "normalize_features": False,
        "contrast_weight": 0.03,
        "contrast_temperature": 0.5,
        "adversarial_weight": 1e-4,
        "adversarial_users": 128,
        "discriminator_activation": "leaky",
        "discriminator_output": "linear",
        "discriminator_widths": "capped",
        "real_cooled": "whole_logit",
        "own_weight": 0.1,
    },
    "published": {
        "attention": "collapsed",
        "graphs": "last_batches",
        "topk_rate": 1e-4,
        "refresh_every": 1,
        "similarity": "dot",
        "mask_training": True,
        "id_propagation": "sequential",
        "last_softmax": True,
        "sampling": "users",
        "normalize_features": False,
        "contrast_weight": 0.03,
        "contrast_temperature": 0.5,
        "adversarial_weight": 1e-4,
        "adversarial_users": 0,
        "discriminator_activation": "identity",
        "discriminator_output": "sigmoid",
        "discriminator_widths": "full",
        "real_cooled": "noise_only",
        "own_weight": 100.0,
    },
}
"""The switches of `MMSSLConfig`. `published` is the released code's. `intended` is the paper's, where the paper says:
the size of graphs, the discriminator's widths and users, the weight of own scores are ours."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with coupled L2 (the decay joins the gradient before the moments, as in PyTorch), or any optax chain."""

    learning_rate: float | None = None
    """By default the model's own (`DEFAULTS`)."""
    weight_decay: float | None = None
    """Coupled L2, on every parameter (MMSSL: decoupled, AdamW); by default the model's own (`DEFAULTS`)."""
    chain: tuple[str, ...] = ()
    """Instead of the above: optax transformations in turn, such as `"clip_by_global_norm(1.0)" "adamw(1e-3)"`."""


DEFAULTS: Mapping[ModelName, Mapping[str, float]] = {
    "slmrec": {"learning_rate": 1e-3, "weight_decay": 1e-3},
    "mf": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "lightgcn": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "vbpr": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "mmgcn": {"learning_rate": 1e-4, "weight_decay": 0.0},
    "mmssl": {"learning_rate": 3e-3, "weight_decay": 1e-2},
}
"""The optimizer's settings where a config does not say: like the models' other defaults, chosen on validation."""


VARIANTS: Mapping[ModelName, Mapping[str, Mapping[str, str]]] = {
    "slmrec": {task: {"task": task} for task in get_args(Task)},
    "mf": {features: {"mf.features": features} for features in ("concat", "linear")},
    "lightgcn": {"fused": {"lightgcn.features": "fused"}},
    "vbpr": {"original": {"vbpr.variant": "original"}},
    "mmgcn": {"frozen": {"mmgcn.tables": "frozen"}},
    "mmssl": {"published": {"mmssl.mode": "published"}},
}
"""What `model:variant` stands for where systems are compared: settings by the name of their flag."""

PUBLISHED: Mapping[ModelName, Mapping[str, float]] = {"mmssl": {"learning_rate": 5.5e-4}}
"""What differs from these in a published mode."""


@dataclass(frozen=True)
class Reading:
    """Where the data are, and how to read them: the fields of `Source` as flags."""

    data: str = "demo"
    """`demo`, or the folder of a data set."""
    format: str | None = None
    """The folder's format, where it is not clear from what lies there."""
    split: str | None = None
    """How to divide the interactions: data that are not divided need it, others are divided again."""
    split_seed: int = 0
    """The seed of a random split; it is apart from --seed, so that all seeds train on the same data."""
    min_rating: float | None = None
    """Leave out rows with a lower rating before the interactions are divided."""
    k_core: int = 0
    """Keep users and items with at least so many interactions, repeated until all have them, before the interactions
    are divided; 0 keeps all."""
    user_column: str | None = None
    """The column of users, where it has none of the known names; or its number, where the table has no header."""
    item_column: str | None = None
    """The column of items, likewise."""
    time_column: str | None = None
    """The column of times, likewise."""
    rating_column: str | None = None
    """The column of ratings, likewise."""


@dataclass(frozen=True)
class Config(Reading):
    """One run."""

    modalities: tuple[str, ...] = ()
    """Modalities to use, in this order, which FAC's levels follow; all of the data set's by default."""
    missing: Missing = "masked"
    """Items without a modality: left out of it, or given zeros or the mean of the others there; word ids are masked."""
    model: ModelName = "slmrec"
    task: Task = "fac"
    """SLMRec's self-supervised task; `none` trains the main loss alone."""
    main_weight: float = 1.0
    """Weight of SLMRec's main loss; 0 trains the task alone."""
    protocol: ProtocolName = "strict"
    """How to select and to test; single `--eval.*` flags win over it. In Python, set it by `with_protocol`."""
    seed: int = 0
    epochs: int = 1000
    """At most; early stopping ends most runs sooner."""
    batch_size: int = 2048
    negatives: Literal["uniform", "popular"] = "uniform"
    """Sampled negatives: each item that the user has not met equally likely, or as likely as it is often met."""
    checkpoint_every_steps: int = 0
    """Checkpoints within an epoch; 0 leaves those after it."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """Where training is not finite: stop, leave that step out, or go back to the last checkpoint and draw again."""
    bpr_negatives: int = 1
    """How many negatives a positive gets in BPR."""
    dim: int = 64
    num_layers: int = 3
    """Propagation layers of slmrec and lightgcn."""
    ks: tuple[int, ...] = DEFAULT_CUTOFFS
    """Cut-offs of the metrics."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """Matrix products of training on GPU and TPU: full precision, or faster with rounded factors. Ranking is always in
    float32, and so are CPUs."""
    propagation: Literal["auto", "chains", "definition"] = "auto"
    """Of slmrec, lightgcn and mmgcn: the exact algebra where a cost rule finds it cheaper, always, or never."""
    frozen_rows: FrozenRows = "float32"
    """How slmrec and lightgcn hold modalities that go through the graph beforehand: bfloat16 takes half the memory, and
    rounds to 8 bits."""
    slmrec: SLMRecConfig = field(default_factory=SLMRecConfig)
    mf: MFConfig = field(default_factory=MFConfig)
    lightgcn: LightGCNConfig = field(default_factory=LightGCNConfig)
    vbpr: VBPRConfig = field(default_factory=VBPRConfig)
    mmgcn: MMGCNConfig = field(default_factory=MMGCNConfig)
    mmssl: MMSSLConfig = field(default_factory=MMSSLConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: Protocol = PROTOCOLS["strict"]


IN_MEMORY = "<in memory>"
"""`Config.data` of a run whose data set was given as a value: its folder holds the data set."""


def source_of(config: Reading) -> Source:
    """Say where the config's data set is read from, and how."""
    return Source(**{name: getattr(config, name) for name in Source._fields})


def with_source(config: Config, source: Source | None) -> Config:
    """Return the config with where its data set was read from; `None` stands for memory."""
    return dataclasses.replace(config, **(source or Source(IN_MEMORY))._asdict())


def with_preset(config: Config, preset: Preset) -> Config:
    """The config with every switch set as the preset has it."""
    return dataclasses.replace(config, slmrec=dataclasses.replace(config.slmrec, **PRESETS[preset]))


def with_protocol(config: Config, protocol: ProtocolName) -> Config:
    """The config with selection and test as the protocol has them."""
    return dataclasses.replace(config, protocol=protocol, eval=PROTOCOLS[protocol])


def with_variant(config: Config, model: ModelName, variant: str = "") -> Config:
    """The config for a system, or for one of its variants."""
    return with_settings(dataclasses.replace(config, model=model), VARIANTS[model][variant] if variant else {})


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """The config with some settings changed, by the name of their flag, such as `slmrec.alpha`."""
    for flag, value in settings.items():
        section, _, name = flag.rpartition(".")
        changed: Any = dataclasses.replace(getattr(config, section), **{name: value}) if section else value
        change = {section or name: changed}
        config = dataclasses.replace(config, **change)
    return config


def with_defaults(config: Config) -> Config:
    """The config with the model's own settings where it leaves them open."""
    given = config.optimizer
    published = PUBLISHED.get(config.model, {}) if config.mmssl.mode == "published" else {}
    settings = {**DEFAULTS[config.model], **published}
    still_open: dict[str, Any] = {name: value for name, value in settings.items() if getattr(given, name) is None}
    of_mode = {
        name: value for name, value in MMSSL_MODES[config.mmssl.mode].items() if getattr(config.mmssl, name) is None
    }
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(given, **still_open),
        mmssl=dataclasses.replace(config.mmssl, **of_mode),
    )


def chosen(value: Any) -> Any:
    """A setting that `with_defaults` has filled in.

    Raises:
        ValueError: it has not.
    """
    if value is None:
        raise ValueError("the config leaves this open: pass it through with_defaults")
    return value


def check_config(config: Config) -> None:
    """Reject values of a wrong type, and values that cannot be meant.

    Raises:
        UserError: names the first such value.
    """
    check_type("config", config, Config, "a slmrec_jax.Config")
    _check_fields(config)
    slmrec, mmssl, protocol = config.slmrec, config.mmssl, config.eval
    if config.protocol != protocol.name:
        raise UserError(
            f"protocol is {config.protocol!r} but eval is that of {protocol.name!r}: give "
            f"{setting('protocol', config.protocol)} alone, or in Python with_protocol(config, {config.protocol!r})"
        )
    for name, value, low in (
        ("epochs", config.epochs, 1),
        ("batch_size", config.batch_size, 1),
        ("checkpoint_every_steps", config.checkpoint_every_steps, 0),
        ("bpr_negatives", config.bpr_negatives, 1),
        ("dim", config.dim, 2),
        ("num_layers", config.num_layers, 0),
        ("seed", config.seed, 0),
        ("split_seed", config.split_seed, 0),
        ("k_core", config.k_core, 0),
        ("main_weight", config.main_weight, 0),
        ("slmrec.alpha", slmrec.alpha, 0),
        ("slmrec.num_negatives", slmrec.num_negatives, 1),
        ("mf.l2", config.mf.l2, 0),
        ("lightgcn.l2", config.lightgcn.l2, 0),
        ("vbpr.l2", config.vbpr.l2, 0),
        ("mmgcn.l2", config.mmgcn.l2, 0),
        ("mmgcn.latent_dim", config.mmgcn.latent_dim, 1),
        ("mmssl.heads", mmssl.heads, 1),
        ("mmssl.id_layers", mmssl.id_layers, 0),
        ("mmssl.topk_rate", mmssl.topk_rate or 0, 0),
        ("mmssl.refresh_every", mmssl.refresh_every or 0, 0),
        ("mmssl.adversarial_users", mmssl.adversarial_users or 0, 0),
        *(
            (f"mmssl.{name}", getattr(mmssl, name) or 0, 0)
            for name in ("l2", "feature_l2", "contrast_weight", "adversarial_weight", "penalty_weight", "own_weight")
        ),
        ("optimizer.weight_decay", config.optimizer.weight_decay or 0, 0),
        ("eval.patience", protocol.patience or 0, 0),
        ("eval.evaluate_every", protocol.evaluate_every, 1),
        ("eval.round_digits", protocol.round_digits or 0, 0),
        *(("ks", k, 1) for k in config.ks),
        *(("eval.cutoffs", k, 1) for k in protocol.cutoffs),
    ):
        if not value >= low:
            raise UserError(f"{setting(name)} is {value}: give at least {low}")
    for name, positive in (
        ("slmrec.temperature", slmrec.temperature),
        ("slmrec.ssl_temperature", slmrec.ssl_temperature),
        ("mmssl.contrast_temperature", mmssl.contrast_temperature),
        ("mmssl.real_temperature", mmssl.real_temperature),
        ("mmssl.discriminator_learning_rate", mmssl.discriminator_learning_rate),
        ("optimizer.learning_rate", config.optimizer.learning_rate),
    ):
        if positive is not None and not positive > 0:
            raise UserError(f"{setting(name)} is {positive}: give more than 0")
    if config.seed >= 2**32:
        raise UserError(f"{setting('seed')} is {config.seed}: give less than 2**32")
    for name, rate in (
        ("slmrec.dropout_rate", slmrec.dropout_rate),
        ("mmssl.feature_dropout", mmssl.feature_dropout),
        *(("mmssl.discriminator_dropout", rate) for rate in mmssl.discriminator_dropout),
    ):
        if not 0 <= rate < 1:
            raise UserError(f"{setting(name)} is {rate}: give a share of at least 0 and less than 1")
    for name, cutoffs in (("ks", config.ks), ("eval.cutoffs", protocol.cutoffs)):
        if not cutoffs:
            raise UserError(f"{setting(name)} is empty: give at least one cut-off")
    if config.task == "fd+fm" and slmrec.fd_mode == "input" and slmrec.fm_granularity == "item":
        raise UserError(
            f"{setting('task', 'fd+fm')} cannot both drop and mask the items' input: take "
            f"{setting('slmrec.fd_mode', 'layer')} or {setting('slmrec.fm_granularity', 'batch')}"
        )


def _check_fields(part: Any, section: str = "") -> None:
    """Reject a value that its field's annotation does not allow; the command does so too, Python does not."""
    for field_name, hint in get_type_hints(type(part)).items():
        value, name = getattr(part, field_name), f"{section}{field_name}"
        if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")):
            check_type(name, value, hint, f"a {hint.__module__}.{hint.__name__}")
            _check_fields(value, f"{name}.")
            continue
        literals = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal), None)
        if literals is not None and isinstance(value, str) and value not in get_args(literals):
            raise UserError(f"{setting(name)} is {value!r}: give one of {', '.join(map(str, get_args(literals)))}")
        if fault(value, hint) is not None:
            raise UserError(f"{setting(name)} is {shown(value)}: give {words(hint)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{setting(name)} is {value}: give a finite number")


def to_json(config: Config) -> dict[str, Any]:
    """The config as plain data for `config.json`."""
    return dataclasses.asdict(config) | {"eval": config.eval._asdict()}


def relevant(config: Config) -> dict[str, Any]:
    """Return what a run depends on as plain data.

    Sections of other models are left out, and so is where the data lie: their fingerprint says whether they are the
    same.
    """
    left_out = {*DEFAULTS, *Source._fields} - {config.model}
    return {name: value for name, value in to_json(config).items() if name not in left_out}


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first setting that is not what it was, such as `dim (64, not 32)`; none where all are.

    Args:
        before: settings as plain data, such as `relevant` gives; what it lacks counts as `None`.
        now: the settings that are looked at.
    """
    changed = (f"{name} ({before.get(name)}, not {value})" for name, value in now.items() if before.get(name) != value)
    return next(changed, None)


def from_json(data: Mapping[str, Any], source: str) -> Config:
    """The config that `to_json` wrote.

    Raises:
        UserError: the data lacks fields of a config, or has others; `source` says where it stood.
    """
    sections = {
        "slmrec": SLMRecConfig,
        "mf": MFConfig,
        "lightgcn": LightGCNConfig,
        "vbpr": VBPRConfig,
        "mmgcn": MMGCNConfig,
        "mmssl": MMSSLConfig,
        "optimizer": OptimizerConfig,
        "eval": Protocol,
    }
    names = {field.name for field in dataclasses.fields(Config)}
    if set(data) != names:
        field = min(names ^ set(data))
        how = "missing" if field in names else "not known"
        raise UserError(
            f"{source} is not a config of this version: {field} is {how}; start a new run in another folder"
        )
    plain = _with_tuples(data)
    plain |= {name: _with_tuples(plain[name]) for name in sections if isinstance(plain[name], Mapping)}
    wrong = fault(plain, Config)
    if wrong is not None:
        raise UserError(f"{source} is not a config of this version: {wrong}")
    try:
        return Config(**plain | {name: make(**plain[name]) for name, make in sections.items()})
    except (TypeError, AttributeError) as error:
        raise UserError(f"{source} is not a config of this version: {error}") from None


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
