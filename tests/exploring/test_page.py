"""The page in a browser: clicks, search, markup that stays text, and its look at two widths."""

import json

import pytest
from browser import BROWSER, NO_BROWSER, browsing
from made_explored import EVIL, NUM_USERS

from slmrec_jax.exploring import one_file
from slmrec_jax.exploring.answers import answer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)]

ROWS = "[...document.querySelectorAll('{}')].map((each) => Number(each.dataset.row))"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture
def opened(tab, server):
    """A function that opens the page at a width, in a state that its fragment gives."""

    def open_page(fragment="", width=1400):
        tab.events.clear()
        tab.size(width)
        tab.open("about:blank")
        tab.open(server.address + fragment)
        tab.wait("document.body.dataset.shown")
        return tab

    return open_page


def shown(tab, fragment):
    tab.wait(f"document.body.dataset.shown === {json.dumps(fragment)}")


def test_a_user_is_found_and_has_the_recommendations_of_both_runs(opened, explored):
    tab = opened()
    tab.write_text("#find-user", "user-7")
    tab.wait("document.querySelectorAll('#found-users li').length === 1")
    tab.click("#found-users button")
    shown(tab, "#user=7")
    assert tab.run("document.querySelector('#who h2').textContent") == "User user-7"
    expected = answer(explored, "user", {"row": "7"})
    for run, items in enumerate(expected["runs"]):
        assert tab.run(ROWS.format(f".run-{run} li")) == [item["row"] for item in items]
        scores = tab.run(f"[...document.querySelectorAll('.run-{run} .score')].map((each) => each.textContent)")
        assert scores == [f"{item['score']:.3f}" for item in items]
    first = expected["runs"][0][0]["parts"]
    parts = tab.run(
        "[...document.querySelector('.run-0 li').querySelectorAll('.part')].map((each) => each.textContent)"
    )
    signs = {name: f"{'−' if value < 0 else '+'}{abs(value):.3f}" for name, value in first.items()}
    assert parts == [f"{name}{value}" for name, value in signs.items()]
    assert "No contributions: it reads none." in tab.run("document.querySelector('.run-1').textContent")
    assert tab.run("document.querySelectorAll('.history li').length") == expected["known"]


def test_an_item_has_similar_ones_and_makes_a_new_user(opened, explored):
    tab = opened("#user=2")
    row = answer(explored, "user", {"row": "2"})["runs"][1][0]["row"]
    tab.click(".run-1 li button")
    shown(tab, f"#user=2&item={row}")
    similar = answer(explored, "similar", {"row": str(row)})
    headings = tab.run("[...document.querySelectorAll('#like h3')].map((each) => each.textContent)")
    assert headings == [each["table"] for each in similar["tables"]]
    assert tab.run(ROWS.format("#like li")) == [item["row"] for each in similar["tables"] for item in each["items"]]
    assert tab.run(ROWS.format("li.chosen")).count(row) >= 1
    tab.click("#add")
    shown(tab, f"#items={row}&item={row}")
    expected = answer(explored, "new", {"rows": str(row)})["runs"][0]
    assert tab.run(ROWS.format(".run-0 li")) == [item["row"] for item in expected]
    tab.run("history.back()")
    shown(tab, f"#user=2&item={row}")


def test_a_list_of_ids_makes_a_new_user(opened, explored):
    tab = opened()
    tab.click("#new-user summary")
    tab.write_text("#ids", "item-9\nitem-20\nno such item")
    tab.click("#recommend")
    assert "There is no item no such item: give ids" in tab.wait("document.getElementById('problem').innerText")
    tab.run("document.getElementById('ids').value = 'item-9\\nitem-20'")
    tab.click("#recommend")
    shown(tab, "#items=9,20")
    assert tab.run("document.getElementById('problem').hidden")
    assert tab.run(ROWS.format(".run-1 li")) == [
        item["row"] for item in answer(explored, "new", {"rows": "9,20"})["runs"][1]
    ]


def test_the_map_names_what_is_below_the_pointer_and_opens_it(opened, explored):
    tab = opened("#item=8&map=1")
    assert tab.run("document.querySelector('#map-choice [aria-pressed=true]').textContent") == "other"
    tab.run("map.canvas.scrollIntoView({block: 'center', behavior: 'instant'})")
    box = tab.run("document.getElementById('map').getBoundingClientRect().toJSON()")
    left, top = tab.run(f"placeOf(...{json.dumps(explored.maps[1].places[8].tolist())})")
    tab.point(box["left"] + left, box["top"] + top)
    assert (
        tab.wait("!document.getElementById('hover').hidden && document.getElementById('hover').textContent") == "item-8"
    )
    own = "map.points.rows.every((row, n) => nearest(...placeOf(map.points.x[n], map.points.y[n])).row === row)"
    assert tab.run(own)
    row = tab.run("nearest(30, 30)?.row") or 8
    left, top = tab.run(f"placeOf(...{json.dumps(explored.maps[1].places[row].tolist())})")
    tab.click_at(box["left"] + left, box["top"] + top)
    tab.wait("document.getElementById('like').textContent")
    assert tab.run("readFragment().item") == tab.run(f"nearest({left}, {top}).row")
    tab.click("#map-choice button")
    tab.wait("map.run === 0 && document.querySelector('#map-choice button').ariaPressed === 'true'")
    painted = "new Set(map.canvas.getContext('2d').getImageData(0, 0, map.canvas.width, map.canvas.height).data).size"
    assert tab.run(painted) > 2


