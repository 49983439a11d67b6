"""The client of Neuronpedia against a service that answers well, slowly, wrongly, or not at all."""

from __future__ import annotations

import json
import logging
import socket
import struct
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import StringIO
from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.neuronpedia import client as neuronpedia_client
from sae_graphs.features.neuronpedia.answers import Answer
from sae_graphs.features.neuronpedia.client import Fetched, Service, fetch
from sae_graphs.graph.addresses import SITE, Address, parse_address
from sae_graphs.graph.feature_page import FeaturePage
from tests.support.neuronpedia_server import HTML, Neuronpedia, Reply, record, reply

ONE = parse_address("gpt2-small/5-res-jb/10603")
MISSING = Answer(FeaturePage("missing"))
SLOW = 30.0  # seconds that no test waits


def service(server: Neuronpedia, **how: Any) -> Service:
    """Patient enough for this machine, and without pauses."""
    return Service(server.url, **{"timeout": 10.0, "sleep": lambda _: None, **how})


def explanation(found: Fetched, address: Address = ONE) -> str | None:
    return found.answers[address].page.explanation


def test_batches_are_read_by_address(neuronpedia: Neuronpedia) -> None:
    names = [f"gpt2-small/{layer}-res-jb/{index}" for layer in (3, 1, 2) for index in (7, 5, 9)]
    neuronpedia.knows(*names)
    gone = Address("gpt2-small/2-res-jb", 8)
    asked = [*map(parse_address, names), gone]
    told: list[tuple[int, int]] = []
    found = fetch(
        [*asked, asked[0]],
        service(neuronpedia, batch=4),
        progress=lambda done, total: told.append((done, total)),
    )
    assert found.reason is None
    assert {str(at): explanation(found, at) for at in asked[:-1]} == {
        name: f"means {name}" for name in names
    }
    assert found.answers[gone] == MISSING
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert [len(request.body) for request in neuronpedia.asked] == [4, 4, 2]
    first = neuronpedia.asked[0].body[0]
    assert first == {"modelId": "gpt2-small", "layer": "3-res-jb", "index": 7, "maxActsToReturn": 8}


def test_nothing_to_ask_asks_nothing(neuronpedia: Neuronpedia) -> None:
    assert fetch([], service(neuronpedia)) == ({}, None)
    assert neuronpedia.asked == []


# -- single features -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 405])
def test_a_service_without_batches_is_asked_one_by_one(
    neuronpedia: Neuronpedia, status: int
) -> None:
    neuronpedia.knows(str(ONE))
    neuronpedia.first.append(reply({}, status))
    found = fetch([ONE, Address("a/b", 1)], service(neuronpedia))
    assert explanation(found) == f"means {ONE}"
    assert found.answers[Address("a/b", 1)] == MISSING
    assert found.reason is None
    paths = [(request.method, request.path) for request in neuronpedia.asked]
    assert paths == [
        ("POST", "/api/features"),
        ("GET", f"/api/feature/{ONE}"),
        ("GET", "/api/feature/a/b/1"),
    ]


def test_one_by_one_ends_at_a_failure(neuronpedia: Neuronpedia) -> None:
    neuronpedia.knows(str(ONE))
    neuronpedia.first += [reply({}, 404), reply(record(str(ONE))), reply(record("a/b/2"))]
    found = fetch([ONE, Address("a/b", 1), Address("a/b", 3)], service(neuronpedia))
    assert list(found.answers) == [ONE]
    assert found.reason == "its answer is not a feature"
    assert len(neuronpedia.asked) == 3


def test_nothing_at_all_is_not_missing(neuronpedia: Neuronpedia) -> None:
    neuronpedia.always = reply({}, 405)
    assert fetch([ONE], service(neuronpedia)) == ({}, "HTTP 405")


