"""What the commands print: tables and sentences, every token made visible and harmless."""

from __future__ import annotations

from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.cli.answer_table import print_answer
from sae_graphs.cli.console import NARROW, prompt_line
from sae_graphs.graph.feature_id import OUTPUT_LAYER
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import counted_nodes, logit_words, name_of, output_words
from sae_graphs.graph.records import LayerReport
from sae_graphs.render.picture.explained import page_words
from sae_graphs.text import token, visible
from sae_graphs.words import probability_words

ALTERNATIVES = 4  # next tokens that are shown of an answer graph
_BAR = 24  # characters of a bar that stands for probability 1


def print_graph(
    console: Console, graph: CausalGraph, *, seconds: float, again: bool = False
) -> None:
    """The run in words: next tokens, layers, components; `again` from an earlier run's effects."""
    run = graph.run
    console.print(prompt_line(run.tokens, run.read_position))
    console.print(_next_tokens(graph))
    if run.answer is not None:
        print_answer(console, graph)
    elif run.outputs:
        console.print(_fitted(console, _outputs(graph)))
    console.print(_fitted(console, _layers(graph, hooks=console.width >= NARROW)))
    for warning in run.warnings:
        console.print(Text(f"warning: {warning}", style="bold yellow"))
    if graph.edges and run.answer is None:
        _print_components(console, graph)
    console.print(Text(_work(graph, seconds, again=again), style="dim"))


def _work(graph: CausalGraph, seconds: float, *, again: bool) -> str:
    """How many features were measured, or estimated, and by which run; and what was left out."""
    measured = sum(layer.measured_features or 0 for layer in graph.run.layers)
    if graph.run.answer is not None:
        measured = graph.run.answer.measured
    what = "features, each at one position," if graph.resolves_positions else "features"
    exact = graph.run.settings.get("method", "exact") == "exact"
    verb = "measured" if exact else "estimated"
    left_out = f"left out: {_left_out(graph)}"
    if again:
        did = f"drawn again in {seconds:.2f} s; {measured} {what} were {verb} by the earlier run"
        return f"{did}; {left_out}"
    return f"{measured} {what} {verb} in {seconds:.2f} s; {left_out}"


def _next_tokens(graph: CausalGraph) -> Table:
    table = Table("next token", "probability", "", title="after the highlighted token")
    likely = graph.run.next_tokens
    if graph.run.answer is not None:  # the table of features is what counts
        likely = likely[:ALTERNATIVES]
    for piece, probability in likely:
        bar = "█" * round(probability * _BAR)
        table.add_row(Text(token(piece)), probability_words(probability), Text(bar, style="cyan"))
    return table


def _outputs(graph: CausalGraph) -> Table:
    """The output tokens whose logits were targets, and the strongest effect on each."""
    table = Table("output", "token", "probability", "clean", "strongest effect on it")
    table.title = "output tokens"
    for output in graph.run.outputs:
        into = [
            edge
            for edge in graph.edges
            if edge.target.is_output and edge.target.index == output.token_id
        ]
        effect = "none kept"
        if into:
            best = into[0]
            effect = f"{best.effect:+.4g} nats, {best.source} {best.sign} it"
            if best.target.position not in (None, graph.run.read_position):
                effect += f" at token {best.target.position}"
        table.add_row(
            f"{OUTPUT_LAYER}.{output.token_id}",
            Text(output_words(output)),
            probability_words(output.probability),
            f"{logit_words(output)} {output.logit:.4g}",
            effect,
        )
    return table


def _fitted(console: Console, table: Table) -> Table:
    """The table, with next to no frame where the terminal is narrow; there long words fold."""
    if console.width < NARROW:
        table.box, table.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _layers(graph: CausalGraph, *, hooks: bool) -> Table:
    """The SAE layers, with the names of their hooks or without. No number is ever cut."""
    rows = [_layer_row(layer) for layer in graph.run.layers]
    names = [name for name in rows[0] if hooks or name != "hook"]
    table = Table(title="SAE layers")
    for name in names:
        numbers = name not in ("layer", "hook")
        table.add_column(name, min_width=max(len(row[name]) for row in rows) if numbers else None)
    for row in rows:
        table.add_row(*(Text(row[name]) for name in names))
    return table


def _layer_row(layer: LayerReport) -> dict[str, str]:
    total, kept = layer.total_abs_effect, layer.kept_abs_effect
    within = layer.effect_in_features
    return {
        "layer": layer.label,
        "hook": layer.hook_point.replace("blocks.", "").replace("hook_resid_", ""),
        "active": str(layer.active_features),
        "L0": f"{layer.l0:.1f}",
        "FVU": f"{layer.fvu:.1%}",
        "|effect|": "" if total is None else f"{total:.4g}",
        "drawn": f"{kept / total:.0%}" if total and kept is not None else "",
        "in features": "" if within is None else f"{within:.0%}" if within >= 0 else "none",
    }


def _print_components(console: Console, graph: CausalGraph) -> None:
    run = graph.run
    console.print(
        Text(
            f"{counted_nodes(graph.nodes)}, {len(graph.edges)} edges: {run.kept_share:.0%} of the "
            f"total |effect| of {run.total_abs_effect:.4g}",
            style="bold",
        )
    )
    for number, component in zip(graph.component_numbers, graph.components(), strict=True):
        total = component.run.kept_abs_effect
        head = f"Graph {number}: {counted_nodes(component.nodes)}, total |effect| {total:.4g}"
        console.print(Text(head, style="bold cyan"))
        path = component.paths(limit=1)[0]
        console.print(Text(f"  strongest path: {path.words(partial(name_of, run))}"))
        for feature in path.features:
            if graph[feature].explanation is not None:
                words = visible(page_words(graph[feature].page), space=" ")
                console.print(Text(f"    {feature}  {words}", style="dim"))


def _left_out(graph: CausalGraph) -> str:
    settings = graph.run.settings
    first = settings.get("ablate") in ("all", "each") and not settings.get("ablate_first")
    if first and len(graph.run.tokens) > 1:
        piece = visible(graph.run.tokens[0], space=" ")
        return f"ablation at the first position ({piece}), the attention sink"
    return "nothing"
