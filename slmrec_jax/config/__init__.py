"""The configuration of a run, as frozen data.

`systems` and `peers` have the options of each model and of the optimizer, `config` those of the run, `protocols` the
evaluation rules, `presets` the named settings, `checks` the rules that values must obey, `files` the config files, and
`serialization` the config as plain data.
"""

from slmrec_jax.config.checks import check_config
from slmrec_jax.config.config import IN_MEMORY, Config, Missing, Task, source_of, with_source
from slmrec_jax.config.peers import BM3Config, FREEDOMConfig, LATTICEConfig, MGCNConfig, SGLConfig, SimGCLConfig
from slmrec_jax.config.presets import (
    PRESETS,
    filled_in,
    with_defaults,
    with_preset,
    with_protocol,
    with_settings,
    with_system,
)
from slmrec_jax.config.protocols import PROTOCOLS, Protocol, ProtocolName
from slmrec_jax.config.serialization import first_change, from_json, relevant, to_json
from slmrec_jax.config.source import Source
from slmrec_jax.config.systems import (
    BASE,
    LightGCNConfig,
    MFConfig,
    MMGCNConfig,
    MMSSLConfig,
    ModelName,
    OptimizerConfig,
    Settings,
    SLMRecConfig,
    VBPRConfig,
)

__all__ = [
    "BASE",
    "IN_MEMORY",
    "PRESETS",
    "PROTOCOLS",
    "BM3Config",
    "Config",
    "FREEDOMConfig",
    "LATTICEConfig",
    "LightGCNConfig",
    "MFConfig",
    "MGCNConfig",
    "MMGCNConfig",
    "MMSSLConfig",
    "Missing",
    "ModelName",
    "OptimizerConfig",
    "Protocol",
    "ProtocolName",
    "SGLConfig",
    "SLMRecConfig",
    "Settings",
    "SimGCLConfig",
    "Source",
    "Task",
    "VBPRConfig",
    "check_config",
    "filled_in",
    "first_change",
    "from_json",
    "relevant",
    "source_of",
    "to_json",
    "with_defaults",
    "with_preset",
    "with_protocol",
    "with_settings",
    "with_source",
    "with_system",
]
