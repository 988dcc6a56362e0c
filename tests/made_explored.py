"""Random runs for tests of the local page, and names that hold markup."""

import numpy as np

from slmrec_jax.exploring.explored import ExploredRun, HostTables

EVIL = "<img src=x onerror=\"document.title='owned'\">"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf5000000"
    "3860180d5b3b6360000000049454e44ae426082"
)
NUM_USERS, NUM_ITEMS, DIM = 12, 60, 5


def random_run(rng, name, *, modalities=(), score="dot"):
    """A run of random tables, and of others without each modality."""

    def tables():
        return HostTables(*(rng.normal(size=(rows, DIM)).astype(np.float32) for rows in (NUM_USERS, NUM_ITEMS)))

    whole = tables()
    without = {each: tables() for each in modalities}
    return ExploredRun(name, {"model": EVIL}, whole, score, whole, without, "" if modalities else "it reads none")
