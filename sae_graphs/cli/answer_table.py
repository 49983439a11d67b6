"""What `sae-graphs graph` prints of an answer graph: what the answer hangs on, strongest first."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.graph.export.tables import context_text
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import (
    counted_nodes,
    coverage_sentence,
    name_of,
    opposes,
    score_sentence,
)
from sae_graphs.graph.records import Node
from sae_graphs.render.picture.explained import page_words
from sae_graphs.text import shortened, token, visible
from sae_graphs.words import MINUS, counted, percent, signed

CONTEXT = 32  # characters of the text that a feature is most active on
TOKEN = 12  # characters of the token that it stands at


def print_answer(console: Console, graph: CausalGraph) -> None:
    """The score, the kept features, what was folded, coverage, and the paths."""
    answer = graph.run.answer
    if answer is None:
        return
    console.print(Text(score_sentence(graph.run), style="bold"))
    kept = [node for node in graph.nodes if node.feature.is_feature and not node.relay]
    kept.sort(key=lambda node: -abs(node.effect_on_answer or 0.0))
    if kept:
        console.print(_features(graph, kept))
    console.print(Text(_shape(graph), style="dim"))
    if answer.dense:
        console.print(Text(_folded(graph), style="dim"))
    console.print(f"{coverage_sentence(answer.coverage)}.", markup=False, highlight=False)
    for number, path in enumerate(answer.paths, start=1):
        features = map(FeatureId.parse, path.features)
        chain = " → ".join([*(f"{f}{_at(graph, f)}" for f in features), "the answer"])
        told = f"path {number}: {chain}"
        mediates = f"mediates {percent(max(path.share, 0.0))} of what {path.features[0]} does"
        console.print(Text(told, style="bold cyan"))
        console.print(Text(f"  {mediates} ({_plain(-path.flow)} of {_plain(-path.total)} nats)"))


def _features(graph: CausalGraph, kept: list[Node]) -> Table:
    """The kept features, strongest first; the contribution is clean minus ablated, in nats."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title = "what the answer hangs on"
    table.add_column("feature", no_wrap=True)
    table.add_column("token", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("nats", justify="right", no_wrap=True)
    table.add_column("most active on", overflow="fold")
    for node in kept:
        does = "opposes" if opposes(node) else "supports"
        style = "blue" if opposes(node) else "red"
        table.add_row(
            name_of(graph.run, node.feature),
            Text(shortened(token(graph.run.tokens[node.feature.position or 0]), TOKEN)),
            Text(does, style=style),
            Text(_plain(-(node.effect_on_answer or 0.0)), style=style),
            Text(_meaning(node), style="dim"),
        )
    return table


def _meaning(node: Node) -> str:
    """What Neuronpedia says, else the text that the feature is most active on."""
    if node.explanation is not None:
        return shortened(visible(page_words(node.page), space=" "), CONTEXT)
    return (context_text(node.contexts[0], CONTEXT) if node.contexts else None) or ""


def _at(graph: CausalGraph, feature: FeatureId) -> str:
    if feature.position is None:
        return ""
    return f" {shortened(token(graph.run.tokens[feature.position]), TOKEN)}"


def _shape(graph: CausalGraph) -> str:
    relays = sum(bool(node.relay) for node in graph.nodes)
    told = f"{counted_nodes(graph.nodes)}, {counted(len(graph.edges), 'edge')}"
    return f"{told}; {counted(relays, 'feature')} of these as relays" if relays else told


def _folded(graph: CausalGraph) -> str:
    """The dense features that were left out."""
    answer = graph.run.answer
    assert answer is not None
    named = ", ".join(f"{each.feature} ({_plain(-each.effect_on_answer)})" for each in answer.dense)
    if graph.run.settings.get("dense"):
        return f"left out, of the features that are on in any text: {named} nats"
    return f"left out, as they are on in any text (--dense keeps them): {named} nats"


def _plain(value: float) -> str:
    """With a sign that no terminal loses."""
    return signed(value).replace(MINUS, "-")
