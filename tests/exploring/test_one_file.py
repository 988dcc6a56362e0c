"""The page as one file: its answers are those of the server, and no text of the data can end their element."""

import json
import re

import pytest
from made_explored import EVIL

from slmrec_jax.errors import UserError
from slmrec_jax.exploring import one_file
from slmrec_jax.exploring.answers import answer, answer_bytes
from slmrec_jax.exploring.one_file import check_file_is_new, held_answers, write_page
from slmrec_jax.exploring.page import page_with, policy


def test_it_holds_the_answers_of_the_server(explored, tmp_path, monkeypatch):
    monkeypatch.setattr(one_file, "NUM_USERS", 5)
    monkeypatch.setattr(one_file, "NUM_ITEMS", 20)
    write_page(explored, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    held = json.loads(re.search(r'type="application/json">(.*?)</script>', text)[1])
    assert EVIL not in text
    assert held["about?"]["data"] == EVIL
    assert (len(held["users"]), len(held["items"])) == (5, 20)
    without_pictures = explored._replace(pictures=None)
    for row in [each["row"] for each in held["users"]]:
        found = answer(without_pictures, "user", {"row": str(row)})
        assert held[f"user?row={row}"] == json.loads(answer_bytes(found))
    best = answer(explored, "user", {"row": str(held["users"][0]["row"])})["runs"]
    assert held.keys() >= {f"similar?row={row['row']}" for row in held["items"]} | {"map?run=0", "map?run=1"}
    assert {item["row"] for listed in best for item in listed} & {item["row"] for item in held["items"]}
    assert "frame-ancestors" not in text
    assert policy(embedded=True) in text
    assert "connect-src" not in policy(embedded=True)


def test_no_text_ends_the_element():
    text = page_with(json.dumps({"a": "</script><!--"}))
    assert text.count("</script>") == 2
    assert json.loads(re.search(r'type="application/json">(.*?)</script>', text)[1]) == {"a": "</script><!--"}


def test_the_sample_is_always_the_same(explored, monkeypatch):
    monkeypatch.setattr(one_file, "NUM_USERS", 5)
    assert held_answers(explored) == held_answers(explored)


def test_files_that_cannot_be_written_are_refused(explored, tmp_path):
    with pytest.raises(UserError, match=r"give a name that ends in \.html"):
        check_file_is_new(tmp_path / "page.txt")
    (tmp_path / "page.html").touch()
    with pytest.raises(UserError, match=r"already exists: give another explore"):
        write_page(explored, tmp_path / "page.html")
    with pytest.raises(UserError, match="give another explore"):
        write_page(explored, tmp_path / "page.html" / "page.html")
