"""`annotate`: a graph with what Neuronpedia says of its features."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from sae_graphs.errors import SaeGraphsError
from sae_graphs.feature_page import UNAVAILABLE
from sae_graphs.graph import CausalGraph, Node
from sae_graphs.neuronpedia import Address, address_of
from sae_graphs.neuronpedia_answers import Answer
from sae_graphs.neuronpedia_cache import Cache, cache_folder
from sae_graphs.neuronpedia_client import Progress, Service, fetch

OFFLINE = "HF_HUB_OFFLINE"  # the one switch for everything that would use the network

_log = logging.getLogger(__name__)


def annotate(
    graph: CausalGraph,
    *,
    refresh: bool = False,
    service: Service | None = None,
    progress: Progress | None = None,
    told: Callable[[str], None] | None = None,
) -> CausalGraph:
    """The graph with a `FeaturePage` at each node that has an address on Neuronpedia.

    What was asked before comes from the user's cache, and only the rest from the network, in
    batches; with `refresh` everything is asked for again. With `HF_HUB_OFFLINE=1` there is the
    cache alone. Contexts of the page are taken where the node has none of its own.

    A service that fails raises nothing: the pages are then `unavailable`, what was known stays, and
    `told` gets one line that says why (without it, the line is logged). `progress` is told the
    features answered, of how many.

    Raises `SaeGraphsError` where the environment names no service (`NEURONPEDIA_URL`) or no key
    (`NEURONPEDIA_API_KEY`), and there is something to ask; and for what is no graph.
    """
    if not isinstance(graph, CausalGraph):
        raise SaeGraphsError(
            f"not a graph: {graph!r:.60}; expected a CausalGraph, such as CausalGraph.load(folder) "
            "gives"
        )
    places = {node.feature: address_of(node) for node in graph.nodes}
    known = {node.feature for node in graph.nodes if _is_found(node) and not refresh}
    wanted = [at for feature, at in places.items() if at is not None and feature not in known]
    if not wanted:
        return graph
    asked = _ask(list(dict.fromkeys(wanted)), refresh, service, progress)
    nodes = [_annotated(node, places[node.feature], asked.answers) for node in graph.nodes]
    if asked.reason is not None:
        count = len({at for at in wanted if at not in asked.answers})
        (told or _log.warning)(
            f"Neuronpedia was unavailable for {count} of {len(set(wanted))} features: "
            f"{asked.reason}; `sae-graphs neuronpedia` and the graph's folder asks again"
        )
    return replace(graph, nodes=tuple(nodes))


def is_offline() -> bool:
    """Whether the environment forbids the network, as the hub's own library reads it."""
    return os.environ.get(OFFLINE, "").strip().upper() in ("1", "ON", "YES", "TRUE")


class _Asked(NamedTuple):
    answers: Mapping[Address, Answer]
    reason: str | None  # why there are no more of them


def _ask(
    wanted: Sequence[Address], refresh: bool, service: Service | None, progress: Progress | None
) -> _Asked:
    """From the cache, then from the service, whose answers are kept."""
    service = service or Service.from_environment()
    cache = Cache(cache_folder(), service.url)
    offline = is_offline()
    answers: dict[Address, Answer] = {}
    for address in wanted if offline or not refresh else ():
        held = cache.read(address)
        if held is not None:
            answers[address] = held
    rest = [address for address in wanted if address not in answers]
    if not rest:
        return _Asked(answers, None)
    if offline:
        return _Asked(answers, f"{OFFLINE} is set")
    fetched = fetch(rest, service, progress=progress)
    with suppress(OSError):  # a full disk, say: then the next run asks again
        for address, answer in fetched.answers.items():
            cache.write(address, answer)
    return _Asked(answers | fetched.answers, fetched.reason)


def _annotated(node: Node, address: Address | None, answers: Mapping[Address, Answer]) -> Node:
    """The node with its answer; what was known of it stays when the service fails."""
    if address is None:
        return node
    answer = answers.get(address)
    if answer is None:
        return node if node.page is not None else replace(node, page=UNAVAILABLE)
    own = () if node.page is not None and node.page.gave_contexts else node.contexts
    if own or not answer.contexts:
        return replace(node, page=answer.page, contexts=own)
    return replace(node, page=replace(answer.page, gave_contexts=True), contexts=answer.contexts)


def _is_found(node: Node) -> bool:
    return node.page is not None and node.page.status == "found"
