"""Answers to the page: the same rankings as `recommend` and `similar`, what modalities contribute, search and map."""

import json

import numpy as np
import pytest
import reference
from hypothesis import given, strategies
from hypothesis.extra import numpy as arrays

from slmrec_jax.data import make_dataset
from slmrec_jax.errors import Diverged, UserError
from slmrec_jax.exploring import answers
from slmrec_jax.exploring.answers import answer, answer_bytes, best, search
from slmrec_jax.exploring.explored import ExploredRun, HostTables, explored_of
from slmrec_jax.reporting.items import SAMPLE, item_map
from slmrec_jax.serving.served import recommend, served_of, with_new_users
from slmrec_jax.types import Embeddings, Interactions


def served(dataset, run):
    return served_of(dataset, Embeddings(*run.embeddings), run.score)


def ask(explored, request, **query):
    return json.loads(answer_bytes(answer(explored, request, {name: str(value) for name, value in query.items()})))


def check_list(listed, found, explored, place=0):
    """A list is what `recommend` found for the user in a place."""
    real = found.scores[place] > -np.inf
    assert [each["row"] for each in listed] == [explored.items.rows[item] for item in found.items[place][real].tolist()]
    assert [each["score"] for each in listed] == pytest.approx(found.scores[place][real], rel=1e-5, abs=1e-6)


def test_recommendations_are_those_of_the_command(explored, dataset):
    for run, of in enumerate(explored.runs):
        found = recommend(served(dataset, of))
        for row in range(len(dataset.user_ids)):
            check_list(ask(explored, "user", row=row)["runs"][run], found, explored, row)


def test_a_new_user_is_folded_in_as_by_the_command(explored, dataset):
    for run, of in enumerate(explored.runs):
        found = recommend(with_new_users(served(dataset, of), dataset.item_ids[[9, 4, 30]]))
        check_list(ask(explored, "new", rows="9,4,30,4")["runs"][run], found, explored)


def test_contributions_are_the_falls_of_the_score(explored):
    run = explored.runs[0]
    for request, query, rows in (("user", {"row": 3}, None), ("new", {"rows": "1,2,8"}, [1, 2, 8])):
        listed = ask(explored, request, **query)["runs"][0]
        for item in listed:
            assert list(item["parts"]) == ["<i>visual</i>", "textual"]
            for name, tables in run.without.items():
                users = [
                    np.float64(table.users[3]) if rows is None else np.float64(table.items[rows]).mean(axis=0)
                    for table in (run.whole, tables)
                ]
                expected = users[0] @ run.whole.items[item["row"]] - users[1] @ tables.items[item["row"]]
                assert item["parts"][name] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert ask(explored, "user", row=3)["runs"][1][0]["parts"] == {}


def test_the_history_has_each_split_and_is_not_recommended(explored, dataset):
    found = ask(explored, "user", row=2)
    expected = {
        (split, item) for split, pairs in dataset.splits.items() for item in pairs.items[pairs.users == 2].tolist()
    }
    assert {(item["split"], item["row"]) for item in found["history"]} == expected
    assert found["known"] == len(expected)
    for listed in found["runs"]:
        assert not {item["row"] for item in listed} & {item for _, item in expected}
    assert ask(explored, "user", row=len(dataset.user_ids) - 1)["history"] == []


def test_similar_items_are_the_nearest_by_cosine(explored, vectors):
    table, (name,) = next(iter(vectors.values())), vectors
    there = np.flatnonzero(table.present)
    tables = {each["table"]: each["items"] for each in ask(explored, "similar", row=there[3])["tables"]}
    expected = reference.cosine_neighbours(table.values, int(there[3]), there, 10)
    assert [item["row"] for item in tables[name]] == list(expected)
    run = explored.runs[1]
    everything = np.arange(len(explored.items.ids))
    expected = reference.cosine_neighbours(run.embeddings.items, int(there[3]), everything, 10)
    assert [item["row"] for item in tables["trained: other"]] == list(expected)
    lacks = np.flatnonzero(~table.present)[0]
    tables = {each["table"]: each["items"] for each in ask(explored, "similar", row=lacks)["tables"]}
    assert tables[name] == []
    assert len(tables["trained: other"]) == 10


@given(
    arrays.arrays(np.float32, strategies.integers(1, 30), elements=strategies.sampled_from([-np.inf, -1, 0, 0.5, 2])),
    strategies.integers(1, 40),
)
def test_the_best_are_those_of_a_stable_sort(scores, k):
    expected = [row for row in np.argsort(-scores, kind="stable") if scores[row] > -np.inf][:k]
    assert best(scores, k).tolist() == expected


