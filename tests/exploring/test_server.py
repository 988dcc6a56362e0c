"""The server: who may read what, its headers, pictures, and many requests at once."""

import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from made_explored import PNG

from slmrec_jax.errors import UserError
from slmrec_jax.exploring.page import page, policy
from slmrec_jax.exploring.pictures import read_picture
from slmrec_jax.exploring.server import make_server

ELSEWHERE = """/ * /favicon.ico /TOKEN /TOKENx/ /x/TOKEN/ /TOKEN/api /TOKEN/api/ /TOKEN/x /TOKEN/api/none
/TOKEN/../TOKEN/ /TOKEN/explore.js /é/ http://127.0.0.1/TOKEN/ /TOKEN/api/about/"""


@pytest.fixture
def get(server):
    """A function that requests a path below the token, and returns the status, the headers and the content."""

    def request(path, *, method="GET", whole=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        address = f"/{server.token}/{path}" if whole is None else whole
        connection.request(method, address, headers=headers)
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()

    return request


def test_the_page_and_its_answers_are_below_the_token(server, get):
    status, headers, page = get("")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.startswith(b"<!doctype html>")
    status, headers, found = get("api/about")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(found)["users"] == 12
    assert server.address == f"http://127.0.0.1:{server.server_address[1]}/{server.token}/"
    assert len(server.token) >= 32


@pytest.mark.parametrize("path", ELSEWHERE.split())
def test_every_other_path_is_not_found(server, get, path):
    with socket.create_connection(server.server_address, timeout=30) as raw:
        sent = f"GET {path.replace('TOKEN', server.token)} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
        raw.sendall(sent.encode("latin-1"))
        said = b"".join(iter(lambda: raw.recv(4096), b""))
    assert said.startswith(b"HTTP/1.0 404")
    assert server.token.encode() not in said


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1]:80"])
def test_another_host_is_refused(get, host):
    assert get("api/about", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost:8080"])
def test_names_of_this_machine_are_accepted(get, host):
    assert get("api/about", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_it_only_reads(get, method):
    assert get("api/about", method=method)[0] == 501


def test_headers_forbid_all_but_the_page_itself(get):
    for path in ("", "api/about", "api/none"):
        headers = get(path)[1]
        policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert policy["connect-src"] == "'self'"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Server"] == "slmrec-jax"


def test_an_invalid_query_gets_one_line(get):
    status, _, found = get("api/user?row=x")
    assert (status, json.loads(found)) == (400, {"error": "'x' is not a number from 0 to 11"})
    assert get("api/user?row=%ff%00&row=")[0] == 400
    assert get("api/rows?ids=" + "x" * 70_000)[0] == 414


def test_pictures_come_from_the_folder_of_the_data_alone(get, explored, tmp_path):
    status, headers, content = get("api/picture?row=0")
    assert (status, headers["Content-Type"].partition(";")[0], content) == (200, "image/png", PNG)
    for row in ("1", "2", "3", "4", "x", "60", "-1", ""):
        assert get(f"api/picture?row={row}")[0] == 404
    (tmp_path / "link.png").symlink_to(explored.pictures.parent / "secret.png")
    (tmp_path / "folder.png").mkdir()
    for text in ("link.png", "folder.png", "none.png", "/etc/passwd", "a\0.png", "x" * 9999 + ".png", ""):
        assert read_picture(tmp_path, text) is None
    (tmp_path / "text.png").symlink_to(tmp_path / "text.html")
    (tmp_path / "text.html").write_text("<script>")
    assert read_picture(tmp_path, "text.png") is None


def test_many_requests_at_once(get):
    paths = [f"api/user?row={row % 12}" for row in range(64)]
    expected = {path: get(path)[2] for path in set(paths)}
    together = threading.Barrier(64)

    def ask(path):
        together.wait()
        return get(path)

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(ask, paths))
    assert [(status, content) for status, _, content in found] == [(200, expected[path]) for path in paths]


def test_nothing_is_logged(get, capfd):
    get("")
    get("none")
    get("api/user?row=x")
    assert capfd.readouterr() == ("", "")


def test_ports_that_cannot_be_had(server, explored):
    taken = server.server_address[1]
    with pytest.raises(UserError, match=f"port={taken}: address already in use; give another, or 0"):
        make_server(explored, taken)
    for port in (-1, 65536):
        with pytest.raises(UserError, match=f"port={port}: give 1 to 65535, or 0"):
            make_server(explored, port)


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_the_policy_allows_the_script_of_the_page_alone():
    text = page()
    assert text.count("<script") == text.count("<style") == 1
    assert "/*S" not in text
    assert policy(embedded=False).count("sha256-") == 2
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"):
        assert way not in text
