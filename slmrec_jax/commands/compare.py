"""The command `slmrec-jax compare`."""

from dataclasses import dataclass
from pathlib import Path

from slmrec_jax.commands.settings import SettingsFlags, parse_seeds
from slmrec_jax.config import Config
from slmrec_jax.errors import UserError, escaped, setting


@dataclass(frozen=True)
class CompareFlags(SettingsFlags):
    """Train several systems on the same data and show their test metrics side by side."""

    out: Path = Path("runs/compare")
    """The folder of the runs, tables and pictures; finished runs in it are not repeated."""
    models: str = "popularity,lightgcn,slmrec"
    """Systems, separated by commas: popularity, itemknn, randomwalk and models, also with a preset, which wins over
    flags: `slmrec:fd` is SLMRec with that task; others are `slmrec:paper`, `mf:concat`, `mf:linear`, `lightgcn:fused`,
    `vbpr:original`, `mmgcn:frozen`, `freedom:published`, `lattice:published` and `mmssl:published`."""
    seeds: str = "0"
    """Seeds, separated by commas."""


def run_compare(flags: CompareFlags) -> None:
    """Train the missing runs, and print the table."""
    from rich.console import Console

    from slmrec_jax.commands.tables import fit_width
    from slmrec_jax.durable import writing
    from slmrec_jax.reporting.paper import CURVES, USERS, write_results
    from slmrec_jax.studies.comparison import COMPARISON_JSON, compare
    from slmrec_jax.training.progress import display
    from slmrec_jax.training.storage.folder import CONFIG

    seeds = parse_seeds(flags, flags.seeds, "compare")
    if flags.settings.model != Config().model:
        raise UserError(
            f"compare takes --models, but --model, or the file of --config, names {flags.settings.model}: leave it out"
        )
    foreign = [name for name in (CONFIG, USERS, CURVES) if (flags.out / name).exists()]
    if foreign and not (flags.out / COMPARISON_JSON).exists():  # a data set, a run or an export has these names too
        raise UserError(f"{flags.out} holds {foreign[0]}, but no comparison: give another {setting('out')}")
    with display(flags.settings.epochs) as show:
        comparison = compare(flags.settings, flags.models.split(","), seeds, flags.out, show)
    with writing(flags.out, f"give another {setting('out')}; the same command does not repeat finished runs"):
        write_results(comparison.measurements, flags.out)
    console = Console()
    console.print(fit_width(comparison.table(), console.width))
    print(f"tables, pictures and runs: {escaped(flags.out)}")
