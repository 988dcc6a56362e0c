"""What the page shows, made from random tables: no training, and ids, titles and modalities that hold markup."""

import threading

import numpy as np
import pytest
from made_explored import EVIL, NUM_ITEMS, NUM_USERS, PNG, random_run

from slmrec_jax.data import make_dataset
from slmrec_jax.exploring.explored import explored_of
from slmrec_jax.exploring.server import make_server
from slmrec_jax.reporting.items import ItemVectors
from slmrec_jax.types import Interactions


@pytest.fixture(scope="session")
def dataset():
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers((NUM_USERS - 1, NUM_ITEMS), size=(150, 2)), axis=0)  # the last user has none
    cut = rng.permutation(len(pairs))
    splits = [Interactions(*pairs[np.sort(part)].T.astype(np.int32)) for part in np.split(cut, [100, 120])]
    item_ids = [EVIL, "x" * 5000, "a\ud800b", "Ab", "abc", *(f"item-{row}" for row in range(5, NUM_ITEMS - 1)), "item"]
    titles = np.array([f"Title {row} {EVIL}" if row % 2 else "" for row in range(NUM_ITEMS)], np.object_)
    named = ["ok.png", "../secret.png", "https://example.com/a.png", "a.svg", "missing.png", "loop.png"]
    images = np.array(named + [""] * (NUM_ITEMS - len(named)), np.object_)
    return make_dataset(
        EVIL,
        *splits,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        user_ids=np.array([f"{EVIL}{row}" if row < 2 else f"user-{row}" for row in range(NUM_USERS)]),
        item_ids=np.array(item_ids),
        item_texts={"title": titles, "image": images},
    )


@pytest.fixture(scope="session")
def vectors():
    rng = np.random.default_rng(2)
    present = rng.random(NUM_ITEMS) < 0.7
    return {"<i>visual</i>": ItemVectors(rng.normal(size=(NUM_ITEMS, 7)).astype(np.float32), present)}


@pytest.fixture(scope="session")
def explored(dataset, vectors, tmp_path_factory):
    """Two runs, of which the first reads two modalities."""
    folder = tmp_path_factory.mktemp("pictures") / "data"
    folder.mkdir()
    (folder / "ok.png").write_bytes(PNG)
    (folder.parent / "secret.png").write_bytes(PNG)
    (folder / "loop.png").symlink_to("loop.png")
    rng = np.random.default_rng(3)
    runs = [random_run(rng, EVIL, modalities=("<i>visual</i>", "textual")), random_run(rng, "other", score="sigmoid")]
    return explored_of(dataset, runs, vectors, folder)


@pytest.fixture(scope="module")
def server(explored):
    with make_server(explored) as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()
