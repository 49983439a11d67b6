"""Folders of runs, good and bad, and a server of them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sae_graphs.gallery.server import gallery_server
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.validation import evidence_json
from sae_graphs.validation.evidence import ValidationReport
from tests.support import evidence
from tests.support import graphs as simple
from tests.support.rich_graphs import graph_of, hostile, resolved, two_edges

HOSTILE_NAME = "<img src=x onerror=alert(1)> & \"quotes\" 'single' %2e%2e ?a=b#c \u202e"
SECRET = "the secret outside"


def write_run(
    folder: Path,
    graph: CausalGraph,
    *,
    created: str | None = None,
    report: ValidationReport | None = None,
) -> Path:
    """A run's folder: its graph, a record with the date, a validation."""
    folder.mkdir(parents=True, exist_ok=True)
    graph.save(folder)
    if created is not None:
        (folder / "run.json").write_text(json.dumps({"created": created, "files": []}))
    if report is not None:
        (folder / "validation").mkdir()
        evidence_json.save(report, folder / "validation")
        (folder / "validation" / "validation.html").write_text("<p>the report</p>")
    return folder


def over() -> CausalGraph:
    """The graph that the reports of `tests.support.evidence` are over."""
    return simple.example()


def make_runs(folder: Path) -> Path:
    """Good runs, hostile ones and damaged ones, beside what is none; secrets outside."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text(json.dumps(SECRET))
    over().save(outside / "graph.json")
    folder.mkdir()
    plain = write_run(folder / "plain", two_edges(), created="2024-01-02T03:04:05+00:00")
    for name, text in {
        "graph.html": "<script>alert(1)</script>",
        "graph.svg": "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "graph.dot": "digraph {}",
        "notes.py": SECRET,
        ".hidden.json": SECRET,
    }.items():
        (plain / name).write_text(text)
    (plain / "empty.json").write_bytes(b"")
    (plain / "link.json").symlink_to(outside / "secret.json")
    (plain / "linked").symlink_to(outside)
    (plain / "folder.json").mkdir()
    (plain / ".dot").mkdir()
    (plain / ".dot" / "secret.json").write_text(SECRET)
    write_run(
        folder / "validated",
        over(),
        created="2025-06-01T00:00:00+00:00",
        report=evidence.report(),
    )
    write_run(
        folder / "other", graph_of(("0.1", "1.2", -3.0), ("0.7", "1.2", 4.0)), created="2023-01-01"
    )
    write_run(folder / HOSTILE_NAME, hostile())
    write_run(folder / "resolved", resolved(12))
    write_run(folder / "nothing", graph_of())
    _damage(folder, outside)
    (folder / "no run").mkdir()
    (folder / "no run" / "secret.json").write_text(SECRET)
    (folder / "secret.json").write_text(SECRET)
    write_run(folder / ".draft", two_edges())
    (folder / "elsewhere").symlink_to(outside)
    return folder


def _damage(folder: Path, outside: Path) -> None:
    for name, text in {
        "broken json": "{",
        "other schema": json.dumps(
            {
                "directed": True,
                "multigraph": False,
                "graph": {"schema": "another"},
                "nodes": [],
                "edges": [],
            }
        ),
        "nested": "[" * 100_000,
        "a list": "[]",
        "binary": "\x00\x01",
    }.items():
        (folder / name).mkdir()
        (folder / name / "graph.json").write_text(text)
    (folder / "a link").mkdir()
    (folder / "a link" / "graph.json").symlink_to(outside / "graph.json")
    (folder / "a pipe").mkdir()
    os.mkfifo(folder / "a pipe" / "graph.json")
    stale = write_run(folder / "stale", two_edges())
    (stale / "validation").mkdir()
    evidence_json.save(evidence.report(), stale / "validation")  # of another graph
    bad = write_run(folder / "bad beside", two_edges())
    (bad / "run.json").write_text('{"created": 7}')
    (bad / "annotations.json").write_text("{")
    (bad / "validation").mkdir()
    (bad / "validation" / "validation.json").write_text("{")


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


class Site(NamedTuple):
    """A server that runs, and how to ask it: addresses are sent as they are given."""

    port: int
    folder: Path

    def ask(
        self,
        target: str,
        *,
        method: str = "GET",
        host: str | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            if host != "":
                connection.putheader("Host", host or f"127.0.0.1:{self.port}")
            for name, value in headers.items():
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


@contextmanager
def served(folder: Path, model: str | None = None) -> Iterator[Site]:
    """The gallery of a folder at a free port, until the block is left; `model` answers what if."""
    with gallery_server(folder, 0, model=model) as server:
        thread = threading.Thread(
            target=partial(server.serve_forever, poll_interval=0.02), daemon=True
        )
        thread.start()
        try:
            yield Site(server.server_port, folder)
        finally:
            server.shutdown()
            thread.join()


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, to see that nothing was written."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def fresh(folder: Path) -> None:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
