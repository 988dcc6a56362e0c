"""The embedded data set: the same everywhere, of the promised form, and worth learning from."""

import numpy as np
import pytest

from slmrec_jax.data import check_dataset
from slmrec_jax.data.synthetic import demo, plant
from slmrec_jax.errors import UserError


@pytest.fixture(scope="module")
def made():
    return demo()


def test_is_the_same_on_every_machine(made):
    # If this fails on a new NumPy, its generator has changed: results on `demo` are no longer comparable.
    assert made.fingerprint == "c8f13260c81da26691b68cc187d5c6c96e3936d45ac586a7f312de41f75ccea3"


def test_another_seed_is_another_data_set(made):
    assert demo(seed=1).fingerprint != made.fingerprint


def test_sums_do_not_depend_on_their_order():
    # Every machine adds up in its own order; here no order rounds.
    tastes = plant(np.random.Generator(np.random.PCG64(0)), 50, 40, 5, 3)
    forward = tastes.users @ tastes.items.T
    order = np.random.default_rng(0).permutation(tastes.users.shape[1])
    assert (forward == tastes.users[:, order] @ tastes.items[:, order].T).all()


def test_form(made):
    check_dataset(made)
    assert (made.num_users, made.num_items) == (2000, 1200)
    assert {name: feature.values.shape for name, feature in made.features.items()} == {
        "visual": (1200, 64),
        "acoustic": (1200, 32),
        "textual": (1200, 48),
    }
    assert list(made.features) == ["visual", "acoustic", "textual"]
    assert made.user_ids[7] == "user-0007"
    assert made.item_ids[123] == "item-0123"


def test_some_items_lack_some_modalities(made):
    for feature in made.features.values():
        assert 0.05 < 1 - feature.present.mean() < 0.1
        assert not feature.values[~feature.present].any()
    assert len({feature.present.tobytes() for feature in made.features.values()}) == 3


def test_splits_are_disjoint_and_every_user_is_in_each(made):
    keys = [split.users * 1200 + split.items for split in made.splits.values()]
    assert len(np.unique(np.concatenate(keys))) == sum(map(len, keys))
    train, valid, test = (np.bincount(split.users, minlength=2000) for split in made.splits.values())
    total = train + valid + test
    assert total.min() >= 5
    assert (valid == np.maximum(1, total // 10)).all()
    assert (test == valid).all()
    assert 5 < train.mean() < 6


def test_degrees_are_skewed(made):
    for ids, count in ((made.train.users, 2000), (made.train.items, 1200)):
        degrees = np.sort(np.bincount(ids, minlength=count))[::-1]
        assert degrees[: count // 10].sum() > 0.25 * degrees.sum()


def recall_at_20(made, scores):
    scores = scores.copy()
    for split in (made.train, made.valid):
        scores[split.users, split.items] = -np.inf
    top = np.argpartition(-scores, 20, axis=1)[:, :20]
    relevant = np.zeros(scores.shape, bool)
    relevant[made.test.users, made.test.items] = True
    return (np.take_along_axis(relevant, top, axis=1).sum(1) / relevant.sum(1)).mean()


def test_features_tell_more_than_popularity_and_less_than_the_tastes(made):
    seen = np.zeros((made.num_users, made.num_items), np.float32)
    seen[made.train.users, made.train.items] = 1
    popularity = recall_at_20(made, np.tile(seen.sum(0), (made.num_users, 1)))
    alone = []
    for feature in made.features.values():
        rows = feature.values / np.maximum(np.linalg.norm(feature.values, axis=1, keepdims=True), 1e-9)
        alone.append((seen @ rows) @ rows.T)
    together = recall_at_20(made, sum(alone))
    alone = [recall_at_20(made, scores) for scores in alone]
    tastes = plant(np.random.Generator(np.random.PCG64(0)), 2000, 1200, 60, 3)
    oracle = recall_at_20(made, tastes.users @ tastes.items.T + np.log(tastes.weights))
    assert 0.07 < popularity < 0.13
    assert max(alone) < 0.8 * together
    assert 1.5 * popularity < together < 0.5 * oracle
    assert 0.5 < oracle < 0.65


@pytest.mark.parametrize(("users", "items"), [(1, 3), (7, 5), (1500, 30), (20, 3000)])
def test_other_sizes(users, items):
    other = demo(num_users=users, num_items=items, num_scenes=3, columns={"smell": 4})
    assert (other.num_users, other.num_items) == (users, items)
    assert other.features["smell"].values.shape == (items, 4)


@pytest.mark.parametrize("changes", [{"num_users": 0}, {"num_items": 0}, {"exposures": 0}, {"num_items": 2}])
def test_bad_sizes_get_one_line(changes):
    with pytest.raises(UserError, match="demo") as caught:
        demo(**changes)
    assert "\n" not in str(caught.value)
