"""A hub on this machine: it serves a cache's folder as the Hugging Face hub would, or misbehaves.

It knows what `huggingface_hub` asks for: a model's description, its tree of files, and the files
themselves; large ones by way of another host, as the real hub's. It counts what it is asked and
what it sends.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".npz", ".pt", ".bin")  # kept on another host
PIECE = 2**16
TOTAL = 124_439_808  # numbers that any model is said to have, where it is asked
DOOR = "resolve"  # where files are asked for; `store` is the other host's


class Asked(NamedTuple):
    """A request, what was answered, and how many bytes of a file."""

    method: str
    path: str
    range: str | None
    authorized: bool
    status: int
    sent: int


class Refusal(NamedTuple):
    """An answer that is no file: its status and the code that the hub's library reads."""

    status: int
    code: str | None = None
    message: str | None = None


UNKNOWN = Refusal(404, "RepoNotFound", "Repository not found")
NO_ENTRY = Refusal(404, "EntryNotFound", "Entry not found")
NO_REVISION = Refusal(404, "RevisionNotFound", "Invalid rev id")
NO_TOKEN = Refusal(401, "GatedRepo", "Access to this model is restricted. You must log in.")
NOT_ALLOWED = Refusal(403, "GatedRepo", "You are not in the authorized list.")


