"""The read-only server of the page, for browsers on this machine that know the token in its address.

Every other path is a 404. Requests with another host name are rejected, so that no page of another site can read from
the server under its own name (DNS rebinding).
"""

import hmac
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from slmrec_jax.durable import reason
from slmrec_jax.errors import UserError, setting
from slmrec_jax.exploring.answers import answer, answer_bytes
from slmrec_jax.exploring.explored import Explored
from slmrec_jax.exploring.page import page, policy
from slmrec_jax.exploring.pictures import read_picture

HOST = "127.0.0.1"

ANSWERED_AT_ONCE = 4
"""The number of requests that are answered at a time, to bound memory. Others wait."""

_NAMES = (HOST, "localhost")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": policy(embedded=False),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ExploreServer(ThreadingHTTPServer):
    """A server of the page and of the answers that it requests."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, explored: Explored, port: int) -> None:
        """Listen on a port of this machine only; 0 means any free port."""
        self.explored = explored
        self.token = secrets.token_urlsafe(24)
        self.page = page().encode()
        self.gate = threading.BoundedSemaphore(ANSWERED_AT_ONCE)
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error on standard error, unless the browser has disconnected."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def check_port(port: int) -> None:
    """Check that a server can listen on a port, or that it is 0.

    Raises:
        UserError: It is not a port, or it is in use or not allowed.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"{setting('port', port)}: give 1 to 65535, or 0 for any free port")
    with _refusing_port(port), socket.create_server((HOST, port)):
        pass


def make_server(explored: Explored, port: int = 0) -> ExploreServer:
    """Make a server that is already listening.

    Raises:
        UserError: The port is invalid, in use or not allowed.
    """
    check_port(port)
    with _refusing_port(port):
        return ExploreServer(explored, port)


@contextmanager
def _refusing_port(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{setting('port', port)}: {reason(error).lower()}; give another, or 0 for any free port"
        ) from None


class _Handler(BaseHTTPRequestHandler):
    server: ExploreServer
    timeout = 30

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in _NAMES:
            self._send(403, "text/plain", b"open the address that the program printed\n")
            return
        path, _, given = self.path.partition("?")
        start, token, *rest = path.split("/") if "/" in path else ("", "")
        if start or not rest or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._send(404, "text/plain", b"not found\n")
            return
        query = {name: values[-1] for name, values in parse_qs(given, keep_blank_values=True).items()}
        with self.server.gate:
            status, kind, body = _respond(self.server, "/".join(rest), query)
        self._send(status, kind, body)

    def version_string(self) -> str:
        return "slmrec-jax"

    def log_message(self, format: str, *values: Any) -> None:
        """Log nothing, since the program prints only the address."""

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), **_HEADERS}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _respond(server: ExploreServer, path: str, query: dict[str, str]) -> tuple[int, str, bytes]:
    """Return the status, type and content for a path below the token."""
    if path == "":
        return 200, "text/html", server.page
    try:
        if path == "api/picture":
            return _picture(server.explored, query)
        found = answer(server.explored, path.removeprefix("api/"), query) if path.startswith("api/") else None
    except UserError as error:
        return 400, "application/json", answer_bytes({"error": str(error)})
    return (404, "text/plain", b"not found\n") if found is None else (200, "application/json", answer_bytes(found))


def _picture(explored: Explored, query: dict[str, str]) -> tuple[int, str, bytes]:
    row = query.get("row", "")
    is_row = row.isascii() and row.isdecimal() and len(row) < 12 and int(row) < len(explored.items.ids)
    images = explored.item_texts.get("image")
    found = read_picture(explored.pictures, images[int(row)]) if is_row and images is not None else None
    return (404, "text/plain", b"not found\n") if found is None else (200, *found)