def test_a_search_finds_ids_and_titles(explored):
    ids = explored.items.ids
    assert search(explored.items, "abc")[:1] == [ids.index("abc")]
    assert search(explored.items, "item")[:2] == [len(ids) - 1, 5]  # an equal id, then those that start with it
    assert search(explored.items, "AB")[:2] == [ids.index("Ab"), ids.index("abc")]  # no case; the order of rows
    assert search(explored.items, "ab")[0] == ids.index("Ab")
    assert search(explored.items, " item-7 ")[0] == ids.index("item-7")
    assert search(explored.items, "title 9")[0] == 9
    assert search(explored.items, "tem-7") == [ids.index("item-7")]
    assert search(explored.items, "none such") == []
    assert len(search(explored.items, "")) == answers.NUM_FOUND
    assert search(explored.items, "x" * 5000) == [1]
    assert [each["row"] for each in ask(explored, "users", q="user-1")["found"]] == [10, 11]


def test_named_ids_become_rows(explored):
    assert ask(explored, "rows", ids="item-7\r\nabc\n\nnone\n") == {"rows": [7, 4], "unknown": ["none"]}


def test_ids_are_kept_as_text_and_shortened(explored):
    item = ask(explored, "similar", row=0)
    assert item["id"] == explored.items.ids[0]
    assert item["id"].startswith("<img src=x")
    assert len(ask(explored, "similar", row=1)["id"]) == answers.LONGEST + 1
    assert ask(explored, "similar", row=2)["id"] == "a\ud800b"
    assert "image" not in ask(explored, "similar", row=9)


def test_an_item_has_a_picture_if_the_folder_of_the_data_has_it(explored):
    found = [ask(explored, "similar", row=row) for row in range(6)]
    assert [each.get("image") for each in found] == [
        "ok.png",
        "../secret.png",
        "https://example.com/a.png",
        "a.svg",
        "missing.png",
        "loop.png",
    ]
    assert ["picture" in each for each in found] == [True] + [False] * 5
    assert max(map(len, ask(explored, "map", run=0)["labels"])) == answers.LONGEST_LABEL + 1


def test_the_map_has_each_item_in_the_plane_of_the_report(explored):
    found = ask(explored, "map", run=1)
    assert found["rows"] == list(range(len(explored.items.ids)))
    expected = item_map(explored.runs[1].embeddings.items)
    for axis, shown in enumerate((found["x"], found["y"])):
        assert (min(shown), max(shown)) == (0, 1)
        places = expected.places[:, axis]
        np.testing.assert_allclose(shown, (places - places.min()) / np.ptp(places), atol=1e-4)
    assert found["shares"] == pytest.approx(expected.shares)
    assert ask(explored, "similar", row=8)["at"][1] == [found["x"][8], found["y"][8]]


@pytest.mark.parametrize(
    ("request_", "query"),
    [
        ("user", {}),
        ("user", {"row": "12"}),
        ("user", {"row": "-1"}),
        ("user", {"row": "²"}),
        ("user", {"row": "٣"}),
        ("user", {"row": "9" * 5000}),
        ("similar", {"row": "1.0"}),
        ("new", {"rows": ""}),
        ("new", {"rows": "1,x"}),
        ("map", {"run": "2"}),
    ],
)
def test_invalid_queries_are_refused(explored, request_, query):
    with pytest.raises(UserError, match="is not a number from 0 to"):
        answer(explored, request_, query)


def test_there_is_no_other_request(explored):
    assert answer(explored, "__class__", {}) is None


def test_embeddings_that_are_not_finite_are_refused(explored, dataset):
    run = explored.runs[0]
    broken = HostTables(run.embeddings.users, np.full_like(run.embeddings.items, np.nan))
    with pytest.raises(Diverged, match="training has diverged"):
        explored_of(dataset, [run._replace(embeddings=broken)], {})


@pytest.mark.slow
def test_a_million_items():
    rng, count = np.random.default_rng(0), 1_000_000
    tables = HostTables(*(rng.normal(size=(rows, 8)).astype(np.float32) for rows in (3, count)))
    pairs, none = (
        Interactions(np.zeros(5, np.int32), np.arange(5, dtype=np.int32)),
        Interactions(*[np.zeros(0, np.int32)] * 2),
    )
    dataset = make_dataset("large", pairs, none, none, num_users=3, num_items=count)
    explored = explored_of(dataset, [ExploredRun("run", {}, tables, "dot", tables, {"text": tables})], {})
    scores = tables.items.astype(np.float64) @ tables.users[1]
    found = ask(explored, "user", row=1)["runs"][0]
    assert [item["row"] for item in found] == np.argsort(-scores)[:20].tolist()
    assert len(ask(explored, "map", run=0)["rows"]) == SAMPLE
    assert ask(explored, "items", q="999999")["found"][0]["row"] == 999_999
    assert len(ask(explored, "similar", row=999_999)["tables"][0]["items"]) == 10