# -- again, and not again --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        reply({}, 500),
        reply({}, 503),
        reply([record(str(ONE))], cut=40),
        Reply(200, b'[{"modelId": "gpt2-sm'),
        reply([], wait=SLOW),
    ],
)
def test_what_may_pass_is_asked_again(neuronpedia: Neuronpedia, bad: Reply) -> None:
    neuronpedia.knows(str(ONE))
    neuronpedia.first.append(bad)
    pauses: list[float] = []
    timeout = 0.8 if bad.wait else 10.0
    found = fetch([ONE], service(neuronpedia, timeout=timeout, sleep=pauses.append))
    assert explanation(found) == f"means {ONE}"
    assert len(neuronpedia.asked) == 2
    assert len(pauses) == 1
    assert 0.5 <= pauses[0] <= 1.0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reply({}, 500), "HTTP 500"),
        (reply([record(str(ONE))], cut=40), "its answer broke off"),
        (Reply(200, b"[1, "), "its answer is not JSON"),
        (reply([], wait=SLOW), "it does not answer in time"),
        (Reply(200, b"x" * 100, drip=0.05), "it does not answer in time"),
    ],
)
def test_what_stays_bad_is_given_up(neuronpedia: Neuronpedia, bad: Reply, reason: str) -> None:
    neuronpedia.always = bad
    pauses: list[float] = []
    slow = bool(bad.wait or bad.drip)
    timeout, attempts = (0.4, 2) if slow else (10.0, 3)
    how = service(neuronpedia, timeout=timeout, attempts=attempts, batch=1, sleep=pauses.append)
    assert fetch([ONE, Address("a/b", 1)], how) == ({}, reason)
    assert len(neuronpedia.asked) == attempts  # and the second batch is not asked for
    assert len(pauses) == attempts - 1
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reply({"message": "no"}, 400), "HTTP 400"),
        (reply({}, 401), "HTTP 401: it wants another key"),
        (reply({}, 403), "HTTP 403: it wants another key"),
        (HTML, "its answer is not JSON"),
        (Reply(200, b""), "its answer is not JSON"),
        (Reply(200, b"\xff\xfe\x00"), "its answer is not JSON"),
        (reply({"message": "Unknown Error"}), "its answer is not a list of features"),
        (reply([1, 2]), "its answer is not a list of features"),
        (Reply(200, b"[], []"), None),
        (Reply(200, b"[" * 100_000), None),
        (Reply(200, b"[{" + b'"index": ' + b"9" * 10_000 + b"}]"), None),
        (Reply(200, b"not gzip", {"content-encoding": "gzip"}), "its answer cannot be read"),
    ],
)
def test_what_is_wrong_is_not_asked_again(
    neuronpedia: Neuronpedia, bad: Reply, reason: str | None
) -> None:
    neuronpedia.first.append(bad)
    found = fetch([ONE], service(neuronpedia, attempts=1))
    assert found.answers == {}
    assert found.reason == (reason or "its answer is not JSON")
    if reason is not None:
        neuronpedia.first.append(bad)
        assert fetch([ONE], service(neuronpedia)) == found
        assert len(neuronpedia.asked) == 2


def test_numbers_beyond_a_float_are_no_numbers(neuronpedia: Neuronpedia) -> None:
    held = json.dumps([record(str(ONE), maxActApprox=0, frac_nonzero=0.5)])
    body = held.replace('"maxActApprox": 0', '"maxActApprox": 1e999').encode()
    neuronpedia.first.append(Reply(200, body))
    page = fetch([ONE], service(neuronpedia)).answers[ONE].page
    assert (page.density, page.max_activation) == (0.5, None)


def test_an_endless_answer_is_not_read(
    neuronpedia: Neuronpedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    neuronpedia.knows(str(ONE))
    monkeypatch.setattr(neuronpedia_client, "_LARGEST", 500)
    assert fetch([ONE], service(neuronpedia)).reason == "its answer is too long"
    monkeypatch.setattr(neuronpedia_client, "_LARGEST", 50_000)
    assert fetch([ONE], service(neuronpedia)).reason is None


# -- rate limits -----------------------------------------------------------------------------------


def test_retry_after_is_kept(neuronpedia: Neuronpedia) -> None:
    neuronpedia.knows(str(ONE))
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=9), usegmt=True)
    for told in ("7", later, past, "soon"):
        neuronpedia.first.append(Reply(429, b"{}", {"retry-after": told}))
    pauses: list[float] = []
    found = fetch([ONE], service(neuronpedia, attempts=5, sleep=pauses.append))
    assert explanation(found) == f"means {ONE}"
    assert pauses[0] == 7.0
    assert 6.0 < pauses[1] <= 9.0
    assert pauses[2] == 0.0
    assert 0.0 < pauses[3] <= 8.5  # nothing readable was said: as for other failures


