"""SLMRec-FAC where items lack modalities, and three ways to fill in: masked, zeros, or the mean.

Each modality loses the rows of a share of the items, drawn for it alone, in training and evaluation. Rows dropped at
30 % are also dropped at 60 %, and they do not depend on the training seed.

Command:  python experiments/missing_modalities.py --data PATH/tiktok --epochs 30 --seeds 0 1
Time:     20 to 50 minutes on two CPU cores.
Result:   test recall@20 .102 with all rows, .096 to .101 with 30 to 90 % dropped, whatever fills the gaps: within
          the spread of seeds (docs/data.md has the table).
"""

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import sweep
from rich.console import Console
from rich.table import Table
from tiktok_systems import get_config

from slmrec_jax import data, train, with_protocol
from slmrec_jax.config import Config, Missing
from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.data.split import draw
from slmrec_jax.training.storage.folder import environment

METRICS = ("recall@20", "ndcg@20")


@dataclass(frozen=True)
class Flags:
    """Flags of this experiment."""

    data: str
    shares: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9)
    """Shares of the rows of each modality to drop."""
    seeds: tuple[int, ...] = (0,)
    epochs: int = 20
    """The most epochs."""
    drop_seed: int = 0
    """The seed that draws the dropped rows."""
    out: Path = Path("runs/missing_modalities.json")


def without(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Return the data without that share of each modality's rows."""
    items = np.arange(dataset.num_items)
    features = dict(dataset.features)
    for place, (name, feature) in enumerate(dataset.features.items()):
        if isinstance(feature, Feature):
            kept = draw(seed, np.full_like(items, place), items) / 2.0**64 >= share
            present = feature.present & kept
            features[name] = feature._replace(values=np.where(present[:, None], feature.values, 0), present=present)
    return replace(dataset, features=features)


def test_metrics(config: Config, dataset: Dataset) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, dataset, out=Path(folder) / "run").result
    return {**{metric: result["test"][metric] for metric in METRICS}, "best_epoch": result["best_epoch"]}


def main(flags: Flags) -> None:
    dataset = data.load(flags.data)
    config = with_protocol(replace(get_config(), epochs=flags.epochs, ks=(20,)), "mmrec")
    table = Table("dropped", "missing", *METRICS, title=f"{dataset.name}, at most {flags.epochs} epochs, test")
    rows = []
    for share in flags.shares:
        dropped = without(dataset, share, flags.drop_seed)
        gaps = any(not feature.present.all() for feature in dropped.features.values() if isinstance(feature, Feature))
        for missing in get_args(Missing) if gaps else ("masked",):  # without gaps, all give the same result
            found = [test_metrics(replace(config, missing=missing, seed=seed), dropped) for seed in flags.seeds]
            rows.append({"share": share, "missing": missing, "seeds": found})
            means = [float(np.mean([each[metric] for each in found])) for metric in METRICS]
            table.add_row(f"{share:.0%}", missing if gaps else "-", *(f"{mean:.4f}" for mean in means))
            print(json.dumps(rows[-1]), flush=True)
    Console().print(table)
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"data": dataset.name, "fingerprint": dataset.fingerprint, "epochs": flags.epochs, "seeds": flags.seeds}
    flags.out.write_text(json.dumps({**about, "rows": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
