"""The commands on finished runs: `slmrec-jax export` and `slmrec-jax report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from slmrec_jax import exports


@dataclass(frozen=True)
class Export:
    """Write a run's embeddings for other programs, and for recommend --from."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    out: tyro.conf.Positional[Path]
    """The folder to make."""
    data: str | None = None
    """Where the run's data set is now, if it was moved."""
    faiss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Adds an inner-product index of the items for faiss."""


def export(flags: Export) -> int:
    """Writes the folder and says what it holds."""
    from slmrec_jax.training.folder import environment
    from slmrec_jax.training.run import load_run

    run = load_run(flags.run, data=flags.data)
    about = {
        "model": run.config.model,
        "protocol": run.config.protocol,
        **{name: run.result.get(name) for name in ("best_epoch", "seed", "test")},
        "fingerprint": run.dataset.fingerprint,
        "versions": environment()["packages"],
    }
    made = exports.make_export(run.dataset, run.embeddings, run.config.eval.score, about)
    exports.write_export(made, flags.out, faiss=flags.faiss)
    size = sum(file.stat().st_size for file in flags.out.iterdir())
    print(f"{flags.out}: {len(made.user_ids)} users, {len(made.item_ids)} items, {size / 2**20:.1f} MiB")
    return 0
