"""The command `explore`: it prints the address alone, and refuses what it cannot show in one line."""

import re
import socket

import pytest

from slmrec_jax.commands.main import main
from slmrec_jax.exploring.answers import answer
from slmrec_jax.exploring.server import ExploreServer


@pytest.fixture
def served(monkeypatch):
    """The servers that were started; none of them waits for requests."""
    found = []
    monkeypatch.setattr(ExploreServer, "serve_forever", lambda server: found.append(server))
    return found


@pytest.mark.usefixtures("optax_promotion")
def test_it_prints_the_address_alone(finished, tiny_demo, served, capsys):
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    assert main(["explore", str(finished.folder), str(finished.folder)]) == 0
    said = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before  # it only reads
    (server,) = served
    assert said == (f"{server.address}\n", "")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", server.address)
    about = answer(server.explored, "about", {})
    assert [run["name"] for run in about["runs"]] == ["1: run", "2: run"]
    assert about["runs"][0]["reason"] == "mf does not read modalities when it ranks"
    assert about["runs"][0]["facts"]["model"] == "mf"
    tables = answer(server.explored, "similar", {"row": "3"})["tables"]
    assert [each["table"] for each in tables][:3] == ["visual", "acoustic", "textual"]


def test_a_number_of_runs_that_cannot_be_shown_is_refused(refused):
    assert "explore shows one or two runs, but 3 were named: name fewer" in refused("explore", "a", "b", "c")
    assert "no runs were named" in refused("explore")


def test_what_is_no_run_is_refused(exported, tmp_path, refused):
    assert "is an export, which does not hold what explore shows: give the run itself" in refused(
        "explore", str(exported)
    )
    assert "config.json is missing: give the folder of a run" in refused("explore", str(tmp_path))


def test_a_port_in_use_is_refused_before_the_runs_are_read(tmp_path, refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("explore", str(tmp_path / "none"), "--port", str(port))
    assert f"--port {port}: address already in use; give another, or 0 for any free port" in said
