"""The gallery over HTTP: every page, and every refusal."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from sae_graphs.gallery import site as pages
from sae_graphs.gallery.runs import Run
from sae_graphs.gallery.server import HOST, is_loopback
from sae_graphs.graph.addresses import SITE
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import HOSTILE_NAME, SECRET, Site, served, write_run

HOSTILE = quote(HOSTILE_NAME, safe="")
PAGES = (
    "/",
    "/run/plain/",
    "/run/validated/",
    "/run/resolved/",
    "/run/nothing/",
    "/run/stale/",
    "/run/bad%20beside/",
    f"/run/{HOSTILE}/",
    "/compare?a=plain&b=other",
    "/compare?run=plain&run=other",
    "/compare?a=plain&b=plain",
    "/compare?a=nothing&b=nothing",
    "/compare?a=resolved&b=plain",
    "/compare?a=resolved&b=resolved&sum=1",
    f"/compare?a={HOSTILE}&b={HOSTILE}",
)


class Outline(HTMLParser):
    """Elements, attributes and scripts of a page, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._in_script = tag == "script" and ("type", "application/json") not in attrs

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)
            self._in_script = False


def allowed_script(policy: str) -> str:
    found = re.search(r"script-src 'sha256-([^']+)'", policy)
    assert found, policy
    return found[1]


def digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


@pytest.mark.parametrize("target", PAGES)
def test_every_page_opens_and_runs_no_script_but_ours(site: Site, target: str) -> None:
    reply = site.ask(target)
    assert reply.status == 200, reply.text[:400]
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
    page = Outline(reply.text)
    assert {digest(code) for code in page.scripts} == {allowed_script(policy)}
    assert "img" not in page.tags or target == "/"
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("href", "src", "action")]
    assert all(link.startswith(("/", "validation/", "#", f"{SITE}/")) for link in links), links
    if target != "/":
        assert "/" in links  # the way back


@pytest.mark.parametrize("target", [*PAGES, "/missing", "/run/plain/graph.json", "/favicon.ico"])
def test_strict_headers_on_everything(site: Site, target: str) -> None:
    headers = site.ask(target).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize("target", ["/", "/run/plain/", "/run/plain/graph.json", "/missing"])
def test_head_is_get_without_a_body(site: Site, target: str) -> None:
    got, head = site.ask(target), site.ask(target, method="HEAD")
    assert head.body == b""
    got.headers.pop("Date"), head.headers.pop("Date")
    assert (head.status, head.headers) == (got.status, got.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(site: Site, method: str) -> None:
    reply = site.ask("/", method=method, body=b"x=1")
    assert reply.status == 405
    assert reply.headers["Allow"] == "GET, HEAD"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.0.7", "", "[::2]"],
)
@pytest.mark.parametrize("target", ["/", "/run/plain/", "/run/plain/graph.json"])
def test_a_foreign_host_is_refused(site: Site, target: str, host: str) -> None:
    reply = site.ask(target, host=host)
    assert reply.status == 403
    assert b"Copyright" not in reply.body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8", "[::1]"])
def test_names_of_this_machine_are_let_in(site: Site, host: str) -> None:
    assert site.ask("/run/plain/graph.json", host=host).status == 200


def test_what_a_host_may_be() -> None:
    assert is_loopback(["127.0.0.1:8765"])
    for hosts in ([], ["localhost", "localhost"], ["localhost:"], ["localhost:x"], ["localhost:²"]):
        assert not is_loopback(hosts)


RUN = "/run/plain/"
REFUSED = (
    "../../outside/secret.json",
    "%2e%2e/%2e%2e/outside/secret.json",
    "..%2f..%2foutside%2fsecret.json",
    "%2e%2e%2f%2e%2e%2foutside/secret.json",
    "..%5c..%5coutside%5csecret.json",
    "..\\..\\outside\\secret.json",
    "%252e%252e/%252e%252e/outside/secret.json",
    "..%c0%af..%c0%afoutside/secret.json",
    "./graph.json",
    "%2e/graph.json",
    "/graph.json",
    "//graph.json",
    "graph.json/",
    "graph.json/.",
    "graph.json%00",
    "graph.json%00.png",
    "%00",
    "%0agraph.json",
    "graph.json%20",
    "C:%5cgraph.json",
    "graph.json::$DATA",
    "link.json",
    "linked/secret.json",
    "linked/",
    "linked",
    "folder.json",
    "folder.json/",
    ".hidden.json",
    "%2ehidden.json",
    ".dot/secret.json",
    "notes.py",
    "validation",
    "validation/",
    "missing.json",
    "x" * 5000 + ".json",
)


