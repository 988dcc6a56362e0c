"""The command `slmrec-jax train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmrec_jax.commands.cluster import ClusterFlags, join_processes
from slmrec_jax.commands.settings import SettingsFlags, own_method, python_file
from slmrec_jax.errors import escaped
from slmrec_jax.joining import reports


@dataclass(frozen=True)
class TrainFlags(ClusterFlags, SettingsFlags):
    """Train a model, select its best epoch, test it."""

    out: Path | None = None
    """The run's folder; by default a new one in runs/."""
    resume: bool = False
    """Continue the run in --out."""
    overwrite: bool = False
    """Delete an existing run in --out, once the new one is ready to start."""
    mesh: str | None = None
    """The devices, such as data=2,model=4, or auto. By default one; docs/scale.md."""


def run_train(flags: TrainFlags) -> None:
    """Train, and show the metrics of the best epoch."""
    join_processes(flags)
    from rich.console import Console

    from slmrec_jax.commands.tables import fit_width, metrics_table
    from slmrec_jax.methods import make_method
    from slmrec_jax.training.train import train

    run = train(
        flags.settings,
        out=flags.out,
        resume=flags.resume,
        overwrite=flags.overwrite,
        method=own_method(flags.config) or make_method,
        config_file=python_file(flags.config),
        mesh=flags.mesh,
        progress=True,
    )
    if not reports():
        return
    title = f"{run.config.model} on {run.dataset.name}, best epoch {run.result['best_epoch']}"
    console = Console()
    splits: dict[str, Any] = {split: run.result[split] for split in ("valid", "test") if split in run.result}
    table = metrics_table(splits, title, run.result.get("sampled"))
    console.print(fit_width(table, console.width) if "sampled" in run.result else table)
    print(f"run folder: {escaped(run.folder)}")
