"""`annotate`: a graph with what Neuronpedia says of its features."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.neuronpedia.answers import Answer
from sae_graphs.features.neuronpedia.cache import Cache, cache_folder
from sae_graphs.features.neuronpedia.client import Progress, Service, fetch
from sae_graphs.graph.addresses import Address, address_of
from sae_graphs.graph.feature_page import UNAVAILABLE, FeaturePage
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Node

OFFLINE = "HF_HUB_OFFLINE"  # the one switch for everything that would use the network

_log = logging.getLogger(__name__)


def annotate(
    graph: CausalGraph,
    *,
    refresh: bool = False,
    ask: bool = True,
    service: Service | None = None,
    progress: Progress | None = None,
    told: Callable[[str], None] | None = None,
) -> CausalGraph:
    """The graph with a `FeaturePage` at each node that has an address on Neuronpedia.

    What was asked before comes from the user's cache, and only the rest from the network, in
    batches; with `refresh` everything is asked for again. With `HF_HUB_OFFLINE=1` there is the
    cache alone. Contexts of the page are taken where the node has none of its own. With `ask=False`
    nothing is asked: what the cache does not know stays as it is, and that is no failure.

    Answers are kept as they come, so that Ctrl-C loses none of them.

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
    service = service or Service.from_environment()
    cache = Cache(cache_folder(), service.url)
    answers = {} if ask and refresh and not is_offline() else _held(wanted, cache)
    rest = [at for at in dict.fromkeys(wanted) if at not in answers]
    asked = _ask(rest, service, cache, progress) if ask and rest else _Asked({}, None)
    answers |= asked.answers
    unknown = UNAVAILABLE if ask else None
    nodes = [_annotated(node, places[node.feature], answers, unknown) for node in graph.nodes]
    if asked.reason is not None:
        count = len({at for at in wanted if at not in answers})
        (told or _log.warning)(
            f"Neuronpedia was unavailable for {count} of {len(set(wanted))} features: "
            f"{asked.reason}; `sae-graphs neuronpedia` and the graph's folder asks again"
        )
    return replace(graph, nodes=tuple(nodes))


def unanswered(graph: CausalGraph) -> int:
    """How many features have an address on Neuronpedia, and neither an answer nor a no."""
    return len(
        {
            place
            for node in graph.nodes
            if (place := address_of(node)) is not None
            and (node.page is None or node.page.status == "unavailable")
        }
    )


def is_offline() -> bool:
    """Whether the environment forbids the network, as the hub's own library reads it."""
    return os.environ.get(OFFLINE, "").strip().upper() in ("1", "ON", "YES", "TRUE")


class _Asked(NamedTuple):
    answers: Mapping[Address, Answer]
    reason: str | None  # why there are no more of them


def _held(wanted: Sequence[Address], cache: Cache) -> dict[Address, Answer]:
    """What the cache knows."""
    read = ((address, cache.read(address)) for address in dict.fromkeys(wanted))
    return {address: held for address, held in read if held is not None}


def _ask(
    wanted: Sequence[Address], service: Service, cache: Cache, progress: Progress | None
) -> _Asked:
    """From the service, whose answers are kept as they come."""
    if is_offline():
        return _Asked({}, f"{OFFLINE} is set")

    def keep(answers: Mapping[Address, Answer]) -> None:
        with suppress(OSError):  # a full disk, say: then the next run asks again
            for address, answer in answers.items():
                cache.write(address, answer)

    fetched = fetch(wanted, service, progress=progress, keep=keep)
    return _Asked(fetched.answers, fetched.reason)


def _annotated(
    node: Node,
    address: Address | None,
    answers: Mapping[Address, Answer],
    unknown: FeaturePage | None,
) -> Node:
    """The node with its answer, or the page for what is unknown; what was known of it stays."""
    if address is None:
        return node
    answer = answers.get(address)
    if answer is None:
        return node if node.page is not None else replace(node, page=unknown)
    own = () if node.page is not None and node.page.gave_contexts else node.contexts
    if own or not answer.contexts:
        return replace(node, page=answer.page, contexts=own)
    return replace(node, page=replace(answer.page, gave_contexts=True), contexts=answer.contexts)


def _is_found(node: Node) -> bool:
    return node.page is not None and node.page.status == "found"