@pytest.mark.parametrize("path", REFUSED)
def test_no_way_out_of_a_run(site: Site, path: str) -> None:
    reply = site.ask(RUN + path)
    assert reply.status in (400, 404), reply.text[:200]
    assert SECRET.encode() not in reply.body
    assert b"plain" not in reply.body  # no listing of what is there
    assert str(site.folder).encode() not in reply.body


@pytest.mark.parametrize(
    "target",
    [
        "/../outside/secret.json",
        "/secret.json",
        "/run/",
        "/run",
        "/run/../",
        "/run/%2e%2e/outside/",
        "/run/%2e%2e%2foutside/",
        "/run/no%20run/",
        "/run/no%20run/secret.json",
        "/run/.draft/",
        "/run/elsewhere/",
        "/run/elsewhere/secret.json",
        "/run/outside/",
        "/run//etc/passwd",
        "//etc/passwd",
        "//evil.example/",
        "http://evil.example/",
        "etc/passwd",
        "*",
        "/thumbnail/..%2fplain.svg",
        "/thumbnail/missing.svg",
        "/thumbnail/broken%20json.svg",
        "/thumbnail/plain.png",
        "/compare/",
        "/graph.json",
    ],
)
def test_nothing_but_runs_is_served(site: Site, target: str) -> None:
    reply = site.ask(target)
    assert reply.status in (400, 404)
    assert SECRET.encode() not in reply.body


def test_the_refusals_can_fail(site: Site) -> None:
    assert site.ask(f"{RUN}graph.json").status == 200
    assert site.ask("/run/validated/validation/validation.html").body == b"<p>the report</p>"
    assert (site.folder / "plain" / "linked" / "secret.json").is_file()
    assert SECRET in (site.folder / "plain" / "link.json").read_text()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
def test_a_file_that_is_exchanged_meanwhile_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Between the look at it and its opening, a file becomes a link to another place."""
    folder = write_run(tmp_path / "runs" / "one", two_edges())
    (tmp_path / "secret.json").write_text(SECRET)
    look = pages.plain_file

    def exchanging(run: Run, names: Sequence[str]) -> Path | None:
        found = look(run, names)
        assert found is not None
        found.unlink()
        if kind == "link":
            found.symlink_to(tmp_path / "secret.json")
        elif kind == "pipe":
            os.mkfifo(found)
        elif kind == "folder":
            found.mkdir()
        return found

    monkeypatch.setattr(pages, "plain_file", exchanging)
    (folder / "other.json").write_text("{}")
    with served(tmp_path / "runs") as site:
        reply = site.ask("/run/one/other.json")
    assert reply.status == 404
    assert SECRET not in reply.text


def test_files_come_as_what_they_are(site: Site) -> None:
    reply = site.ask(f"{RUN}graph.json")
    assert reply.body == (site.folder / "plain" / "graph.json").read_bytes()
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Content-Length"] == str(len(reply.body))
    assert site.ask(f"{RUN}graph.dot").headers["Content-Type"] == "text/plain; charset=utf-8"
    assert site.ask(f"{RUN}empty.json").body == b""
    for name in ("graph.svg", "graph.html"):  # whatever is in them runs nothing
        policy = site.ask(RUN + name).headers["Content-Security-Policy"]
        assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
    assert "script-src" not in site.ask(f"{RUN}graph.svg").headers["Content-Security-Policy"]
    policy = site.ask(f"{RUN}graph.html").headers["Content-Security-Policy"]
    assert digest("alert(1)") != allowed_script(policy)


def test_a_run_without_its_slash_is_led_there(site: Site) -> None:
    reply = site.ask("/run/plain")
    assert (reply.status, reply.headers["Location"]) == (301, "/run/plain/")
    reply = site.ask(f"/run/{HOSTILE}")
    assert reply.headers["Location"] == f"/run/{HOSTILE}/"


def test_a_connection_is_kept_and_a_body_is_not_taken_for_a_request(site: Site) -> None:
    with socket.create_connection((HOST, site.port), timeout=10) as line:
        line.sendall(
            b"GET /missing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n"
            b"GET /run/plain/graph.json HTTP/1.1\r\nHost: evil.example\r\n\r\n"
        )
        got = b""
        while piece := line.recv(65536):
            got += piece
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in got


@pytest.mark.parametrize("sent", [b"\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_request_gets_a_refusal(site: Site, sent: bytes) -> None:
    with socket.create_connection((HOST, site.port), timeout=10) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        got = b""
        while piece := line.recv(65536):
            got += piece
    assert b"Traceback" not in got
    assert site.ask("/").status == 200
