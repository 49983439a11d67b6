"""The server: loopback only, everything it sends held by strict headers.

Everything is got, and nothing is written: what a run's page asks of its model is posted, by that
page alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.asking import LARGEST, Asker
from sae_graphs.gallery.library import Library
from sae_graphs.gallery.runs import FILES, runs_in
from sae_graphs.gallery.site import Answer, answered, asks_of, posted, told, told_page

HOST = "127.0.0.1"
PORT = 8765  # taken where it is free and none is asked for
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
IDLE_SECONDS = 30  # after which a connection that says nothing is closed
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a gallery asks for all of its pictures at once
    # Where the system would let two programs listen at one port, a second viewer must fail.
    allow_reuse_address = os.name != "nt"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who went away is no news."""


@contextmanager
def gallery_server(
    folder: Path, port: int | None = None, *, model: str | None = None
) -> Iterator[ThreadingHTTPServer]:
    """A server of the runs in a folder, bound but not yet serving: call its `serve_forever`.

    It listens at 127.0.0.1 alone; `port` None is 8765, or any that is free where that is not.
    `model` is the module whose `serve` runs runs' models in a process, where pages may ask them.
    Raises `SaeGraphsError` for a folder without runs, and for a port that cannot be had.
    """
    check_folder(folder)
    library = Library(folder)
    asker = None if model is None else Asker(model)
    server = _bound(partial(_Handler, library, asker), port)
    try:
        yield server
    finally:
        server.server_close()
        library.close()
        if asker is not None:
            asker.close()


def check_folder(folder: Path) -> None:
    """Raises `SaeGraphsError` where there is nothing to show."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise SaeGraphsError(
            f"{folder} {what}; give a folder that holds runs, such as outputs, or a run's own"
        )
    if not runs_in(folder):
        raise SaeGraphsError(
            f"{folder} holds no runs (folders with one of {', '.join(FILES)}), and is none; "
            'make one first: sae-graphs graph "Copyright (C"'
        )


def _bound(handler: Any, port: int | None) -> _Server:
    try:
        return _Server((HOST, PORT if port is None else port), handler)
    except OSError as problem:
        if port is None and problem.errno == errno.EADDRINUSE:
            return _Server((HOST, 0), handler)
        reason = "is in use" if problem.errno == errno.EADDRINUSE else f"cannot be had: {problem}"
        raise SaeGraphsError(
            f"port {port or PORT} {reason}; give another with --port, or 0 for any that is free"
        ) from problem


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sae-graphs"
    sys_version = ""
    timeout = IDLE_SECONDS

    def __init__(self, library: Library, asker: Asker | None, *args: Any) -> None:
        self.library, self.asker = library, asker
        super().__init__(*args)

    def log_message(self, *args: Any) -> None:
        """Nothing is printed: what a reader looks at is not written down."""

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer())

    def do_POST(self) -> None:
        if asks_of(self.path) is None:
            return self.send_error(HTTPStatus.NOT_IMPLEMENTED)
        answer = self._refusal()
        if answer is None:
            try:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = posted(self.library, self.asker, self.path, body)
            except SaeGraphsError as problem:
                answer = told_page(str(problem))
        else:
            self.close_connection = True  # the body is not read
        return self._send(answer)

    def _refusal(self) -> Answer | None:
        """Why a question is not taken: it must be a small one, from a page of this server."""
        headers = self.headers
        hosts, lengths = headers.get_all("Host", []), headers.get_all("Content-Length", [])
        if not is_loopback(hosts):
            return told_page("this gallery is for this machine alone", 403)
        if not is_own(hosts[0], headers.get_all("Origin", []), headers.get("Sec-Fetch-Site")):
            return told_page("only a page of this gallery may ask", 403)
        if headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            return told_page("a question is JSON (Content-Type: application/json)", 415)
        if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
            return told_page("a question says how long it is (Content-Length)", 411)
        if "Transfer-Encoding" in headers or len(lengths[0]) > 9 or int(lengths[0]) > LARGEST:
            return told_page(f"a question has at most {LARGEST} bytes", 413)
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Whatever the base class refuses, other methods too: with our page and our headers."""
        known = code in HTTPStatus._value2member_map_
        words = HTTPStatus(code).phrase if known else "Refused"
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, words = HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD: nothing is written"
        self.close_connection = True  # a body that was sent along is not read
        if not hasattr(self, "headers"):
            self.command, self.request_version = "GET", "HTTP/1.1"
        self._send(told(int(code), f"{int(code)}", f"{words}."))

    def _answer(self) -> Answer:
        if not is_loopback(self.headers.get_all("Host", [])):
            self.close_connection = True
            return told(403, "Not from here", "This gallery is for this machine alone.")
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        try:
            return answered(self.library, self.path)
        except OSError as problem:  # a run that is replaced while it is read
            return told(503, "Try again", f"A file could not be read ({problem.strerror}).")
        except Exception as problem:  # our bug: say so, and go on serving the others
            return told(500, "This is a bug", f"The page could not be made: {problem!r:.300}")

    def _send(self, answer: Answer) -> None:
        with contextlib.ExitStack() as opened:
            body, size = answer.body, 0
            if isinstance(body, Path):
                try:
                    file = opened.enter_context(open_plain(body))
                except OSError:
                    return self._send(told(404, "Nothing is here", "The file is gone."))
                size = os.fstat(file.fileno()).st_size
            else:
                size = len(body)
            self._send_head(answer, size)
            if self.command == "HEAD":
                return None
            if isinstance(body, Path):
                shutil.copyfileobj(_Part(file, size), self.wfile)
            else:
                self.wfile.write(body)
        return None

    def _send_head(self, answer: Answer, size: int) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Security-Policy", answer.policy)
        for name, value in HEADERS:
            self.send_header(name, value)
        if answer.location is not None:
            self.send_header("Location", answer.location)
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def open_plain(file: Path) -> BinaryIO:
    """A plain file to read; `OSError` where it is a link, or a pipe, say, by now."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    opened = os.fdopen(os.open(file, flags), "rb")
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "not a plain file")
    return opened


class _Part:
    """The first bytes of a file: as many as were announced, should it grow meanwhile."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data


def is_loopback(hosts: list[str]) -> bool:
    """True for exactly one `Host`, a name of this machine, at any port (a tunnel has its own).

    Another name that leads here is how a page elsewhere would read along (DNS rebinding).

    >>> is_loopback(["localhost:8765"]), is_loopback(["evil.example:8765"])
    (True, False)
    """
    if len(hosts) != 1:
        return False
    name, colon, port = hosts[0].strip().lower().rpartition(":")
    if not colon or hosts[0].rstrip().endswith("]"):
        name, port = hosts[0].strip().lower(), "0"
    return name in LOOPBACK and port.isascii() and port.isdigit()


def is_own(host: str, origins: list[str], site: str | None) -> bool:
    """True for what a page of this server sends: browsers name the page's origin.

    >>> is_own("localhost:80", ["http://localhost:80"], "same-origin")
    True
    >>> is_own("localhost:80", ["http://localhost:81"], None), is_own("localhost:80", [], None)
    (False, False)
    """
    if site not in (None, "same-origin"):
        return False
    return origins in ([f"http://{host.strip()}"], [f"https://{host.strip()}"])


def address(server: ThreadingHTTPServer) -> str:
    """Where the gallery is."""
    return f"http://{HOST}:{server.server_port}/"
