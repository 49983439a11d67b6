"""A Neuronpedia on this machine that answers well, badly, slowly, or not at all."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from sae_graphs.graph.addresses import Address, parse_address


class Asked(NamedTuple):
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in small letters
    body: Any


class Reply(NamedTuple):
    """An answer as it goes out: `wait` seconds late, or with its last bytes left out (`cut`), or
    one byte every `drip` seconds."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    wait: float = 0.0
    cut: int = 0
    drip: float = 0.0


def reply(data: Any, status: int = 200, **how: Any) -> Reply:
    """An answer of JSON."""
    return Reply(status, json.dumps(data).encode(), {"content-type": "application/json"}, **how)


HTML = Reply(200, b"<!doctype html><title>Sign in</title>", {"content-type": "text/html"})


def record(address: str, explanation: str = "closing brackets", **changes: Any) -> dict[str, Any]:
    """What the service says of one feature, the fields that are read and some that are not."""
    at = parse_address(address)
    tokens = [f" t{number}" for number in range(30)]
    return {
        "modelId": at.model,
        "layer": at.source,
        "index": str(at.index),
        "explanations": [{"description": explanation, "explanationModelName": "gpt"}],
        "frac_nonzero": 0.00125,
        "maxActApprox": 42.5,
        "pos_str": [" )", "]"],
        "pos_values": [1.5, 0.75],
        "neg_str": [" the", "a"],
        "neg_values": [-1.25, -0.5],
        "activations": [
            {"tokens": tokens, "values": [0.0] * 20 + [40.0] + [0.0] * 9, "maxValue": 40.0}
        ],
        "freq_hist_data_bar_heights": [1, 2, 3],
        **changes,
    }


UNREAD: Mapping[str, Any] = {  # fields whose tokens are as tokenizers write them
    "pos_str": ["Ċ", "âĢĻ", "Ġthe", "▁Copyright", "<0x0A>", "donâĢĻt", "café"],
    "pos_values": [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
    "neg_str": ["ĠÃ©t", "<0xE2><0x80><0x99>", "âĢ"],  # the last is half a character
    "neg_values": [-3.0, -2.0, -1.0],
    "activations": [{"tokens": ["Ġdon", "âĢĻ", "t", "Ċ", "▁"], "values": [0, 0, 9.0, 0, 0]}],
}


class Neuronpedia:
    """The service, while the `with` block lasts.

    It knows `features`, and gives the answers of `first` before its own, and `always` instead of
    them. Its batches come as the real ones do: sorted by index alone, layers in no order.
    """

    def __init__(self, *, batches: bool = True) -> None:
        self.features: dict[Address, Any] = {}
        self.first: deque[Reply] = deque()
        self.always: Reply | None = None
        self.batches = batches
        self.asked: list[Asked] = []
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Neuronpedia:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()  # whoever still waits goes on
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def knows(self, *addresses: str, **changes: Any) -> None:
        """These features have a page, each with an explanation of its own."""
        for address in addresses:
            said = {"explanation": f"means {address}", **changes}
            self.features[parse_address(address)] = record(address, **said)

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if self.first:
            return self.first.popleft()
        if self.always is not None:
            return self.always
        if asked.method == "GET":
            held = self.features.get(parse_address(asked.path.removeprefix("/api/feature/")))
            return reply(held) if held is not None else reply({"message": "none"}, 404)
        if asked.path != "/api/features" or not self.batches:
            return reply({"message": "none"}, 404)
        wanted = [Address(f"{x['modelId']}/{x['layer']}", x["index"]) for x in asked.body]
        held = [self.features[each] for each in reversed(wanted) if each in self.features]
        return reply(sorted(held, key=lambda item: int(item["index"])))


def _handler(service: Neuronpedia) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:  # the client has gone between two requests
                self.close_connection = True

        def do_GET(self) -> None:
            self._do(None)

        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            self._do(json.loads(self.rfile.read(size)))

        def _do(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = service.answer(Asked(self.command, self.path, headers, body))
            service.wait(answer.wait)
            sent = answer.body[: len(answer.body) - answer.cut]
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                for byte in sent if answer.drip else ():
                    self.wfile.write(bytes([byte]))
                    service.wait(answer.drip)
                self.wfile.write(b"" if answer.drip else sent)
            except OSError:  # the client has gone
                self.close_connection = True
            if answer.cut:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    return Handler
