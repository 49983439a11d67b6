"""What the commands print: tables and sentences, every token made visible and harmless."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.graph import CausalGraph, Edge
from sae_graphs.render.text import token, visible

_BAR = 24  # characters of a bar that stands for probability 1


def print_graph(console: Console, graph: CausalGraph, *, seconds: float) -> None:
    """The run in words: next tokens, layers, components."""
    run = graph.run
    words = Text()
    for position, piece in enumerate(run.tokens):
        read = position == run.read_position
        words.append(visible(piece, space=" "), style="bold reverse" if read else "")
    console.print(words)
    console.print(_next_tokens(graph))
    console.print(_layers(graph))
    for warning in run.warnings:
        console.print(Text(f"warning: {warning}", style="bold yellow"))
    if graph.edges:
        _print_components(console, graph)
    measured = sum(layer.measured_features or 0 for layer in run.layers)
    line = f"{measured} features measured in {seconds:.2f} s; left out: {_left_out(graph)}"
    console.print(Text(line, style="dim"))


def print_files(console: Console, folder: Path, names: Sequence[str]) -> None:
    """Where the run's files are."""
    console.print(Text(f"wrote {folder}/", style="bold"), soft_wrap=True)
    console.print(Text("  " + "  ".join(names)), soft_wrap=True)


def print_edges(console: Console, graph: CausalGraph, edges: Sequence[Edge], style: str) -> None:
    """Edges as a table for people, or as CSV or JSON for programs."""
    columns = ("source", "target", "effect", "component")
    rows = [
        (str(edge.source), str(edge.target), edge.effect, graph[edge.source].component)
        for edge in edges
    ]
    if style == "json":
        data = [dict(zip(columns, row, strict=True)) for row in rows]
        console.out(json.dumps(data, indent=1), highlight=False)
    elif style == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        console.out(text.getvalue().rstrip("\n"), highlight=False)
    else:
        table = Table("source", "target", "effect", "the source", "graph")
        for (source, target, effect, component), edge in zip(rows, edges, strict=True):
            colour = "red" if effect < 0 else "blue"
            value = Text(f"{effect:+.4g}", style=colour)
            table.add_row(source, target, value, Text(edge.sign, style=colour), str(component))
        console.print(table)
        console.print(Text(_units(len(edges)), style="dim"))


def _units(n: int) -> str:
    return (
        f"{n} edges. Effect: change of the target's activation when the source is ablated "
        "(ablated - clean)."
    )


def _next_tokens(graph: CausalGraph) -> Table:
    table = Table("next token", "probability", "", title="after the highlighted token")
    for piece, probability in graph.run.next_tokens:
        bar = "█" * round(probability * _BAR)
        table.add_row(Text(token(piece)), f"{probability:.1%}", Text(bar, style="cyan"))
    return table


def _layers(graph: CausalGraph) -> Table:
    table = Table(
        "layer",
        "hook",
        "active",
        "L0",
        "FVU",
        "|effect|",
        "drawn",
        "in features",
        title="SAE layers",
    )
    for layer in graph.run.layers:
        total, kept = layer.total_abs_effect, layer.kept_abs_effect
        share = f"{kept / total:.0%}" if total and kept is not None else ""
        within = layer.effect_in_features
        table.add_row(
            layer.label,
            layer.hook_point.replace("blocks.", "").replace("hook_", ""),
            str(layer.active_features),
            f"{layer.l0:.1f}",
            f"{layer.fvu:.1%}",
            "" if total is None else f"{total:.4g}",
            share,
            "" if within is None else f"{within:.0%}" if within >= 0 else "none",
        )
    return table


def _print_components(console: Console, graph: CausalGraph) -> None:
    run = graph.run
    console.print(
        Text(
            f"{len(graph.nodes)} features, {len(graph.edges)} edges: {run.kept_share:.0%} of the "
            f"total |effect| of {run.total_abs_effect:.4g}",
            style="bold",
        )
    )
    for number, component in zip(graph.component_numbers, graph.components(), strict=True):
        total = component.run.kept_abs_effect
        head = f"Graph {number}: {len(component)} features, total |effect| {total:.4g}"
        console.print(Text(head, style="bold cyan"))
        console.print(Text(f"  strongest path: {component.paths(limit=1)[0]}"))


def _left_out(graph: CausalGraph) -> str:
    settings = graph.run.settings
    first = settings.get("ablate") == "all" and not settings.get("ablate_first")
    if first and len(graph.run.tokens) > 1:
        piece = visible(graph.run.tokens[0], space=" ")
        return f"ablation at the first position ({piece}), the attention sink"
    return "nothing"
