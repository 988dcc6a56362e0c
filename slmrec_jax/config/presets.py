"""Named settings: a preset maps flag names to values.

`--preset paper`, `--model mmssl --preset published` and `compare --models slmrec:paper,mmssl:published,mf:concat` all
name entries of `PRESETS`. `BASE` is the preset that every model starts from, and a protocol is a preset of `eval`. An
unknown model or preset raises a `UserError`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slmrec_jax.config.config import TASKS, Config, is_task
from slmrec_jax.config.protocols import PROTOCOLS, Protocol, ProtocolName
from slmrec_jax.config.systems import BASE, ModelName, Settings
from slmrec_jax.errors import UserError

_SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "slmrec.temperature": (0.2, 0.2),
    "slmrec.main_negatives": ("inbatch", "sampled"),
    "slmrec.mask_false_negatives": (False, False),
    "slmrec.popularity_correction": (0.0, 0.0),
    "slmrec.fac_similarity": ("dot", "cosine"),
    "slmrec.fd_mode": ("layer", "input"),
    "slmrec.fm_mode": ("swapped", "clean"),
    "slmrec.fm_granularity": ("batch", "batch"),
    "slmrec.ssl_entities": ("both", "items"),
    "slmrec.contrast_on": ("fused", "modality"),
    "slmrec.fusion": ("concat", "concat"),
    "slmrec.user_table": ("shared", "shared"),
    "slmrec.normalize_features": (True, True),
    "slmrec.words": ("frozen", "trainable"),
}
"""The values of SLMRec's published code and of its paper, for each setting where the two differ or may differ. The
defaults are the code's, except the temperature, which was chosen on validation, and the popularity correction, which is
`auto`."""

_MMSSL_WEIGHTS: Settings = {
    "optimizer.weight_decay": 1e-2,
    "mmssl.id_layers": 2,
    "mmssl.view_weight": 0.36,
    "mmssl.feature_weight": 0.55,
    "mmssl.l2": 1e-5,
    "mmssl.contrast_weight": 0.03,
    "mmssl.contrast_temperature": 0.5,
}
"""MMSSL's settings in its released code and in the figures of its paper."""

PRESETS: Mapping[ModelName, Mapping[str, Settings]] = {
    "slmrec": {
        "reference": {flag: code for flag, (code, _) in _SWITCHES.items()},
        "paper": {flag: paper for flag, (_, paper) in _SWITCHES.items()},
        **{task: {"task": task} for task in ("none", *TASKS, "fd+fm", "fac+ed")},
    },
    "mf": {features: {"mf.features": features} for features in ("concat", "linear")},
    "lightgcn": {"fused": {"lightgcn.features": "fused"}},
    "vbpr": {"original": {"vbpr.variant": "original"}},
    "freedom": {"published": {"num_layers": 2}},
    "lattice": {"published": {"num_layers": 2}},
    "mmgcn": {"frozen": {"mmgcn.tables": "frozen"}},
    "mmssl": {
        "paper": {
            "optimizer.learning_rate": 3e-3,
            **_MMSSL_WEIGHTS,
        },
        "published": {
            "batch_size": 1024,
            "optimizer.learning_rate": 5.5e-4,
            **_MMSSL_WEIGHTS,
            "mmssl.attention": "collapsed",
            "mmssl.graphs": "last_batches",
            "mmssl.topk_rate": 1e-4,
            "mmssl.refresh_every": 1,
            "mmssl.similarity": "dot",
            "mmssl.mask_training": True,
            "mmssl.id_propagation": "sequential",
            "mmssl.last_softmax": True,
            "mmssl.sampling": "users",
            "mmssl.normalize_features": False,
            "mmssl.adversarial_weight": 1e-4,
            "mmssl.adversarial_users": 0,
            "mmssl.discriminator_activation": "identity",
            "mmssl.discriminator_output": "sigmoid",
            "mmssl.discriminator_widths": "full",
            "mmssl.real_cooled": "noise_only",
            "mmssl.own_weight": 100.0,
        },
    },
}
"""The presets of each model by name. SLMRec also has one for every combination of tasks."""


def with_settings(config: Config, settings: Settings) -> Config:
    """Return the config with some settings changed, given by flag name, such as `slmrec.alpha`."""
    for flag, value in settings.items():
        section, _, name = flag.rpartition(".")
        change = {name: value}
        if section:
            part = getattr(config, section)
            replaced = part._replace(**change) if isinstance(part, Protocol) else replace(part, **change)
            change = {section: replaced}
        config = replace(config, **change)
    return config


def with_preset(config: Config, preset: str) -> Config:
    """Return the config with the settings of a preset of its model.

    Optimizer settings that the config already has are kept; presets only fill in missing ones.

    Args:
        config: The config. The preset must be one of its `model`.
        preset: The preset's name, such as `paper`.

    Raises:
        UserError: The model has no such preset; the message lists its presets.
    """
    presets = PRESETS.get(config.model, {})
    if config.model == "slmrec" and is_task(preset):
        return with_settings(config, {"task": preset})
    joins = ", and other tasks joined by +" if config.model == "slmrec" else ""
    if preset not in presets:
        raise UserError(
            f"{config.model} has no preset {preset!r}; its presets are: {', '.join(presets) or 'none'}{joins}"
        )
    return _applied(config, presets[preset])


def with_system(config: Config, system: str) -> Config:
    """Return the config for a named system: a model, such as `mf`, or a model with a preset, such as `mf:concat`."""
    model, _, preset = system.partition(":")
    if model not in BASE:
        raise UserError(f"there is no model {model!r}: give one of {', '.join(BASE)}")
    config = with_settings(config, {"model": model})
    return with_preset(config, preset) if preset else config


def with_defaults(config: Config) -> Config:
    """Return the config with missing optimizer settings filled in from the model's defaults (`BASE`)."""
    return _applied(config, BASE[config.model])


def with_protocol(config: Config, protocol: ProtocolName) -> Config:
    """Return the config with a protocol's rules for selection and testing.

    Args:
        config: The config to change.
        protocol: The protocol's name, such as `mmrec`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"there is no protocol {protocol!r}: give one of {', '.join(PROTOCOLS)}")
    return with_settings(config, {"eval": PROTOCOLS[protocol]})


def filled_in(value: float | None) -> float:
    """Return an optimizer setting that `with_defaults` has filled in; raise a `ValueError` if it is missing."""
    if value is None:
        raise ValueError("the config leaves this setting open: pass it through with_defaults")
    return value


def _applied(config: Config, preset: Settings) -> Config:
    """Return the config with a preset applied. Optimizer settings that the config already has are kept."""
    given = {f"optimizer.{name}" for name, value in vars(config.optimizer).items() if value is not None}
    return with_settings(config, {flag: value for flag, value in preset.items() if flag not in given})
