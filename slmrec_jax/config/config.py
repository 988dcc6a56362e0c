"""A run's configuration as frozen data; each field is a flag of the command."""

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
"""SLMRec's self-supervised tasks: the paper's three, and its future work, augmentations of the graph as in SGL."""

Task: TypeAlias = Annotated[
    str, Limit(lambda task: is_task(task), f"none, {', '.join(TASKS)} or several, such as fac+ed")
]
Missing = Literal["masked", "zero", "mean"]


@dataclass(frozen=True)
class Config(Source):
    """One run: its data, its system and how it trains, selects and tests."""

    modalities: tuple[str, ...] = ()
    """Modalities to use, in this order, which FAC's levels follow; all of the data set's by default."""
    missing: Missing = "masked"
    """Items without a modality: left out of it, or given zeros or the mean of the other items; word ids are always left
    out."""
    model: ModelName = "slmrec"
    """The system to train."""
    task: Task = "fac"
    """SLMRec's self-supervised tasks: fac, fd, fm, ed, nd, rw, joined by +; or none."""
    main_weight: Annotated[float, at_least(0)] = 1.0
    """Weight of SLMRec's main loss; 0 trains the task alone."""
    seed: Annotated[int, at_least(0), less_than(2**32)] = 0
    """Decides everything random in training."""
    epochs: Annotated[int, at_least(1)] = 1000
    """The maximum number of epochs; early stopping ends most runs sooner."""
    steps_per_epoch: Annotated[int, at_least(1)] | None = None
    """Steps of an epoch, after which it is evaluated and saved; by default as many as take every interaction once."""
    batch_size: Annotated[int, at_least(1)] = 2048
    """Interactions in a batch."""
    micro_batches: Annotated[int, at_least(1)] | Literal["auto"] = 1
    """Batches in a step, each with losses of its own, for one propagation; `auto` takes as many as make propagation a
    fifth of the work, in at least 16 steps an epoch and at most 2^20 interactions a step."""
    negatives: Literal["uniform", "popular"] = "uniform"
    """Sampled negatives: items that the user has not met, drawn uniformly or in proportion to their interactions."""
    checkpoint_every_steps: Annotated[int, at_least(0)] = 0
    """Number of steps between two checkpoints within an epoch; 0 saves only after each epoch."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """If training is not finite: stop, leave that step out, or go back to the last checkpoint and draw again."""
    bpr_negatives: Annotated[int, at_least(1)] = 1
    """Number of negatives for each positive in BPR."""
    dim: Annotated[int, at_least(2)] = 64
    """Columns of an embedding."""
    num_layers: Annotated[int, at_least(0)] = 3
    """Propagation layers of the graph of users and items."""
    ks: Cutoffs = DEFAULT_CUTOFFS
    """Cut-offs of the metrics."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """Matrix products in training on GPU and TPU: full precision, or faster with rounded factors. Ranking always has
    full precision, and so do CPUs."""
    propagation: Literal["auto", "chains", "definition"] = "auto"
    """For slmrec, bm3, freedom, lightgcn, mgcn and mmgcn: the exact algebra if a cost rule finds it cheaper, always, or
    never."""
    frozen_rows: Literal["float32", "bfloat16"] = "float32"
    """How slmrec and lightgcn hold modalities that are propagated once: bfloat16 takes half the memory and rounds to 8
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
    """How to select and to test; `with_protocol` sets all of it."""

    @property
    def num_micro_batches(self) -> int:
        """The number of micro-batches; `auto` counts as one until the data decide it."""
        return 1 if self.micro_batches == "auto" else self.micro_batches

    @property
    def tasks(self) -> frozenset[str]:
        """The self-supervised tasks by name, such as `{"fac", "ed"}`; empty for `none`."""
        return frozenset(self.task.split("+")) - {"none"}

    @property
    def protocol(self) -> ProtocolName:
        """The name of the protocol."""
        return self.eval.name

    @staticmethod
    def load(path: Path | str) -> "Config":
        """Read a `.json` or `.toml` file, such as the `config.json` of a run, or one with a few settings.

        Settings that the file leaves out have their defaults. It may also name a `preset` of the model and a
        `protocol`; single settings win over both. Nothing in it is executed.

        Args:
            path: The file.

        Returns:
            The config.

        Raises:
            UserError: The file cannot be read, or a setting in it is unknown or has a value of another type.
        """
        from slmrec_jax.config.files import with_config_file  # which imports this class

        return with_config_file(Config(), path)

    def save(self, path: Path | str) -> None:
        """Write all settings to a `.json` or `.toml` file, which `load` reads.

        Args:
            path: The file, which is replaced if it exists.

        Raises:
            UserError: The name has another ending, or the file cannot be written.
        """
        from slmrec_jax.config.files import write_config_file

        write_config_file(self, path)


def is_task(text: str) -> bool:
    """Return whether this names a task of SLMRec, several with `+` between them, or `none`."""
    names = text.split("+")
    return text == "none" or (set(names) <= set(TASKS) and len(set(names)) == len(names))


IN_MEMORY = "<in memory>"
"""`Config.data` of a run whose data set was given as a value: its folder holds the data set."""


def source_of(config: Source) -> Source:
    """Return where a config's data set is read from."""
    return Source(**{each.name: getattr(config, each.name) for each in fields(Source)})


def with_source(config: Config, source: Source | None) -> Config:
    """Return the config with another source of its data set; `None` is memory."""
    return replace(config, **vars(source or Source(IN_MEMORY)))