@dataclass
class FakeHub:
    """What it serves, how it misbehaves, and what it was asked.

    `gated` repositories describe themselves to everyone and give files to holders of a token in
    `tokens` alone. `failing` ones answer everything with a status. `absent` files are listed but
    not there. `cuts` are broken off after so many bytes, once each. `seconds` pass before every
    answer.
    """

    home: Path
    endpoint: str = ""
    gated: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)
    absent: set[tuple[str, str]] = field(default_factory=set)
    cuts: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Bytes of files, partial ones included."""
        return sum(request.sent for request in self.asked)

    @property
    def methods(self) -> Counter[str]:
        """How many requests of each kind."""
        return Counter(request.method for request in self.asked)

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs in its environment to use this hub and the cache below `home`."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}

    @contextmanager
    def in_use(self, home: Path) -> Iterator[None]:
        """In this process, the hub is this one, and the cache the one below `home`.

        The hub's library does not wait between its tries.
        """
        hasty = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        constants = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint
            + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_OFFLINE": False,
        }
        with ExitStack() as undo:
            for name, value in constants.items():
                undo.enter_context(mock.patch(f"huggingface_hub.constants.{name}", value))
            for module in ("utils._http", "file_download"):
                undo.enter_context(mock.patch(f"huggingface_hub.{module}.time", hasty))
            yield

    def snapshot(self, repo_id: str) -> Path | None:
        """The files of a repository; None where it is not known."""
        repository = self.home / "hub" / f"models--{repo_id.replace('/', '--')}"
        try:
            commit = (repository / "refs" / "main").read_text(encoding="ascii")
        except OSError:
            return None
        return repository / "snapshots" / commit


@contextmanager
def fake_hub(home: Path) -> Iterator[FakeHub]:
    """A hub that serves what lies in the cache below `home`, until the block is left."""
    hub = FakeHub(home)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: FakeHub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        time.sleep(self.hub.seconds)
        path = unquote(urlsplit(self.path).path).strip("/")
        api = re.fullmatch(r"api/models/(.+?)(?:/(?:revision|tree)/([^/]+))?", path)
        file = re.fullmatch(rf"(.+?)/({DOOR}|store)/([^/]+)/(.+)", path)
        if api is not None:
            self._describe(api[1], api[2] or "main", tree="/tree/" in path)
        elif file is not None:
            self._give(file[1], file[3], file[4], door=file[2] == DOOR)
        else:  # the hub's library may ask about other things; they are none of ours
            self._refuse(Refusal(404), counted=False)

    def _describe(self, repo_id: str, revision: str, *, tree: bool) -> None:
        snapshot = self._opened(repo_id, revision)
        if snapshot is None:
            return
        files = sorted(at for at in snapshot.rglob("*") if at.is_file())
        names = [(at.relative_to(snapshot).as_posix(), at.stat().st_size) for at in files]
        answer: Any
        if tree:
            answer = [{"type": "file", "path": n, "size": s, "oid": _etag(n)} for n, s in names]
        elif "expand=safetensors" in self.path:
            answer = {"_id": "0", "id": repo_id, "safetensors": {"total": TOTAL, "parameters": {}}}
        else:
            blobs = "blobs=" in self.path
            answer = {
                "_id": "0",
                "id": repo_id,
                "modelId": repo_id,
                "sha": snapshot.name,
                "private": False,
                "gated": "manual" if repo_id in self.hub.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [
                    {"rfilename": n, **({"size": s, "blobId": _etag(n)} if blobs else {})}
                    for n, s in names
                ],
            }
        body = json.dumps(answer).encode()
        self._record(200, 0)
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _give(self, repo_id: str, revision: str, name: str, *, door: bool) -> None:
        snapshot = self._opened(repo_id, revision)
        if snapshot is None:
            return
        about = {"X-Repo-Commit": snapshot.name}
        file = snapshot / name
        if door and repo_id in self.hub.gated and self._token not in self.hub.tokens:
            self._refuse(NOT_ALLOWED if self._token else NO_TOKEN, about)
        elif not file.is_file() or (repo_id, name) in self.hub.absent:
            self._refuse(NO_ENTRY, about)
        else:
            size = file.stat().st_size
            about |= {"ETag": f'"{_etag_of(file, name)}"', "Accept-Ranges": "bytes"}
            if door and name.endswith(LARGE):
                self._send_elsewhere(f"{repo_id}/store/{revision}/{name}", size, about)
            else:
                self._send(file, (repo_id, name), size, about)

    def _send_elsewhere(self, path: str, size: int, about: dict[str, str]) -> None:
        linked = {"X-Linked-Size": str(size), "X-Linked-Etag": about["ETag"]}
        other = self.hub.endpoint.replace("127.0.0.1", "localhost")
        self._record(302, 0)
        self._head(302, {**about, **linked, "Location": f"{other}/{path}", "Content-Length": "0"})

    def _send(self, file: Path, key: tuple[str, str], size: int, about: dict[str, str]) -> None:
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(part[1]) if part else 0
        end = min(int(part[2]) + 1 if part and part[2] else size, size)
        if part:
            about = {**about, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        last = end
        if self.command == "HEAD":
            last = start
        elif key in self.hub.cuts:
            last = min(end, start + self.hub.cuts.pop(key))
        status = 206 if part else 200
        self._record(status, last - start)
        self._head(status, {**about, "Content-Length": str(end - start)})
        with file.open("rb") as content:
            content.seek(start)
            left = last - start
            while left:
                left -= self.wfile.write(content.read(min(PIECE, left)))
        if self.command == "GET" and last < end:
            self.close_connection = True

    def _opened(self, repo_id: str, revision: str) -> Path | None:
        """A repository's files; None where the answer has been given instead."""
        status = self.hub.failing.get(repo_id)
        snapshot = self.hub.snapshot(repo_id)
        if status is not None:
            self._refuse(Refusal(status))
        elif snapshot is None:
            self._refuse(UNKNOWN)
        elif revision not in ("main", snapshot.name):
            self._refuse(NO_REVISION)
        else:
            return snapshot
        return None

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _refuse(
        self, refusal: Refusal, headers: dict[str, str] | None = None, *, counted: bool = True
    ) -> None:
        said = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
        given = {name: text for name, text in said.items() if text}
        body = json.dumps({"error": refusal.message or "no"}).encode()
        if counted:
            self._record(refusal.status, 0)
        self._head(refusal.status, {**given, **(headers or {}), "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _record(self, status: int, sent: int) -> None:
        request = Asked(
            self.command,
            unquote(self.path),
            self.headers.get("Range"),
            bool(self._token),
            status,
            sent,
        )
        self.hub.asked.append(request)


def _etag_of(file: Path, name: str) -> str:
    """Large files are named by a hash of what they hold, as on the real hub."""
    if not name.endswith(LARGE):
        return _etag(name)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _etag(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
