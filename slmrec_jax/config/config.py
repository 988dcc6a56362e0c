"""The configuration of a run, as frozen data. Each field is a flag of the command line."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from slmrec_jax.config.peers import BM3Config, FREEDOMConfig, LATTICEConfig, MGCNConfig, SGLConfig, SimGCLConfig
from slmrec_jax.config.protocols import DEFAULT_CUTOFFS, PROTOCOLS, Cutoffs, Protocol, ProtocolName
from slmrec_jax.config.source import Source
from slmrec_jax.config.systems import (
    LightGCNConfig,
    MFConfig,
    MMGCNConfig,
    MMSSLConfig,
    ModelName,
    OptimizerConfig,
    SLMRecConfig,
    VBPRConfig,
)
from slmrec_jax.forms import Limit, at_least, less_than

TASKS = ("fac", "fd", "fm", "ed", "nd", "rw")
"""SLMRec's self-supervised tasks: the paper's three, and graph augmentations as in SGL, which it names as future
work."""

Task: TypeAlias = Annotated[
    str, Limit(lambda task: is_task(task), f"none, {', '.join(TASKS)} or several, such as fac+ed")
]
Missing = Literal["masked", "zero", "mean"]


@dataclass(frozen=True)
class Config(Source):
    """The configuration of one run: its data, its system, and how it is trained, selected and tested."""

    modalities: tuple[str, ...] = ()
    """Modalities to use, in this order, which FAC's levels follow; by default all of the data set's."""
    missing: Missing = "masked"
    """How to treat items without a modality: mask it, or fill in zeros or the mean of the other items. Missing word ids
    are always masked."""
    model: ModelName = "slmrec"
    """The system to train."""
    task: Task = "fac"
    """SLMRec's self-supervised tasks: fac, fd, fm, ed, nd, rw, joined by +; or none."""
    main_weight: Annotated[float, at_least(0)] = 1.0
    """Weight of SLMRec's main loss; 0 trains only the task."""
    seed: Annotated[int, at_least(0), less_than(2**32)] = 0
    """Seed of all randomness in training."""
    epochs: Annotated[int, at_least(1)] = 1000
    """The maximum number of epochs; early stopping ends most runs sooner."""
    steps_per_epoch: Annotated[int, at_least(1)] | None = None
    """Steps per epoch, after which the model is evaluated and saved; by default one pass over the interactions."""
    batch_size: Annotated[int, at_least(1)] = 2048
    """Interactions per batch."""
    micro_batches: Annotated[int, at_least(1)] | Literal["auto"] = 1
    """Batches per step, each with its own losses, that share one propagation; `auto` chooses the number so that
    propagation is at most a fifth of the work, with at least 16 steps per pass."""
    negatives: Literal["uniform", "popular"] = "uniform"
    """How to sample negatives from the items that a user has not interacted with: uniformly, or in proportion to
    popularity."""
    checkpoint_every_steps: Annotated[int, at_least(0)] = 0
    """Number of steps between checkpoints within an epoch; 0 saves only after each epoch."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """If training becomes NaN or infinite: stop, skip the step, or go back to the last checkpoint with different random
    draws."""
    bpr_negatives: Annotated[int, at_least(1)] = 1
    """Number of negatives per positive in BPR."""
    dim: Annotated[int, at_least(2)] = 64
    """Columns of an embedding."""
    num_layers: Annotated[int, at_least(0)] = 3
    """Propagation layers on the user-item graph."""
    ks: Cutoffs = DEFAULT_CUTOFFS
    """Cut-offs of the metrics."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """Precision of matrix products in training on GPU and TPU: full, or faster with rounded factors. CPUs always use
    full precision; ranking has `eval.precision`."""
    propagation: Literal["auto", "chains", "definition"] = "auto"
    """How systems that propagate compute it: in fewer products (`auto`, `chains`) or by the definition. slmrec and
    lightgcn with fused features propagate features once if a cost rule finds it cheaper (`auto`), or always. lattice
    and mmssl have one way only."""
    frozen_rows: Literal["float32", "bfloat16"] = "float32"
    """How slmrec and lightgcn store modalities that are propagated once: bfloat16 takes half the memory and rounds to 8
    bits."""
    slmrec: SLMRecConfig = field(default_factory=SLMRecConfig)
    """Options of SLMRec."""
    bm3: BM3Config = field(default_factory=BM3Config)
    """Options of BM3."""
    freedom: FREEDOMConfig = field(default_factory=FREEDOMConfig)
    """Options of FREEDOM."""
    lattice: LATTICEConfig = field(default_factory=LATTICEConfig)
    """Options of LATTICE."""
    mf: MFConfig = field(default_factory=MFConfig)
    """Options of MF-BPR."""
    lightgcn: LightGCNConfig = field(default_factory=LightGCNConfig)
    """Options of LightGCN."""
    vbpr: VBPRConfig = field(default_factory=VBPRConfig)
    """Options of VBPR."""
    mgcn: MGCNConfig = field(default_factory=MGCNConfig)
    """Options of MGCN."""
    mmgcn: MMGCNConfig = field(default_factory=MMGCNConfig)
    """Options of MMGCN."""
    mmssl: MMSSLConfig = field(default_factory=MMSSLConfig)
    """Options of MMSSL."""
    sgl: SGLConfig = field(default_factory=SGLConfig)
    """Options of SGL."""
    simgcl: SimGCLConfig = field(default_factory=SimGCLConfig)
    """Options of SimGCL."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer and its settings."""
    eval: Protocol = PROTOCOLS["strict"]
    """How to select the best epoch and to test it; `with_protocol` sets all of it."""

    @property
    def num_micro_batches(self) -> int:
        """The number of micro-batches. `auto` counts as one until it is resolved for the data."""
        return 1 if self.micro_batches == "auto" else self.micro_batches

    @property
    def tasks(self) -> frozenset[str]:
        """The names of the self-supervised tasks, such as `{"fac", "ed"}`; empty for `none`."""
        return frozenset(self.task.split("+")) - {"none"}

    @property
    def protocol(self) -> ProtocolName:
        """The name of the protocol."""
        return self.eval.name

    @staticmethod
    def load(path: Path | str) -> "Config":
        """Read a config from a `.json` or `.toml` file, such as a run's `config.json` or a file with a few settings.

        Settings that are not in the file have their defaults. The file may also name a `preset` of the model and a
        `protocol`; single settings win over both. Nothing in the file is executed.

        Args:
            path: The file.

        Returns:
            The config.

        Raises:
            UserError: The file cannot be read, or a setting in it is unknown or has a value of the wrong type.
        """
        from slmrec_jax.config.files import with_config_file  # imports this class

        return with_config_file(Config(), path)

    def save(self, path: Path | str) -> None:
        """Write all settings to a `.json` or `.toml` file, which `load` reads.

        Args:
            path: The file to write. An existing file is replaced.

        Raises:
            UserError: The file name has a different ending, or the file cannot be written.
        """
        from slmrec_jax.config.files import write_config_file

        write_config_file(self, path)


def is_task(text: str) -> bool:
    """Return whether a text names a task of SLMRec, several tasks joined by `+`, or `none`."""
    names = text.split("+")
    return text == "none" or (set(names) <= set(TASKS) and len(set(names)) == len(names))


IN_MEMORY = "<in memory>"
"""The value of `Config.data` for a data set made in memory, which is stored in the run's folder."""


def source_of(config: Source) -> Source:
    """Return the source of a config's data set."""
    return Source(**{each.name: getattr(config, each.name) for each in fields(Source)})


def with_source(config: Config, source: Source | None) -> Config:
    """Return the config with a different data source; `None` means a data set in memory."""
    return replace(config, **vars(source or Source(IN_MEMORY)))
