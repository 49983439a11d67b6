"""Another answer graph from the effects that a run saved, without its model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from sae_graphs.effects.answer.circuit import Circuit, circuit
from sae_graphs.effects.answer.drawn import (
    Names,
    choice_warnings,
    edges_of_tokens,
    edges_to_answer,
    framed,
    with_kept,
)
from sae_graphs.effects.answer.saved import SavedAnswer
from sae_graphs.effects.saved import NO_ANATOMY
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.effects.tensors import damaged
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.answer import AnswerRecord
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Edge, Node

NOT_MEASURED = (
    "how much of the answer the kept features account for, and along which paths, is not known of "
    "a graph that is drawn from saved effects with other settings: run the prompt again with these "
    "to know"
)


def replot_answer(
    folder: Path, saved: CausalGraph, *, nodes: int | None, dense: bool | None, top_k: int | None
) -> CausalGraph:
    """The answer graph that a run with these settings would have drawn; see `replot`."""
    facts, run = SavedAnswer(folder, saved.run), saved.run
    answer = run.answer
    assert answer is not None
    settings = GraphSettings(
        nodes=run.settings["nodes"] if nodes is None else nodes,
        dense=run.settings["dense"] if dense is None else dense,
        top_k=run.settings["top_k"] if top_k is None else top_k,
    )
    count, most = settings.nodes or 1, facts.known.most
    if count > most:
        raise SaeGraphsError(
            f"nodes (--nodes) is {count}, and the saved effects say how the {most} strongest "
            "features at tokens hang together; give at most so many, or run the prompt again"
        )
    shape = circuit(facts, facts.kept(count, dense=settings.dense), top_k=settings.top_k or 1)
    names = Names(facts.labels)
    kept = [names.of(spot) for spot in shape.kept]
    features = [*kept, *(names.of(spot) for spot in shape.relays)]
    drawn = framed(_nodes(saved, facts, features), set(kept), facts.labels[0], run.tokens)
    known = {(edge.source, edge.target): edge.anatomy for edge in saved.edges}
    edges = [names.edge(link) for link in shape.links]
    edges = [replace(edge, anatomy=known.get((edge.source, edge.target))) for edge in edges]
    answer = _answer(answer, facts, shape, names, settings.top_k or 1)
    record = replace(
        run,
        settings={**run.settings, "nodes": count, "dense": settings.dense, "top_k": settings.top_k},
        layers=with_kept(run.layers, shape, facts.effect, _reasons(saved, edges)),
        answer=answer,
        warnings=(
            *facts.known.warnings,
            *choice_warnings(answer, shape, facts.effect),
            *([] if answer.paths or answer.coverage else [NOT_MEASURED]),
        ),
    )
    above = saved[ANSWER]
    return assemble(
        record,
        [*drawn, above],
        [*edges, *edges_to_answer(shape, names), *edges_of_tokens(drawn, facts.labels[0])],
    )


# -- inside ----------------------------------------------------------------------------------------


def _nodes(saved: CausalGraph, facts: SavedAnswer, features: Sequence[FeatureId]) -> list[Node]:
    """Features as the run described them, or as they are in the graph that is drawn again."""
    known = {**facts.described, **{node.feature: node for node in saved.nodes}}
    missing = [feature for feature in features if feature not in known]
    if missing:
        raise damaged(facts.file, f"it does not describe {missing[0]}")
    return [known[feature] for feature in features]


def _reasons(saved: CausalGraph, edges: Collection[Edge]) -> dict[str, str]:
    """By layer label, why edges have no anatomy."""
    known = {(edge.source, edge.target) for edge in saved.edges}
    new = {edge.source.layer for edge in edges if (edge.source, edge.target) not in known}
    reasons = dict.fromkeys(new, NO_ANATOMY)
    return reasons | {
        layer.label: layer.no_anatomy for layer in saved.run.layers if layer.no_anatomy is not None
    }


def _answer(
    answer: AnswerRecord, facts: SavedAnswer, shape: Circuit, names: Names, top_k: int
) -> AnswerRecord:
    """The answer's record with what is kept now; see `AnswerRecord` for what is not known."""
    own, kept = facts.known.own, [str(names.of(spot)) for spot in shape.kept]
    drawn = [*kept, *(str(names.of(spot)) for spot in shape.relays)]
    same = set(own.kept) == set(kept)
    return replace(
        answer,
        coverage=own.coverage if same else None,
        dense=tuple(feature for feature in facts.known.dense if feature.feature not in kept),
        paths=own.paths if same and own.top_k == top_k else (),
        stranded=tuple(str(names.of(spot)) for spot in shape.stranded),
        what_if=own.what_if and own.what_if.of(drawn),
    )
