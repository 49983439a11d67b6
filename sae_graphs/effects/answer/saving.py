"""What an answer graph saves for other choices of nodes and edges: all that `circuit` may ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_graphs.effects.answer.circuit import LEAST_RELATIVE, Circuit, Spot
from sae_graphs.effects.answer.drawn import Names
from sae_graphs.effects.answer.experiment import Measured, pinned_spots
from sae_graphs.effects.answer.probe import Probe
from sae_graphs.effects.answer.saved import Known, Own, write_answer
from sae_graphs.effects.answer.table import effects_of
from sae_graphs.effects.describe import described
from sae_graphs.effects.saving import saved_layers
from sae_graphs.effects.tensors import layer_tensors
from sae_graphs.graph.answer import FoldedFeature
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Node

CHOSEN = 64  # of the strongest features at tokens: another graph may keep so many
FOLDED = 8  # dense features that are listed

Relays = dict[Spot, Spot | None]


def save_answer(
    file: Path,
    found: Measured,
    probe: Probe,
    shape: Circuit,
    graph: CausalGraph,
    warnings: Sequence[str],
) -> None:
    """Every effect on the answer into a file, and how the strongest hang together.

    `shape` and `graph` are those of the run's own choice, `warnings` those of any choice. Raises
    `SaeGraphsError` where the file cannot be written.
    """
    table, settings = found.table, found.experiment.settings
    most = max(CHOSEN, settings.nodes or 1)
    rare, every = table.strongest(most), table.strongest(most, dense=True)
    pinned = pinned_spots(found)
    relays = _relays(probe, dict.fromkeys([*rare, *every, *pinned]))
    spots = sorted(relays)
    number = {spot: n for n, spot in enumerate(spots)}
    names = Names(found.experiment.labels)
    known = Known(
        most=most,
        rare=tuple(number[spot] for spot in rare),
        every=tuple(number[spot] for spot in every),
        pinned=tuple(number[spot] for spot in pinned),
        dense=tuple(strongest_dense(found, names)),
        warnings=tuple(warnings),
        own=_own(graph, shape, names, settings.top_k or 1),
    )
    drawn = {node.feature for node in graph.nodes}
    further = [spot for spot in spots if names.of(spot) not in drawn]
    nodes = described(found.experiment, [names.of(spot) for spot in further]).nodes
    write_answer(
        file,
        graph.run,
        saved_layers(found.experiment),
        [
            *(node for node in graph.nodes if node.feature.is_feature),
            *with_facts(found, probe, names, nodes, further),
        ],
        {**_every_effect(found), **_of_spots(probe, spots, relays, number)},
        known,
    )


def with_facts(
    found: Measured, probe: Probe, names: Names, nodes: Iterable[Node], spots: Iterable[Spot]
) -> list[Node]:
    """Features with their effects on the answer, in nats, and their densities."""
    spot_of = {names.of(spot): spot for spot in spots}
    with_them = []
    for node in nodes:
        spot = spot_of[node.feature]
        with_them.append(
            replace(
                node,
                effect_on_answer=probe.effect(spot),
                direct_effect=probe.direct_effect(spot),
                density=float(found.references[spot.depth].density[spot.feature]),
            )
        )
    return with_them


def strongest_dense(found: Measured, names: Names) -> list[FoldedFeature]:
    """The dense features at tokens with the largest |effect on the answer|."""
    return [
        FoldedFeature(
            str(names.of(spot)),
            found.table.effect(spot),
            float(found.references[spot.depth].density[spot.feature]),
        )
        for spot in found.table.strongest_dense(FOLDED)
    ]


# -- inside ----------------------------------------------------------------------------------------


def _own(graph: CausalGraph, shape: Circuit, names: Names, top_k: int) -> Own:
    answer = graph.run.answer
    assert answer is not None and answer.coverage is not None
    kept = tuple(str(names.of(spot)) for spot in shape.kept)
    return Own(top_k, kept, answer.coverage, answer.paths, answer.what_if)


def _relays(probe: Probe, spots: Iterable[Spot]) -> Relays:
    """The relay of each, and of the relays; all of them looked at."""
    last = len(probe.table.ablations) - 1
    by_depth: dict[int, set[Spot]] = {depth: set() for depth in range(last + 1)}
    for spot in spots:
        by_depth[spot.depth].add(spot)
    relays: Relays = {}
    for depth, here in by_depth.items():
        ordered = sorted(here)
        probe.look(ordered)
        found = dict(zip(ordered, probe.relays(ordered), strict=True))
        for relay in found.values():
            if relay is not None:
                by_depth[depth + 1].add(relay)
        relays |= found
    return relays


def _every_effect(found: Measured) -> dict[str, NDArray[Any]]:
    """All effects on the answer that are not 0; of all ablations, densities and what is dense."""
    tensors: dict[str, NDArray[Any]] = {}
    for depth, (ablations, effects) in enumerate(
        zip(found.table.ablations, found.table.effects, strict=True)
    ):
        block = effects_of(found.asked, ablations, effects)
        tensors |= layer_tensors(depth, [block.chosen(block.values != 0)])
        density = found.references[depth].density.cpu()[ablations.features.cpu()]
        tensors[f"{depth}.density"] = density.numpy()
        tensors[f"{depth}.dense"] = found.table.dense[depth].cpu().numpy().astype(np.uint8)
    return tensors


def _of_spots(
    probe: Probe, spots: Sequence[Spot], relays: Relays, number: dict[Spot, int]
) -> dict[str, NDArray[Any]]:
    """What is known of some features at tokens, and of the edges that may be drawn."""
    pairs = []
    for target in spots:
        for source in spots:
            if source.depth != target.depth - 1 or source.position > target.position:
                continue
            strong = abs(probe.change(source, target).relative) >= LEAST_RELATIVE
            if strong or relays[source] == target:
                pairs.append((source, target))
    changes = [probe.change(*pair) for pair in pairs]
    relay_of = [-1 if (relay := relays[spot]) is None else number[relay] for spot in spots]
    return {
        "spots": np.array(spots, dtype=np.int32).reshape(-1, 3),
        "effects": np.array([probe.effect(spot) for spot in spots], dtype=np.float64),
        "direct_effects": np.array([probe.direct_effect(spot) for spot in spots], dtype=np.float64),
        "relays": np.array(relay_of, dtype=np.int32),
        "edges": np.array(
            [(number[source], number[target]) for source, target in pairs], dtype=np.int32
        ).reshape(-1, 2),
        "edges.before": np.array([change.before for change in changes], dtype=np.float64),
        "edges.after": np.array([change.after for change in changes], dtype=np.float64),
        "edges.flow": np.array(probe.flows(pairs), dtype=np.float64),
    }
