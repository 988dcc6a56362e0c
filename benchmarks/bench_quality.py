"""Seconds until the best validation recall@20 of a plain PyTorch loop is reached, everything included.

The PyTorch loop trains the same system with the same settings and ranks the same users after each epoch. Ours is
`slmrec_jax.train`, timed from loading the data, with compilation, evaluation and checkpoints. The best of a run is
noisy, so the seconds of several seeds are added.

    python benchmarks/bench_quality.py --data PATH/tiktok
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peer_torch
import scipy.sparse
import torch
import tyro
from timing import write_result

from slmrec_jax import Config, data, train, with_preset, with_protocol
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.evaluation.metrics import means, measure
from slmrec_jax.training.events import Event

GOAL = 4.0

RANKED = 64
"""The users that the PyTorch loop ranks items for at a time."""


@dataclass(frozen=True)
class Flags:
    """Measure the time to a level of quality."""

    data: str = "demo"
    epochs: int = 25
    """Epochs of the PyTorch loop, whose best is our goal; ours may take twice as many."""
    seeds: tuple[int, ...] = (0,)
    """Each starts both sides from scratch, in one process: only the first seed loads the libraries."""
    out: Path = Path("benchmarks/results/quality.json")


class Reached(Exception):
    """Our run has reached the goal."""


def torch_curve(dataset: Dataset, epochs: int, start: float) -> list[tuple[float, float]]:
    """Return seconds and validation recall@20 after each epoch of the PyTorch loop."""
    trainer = peer_torch.Trainer(dataset, "fac")
    users = np.unique(dataset.valid.users)
    users = users[np.isin(users, dataset.train.users)]
    ones = np.ones(len(dataset.train.users), np.float32)
    known = scipy.sparse.csr_array((ones, tuple(dataset.train)), shape=(dataset.num_users, dataset.num_items))[users]
    pairs = peer_torch.known_pairs(known, RANKED)
    curve = []
    for _ in range(epochs):
        order = torch.randperm(len(dataset.train.users), device=peer_torch.device())
        for rows in order.split(trainer.batch_size):
            trainer.step(rows)
        with torch.no_grad():
            model = trainer.model
            all_users, all_items = model.fuse({name: model.propagate(x) for name, x in model.layer0().items()})
            ranked = peer_torch.rank(all_users[users], all_items, pairs, 20, RANKED).astype(np.int32)
        recall = means(measure(ranked, users, dataset.valid, [20]))["recall@20"]
        curve.append((time.perf_counter() - start, recall))
        print(f"torch {curve[-1][0]:.1f} s {recall:.4f}", flush=True)
    return curve


def our_curve(config: Config, goal: float) -> list[tuple[float, float]]:
    """Return seconds and validation recall@20 after each epoch of ours, until the goal is reached."""
    start, curve = time.perf_counter(), []

    def note(event: Event) -> None:
        if event.kind != "epoch":
            return
        curve.append((time.perf_counter() - start, event.values["valid/recall@20"]))
        if curve[-1][1] >= goal:
            raise Reached

    with tempfile.TemporaryDirectory() as folder:
        try:
            train(config, data.load(config.data), out=Path(folder) / "run", callbacks=[note])
        except Reached:
            return curve
    raise SystemExit(f"ours did not reach {goal:.4f} in {config.epochs} epochs: {curve}")


def race(flags: Flags, seed: int) -> dict[str, Any]:
    """Run both sides from one seed and return the goal, when each reached it, and their curves."""
    torch.manual_seed(seed)
    config = with_protocol(with_preset(replace(Config(), task="fac"), "reference"), "mmrec")
    optimizer = replace(config.optimizer, learning_rate=1e-3, weight_decay=1e-4)
    config = replace(config, data=flags.data, epochs=2 * flags.epochs, seed=seed, optimizer=optimizer)
    start = time.perf_counter()
    theirs = torch_curve(data.load(flags.data), flags.epochs, start)
    torch_seconds, goal = max(theirs, key=lambda point: point[1])
    ours = our_curve(config, goal)
    print(
        f"seed {seed}, validation recall@20 of {goal:.4f}: torch {torch_seconds:.0f} s, ours {ours[-1][0]:.0f} s "
        f"after {len(ours)} epochs: {torch_seconds / ours[-1][0]:.1f} times as fast",
        flush=True,
    )
    return {
        "recall@20": goal,
        "seconds": {"torch": torch_seconds, "ours": ours[-1][0]},
        "ratio": torch_seconds / ours[-1][0],
        "curves": {"torch": theirs, "ours": ours},
    }


def main(flags: Flags) -> None:
    races = {seed: race(flags, seed) for seed in flags.seeds}
    seconds = {side: sum(found["seconds"][side] for found in races.values()) for side in ("torch", "ours")}
    ratio = seconds["torch"] / seconds["ours"]
    print(f"seeds {', '.join(map(str, races))} together: {ratio:.1f} times as fast (goal {GOAL})")
    write_result(flags.out, {"seconds": seconds, "ratio": ratio, "goal": GOAL, "seeds": races})


if __name__ == "__main__":
    main(tyro.cli(Flags))
