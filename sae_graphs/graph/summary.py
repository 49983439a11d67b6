"""A graph in a few lines: what was asked, what is in it, its strongest parts."""

from __future__ import annotations

from sae_graphs.graph.names import (
    counted_nodes,
    coverage_sentence,
    name_of,
    score_sentence,
    signed_percent,
    standing_words,
)
from sae_graphs.graph.paths import strongest_paths
from sae_graphs.graph.records import Edge, GraphParts, Node, RunRecord
from sae_graphs.text import token, visible
from sae_graphs.words import counted, probability_words

TOLD = 5  # features or edges that a summary names


def summary(graph: GraphParts) -> str:
    """What was asked, what is in the graph, its strongest parts, how much they account for."""
    lines = _of_answer(graph) if graph.run.answer is not None else _of_effects(graph)
    lines += [f"warning: {visible(warning, space=' ')}" for warning in graph.run.warnings]
    return "\n".join(lines)


def _of_answer(graph: GraphParts) -> list[str]:
    run = graph.run
    effects = [it for it in graph.nodes if it.feature.is_feature and it.effect_on_answer]
    effects.sort(key=lambda node: -abs(node.effect_on_answer or 0.0))
    told = [f"{_name(run, node)} {standing_words(node)}" for node in effects[:TOLD]]
    return [
        f"What {token(run.outputs[0].token)} hangs on after {_prompt(run)}: {score_sentence(run)}.",
        f"{counted_nodes(graph.nodes)}, {counted(len(graph.edges), 'edge')}.",
        f"Strongest, in nats: {'; '.join(told) or 'none'}.",
        f"{coverage_sentence(run.answer.coverage if run.answer else None)}.",
        *_strongest_path(graph),
    ]


def _of_effects(graph: GraphParts) -> list[str]:
    run = graph.run
    follows = "".join(
        f", followed by {token(text)} ({probability_words(share)})"
        for text, share in run.next_tokens[:1]
    )
    told = [_edge_words(edge) for edge in graph.edges[:TOLD]]
    return [
        f"The strongest effects of each layer on the next after {_prompt(run)}{follows}.",
        f"{counted_nodes(graph.nodes)}, {counted(len(graph.edges), 'edge')}: "
        f"{signed_percent(run.kept_share)} of the total |effect|.",
        f"Strongest: {'; '.join(told) or 'none'}.",
        *_strongest_path(graph),
    ]


def _strongest_path(graph: GraphParts) -> list[str]:
    narrowest = graph.run.answer is not None
    found = strongest_paths(graph.edges, limit=1, narrowest=narrowest)
    return [f"Strongest path: {' -> '.join(map(str, path.features))}." for path in found]


def _edge_words(edge: Edge) -> str:
    return f"{edge.source} {edge.sign} {edge.target} ({edge.effect:+.4g})"


def _name(run: RunRecord, node: Node) -> str:
    """A node's name, and its token or what it means."""
    if node.feature.position is None:
        return node.label if node.feature.is_feature else name_of(run, node.feature)
    return f"{node.feature} ({token(run.tokens[node.feature.position])})"


def _prompt(run: RunRecord) -> str:
    return f'"{visible(run.prompt, space=" ")}"'
