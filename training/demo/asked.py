"""One held-out prompt: its strongest features by several rules, and what they are worth.

Rules: their effect on the answer, the same by gradients, the source's own graph, chance. Do they
stand at a deciding token; is the answer gone without them, or left with them alone; do the graph
and its paths stand up to validation?
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.validation.answer.records import NullKind
from sae_graphs.validation.settings import ValidationSettings
from training.demo.truth import chance, source_hit

if TYPE_CHECKING:
    from sae_graphs.effects.answer.circuit import Spot
    from sae_graphs.effects.answer.experiment import Measured
    from sae_graphs.features.reference import Reference
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit

RULES = ("answer", "gradients", "effect", "random")
FEW, NODES = 4, 16  # features whose ablation is tried
CURVE = (4, 16, 64, 128)  # features that are kept alone
CONTROL_SETS = 20  # random sets of the same layers and tokens in the place of the few
SETTINGS = ValidationSettings(quick=True, controls=100)
OTHERS = ValidationSettings(quick=True, controls=39, paths=0)  # for the rules beside the first
NULLS: tuple[NullKind, ...] = ("matched", "scaled", "directions")  # against which a graph is held


class Question(NamedTuple):
    """A held-out prompt that is asked: its right next token, and where it is decided."""

    prompt: str
    token_id: int
    tokens: int
    deciding: tuple[int, ...]


@dataclass(frozen=True)
class Ruled:
    """What the strongest features by one rule are worth; scores are log-odds, in nats.

    `hit` and `hit_of_three`: the strongest rarely-on feature away from the read token, or one of
    the three strongest, stands at a deciding token; None where none decides, or chance alone says.
    `without_few`, `without` are the scores without the 4 and the 16 strongest supporters, and
    `controls_below` the share of random sets of the few's layers and tokens without which the score
    is below 0. `alone`: the scores with the 4, 16, 64, 128 strongest kept of all rarely-on ones.
    `necessary` and `sufficient` are validation's outcomes for the graph of the 16 strongest, `p`
    those against each of the `NULLS`, None where it could not be drawn.
    """

    rule: str
    hit: bool | None
    hit_of_three: bool | None
    without_few: float
    without: float
    controls_below: float | None
    alone: tuple[float, ...]
    necessary: bool | None
    sufficient: bool | None
    p: tuple[float | None, ...]


@dataclass(frozen=True)
class Drawn:
    """The default graph: its size, its ends, its paths.

    `mediating` are the top paths along which at least half of what their first feature does flows;
    `away` those of them that begin away from the read token. `lost` and `left` are the coverage.
    """

    nodes: int
    relays: int
    edges: int
    at_once: int
    stranded: int
    paths: int
    mediating: int
    away: int
    supported: int
    lost: float | None
    left: float | None


@dataclass(frozen=True)
class Asked:
    """One prompt: its answer, what decides it, the chance of a hit, and what was found."""

    prompt: str
    token: str
    probability: float
    score: float
    tokens: int
    deciding: tuple[int, ...]
    chance: float
    chance_of_three: float
    without_any: float
    seconds: float
    drawn: Drawn
    rules: tuple[Ruled, ...]

    def by(self, rule: str) -> Ruled:
        """What one rule found."""
        return next(found for found in self.rules if found.rule == rule)


def ask(
    model: InstrumentedModel, question: Question, rules: Sequence[str] = RULES
) -> tuple[Asked, AnswerReport]:
    """The strongest features in one prompt by some rules, the first among them, and the default
    graph; and what validation says of it."""
    import torch

    from sae_graphs.effects.answer.build import graph_of
    from sae_graphs.effects.answer.coverage import scores_without
    from sae_graphs.effects.answer.experiment import measure_answer
    from sae_graphs.effects.settings import GraphSettings

    started = time.perf_counter()
    with torch.no_grad():
        found = measure_answer(model, question.prompt, GraphSettings())
        asked = found.asked
        assert asked.answer.token_id == question.token_id, question.prompt
        (without_any,) = scores_without(asked, [found.table.rare()], found.experiment.intervention)
        spots = ranked(model, found, "answer")
        graph = graph_of(found, spots[:NODES])
        report = validated(model, graph, SETTINGS)
        drawn = drawn_of(graph, report, asked.read)
        by_rule = [ruled(found, question, "answer", spots, report.units[0])]
        for rule in rules[1:]:
            spots = ranked(model, found, rule)
            other = without_edges(found, graph, spots[:NODES])
            unit = validated(model, other, OTHERS).units[0] if spots else None
            by_rule.append(ruled(found, question, rule, spots, unit))
    eligible, n = question.deciding, question.tokens
    found_here = Asked(
        prompt=question.prompt,
        token=model.token_string(question.token_id),
        probability=float(asked.answer.probability(asked.clean.logits[asked.read])),
        score=asked.score,
        tokens=n,
        deciding=eligible,
        chance=chance(eligible, n),
        chance_of_three=chance(eligible, n, first=3),
        without_any=without_any,
        seconds=round(time.perf_counter() - started, 2),
        drawn=drawn,
        rules=tuple(by_rule),
    )
    return found_here, report


def ranked(model: InstrumentedModel, found: Measured, rule: str) -> list[Spot]:
    """The features at tokens that a rule ranks highest, rarely-on ones but for `effect`.

    `effect`: those of the source's graph by the total |effect| of their edges, each at the token,
    the first aside, where it is most active. `random`: of the layers and tokens of the answer's.
    """
    from sae_graphs.effects.answer.coverage import random_sets, seed_of
    from sae_graphs.effects.answer.table import estimates

    if rule == "effect":
        return _loudest(model, found)
    if rule == "gradients":
        guessed = estimates(found.asked, found.experiment.ablations, None, None)
        return replace(found.table, effects=guessed).strongest(max(CURVE))
    strongest = found.table.strongest(max(CURVE))
    if rule == "answer":
        return strongest
    (drawn,) = random_sets(found.table, strongest[:NODES], 1, seed_of(found.asked)) or [()]
    return list(drawn)


def _loudest(model: InstrumentedModel, found: Measured) -> list[Spot]:
    from sae_graphs.effects.answer.circuit import Spot
    from sae_graphs.effects.build import causal_graph

    graph = causal_graph(model, found.asked.clean.prompt, select="effect")
    strength: dict[Any, float] = {}
    for edge in graph.edges:
        for end in (edge.source, edge.target):
            strength[end] = strength.get(end, 0.0) + abs(edge.effect)
    spots = []
    for feature in sorted(strength, key=lambda feature: -strength[feature]):
        activations = graph[feature].activations[1 : found.asked.read + 1]
        position = 1 + max(range(len(activations)), key=lambda at: abs(activations[at]))
        if activations[position - 1]:
            spots.append(Spot(graph.depths[feature.layer], feature.index, position))
    return spots


def without_edges(found: Measured, graph: CausalGraph, spots: Sequence[Spot]) -> CausalGraph:
    """Other features of the same run as a graph, to be ablated together."""
    from sae_graphs.effects.answer.drawn import Names
    from sae_graphs.graph.graph import assemble
    from sae_graphs.graph.records import Node

    names, answer = Names(found.experiment.labels), graph.run.answer
    assert answer is not None
    nodes = [Node(names.of(spot), found.table.activation(spot)) for spot in spots]
    return assemble(replace(graph.run, answer=replace(answer, paths=(), stranded=())), nodes, [])


def validated(
    model: InstrumentedModel,
    graph: CausalGraph,
    settings: ValidationSettings,
    references: Sequence[Reference] | None = None,
) -> AnswerReport:
    """What validation finds of an answer graph."""
    from sae_graphs.validation.answer.run import validate_answer

    return validate_answer(model, graph, settings, references=references)


def ruled(
    found: Measured,
    question: Question,
    rule: str,
    spots: Sequence[Spot],
    unit: AnswerUnit | None,
) -> Ruled:
    """What the features that a rule ranks highest are worth; no unit where it ranks none."""
    from sae_graphs.effects.answer.coverage import random_sets, scores_without, seed_of

    asked, table = found.asked, found.table
    every = table.rare()
    away = [s.position for s in spots if s in every and s.position != asked.read]
    hits: list[bool | None] = [
        source_hit(away, question.deciding, first=n) if question.deciding else None for n in (1, 3)
    ]
    supporters = [spot for spot in spots if table.effect(spot) < 0]
    few = supporters[:FEW]
    controls = random_sets(table, few, CONTROL_SETS, seed_of(asked)) if every >= set(few) else []
    curve = CURVE if rule in ("answer", "gradients") else (FEW, NODES)
    sets = [few, supporters[:NODES], *(every - set(supporters[:n]) for n in curve), *controls]
    scores = scores_without(asked, sets, found.experiment.intervention)
    theirs = scores[2 + len(curve) :]
    return Ruled(
        rule=rule,
        hit=None if rule == "random" else hits[0],
        hit_of_three=None if rule == "random" else hits[1],
        without_few=scores[0],
        without=scores[1],
        controls_below=sum(score < 0 for score in theirs) / len(theirs) if theirs else None,
        alone=tuple(scores[2 : 2 + len(curve)]),
        necessary=None if unit is None else unit.necessary,
        sufficient=None if unit is None else unit.sufficient,
        p=tuple(
            None if unit is None or (null := unit.null(kind)) is None else null.p for kind in NULLS
        ),
    )


def drawn_of(graph: CausalGraph, report: AnswerReport, read: int) -> Drawn:
    """The default graph in numbers."""
    answer = graph.run.answer
    assert answer is not None and answer.coverage is not None
    features = [node for node in graph.nodes if node.feature.is_feature]
    ends = {str(edge.source) for edge in graph.edges if edge.target.is_output}
    paths = report.units[1:]
    mediating = [path for path in paths if path.mediates]
    return Drawn(
        nodes=sum(not node.relay for node in features),
        relays=sum(bool(node.relay) for node in features),
        edges=sum(e.source.is_feature and e.target.is_feature for e in graph.edges),
        at_once=sum(not node.relay and str(node.feature) in ends for node in features),
        stranded=len(answer.stranded),
        paths=len(paths),
        mediating=len(mediating),
        away=sum(path.features[0].position != read for path in mediating),
        supported=sum(bool(path.supported) for path in paths),
        lost=answer.coverage.lost,
        left=answer.coverage.left,
    )