@pytest.mark.parametrize("told", ["3600", "9" * 30, "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_who_is_told_to_wait_long_gives_up(neuronpedia: Neuronpedia, told: str) -> None:
    neuronpedia.always = Reply(429, b"{}", {"retry-after": told})
    pauses: list[float] = []
    found = fetch([ONE], service(neuronpedia, sleep=pauses.append))
    assert found == ({}, "HTTP 429: too many requests")
    assert pauses == []
    assert len(neuronpedia.asked) == 1


# -- dead services ---------------------------------------------------------------------------------


def test_no_connection() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    pauses: list[float] = []
    found = fetch([ONE], Service(url, attempts=3, sleep=pauses.append))
    assert found == ({}, "there is no connection to it")
    assert len(pauses) == 2


def test_patience_ends_whatever_the_network_does(neuronpedia: Neuronpedia) -> None:
    neuronpedia.knows("a/b/1")
    neuronpedia.first += [reply([record("a/b/1")]), reply([], wait=SLOW)]
    started = time.monotonic()
    how = service(neuronpedia, batch=1, timeout=SLOW, patience=1.0)
    found = fetch([Address("a/b", 1), ONE], how)
    assert time.monotonic() - started < SLOW / 3
    assert list(found.answers) == [Address("a/b", 1)]
    assert found.reason == "no answer within 1 s"


@pytest.mark.parametrize("paused", [False, True])
def test_who_has_given_up_asks_for_nothing_more(neuronpedia: Neuronpedia, paused: bool) -> None:
    """Neither the next batch, nor again after a pause."""
    before = set(threading.enumerate())
    answer = Reply(503, b"{}", {"retry-after": "2"}) if paused else reply([], wait=0.6)
    neuronpedia.always = answer
    how = Service(neuronpedia.url, batch=1, patience=20.0, longest=0.3)
    found = fetch([Address("a/b", number) for number in range(50)], how)
    assert found == ({}, "no answer within 0.3 s")
    started = time.monotonic()
    for thread in set(threading.enumerate()) - before:
        if thread.name.endswith("(_work)"):
            thread.join(SLOW)
    assert time.monotonic() - started < 1.5  # a pause ends at once
    assert len(neuronpedia.asked) == 1


def test_answers_are_kept_as_they_come(neuronpedia: Neuronpedia) -> None:
    neuronpedia.knows("a/b/1", "a/b/2", "a/b/3")
    neuronpedia.first += [reply([record("a/b/1")]), reply([record("a/b/2")])]
    neuronpedia.always = reply([], wait=SLOW)
    kept: list[Address] = []

    def stop(done: int, total: int) -> None:
        if done == 1:
            while len(neuronpedia.asked) < 3:  # the second answer has come, and is not taken
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(
            [Address("a/b", number) for number in (1, 2, 3)],
            service(neuronpedia, batch=1),
            progress=stop,
            keep=kept.extend,
        )
    assert kept == [Address("a/b", 1), Address("a/b", 2)]


def test_all_together_may_not_take_forever(neuronpedia: Neuronpedia) -> None:
    neuronpedia.always = reply([], wait=0.25)
    how = service(neuronpedia, batch=1, longest=1.2)
    found = fetch([Address("a/b", number) for number in range(50)], how)
    assert found.reason == "no answer within 1.2 s"
    assert 0 < len(found.answers) < 6


def test_the_service_of_these_tests_minds_no_client_that_is_gone(
    neuronpedia: Neuronpedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, over = neuronpedia._server, threading.Event()
    problems: list[BaseException | None] = []
    monkeypatch.setattr(server, "handle_error", lambda *_: problems.append(sys.exc_info()[1]))
    monkeypatch.setattr(server, "close_request", lambda _: over.set())
    neuronpedia.always = reply([], wait=0.3)
    client = socket.create_connection(("127.0.0.1", server.server_port))
    client.sendall(b"POST /api/features HTTP/1.1\r\ncontent-length: 2\r\n\r\n[]")
    while not neuronpedia.asked:
        time.sleep(0.01)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # at once, so that the answer's head cannot be sent
    assert over.wait(SLOW)
    assert problems == []


# -- the key ---------------------------------------------------------------------------------------

KEY = "sk-np-very-secret"


def test_the_key_is_sent_and_told_to_nobody(
    neuronpedia: Neuronpedia, monkeypatch: pytest.MonkeyPatch, logged: StringIO
) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    monkeypatch.setenv("NEURONPEDIA_API_KEY", f" {KEY}\n")
    how = Service.from_environment()
    assert how.url == neuronpedia.url
    neuronpedia.first.append(reply({}, 403))
    found = fetch([ONE], how)
    assert neuronpedia.asked[0].headers["x-api-key"] == KEY
    assert KEY not in logged.getvalue() + repr(how) + repr(found)
    assert logged.getvalue()  # something was logged that could have held it


def test_without_a_key_none_is_sent(neuronpedia: Neuronpedia) -> None:
    fetch([ONE], Service.from_environment())
    assert "x-api-key" not in neuronpedia.asked[0].headers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(neuronpedia: Neuronpedia, status: int) -> None:
    with Neuronpedia() as other:
        neuronpedia.always = Reply(status, b"", {"location": f"{other.url}/api/features"})
        found = fetch([ONE], service(neuronpedia, key=KEY))
        assert found == ({}, f"HTTP {status}")
        assert other.asked == []
    assert len(neuronpedia.asked) == 1


# -- what the environment says ---------------------------------------------------------------------


def test_the_public_service_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONPEDIA_URL", "")
    monkeypatch.delenv("NEURONPEDIA_API_KEY", raising=False)
    assert Service.from_environment() == Service(SITE, None)
    monkeypatch.setenv("NEURONPEDIA_URL", "https://mirror.example/np/")
    assert Service.from_environment().url == "https://mirror.example/np"


@pytest.mark.parametrize(
    "url", ["neuronpedia.org", "file:///etc/passwd", "http://", "http://[", "http://a/?b=c", "http://é"]
)  # fmt: skip
def test_addresses_that_are_no_service(url: str) -> None:
    """Nor do they hold a password, which the cache would keep."""
    with pytest.raises(SaeGraphsError, match="without a user's name") as told:
        Service("https://me:secret@mirror.example")
    assert "secret" not in str(told.value)
    with pytest.raises(SaeGraphsError, match="see NEURONPEDIA_URL"):
        Service(url)


@pytest.mark.parametrize("key", ["secret\nx-other: 1", "sécret", "secret\x00"])
def test_keys_that_no_header_holds(key: str) -> None:
    with pytest.raises(SaeGraphsError, match="NEURONPEDIA_API_KEY") as told:
        Service(key=key)
    assert "cret" not in str(told.value)
