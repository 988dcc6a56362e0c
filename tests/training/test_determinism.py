"""The seed decides the bits, not the process; docs/reliability.md says where the number of cores enters, too."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def digest(run):
    """Of the embeddings, and of the records without what a clock says."""
    found = hashlib.sha256()
    for rows in jax.tree.leaves(run.embeddings):
        found.update(np.asarray(rows).tobytes())
    for record in run.history:
        kept = {name: value for name, value in record.items() if not name.endswith("seconds")}
        found.update(repr(sorted(kept.items())).encode())
    return found.hexdigest()


def lightgcn(folder, seed):
    """Two epochs of what has a sparse product, the one that jaxlib spreads over threads."""
    from slmrec_jax import Config, train
    from slmrec_jax.data.synthetic import demo

    data = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns={"visual": 4})
    config = Config(model="lightgcn", dim=8, batch_size=128, num_layers=2, epochs=2, ks=(5,), seed=seed)
    return train(config, data, out=folder)


def in_process(folder, seeds, cores, flags):
    """The digests that a process on these cores comes to."""
    source = (
        "import os, sys\n"
        "folder, seeds, cores = sys.argv[1], *(map(int, numbers.split()) for numbers in sys.argv[2:])\n"
        "if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, cores)\n"
        "from test_determinism import digest, lightgcn\n"
        "for seed in seeds: print(digest(lightgcn(f'{folder}/{seed}', seed)))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}", "XLA_FLAGS": flags}
    arguments = [sys.executable, "-c", source, str(folder), *(" ".join(map(str, each)) for each in (seeds, cores))]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_the_seed_decides_the_bits_in_any_process_with_one_thread_or_two(tmp_path):
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    (one,) = in_process(tmp_path / "one", [3], cores[:1], "--xla_cpu_multi_thread_eigen=false")
    two, other = in_process(tmp_path / "two", [3, 4], cores[:2], "--xla_cpu_multi_thread_eigen=true")
    assert one == two
    assert other != two
