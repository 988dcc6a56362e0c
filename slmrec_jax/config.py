"""Every choice of a run as frozen data; each field is a flag of the command (`--slmrec.alpha 0.05`)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from slmrec_jax.errors import UserError
from slmrec_jax.evaluation.protocol import PROTOCOLS, Protocol

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
    temperature: float = 0.2
    """Temperature of the main loss."""
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
"""Every switch of `SLMRecConfig` on which the paper and the published code differ, or may differ."""


@dataclass(frozen=True)
class MFConfig:
    """Matrix factorisation with BPR (Rendle et al., UAI 2009)."""

    features: Literal["none", "concat", "linear"] = "none"
    """Items are ids alone; or, as the SLMRec paper's baseline, an id's row beside the projected row of each modality
    (users get as many columns); or one affine map of both."""
    item_bias: bool = False
    """A bias for each item."""
    l2: float = 1e-4
    """Weight of the batch's rows in the loss: l2 / 2 · (|p_u|² + |q_i|² + |q_j|²) / batch."""


@dataclass(frozen=True)
class LightGCNConfig:
    """LightGCN with BPR: on ids alone, or with modalities as the SLMRec paper's baseline."""

    features: Literal["none", "fused"] = "none"
    """Ids alone, or SLMRec's encoder and fusion without its losses."""
    l2: float = 1e-4
    """Weight of the batch's layer-0 rows in the loss: l2 / 2 · (|e_u|² + |e_i|² + |e_j|²) / batch."""
    norm: Literal["squared", "frobenius"] = "squared"
    """The rows' norm in that term: squared (the authors' code), or Frobenius norms as they are (MMRec toolbox)."""
    init: Literal["normal", "xavier"] = "normal"
    """Tables start as normal with deviation 0.1 (the authors' code) or Xavier-uniform (paper)."""
    score: Literal["dot", "cosine"] = "dot"
    """What BPR compares; SLMRec's published code keeps a variant by cosine."""


@dataclass(frozen=True)
class VBPRConfig:
    """VBPR (He and McAuley, AAAI 2016) on the concatenated features."""

    variant: Literal["multimodal", "original"] = "multimodal"
    """As the SLMRec paper and MMRec have it, or with the original's item bias and visual bias."""
    l2: float = 1e-4
    """Weight of the batch's rows in the loss, as MF's."""
    norm: Literal["squared", "frobenius"] = "squared"
    """The rows' norm in that term: squared, or Frobenius norms as they are (MMRec toolbox)."""
    normalize_features: bool = False
    """Divides each feature row by its L2 norm; the references do not."""


@dataclass(frozen=True)
class MMGCNConfig:
    """MMGCN (Wei et al., ACM MM 2019)."""

    tables: Literal["trained", "frozen"] = "trained"
    """Identity and preference tables: trained as the paper means them, or random for ever as in the published code."""
    latent_dim: int = 256
    """To how many columns the `projected` modalities and their preference tables go first."""
    projected: tuple[str, ...] = ("visual",)
    """Modalities that are projected first; the others keep their own columns."""
    l2: float = 0.1
    """Weight of the mean squares of the batch's identity rows and of the projected modalities' preference tables."""
    normalize_features: bool = False
    """Divides each feature row by its L2 norm; the published code does not."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with coupled L2 (the decay joins the gradient before the moments, as in PyTorch), or any optax chain."""

    learning_rate: float | None = None
    """By default the model's own (`DEFAULTS`)."""
    weight_decay: float | None = None
    """Coupled L2, on every parameter; by default the model's own (`DEFAULTS`)."""
    chain: tuple[str, ...] = ()
    """Instead of the above: optax transformations in turn, such as `"clip_by_global_norm(1.0)" "adamw(1e-3)"`."""


DEFAULTS: Mapping[ModelName, Mapping[str, float]] = {
    "slmrec": {"learning_rate": 1e-3, "weight_decay": 1e-4},
    "mf": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "lightgcn": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "vbpr": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "mmgcn": {"learning_rate": 1e-3, "weight_decay": 0.0},
    "mmssl": {"learning_rate": 5.5e-4, "weight_decay": 1e-2},
}
"""The optimizer's settings where a config does not say."""


VARIANTS: Mapping[ModelName, Mapping[str, Mapping[str, str]]] = {
    "slmrec": {task: {"task": task} for task in get_args(Task)},
    "mf": {features: {"mf.features": features} for features in ("concat", "linear")},
    "lightgcn": {"fused": {"lightgcn.features": "fused"}},
    "vbpr": {"original": {"vbpr.variant": "original"}},
    "mmgcn": {"frozen": {"mmgcn.tables": "frozen"}},
}
"""What `model:variant` stands for where systems are compared: settings by the name of their flag."""


