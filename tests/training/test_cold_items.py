"""Items without interactions: placed by what they bring along, ranked among the others, and measured apart."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy

from slmrec_jax import Config, UserError, load_run, train
from slmrec_jax import data as data_module
from slmrec_jax.commands.main import main
from slmrec_jax.config import LightGCNConfig, MFConfig, MMGCNConfig, SLMRecConfig, VBPRConfig
from slmrec_jax.data import Feature, Words, make_dataset
from slmrec_jax.data.new_items import NewItems, read_new_items
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.evaluation.groups import measure_by_degree
from slmrec_jax.models import RECIPES
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.types import ALL, NO_AUGMENTATION, Embeddings, Interactions

pytestmark = pytest.mark.usefixtures("optax_promotion")

KNOWN, NEW = 9, 3


def with_items(count):
    """Data whose interactions are of the first `KNOWN` items, whatever the count; some features are missing."""
    rng = np.random.default_rng(0)
    visual, acoustic = (rng.normal(size=(KNOWN + NEW, columns)) for columns in (4, 3))
    there = rng.random((2, KNOWN + NEW)) < 0.7
    words = rng.integers(0, KNOWN + NEW, 30), rng.integers(0, 6, 30)
    kept = words[0] < count
    pairs = Interactions(rng.integers(0, 5, 20), rng.integers(0, KNOWN, 20))
    none = Interactions(*np.zeros((2, 0), np.int64))
    features = {
        "visual": Feature(visual[:count], there[0, :count]),
        "acoustic": Feature(acoustic[:count], there[1, :count]),
        "textual": Words(words[0][kept], words[1][kept], 6),
    }
    return make_dataset("small", pairs, none, none, num_users=5, num_items=count, features=features)


def padded(params, names):
    """Parameters for more items, about which nothing was learned."""
    more = {name: jnp.concatenate([params[name], jnp.zeros((NEW, *params[name].shape[1:]))]) for name in names}
    return {**params, **more}


SYSTEMS = {
    "slmrec": {"model": "slmrec"},
    "slmrec trainable": {"model": "slmrec", "slmrec": SLMRecConfig(words="trainable", normalize_features=False)},
    "slmrec mean": {"model": "slmrec", "slmrec": SLMRecConfig(fusion="mean", user_table="per_modality")},
    "slmrec definition": {"model": "slmrec", "propagation": "definition", "num_layers": 1},
    "lightgcn fused": {"model": "lightgcn", "lightgcn": LightGCNConfig(features="fused")},
    "vbpr": {"model": "vbpr"},
    "vbpr original": {"model": "vbpr", "vbpr": VBPRConfig(variant="original")},
    "mf concat": {"model": "mf", "mf": MFConfig(features="concat", item_bias=True)},
    "mf linear": {"model": "mf", "mf": MFConfig(features="linear")},
    "mmgcn": {"model": "mmgcn"},
    "mmgcn frozen": {"model": "mmgcn", "mmgcn": MMGCNConfig(tables="frozen")},
}


QUICK = ("slmrec", "vbpr original", "mf concat", "mf linear", "lightgcn fused")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SYSTEMS]
)
def test_a_new_item_is_one_without_edges_and_without_an_id(name):
    config = Config(dim=8, **SYSTEMS[name])
    small, large = with_items(KNOWN), with_items(KNOWN + NEW)
    models = [RECIPES[config.model](config, make_spec(config, dataset)).model for dataset in (small, large)]
    params = models[0].init(jax.random.key(3))
    inputs = models[1].prepare(make_inputs(large))
    if name == "mmgcn frozen":
        _, tables = models[0].prepare(make_inputs(small)).cache
        inputs = inputs._replace(cache=(inputs.cache[0], padded(tables, ["identity"])))
    more = padded(params, [each for each in ("item", "item_bias", "identity") if each in params])
    rows = models[1].encode(more, inputs)(NO_AUGMENTATION, jax.random.key(0)).items(ALL)[KNOWN:]
    given = {
        each: jax.tree.map(lambda x: x[KNOWN:], feature) if each != "textual" else _words_of_new(large)
        for each, feature in make_inputs(large).features.items()
    }
    np.testing.assert_allclose(models[0].cold_items(params, given), rows, rtol=1e-4, atol=1e-5)


def _words_of_new(dataset):
    words = dataset.features["textual"]
    kept = words.items >= KNOWN
    alone = dataclasses.replace(
        dataset,
        num_items=NEW,
        train=Interactions(*np.zeros((2, 1), np.int32)),
        features={"textual": Words(words.items[kept] - KNOWN, words.words[kept], 6)},
    )
    return make_inputs(alone).features["textual"]


@pytest.mark.parametrize("model", ["bm3", "freedom", "lightgcn", "mf", "mgcn"])
def test_what_ranks_by_ids_places_nothing(model):
    config = Config(dim=8, model=model)
    assert RECIPES[model](config, make_spec(config, with_items(KNOWN))).model.cold_items is None


# --- what is missing ---------------------------------------------------------------------------------------------


def test_missing_rows_are_masked_or_filled():
    values = np.array([[1, 2], [9, 9], [3, 4]])
    dataset = make_dataset(
        "small",
        *(Interactions(*np.zeros((2, 1), np.int64)),) * 3,
        num_users=1,
        num_items=3,
        features={"visual": Feature(values, np.array([True, False, True]))},
    )
    filled = {missing: make_inputs(dataset, missing).features["visual"] for missing in ("masked", "zero", "mean")}
    assert make_inputs(dataset).features["visual"].present.tolist() == [1, 0, 1]
    assert {missing: feature.values[1].tolist() for missing, feature in filled.items()} == {
        "masked": [0, 0],
        "zero": [0, 0],
        "mean": [2, 3],
    }
    assert [feature.present.tolist() for feature in filled.values()] == [[1, 0, 1], [1, 1, 1], [1, 1, 1]]
    nobody = dataclasses.replace(dataset, features={"visual": Feature(np.zeros((3, 2), "f4"), np.zeros(3, bool))})
    assert not make_inputs(nobody, "mean").features["visual"].values.any()


# --- a run -------------------------------------------------------------------------------------------------------

CONFIG = Config(dim=8, batch_size=128, num_layers=2, epochs=2, ks=(5, 20), task="none")
BARE = 0


@pytest.fixture(scope="module")
def with_bare(tiny):
    """The tiny data, with an item that has interactions and no modality, and with cold items that are held out."""
    features = {
        name: Feature(feature.values, feature.present & (np.arange(tiny.num_items) != BARE))
        for name, feature in tiny.features.items()
    }
    splits = {}
    for name in ("train", "valid", "test"):
        pairs = getattr(tiny, name)
        splits[name] = Interactions(*(ids[(pairs.items % 10 != 3) | (name != "train")] for ids in pairs))
    return make_dataset(
        "tiny",
        **splits,
        num_users=tiny.num_users,
        num_items=tiny.num_items,
        features=features,
        user_ids=tiny.user_ids,
        item_ids=tiny.item_ids,
    )


@pytest.fixture(scope="module")
def run(with_bare, tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"):
        return train(CONFIG, with_bare, out=tmp_path_factory.mktemp("cold") / "run")


def new_items(dataset, rows):
    """Items with the features of known ones, under other names."""
    features = {n: Feature(f.values[rows], f.present[rows]) for n, f in dataset.features.items()}
    return NewItems(np.array([f"new-{row}" for row in rows]), features)


def test_an_item_without_any_modality_is_trained_and_ranked(run, with_bare):
    assert BARE in with_bare.train.items
    found = run.recommend(k=with_bare.num_items)
    raw = with_bare.item_ids[BARE]
    assert np.isfinite(found.scores[found.items == raw]).any()


def test_new_items_are_ranked_among_the_others(run, with_bare):
    new = new_items(with_bare, [11, 12, 13])
    among = run.recommend(["user-0007"], 83, new_items=new)
    ranked = [item for item, score in zip(among.items[0].tolist(), among.scores[0], strict=True) if score > -np.inf]
    assert set(new.ids) < set(ranked)
    alone = run.recommend(["user-0007"], 3, new_items=new, only_new=True)
    order = [item for item in ranked if item in set(new.ids)]
    assert alone.items[0].tolist() == order
    np.testing.assert_allclose(alone.scores[0], [among.scores[0][among.items[0] == item][0] for item in order], 1e-6)
    loaded = load_run(run.folder, with_bare).recommend(["user-0007"], 3, new_items=new, only_new=True)
    np.testing.assert_array_equal(loaded.items, alone.items)


def test_content_replaces_what_was_not_trained_and_nothing_else(run):
    dataset = run.dataset
    content = run.with_content().embeddings
    cold = np.bincount(dataset.train.items, minlength=dataset.num_items) == 0
    assert cold.sum() >= 8
    np.testing.assert_array_equal(content.items[~cold], run.embeddings.items[~cold])
    assert (np.asarray(content.items[cold]) != np.asarray(run.embeddings.items[cold])).any(axis=1).all()
    np.testing.assert_array_equal(content.users, run.embeddings.users)


def test_a_run_on_ids_alone_says_so(with_bare, tmp_path):
    alone = train(dataclasses.replace(CONFIG, model="mf", epochs=1), with_bare, out=tmp_path / "run")
    with pytest.raises(UserError, match="ranks items by their ids") as caught:
        alone.recommend(k=3, new_items=new_items(with_bare, [11]))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="by their ids"):
        alone.with_content()


# --- groups ------------------------------------------------------------------------------------------------------


def brute_force(plan, embeddings, train_pairs, side, low, high):
    """Recall@5 and the number of held-out interactions of a group, user by user."""
    counts = np.bincount(getattr(train_pairs, side), minlength=100)
    scores = np.asarray(embeddings.users) @ np.asarray(embeddings.items).T
    recalls, total = [], 0
    for user in plan.users:
        held_out = set(plan.held_out.items[plan.held_out.users == user].tolist())
        if side == "users":
            held_out = held_out if low <= counts[user] <= high else set()
        else:
            held_out = {item for item in held_out if low <= counts[item] <= high}
        if held_out:
            known = train_pairs.items[train_pairs.users == user]
            order = [item for item in np.argsort(-scores[user], kind="stable").tolist() if item not in set(known)]
            recalls.append(len(held_out & set(order[:5])) / len(held_out))
            total += len(held_out)
    return (float(np.mean(recalls)), total) if recalls else None


@pytest.mark.parametrize("side", ["users", "items"])
def test_groups_are_as_counted_by_hand(with_bare, side):
    rng = np.random.default_rng(1)
    tables = Embeddings(*(jnp.asarray(rng.normal(size=(count, 4)), jnp.float32) for count in (60, 80)))
    plan = evaluation.plan_evaluation(with_bare, "test", evaluation.PROTOCOLS["mmrec"], (5,))
    starts = (0, 1, 4, 8)
    groups = [found.group for found in measure_by_degree(plan, tables, with_bare.train, side, starts)]
    expected = {}
    for label, low, high in (("0", 0, 0), ("1-3", 1, 3), ("4-7", 4, 7), ("8 or more", 8, 999)):
        found = brute_force(plan, tables, with_bare.train, side, low, high)
        if found:
            expected[label] = found
    assert list(expected) == [group.label for group in groups]
    assert len(groups) >= 2
    for group in groups:
        np.testing.assert_allclose((group.means["recall@5"], group.num_interactions), expected[group.label])
    evaluated = np.isin(with_bare.test.users, plan.users)
    assert sum(group.num_interactions for group in groups) == evaluated.sum()


# --- files and the command ---------------------------------------------------------------------------------------


def write_features(folder, dataset, rows, ids):
    folder.mkdir()
    table = {"item": ids, "vector": dataset.features["visual"].values[rows].tolist()}
    pyarrow.parquet.write_table(pa.table(table), folder / "visual.parquet")
    table = {"item": ids[:-1], "vector": dataset.features["acoustic"].values[rows[:-1]].tolist()}
    pyarrow.parquet.write_table(pa.table(table), folder / "audio_feat.parquet")
    return folder


def test_files_of_new_items(with_bare, tmp_path):
    new = read_new_items(str(write_features(tmp_path / "new", with_bare, [11, 12], ["b", "a"])), with_bare)
    assert new.ids.tolist() == ["a", "b"]
    assert list(new.features) == list(with_bare.features)
    assert {name: feature.present.tolist() for name, feature in new.features.items()} == {
        "visual": [True, True],
        "acoustic": [False, True],
        "textual": [False, False],
    }
    np.testing.assert_array_equal(new.features["visual"].values[1], with_bare.features["visual"].values[11])
    np.save(tmp_path / "visual.npy", np.ones((2, 8), np.float16))
    assert read_new_items(tmp_path / "visual.npy", with_bare).ids.tolist() == ["new-0", "new-1"]
    keyed = {"ids": np.array([7, 5]), "values": np.ones((2, 8), np.float32)}
    safetensors.numpy.save_file(keyed, tmp_path / "image.safetensors")
    assert read_new_items(tmp_path / "image.safetensors", with_bare).ids.tolist() == [5, 7]


@pytest.mark.parametrize("name", ["image", "CLIP", "text_emb"])
def test_a_file_of_new_items_may_have_a_name_as_the_data_has_it(tiny, tmp_path, name):
    """Data made in memory keep names that a file would lose, such as `image`, which files call `visual`."""
    known = dataclasses.replace(tiny, features={name: tiny.features["visual"]})
    np.save(tmp_path / f"{name}.npy", np.ones((2, 8)))
    assert list(read_new_items(tmp_path / f"{name}.npy", known).features) == [name]
    assert list(read_new_items(tmp_path, known).features) == [name]


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({}, "no features found"),
        ({"visual": np.ones((2, 7))}, "visual has 7 columns, but 8 in training"),
        ({"smell": np.ones((2, 7))}, "no vectors of modality 'smell'; it has: visual, acoustic, textual"),
        ({"visual": np.ones((2, 8)), "acoustic": np.ones((3, 6))}, "different numbers of rows"),
        ({"visual": np.full((2, 8), np.nan)}, "'new-0' has no feature"),
        ({"visual": np.array([[np.inf] * 8] * 2)}, "NaN or infinite"),
        ({"visual": np.ones(8)}, "expected a table of numbers"),
    ],
)
def test_new_items_that_cannot_be_taken(with_bare, tmp_path, tables, line):
    for name, values in tables.items():
        np.save(tmp_path / f"{name}.npy", values)
    with pytest.raises(UserError, match=line) as caught:
        read_new_items(tmp_path, with_bare)
    assert str(tmp_path) in str(caught.value)


def test_new_items_under_ids_that_cannot_be_taken(with_bare, tmp_path):
    folder = write_features(tmp_path / "new", with_bare, [11, 12], ["item-0003", "a"])
    with pytest.raises(UserError, match=r"'item-0003' is already in data set tiny, with 1 of 2"):
        read_new_items(folder, with_bare)
    numbered = dataclasses.replace(with_bare, item_ids=np.arange(with_bare.num_items))
    folder = write_features(tmp_path / "numbered", with_bare, [11, 12], ["3.0", "b"])
    with pytest.raises(UserError, match=r"'3.0' is already in data set tiny, with 1 of 2"):
        read_new_items(folder, numbered)
    np.save(folder / "text.npy", np.ones((2, 5)))
    with pytest.raises(UserError, match="some files have raw ids and others do not"):
        read_new_items(folder, with_bare)
    with pytest.raises(UserError, match="no such file or folder"):
        read_new_items(tmp_path / "none", with_bare)


@pytest.mark.slow
def test_the_commands(run, with_bare, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_module, "demo", lambda: with_bare)
    folder = str(write_features(tmp_path / "new", with_bare, [11, 12], ["b", "a"]))
    arguments = ["recommend", str(run.folder), "--users", "user-0001", "--format", "jsonl"]
    assert main([*arguments, "-k", "2", "--cold-items", folder, "--only-cold"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)["items"]) == ["a", "b"]
    assert main([*arguments, "-k", "82", "--cold-items", folder]) == 0
    assert {"a", "b"} <= set(json.loads(capsys.readouterr().out)["items"])
    assert main([*arguments, "--only-cold"]) == 1
    assert "needs --cold-items" in capsys.readouterr().err

    measure = ["evaluate", str(run.folder), "--by", "items"]
    assert main([*measure, "--format", "json"]) == 0
    groups = json.loads(capsys.readouterr().out)["by"]
    assert groups[0]["label"] == "0"
    assert main([*measure, "--cold", "content"]) == 0
    heading = " +┃ ".join(("training", "items", "held out", "recall@5", "ndcg@5", "recall@10", "ndcg@10"))
    assert re.search(heading, capsys.readouterr().out)
    assert main([*measure, "--candidates", "cold", "--format", "json"]) == 0  # the run measures at 20 too
    groups = json.loads(capsys.readouterr().out)["by"]
    assert {key.split("@")[1] for group in groups for key in group["means"]} == {"5", "10"}
