"""The only code that talks to Neuronpedia: batches of features, with patience that ends.

Nothing that comes back, and nothing that fails to, raises here: a feature is found, missing or
unavailable. Rate limits are kept (`Retry-After`), what may pass is tried again with growing pauses,
and when a batch fails for good the rest is not asked for.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.neuronpedia.answers import ASKED, Answer, read_batch, read_one
from sae_graphs.graph.addresses import SITE, Address
from sae_graphs.graph.feature_page import MISSING

if TYPE_CHECKING:
    import ssl

    import httpx

KEY, URL = "NEURONPEDIA_API_KEY", "NEURONPEDIA_URL"  # names in the environment

_TO_CONNECT = 4.0  # seconds
_LARGEST = 32 * 2**20  # bytes of one answer; longer ones are not read
_NO_BATCHES = (404, 405)  # answers of a service that has single features alone
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Service:
    """Where the service is, and how patient to be with it; times are in seconds.

    The key is sent to `url` alone, and redirects are not followed. `timeout` holds for one request,
    `patience` for the time without an answer after which the service counts as dead, `longest` for
    everything together; a `Retry-After` beyond `patience` is not waited for. `sleep` is for tests:
    without it, pauses end when nobody waits for the answer any more.
    """

    url: str = SITE
    key: str | None = field(default=None, repr=False)
    batch: int = 32  # features asked about at once
    attempts: int = 4
    timeout: float = 12.0
    patience: float = 15.0
    longest: float = 180.0
    sleep: Callable[[float], None] | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname)
            fits = fits and not parts.query and "@" not in parts.netloc  # it is written in caches
        except ValueError:
            fits = False
        if not fits or not self.url.isascii() or not self.url.isprintable():
            raise SaeGraphsError(
                f"{self.url.rpartition('@')[2]!r:.120} is no address of a service; expected one "
                f"such as {SITE}, without a user's name: see {URL} in the environment"
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise SaeGraphsError(
                f"the key in {KEY} holds characters that no key has; copy it again (it is not "
                "shown here)"
            )

    @classmethod
    def from_environment(cls) -> Service:
        """The public service, or that of `NEURONPEDIA_URL`; the key from `NEURONPEDIA_API_KEY`."""
        url = os.environ.get(URL, "").strip() or SITE
        return cls(url.rstrip("/"), os.environ.get(KEY, "").strip() or None)

    def patient(self) -> Service:
        """The same, for someone who waits for nothing else: a rate limit of a minute is kept."""
        return replace(self, timeout=30.0, patience=75.0, longest=1800.0)


class Fetched(NamedTuple):
    """What the service said; what is not there was unavailable, for `reason`."""

    answers: dict[Address, Answer]
    reason: str | None


def fetch(
    addresses: Sequence[Address],
    service: Service,
    *,
    progress: Progress | None = None,
    keep: Callable[[Mapping[Address, Answer]], None] | None = None,
) -> Fetched:
    """Ask about features, each once; `progress` is told how many are answered, of how many.

    `keep` gets the answers of each request as they come: they are there when Ctrl-C ends the rest.
    Returns at the latest after the service's patience, whatever the network does: the work is a
    thread's, as looking a name up cannot be given a time limit. The thread asks for nothing more
    once this has returned, or raised.
    """
    wanted = list(dict.fromkeys(addresses))
    answers: dict[Address, Answer] = {}
    come: dict[Address, Answer] = {}  # written by the thread: a piece taken may be lost to Ctrl-C
    if not wanted:
        return Fetched(answers, None)
    inbox: queue.SimpleQueue[dict[Address, Answer] | _Failed | None] = queue.SimpleQueue()
    over = threading.Event()

    def tell(piece: dict[Address, Answer] | _Failed | None) -> None:
        if isinstance(piece, dict):
            come.update(piece)
        inbox.put(piece)

    work = (wanted, service, over, tell)
    threading.Thread(target=_work, args=work, daemon=True).start()
    end = time.monotonic() + service.longest
    try:
        while True:
            left = end - time.monotonic()
            limit, said = min((service.patience, service.patience), (left, service.longest))
            try:
                piece = inbox.get(timeout=max(limit, 0.0))
            except queue.Empty:
                return Fetched(answers, f"no answer within {said:g} s")
            if not isinstance(piece, dict):
                return Fetched(answers, None if piece is None else piece.reason)
            if keep is not None:
                keep(piece)
            answers |= piece  # after they are kept: what is not here is kept below
            if progress is not None:
                progress(len(answers), len(wanted))
    except KeyboardInterrupt:
        if keep is not None:
            keep({address: answer for address, answer in come.items() if address not in answers})
        raise
    finally:
        over.set()


# -- in the thread ---------------------------------------------------------------------------------


class _Failed(Exception):
    """A request that did not do; `again` where another one may, after `wait` seconds if given."""

    def __init__(self, reason: str, *, again: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait = reason, again, wait


class _NoSuchPage(_Failed):
    """The answer was 404 or 405: there is no such feature, or there are no batches."""


class _Asking(NamedTuple):
    """What every request needs; `over` is set when nobody waits for its answer any more."""

    client: httpx.Client
    service: Service
    over: threading.Event


def _work(
    wanted: Sequence[Address],
    service: Service,
    over: threading.Event,
    tell: Callable[[Any], None],
) -> None:
    """Tell of each batch's answers, and at the end of the failure, or None."""
    try:
        for answers in _answers(wanted, service, over):
            tell(answers)
        tell(None)
    except _Failed as failed:
        tell(failed)
    except Exception as problem:  # whatever else a hostile answer may cause: never a traceback
        tell(_Failed(f"unexpected {type(problem).__name__}", again=False))


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust, as httpx does by itself, but read once and not for every annotation."""
    import httpx

    return httpx.create_ssl_context()


def _answers(
    wanted: Sequence[Address], service: Service, over: threading.Event
) -> Iterator[dict[Address, Answer]]:
    import httpx

    headers = {"accept": "application/json", "user-agent": "sae-graphs"}
    if service.key is not None:
        headers["x-api-key"] = service.key
    limits = httpx.Timeout(service.timeout, connect=min(service.timeout, _TO_CONNECT))
    with httpx.Client(
        headers=headers, timeout=limits, follow_redirects=False, verify=_certificates()
    ) as client:
        asking = _Asking(client, service, over)
        batches = True
        for start in range(0, len(wanted), service.batch):
            asked = wanted[start : start + service.batch]
            try:
                if batches:
                    yield _batch(asking, asked)
            except _NoSuchPage:
                batches = False
            if not batches:
                for address in asked:
                    yield {address: _single(asking, address)}


def _batch(asking: _Asking, asked: Sequence[Address]) -> dict[Address, Answer]:
    body = [
        {"modelId": a.model, "layer": a.source, "index": a.index, "maxActsToReturn": ASKED}
        for a in asked
    ]
    url = f"{asking.service.url}/api/features"
    found = read_batch(
        _patiently(asking, asking.client.build_request("POST", url, json=body)), asked
    )
    if found is None:
        raise _Failed("its answer is not a list of features", again=False)
    return dict(found)


def _single(asking: _Asking, asked: Address) -> Answer:
    url = f"{asking.service.url}/api/feature/{asked}"
    try:
        found = read_one(_patiently(asking, asking.client.build_request("GET", url)), asked)
    except _NoSuchPage as answer:
        if answer.reason != _said(404):
            raise
        return Answer(MISSING)
    if found is None:
        raise _Failed("its answer is not a feature", again=False)
    return found


# -- one request -----------------------------------------------------------------------------------


def _patiently(asking: _Asking, request: httpx.Request) -> Any:
    """The JSON of an answer, asked for again where that may help."""
    import tenacity

    service = asking.service
    grows = tenacity.wait_exponential_jitter(initial=0.5, max=8.0, jitter=0.5)

    def wait(state: tenacity.RetryCallState) -> float:
        problem = state.outcome.exception() if state.outcome is not None else None
        asked_for = problem.wait if isinstance(problem, _Failed) else None
        return grows(state) if asked_for is None else asked_for

    def pause(seconds: float) -> None:
        asking.over.wait(seconds)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda p: isinstance(p, _Failed) and p.again),
        stop=tenacity.stop_after_attempt(service.attempts)
        | tenacity.stop_before_delay(service.patience),
        wait=wait,
        sleep=service.sleep or pause,
        reraise=True,
    )
    return retrying(_once, asking, request)


def _once(asking: _Asking, request: httpx.Request) -> Any:
    import httpx

    if asking.over.is_set():
        raise _Failed("it was given up", again=False)
    try:
        answer = asking.client.send(request, stream=True)
        try:
            status = answer.status_code
            if status in _NO_BATCHES:
                raise _NoSuchPage(_said(status), again=False)
            if status != 200:
                again = status in _MAY_PASS
                wait = _asked_to_wait(answer.headers.get("retry-after")) if again else None
                raise _Failed(_said(status), again=again, wait=wait)
            body = _body(answer, time.monotonic() + asking.service.timeout)
        finally:
            answer.close()
    except httpx.TimeoutException:
        raise _Failed("it does not answer in time", again=True) from None
    except httpx.ConnectError:
        raise _Failed("there is no connection to it", again=True) from None
    except httpx.TransportError:
        raise _Failed("its answer broke off", again=True) from None
    except httpx.HTTPError:
        raise _Failed("its answer cannot be read", again=False) from None
    return _json(body)


def _said(status: int) -> str:
    words = {401: "it wants another key", 403: "it wants another key", 429: "too many requests"}
    return f"HTTP {status}" + (f": {words[status]}" if status in words else "")


def _body(answer: httpx.Response, end: float) -> bytes:
    """All of an answer, unless it is too long or drips."""
    read = bytearray()
    for piece in answer.iter_bytes():
        read += piece
        if len(read) > _LARGEST:
            raise _Failed("its answer is too long", again=False)
        if time.monotonic() > end:
            raise _Failed("it does not answer in time", again=True)
    return bytes(read)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # HTML, say, or a number of ten thousand digits
        pass
    started = body.lstrip()[:1] in (b"[", b"{")  # JSON that breaks off may be whole next time
    raise _Failed("its answer is not JSON", again=started)


def _asked_to_wait(header: str | None) -> float | None:
    """`Retry-After` in seconds from now; it is a number of seconds, or a date."""
    if header is None:
        return None
    text = header.strip()[:40]
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)