@dataclass(frozen=True)
class Config:
    """One run."""

    data: str = "demo"
    """`demo`, or the folder of a data set."""
    format: str | None = None
    """The folder's format, where it is not clear from what lies there."""
    split: str | None = None
    """How to divide the interactions: data that are not divided need it, others are divided anew."""
    split_seed: int = 0
    """What a random split follows from; it is apart from --seed, so that all seeds train on the same data."""
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
    bpr_negatives: int = 1
    """How many negatives a positive gets in BPR."""
    dim: int = 64
    num_layers: int = 3
    """Propagation layers."""
    ks: tuple[int, ...] = (10, 20, 50)
    """Cut-offs of the metrics."""
    propagation: Literal["auto", "chains", "definition"] = "auto"
    """The exact algebra where a cost rule finds it cheaper, always, or never."""
    slmrec: SLMRecConfig = field(default_factory=SLMRecConfig)
    mf: MFConfig = field(default_factory=MFConfig)
    lightgcn: LightGCNConfig = field(default_factory=LightGCNConfig)
    vbpr: VBPRConfig = field(default_factory=VBPRConfig)
    mmgcn: MMGCNConfig = field(default_factory=MMGCNConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: Protocol = PROTOCOLS["strict"]


def with_preset(config: Config, preset: Preset) -> Config:
    """The config with every switch set as the preset has it."""
    return dataclasses.replace(config, slmrec=dataclasses.replace(config.slmrec, **PRESETS[preset]))


def with_protocol(config: Config, protocol: ProtocolName) -> Config:
    """The config with selection and test as the protocol has them."""
    return dataclasses.replace(config, protocol=protocol, eval=PROTOCOLS[protocol])


def with_variant(config: Config, model: ModelName, variant: str = "") -> Config:
    """The config for a system, or for one of its variants."""
    config = dataclasses.replace(config, model=model)
    for flag, value in (VARIANTS[model][variant] if variant else {}).items():
        section, _, name = flag.rpartition(".")
        changed: Any = dataclasses.replace(getattr(config, section), **{name: value}) if section else value
        change = {section or name: changed}
        config = dataclasses.replace(config, **change)
    return config


def with_defaults(config: Config) -> Config:
    """The config with the model's own settings where it leaves them open."""
    given = config.optimizer
    still_open: dict[str, Any] = {
        name: value for name, value in DEFAULTS[config.model].items() if getattr(given, name) is None
    }
    return dataclasses.replace(config, optimizer=dataclasses.replace(given, **still_open))


def check_config(config: Config) -> None:
    """Refuses values that cannot be meant.

    Raises:
        UserError: names the first such value.
    """
    slmrec, protocol = config.slmrec, config.eval
    choices: dict[str, tuple[str, tuple[str, ...]]] = {
        "model": (config.model, get_args(ModelName)),
        "task": (config.task, get_args(Task)),
        "protocol": (config.protocol, get_args(ProtocolName)),
        "missing": (config.missing, get_args(Missing)),
    }
    for name, (choice, known) in choices.items():
        if choice not in known:
            raise UserError(f"--{name} is {choice!r}: give one of {', '.join(known)}")
    if config.protocol != protocol.name:
        raise UserError(
            f"protocol is {config.protocol!r} but eval is that of {protocol.name!r}: give --protocol alone, or in "
            f"Python with_protocol(config, {config.protocol!r})"
        )
    for name, value, low in (
        ("epochs", config.epochs, 1),
        ("batch-size", config.batch_size, 1),
        ("bpr-negatives", config.bpr_negatives, 1),
        ("dim", config.dim, 2),
        ("num-layers", config.num_layers, 0),
        ("seed", config.seed, 0),
        ("split-seed", config.split_seed, 0),
        ("main-weight", config.main_weight, 0),
        ("slmrec.alpha", slmrec.alpha, 0),
        ("slmrec.num-negatives", slmrec.num_negatives, 1),
        ("mf.l2", config.mf.l2, 0),
        ("lightgcn.l2", config.lightgcn.l2, 0),
        ("vbpr.l2", config.vbpr.l2, 0),
        ("mmgcn.l2", config.mmgcn.l2, 0),
        ("mmgcn.latent-dim", config.mmgcn.latent_dim, 1),
        ("optimizer.weight-decay", config.optimizer.weight_decay or 0, 0),
        ("eval.patience", protocol.patience or 0, 0),
        ("eval.evaluate-every", protocol.evaluate_every, 1),
        ("eval.round-digits", protocol.round_digits or 0, 0),
        *(("ks", k, 1) for k in config.ks),
        *(("eval.cutoffs", k, 1) for k in protocol.cutoffs),
    ):
        if not value >= low:
            raise UserError(f"--{name} is {value}: give at least {low}")
    for name, positive in (
        ("slmrec.temperature", slmrec.temperature),
        ("slmrec.ssl-temperature", slmrec.ssl_temperature),
        ("optimizer.learning-rate", config.optimizer.learning_rate),
    ):
        if positive is not None and not positive > 0:
            raise UserError(f"--{name} is {positive}: give more than 0")
    if config.seed >= 2**32:
        raise UserError(f"--seed is {config.seed}: give less than 2**32")
    if not 0 <= slmrec.dropout_rate < 1:
        raise UserError(f"--slmrec.dropout-rate is {slmrec.dropout_rate}: give a share of at least 0 and less than 1")
    if not config.ks:
        raise UserError("--ks is empty: give at least one cut-off")
    if config.task == "fd+fm" and slmrec.fd_mode == "input" and slmrec.fm_granularity == "item":
        raise UserError(
            "--task fd+fm cannot both drop and mask the items' input: take --slmrec.fd-mode layer or "
            "--slmrec.fm-granularity batch"
        )


def to_json(config: Config) -> dict[str, Any]:
    """The config as plain data for `config.json`."""
    return dataclasses.asdict(config) | {"eval": config.eval._asdict()}


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
    try:
        made = {name: make(**_with_tuples(data[name])) for name, make in sections.items()}
        return Config(**_with_tuples(data) | made)
    except (TypeError, AttributeError) as error:
        raise UserError(f"{source} is not a config of this version: {error}") from None


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