@pytest.mark.parametrize("width", [400, 1400])
def test_markup_stays_text_and_everything_fits(opened, tmp_path, width):
    tab = opened("#user=0&item=0", width)
    tab.run("document.querySelector('.chosen-item').scrollIntoView()")
    assert tab.wait("document.querySelector('.chosen-item img').naturalWidth") == 1
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.title").startswith(EVIL)
    assert EVIL in tab.run("document.querySelector('#who h2').textContent")
    assert EVIL in tab.run("document.querySelector('#like').textContent")
    assert tab.run("document.querySelectorAll('#layout i i, #layout script, img[src=x]').length") == 0
    beside = "new Set([...document.querySelectorAll('#who .list')].map((each) => each.offsetTop)).size"
    assert tab.run(beside) == (1 if width == 1400 else 2)
    tab.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert tab.complaints() == []


def test_it_asks_its_own_server_alone(opened, server):
    tab = opened(f"#user={NUM_USERS - 1}&item=2")
    assert all(address.startswith(server.address) for address in tab.requested() if address != "about:blank")
    assert len(tab.requested()) >= 6
    assert tab.complaints() == []


def test_a_late_answer_does_not_replace_a_later_choice(opened):
    tab = opened()
    tab.run(
        "(() => { const soon = ask; ask = async (name, query) => {"
        "if (query?.row === 3) await new Promise((done) => setTimeout(done, 300)); return soon(name, query); } })()"
    )
    tab.run("go({user: 3})")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    tab.run("go({user: 4})")
    shown(tab, "#user=4")
    tab.run("new Promise((done) => setTimeout(done, 500))")
    assert tab.run("document.querySelector('#who h2').textContent") == "User user-4"


def test_a_late_map_does_not_replace_a_later_choice(opened, explored):
    tab = opened("#map=0")
    tab.run(
        "(() => { const soon = ask; ask = async (name, query) => {"
        "if (query?.run === 1) await new Promise((done) => setTimeout(done, 300)); return soon(name, query); } })()"
    )
    tab.run("go({map: 1})")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    tab.run("go({map: 0})")
    tab.run("new Promise((done) => setTimeout(done, 500))")
    assert tab.run("map.run") == 0
    assert tab.run("map.points.x") == answer(explored, "map", {"run": "0"})["x"]


def test_a_state_that_is_not_there_says_so(opened):
    tab = opened("#user=99&item=abc")
    assert tab.run("document.getElementById('problem').innerText") == "'99' is not a number from 0 to 11"


def test_the_page_as_one_file_needs_no_server(tab, explored, tmp_path, monkeypatch):
    monkeypatch.setattr(one_file, "NUM_ITEMS", 30)
    one_file.write_page(explored, tmp_path / "page.html")
    tab.events.clear()
    tab.size(1400)
    tab.open("about:blank")
    tab.open((tmp_path / "page.html").as_uri())
    tab.wait("document.body.dataset.shown")
    assert "holds 12 of the users and 30 of the items" in tab.run("document.getElementById('sizes').textContent")
    tab.write_text("#find-user", "SER-7")
    tab.wait("document.querySelectorAll('#found-users li').length === 1")
    tab.click("#found-users button")
    shown(tab, "#user=7")
    for run, items in enumerate(answer(explored, "user", {"row": "7"})["runs"]):
        assert tab.run(ROWS.format(f".run-{run} li")) == [item["row"] for item in items]
    tab.run("go({item: held.items[0].row})")
    assert tab.wait("document.querySelectorAll('#like li').length") >= 20
    tab.run("go({item: [...Array(60).keys()].find((row) => !held[`similar?row=${row}`])})")
    assert "This file holds only some users and items" in tab.wait("document.getElementById('problem').innerText")
    assert tab.run("document.querySelectorAll('#who li').length") > 20
    assert tab.run("[document.getElementById('new-user').hidden, document.getElementById('add')]") == [True, None]
    assert all(address.startswith(("file:", "about:")) for address in tab.requested())
    assert tab.complaints() == []
