"""What a run's page asks of its model: who may ask, what is answered, what starts again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.asking import LARGEST, Asker, changes_from
from sae_graphs.gallery.runs import Run
from tests.support import answering
from tests.support.answer_graphs import asked_graph
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import Reply, Site, served, write_run

MODULE = "tests.support.answering"
AT = "/run/one/what-if"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("what-if")
    write_run(folder / "one", asked_graph())
    write_run(folder / "two", two_edges())
    return folder


@pytest.fixture(scope="module")
def asking(runs: Path) -> Iterator[Site]:
    with served(runs, MODULE) as site:
        yield site


def post(site: Site, changes: Any, target: str = AT, **headers: str) -> Reply:
    own = {"Origin": f"http://127.0.0.1:{site.port}", **JSON, **headers}
    body = changes if isinstance(changes, bytes) else json.dumps({"changes": changes}).encode()
    return site.ask(target, method="POST", body=body, headers=own)


def answer_to(site: Site, changes: Any, seconds: float = 20) -> dict[str, Any]:
    """What comes in the end, as a page gets it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found: dict[str, Any] = json.loads(post(site, changes).body)
        if "waiting" not in found:
            return found
        time.sleep(0.4)  # as the page does
    raise AssertionError(f"no answer: {found}")


def test_it_is_answered_and_what_takes_long_is_asked_for_again(asking: Site) -> None:
    found = answer_to(asking, {"0.1@1": "off"})
    assert found["words"].endswith("[('0.1@1', 'off')]")
    first = post(asking, {"0.1@1": "x3"})
    assert json.loads(first.body) == {"waiting": "running the model ..."}
    assert first.headers["Content-Type"] == "application/json"
    assert "default-src 'none'" in first.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in first.headers
    assert answer_to(asking, {"0.1@1": "x3"})["rows"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Transfer-Encoding": "chunked"}, 413),
    ],
)
def test_who_else_asks_is_refused(asking: Site, headers: dict[str, str], status: int) -> None:
    reply = post(asking, {"0.1@1": "off"}, **headers)
    assert reply.status == status
    assert list(json.loads(reply.body)) == ["problem"]


def test_a_question_without_an_origin_or_length_is_refused(asking: Site) -> None:
    assert asking.ask(AT, method="POST", body=b"{}", headers=JSON).status == 403
    own = {"Origin": f"http://127.0.0.1:{asking.port}", **JSON}
    assert asking.ask(AT, method="POST", headers=own).status == 411
    host = "evil.example"
    evil = {"Origin": f"http://{host}", **JSON}
    assert asking.ask(AT, method="POST", host=host, body=b"{}", headers=evil).status == 403


def test_a_large_question_is_refused_unread(asking: Site) -> None:
    reply = post(asking, b" " * (LARGEST + 1))
    assert reply.status == 413 and reply.headers["Connection"] == "close"


WRONG = [
    b"{",
    b"[]",
    b'{"changes": {}}',
    b'{"changes": {"0.1@1": 3}}',
    b'{"changes": {"0.1@1": "mean"}}',
    b'{"changes": {"0.1@1": "x101"}}',
    b'{"changes": {"0.1@1": "xnan"}}',
    b'{"changes": {"0.1@1": "off"}, "folder": "/"}',
    b"[" * 5000,
    b"\xff",
]


@pytest.mark.parametrize("body", WRONG)
def test_what_is_no_question_is_one_line(asking: Site, body: bytes) -> None:
    with pytest.raises(SaeGraphsError):
        changes_from(body)
    reply = post(asking, body)
    assert reply.status == 400
    assert "\n" not in json.loads(reply.body)["problem"]


def test_the_values_that_are_taken() -> None:
    body = b'{"changes": {"5.3@2": "off", "4.1@3": "x-0.5", "4.2@3": "x100"}}'
    assert list(changes_from(body).values()) == ["off", "x-0.5", "x100"]


@pytest.mark.parametrize(
    ("target", "status"),
    [("/run/none/what-if", 404), ("/run/one/", 405), ("/run/one/what-if/x", 405), ("/", 405)],
)
def test_nothing_else_is_posted(asking: Site, target: str, status: int) -> None:
    assert post(asking, {"0.1@1": "off"}, target).status == status


def test_it_is_not_there_to_be_got(asking: Site) -> None:
    assert asking.ask(AT).status == 404


def test_a_gallery_without_a_model_says_so(runs: Path) -> None:
    with served(runs) as site:
        assert "sae-graphs view" in json.loads(post(site, {"0.1@1": "off"}).body)["problem"]


def test_a_problem_is_told_and_asked_anew(asking: Site) -> None:
    for _ in range(2):
        assert "cannot be loaded" in answer_to(asking, {"0.1@1": "x7"})["problem"]


def test_a_process_that_ends_is_started_once_more_and_that_is_told(
    asking: Site, runs: Path
) -> None:
    (runs / "one" / "ended").unlink(missing_ok=True)
    found = answer_to(asking, {"0.1@1": "x8"})
    assert found["rows"]
    assert found["notes"] == ["what runs the model ended unexpectedly, and was started again"]
    problem = answer_to(asking, {"0.1@1": "x9"})["problem"]
    assert problem == "what runs the model ended unexpectedly twice, perhaps for want of memory"
    assert answer_to(asking, {"1.2@1": "off"})["rows"]


def test_closing_ends_it_in_the_middle_of_its_work(runs: Path) -> None:
    asker, run = Asker(MODULE), Run("one", runs / "one")
    assert "waiting" in asker.answer(run, {"0.1@1": "x3"})
    process = asker._worker._process
    started = time.monotonic()
    asker.close()
    assert time.monotonic() - started < answering.SECONDS
    assert process is not None and process.poll() is not None


@pytest.mark.slow
def test_only_a_page_from_here_may_ask(asking: Site, runs: Path) -> None:
    policy = asking.ask("/run/one/").headers["Content-Security-Policy"]
    assert "connect-src 'self';" in policy
    asked_graph().save(runs / "one" / "graph.html")
    saved = asking.ask("/run/one/graph.html")
    assert "connect-src" not in saved.headers["Content-Security-Policy"] + saved.text
