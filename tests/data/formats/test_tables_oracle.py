"""Random tables of interactions against plain Python: ids, repeats, ratings, the core, and every split."""

import io
from collections import Counter

import numpy as np
import pytest
from small_folders import parquet, read

from slmrec_jax.data import load, write_store
from slmrec_jax.data.split import SPLIT_METHODS

pd = pytest.importorskip("pandas")

SEED, RATING = 5, 2.0


def random_rows(seed, text_ids):
    rng = np.random.default_rng(seed)
    count = 600
    users, items = rng.zipf(1.5, count) % 40, (25 * rng.random(count) ** 2).astype(int)
    return pd.DataFrame(
        {
            "user": [f"u{user}" for user in users] if text_ids else users - 3,
            "item": [f"é{item}" for item in items] if text_ids else items,
            "rating": rng.integers(1, 6, count),
            "timestamp": rng.integers(0, 90, count),
        }
    )


def mix(word):
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def draw(*keys):
    state = mix(SEED)
    for key in keys:
        state = mix((state + key) % 2**64)
    return state


def expected_pairs(rows, least, core):
    """Return the earliest time of each pair of raw ids that is left."""
    found = {}
    for user, item, rating, time in rows.itertuples(index=False):
        if least is None or rating >= least:
            found[user, item] = min(time, found.get((user, item), time))
    while True:
        users, items = (Counter(pair[side] for pair in found) for side in (0, 1))
        left = {pair: time for pair, time in found.items() if users[pair[0]] >= core and items[pair[1]] >= core}
        if len(left) == len(found):
            return found
        found = left


def expected_split(name, times):
    """Return the split, 0 to 2, of each pair of numbers, given the pairs' times."""
    parts = dict.fromkeys(times, 0)
    if name == "time":
        ordered = sorted(times.values())
        valid, test = ordered[len(times) * 8 // 10], ordered[len(times) * 9 // 10]
        return {pair: (time >= valid) + (time >= test) for pair, time in times.items()}
    if name == "cold-items":
        items = sorted({item for _, item in times}, key=draw)
        each = len(items) // 10 or int(len(items) > 2)
        return {(user, item): (1, 2, 0)[min(2, items.index(item) // each)] for user, item in times}
    for user in {user for user, _ in times}:
        own = [pair for pair in times if pair[0] == user]
        if name == "leave-one-out":
            own.sort(key=lambda pair: (times[pair], draw(*pair)))
            if len(own) > 2:
                parts[own[-2]], parts[own[-1]] = 1, 2
            continue
        own.sort(key=lambda pair: (draw(*pair) >> 32, pair[1]))
        held = len(own) // 5 if len(own) >= 10 else 2 * (len(own) >= 3)
        valid = held // 2 if name == "mmrec" else held - held // 2
        if name == "validation":
            held = valid = max(1, len(own) // 10) if len(own) > 1 else 0
        for rank, pair in enumerate(own[:held]):
            parts[pair] = 1 if rank < valid else 2
    return parts


def as_file(rows, kind):
    if kind == "parquet":
        return {"interactions.parquet": parquet({name: rows[name].to_numpy() for name in rows})}
    buffer = io.StringIO()
    rows.to_csv(buffer, index=False, sep="\t" if kind == "tsv" else ",")
    return {f"interactions.{kind}": buffer.getvalue()}


@pytest.mark.parametrize("split", SPLIT_METHODS)
@pytest.mark.parametrize(("kind", "text_ids", "least", "core"), [("parquet", True, None, 0), ("csv", False, RATING, 5)])
def test_a_table_holds_what_plain_python_finds(tmp_path, monkeypatch, split, kind, text_ids, least, core):
    monkeypatch.setattr("slmrec_jax.data.pairs._BLOCK", 50)  # most users' interactions are in one block
    rows = random_rows(len(split), text_ids)
    found = expected_pairs(rows, least, core)
    users, items = (sorted({pair[side] for pair in found}) for side in (0, 1))
    times = {(users.index(user), items.index(item)): time for (user, item), time in sorted(found.items())}
    parts = expected_split(split, dict(sorted(times.items())))
    dataset = read(tmp_path, as_file(rows, kind), split=split, split_seed=SEED, min_rating=least, k_core=core)
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == (users, items)
    for number, pairs in enumerate(dataset.splits.values()):
        expected = sorted(pair for pair, part in parts.items() if part == number)
        assert list(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)) == expected
    taken = sum(least is None or rating >= least for rating in rows["rating"])
    before = len(expected_pairs(rows, least, 0))
    assert f"rows that repeat an interaction, merged: {taken - before} of {taken}" in dataset.notes


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv"])
@pytest.mark.parametrize("seed", range(3))
def test_degrees_and_numbers_do_not_depend_on_the_kind_of_file(tmp_path, kind, seed):
    rows = random_rows(seed, text_ids=True)
    first = read(tmp_path / "a", as_file(rows, kind), split="mmrec")
    second = read(tmp_path / "b", as_file(rows.sample(frac=1, random_state=seed), "parquet"), split="mmrec")
    assert first.fingerprint == second.fingerprint
    write_store(first, tmp_path / "stored")
    stored = load(tmp_path / "stored")
    assert stored.fingerprint == first.fingerprint
    assert stored.by_degree() is stored
    assert stored.user_ids.tolist() == first.by_degree().user_ids.tolist()
