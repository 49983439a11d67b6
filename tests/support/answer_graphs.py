"""Answer graphs made by hand: supporters, an opposer, relays, tokens below, the answer above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sae_graphs.graph.answer import AnswerPath, AnswerRecord, Coverage, FoldedFeature
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Edge, Node, OutputToken, RunRecord
from sae_graphs.graph.what_if import Outcome, WhatIf
from tests.support.rich_graphs import HOSTILE, node, record

SETTINGS = {"select": "answer", "nodes": 5, "dense": False, "top_k": 4, "ablate": "each"}
COVERAGE = Coverage(4.0, -2.0, 1.0, -4.0, draws=16, random_without=3.5, random_only=-3.5)

# Feature to its effect on the answer, in nats, ablated minus clean; relays are marked.
FEATURES = {"0.1@1": -3.0, "0.7@2": 0.5, "1.2@1": -2.5, "1.4@3": -1.0, "2.3@3": -2.0}
RELAYS = ("1.4@3",)
STRANDED = "1.9@2"
# Source, target, effect on it, what flows along to the answer.
EDGES = (
    ("token@1", "0.1@1", -2.5, -3.0),
    ("token@2", "0.7@2", -2.5, 0.5),
    ("0.1@1", "1.2@1", -2.0, -2.0),
    ("0.7@2", "1.4@3", 0.25, 0.5),
    ("1.2@1", "2.3@3", -1.5, -1.5),
    ("1.4@3", "2.3@3", -0.5, -0.5),
    ("2.3@3", "answer", -2.0, -2.0),
    ("1.2@1", "answer", 0.5, 0.5),
)


def answer_graph(
    tokens: Sequence[str] = ("<bos>", "Copyright", " (", "C"),
    answer: str = ")",
    *,
    contrast: str | None = None,
    **changes: Any,
) -> CausalGraph:
    """Six features over four layers: one opposes, one is a relay, one leads nowhere."""
    feature = FeatureId.parse
    run = answer_run(tokens, answer, contrast=contrast, **changes)
    values = tuple(float(place) for place, _ in enumerate(tokens))
    nodes = [
        node(
            name,
            activation=values[feature(name).position or 0],
            activations=values,
            effect_on_answer=effect,
            direct_effect=effect / 4,
            density=0.01,
            relay=name in RELAYS,
        )
        for name, effect in {**FEATURES, STRANDED: -0.25}.items()
    ]
    nodes += [Node(feature(f"token@{at}"), 1.0, token=tokens[at]) for at in (1, 2)]
    nodes.append(Node(ANSWER, 4.0, token=answer))
    edges = [
        Edge(
            feature(source),
            feature(target),
            effect,
            relative_effect=None if target == "answer" else -0.5,
            flow=flow,
        )
        for source, target, effect, flow in EDGES
    ]
    return assemble(run, nodes, edges)


def answer_run(
    tokens: Sequence[str], answer: str, *, contrast: str | None = None, **changes: Any
) -> RunRecord:
    """Its record."""
    paths = (
        AnswerPath(("0.1@1", "1.2@1", "2.3@3"), -1.8, -3.0),
        AnswerPath(("0.7@2", "1.4@3", "2.3@3"), 0.4, 0.5),
    )
    values: dict[str, Any] = {
        "settings": {**SETTINGS, "pin": [], "intervention": "mean (of 100 tokens, abc)"},
        "read_position": 3,
        "outputs": (OutputToken(7, answer, 4.5, 0.9, contrast),),
        "answer": AnswerRecord(
            score=4.0,
            measured=40,
            exact=40,
            coverage=COVERAGE,
            dense=(FoldedFeature("3.5@3", -6.0, 0.7),),
            paths=paths,
            stranded=(STRANDED,),
        ),
    }
    return record(tokens, **{**values, **changes})


def hostile_answers() -> CausalGraph:
    """The same with hostile text for tokens, prompt and answer."""
    everything = "".join(HOSTILE)
    return answer_graph(HOSTILE, everything, contrast=HOSTILE[0], model=everything, saes=everything)


def asked_graph(
    tokens: Sequence[str] = (")", " the", "<img src=x onerror=alert(1)>", "\u202eabc\u200f", "d"),
    **changes: Any,
) -> CausalGraph:
    """The first graph, whose run knows what comes next without each of its features, and all."""
    graph = answer_graph(answer=tokens[0], **changes)
    clean = (0.9, 0.05, *(0.01 for _ in tokens[2:]))
    names = [str(node.feature) for node in graph.nodes if node.feature.is_feature]
    outcomes = [
        Outcome((name,), 4.0 + (graph[name].effect_on_answer or 0.0), _moved(clean, number))
        for number, name in enumerate(names)
    ]
    outcomes.append(Outcome(tuple(names), -2.0, (0.1, 0.2, 0.6, *clean[3:])))
    known = WhatIf(tuple(tokens), tuple(range(7, 7 + len(tokens))), clean, tuple(outcomes))
    assert graph.run.answer is not None
    run = replace(graph.run, answer=replace(graph.run.answer, what_if=known))
    return CausalGraph(run, graph.nodes, graph.edges)


def _moved(clean: Sequence[float], number: int) -> tuple[float, ...]:
    """The answer falls to a tenth, another token takes the rest."""
    moved = list(clean)
    moved[0] = 0.1
    moved[1 + number % (len(clean) - 1)] += 0.7
    return tuple(moved)
