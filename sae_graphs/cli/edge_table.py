"""What `sae-graphs edges` prints: a table for people; CSV or JSON with all numbers for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.graph.addresses import address_of
from sae_graphs.graph.export.tables import (
    ANATOMY_COLUMNS,
    anatomy_sums,
    block_columns,
    flow_columns,
)
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import (
    missing_words,
    name_of,
    number_of,
    share_of,
    shares_words,
    strongest_part,
    token_at,
)
from sae_graphs.graph.records import Edge, Node
from sae_graphs.render.picture.explained import density_words, page_words
from sae_graphs.text import shortened, visible
from sae_graphs.words import MINUS, counted

_STYLES = {"promotes": "red", "suppresses": "blue"}


def print_edges(
    console: Console,
    graph: CausalGraph,
    edges: Sequence[Edge],
    style: str,
    *,
    anatomy: bool = False,
) -> None:
    """Edges as `table`, `csv` or `json`; with `anatomy`, how each effect came about."""
    if style == "json":
        rows = [_values(graph, edge) | (_anatomy(edge) if anatomy else {}) for edge in edges]
        console.out(json.dumps(rows, indent=1), highlight=False)
    elif style == "csv":
        console.out(_csv(graph, edges, anatomy=anatomy).rstrip("\n"), highlight=False)
    elif anatomy:
        _print_anatomies(console, graph, edges)
    else:
        _print_plain(console, graph, edges)


# -- for programs ----------------------------------------------------------------------------------


def _values(graph: CausalGraph, edge: Edge) -> dict[str, Any]:
    return {
        "source": str(edge.source),
        "target": str(edge.target),
        "target_token": graph[edge.target].token,
        "effect": edge.effect,
        **(flow_columns(edge) if graph.run.answer is not None else {}),
        "component": graph[edge.source].component,
        "source_explanation": graph[edge.source].explanation,
        "target_explanation": graph[edge.target].explanation,
    }


def _anatomy(edge: Edge) -> dict[str, Any]:
    blocks = None
    if edge.anatomy is not None:
        blocks = [vars(block) | {"heads": list(block.heads)} for block in edge.anatomy.blocks]
    return {**anatomy_sums(edge.anatomy), "blocks": blocks}


def _csv(graph: CausalGraph, edges: Sequence[Edge], *, anatomy: bool) -> str:
    """One column a block's part and head: `attention_4`, `attention_4_head_7`, `mlp_4`.

    Tokens and explanations are made visible here, as what is printed may reach a terminal.
    """
    rows = [_values(graph, edge) for edge in edges]
    for row in rows:
        for name in ("target_token", "source_explanation", "target_explanation"):
            if (text := row[name]) is not None:
                row[name] = visible(text, space=" ")
    flows = ["relative_effect", "flow"] if graph.run.answer is not None else []
    columns = ["source", "target", "target_token", "effect", *flows, "component"]
    columns += ["source_explanation", "target_explanation"]
    if anatomy:
        parts = [block_columns(edge) for edge in edges]
        named = {name: key for part in parts for name, (key, _) in part.items()}
        columns += [*ANATOMY_COLUMNS, *sorted(named, key=lambda name: named[name])]
        for row, edge, part in zip(rows, edges, parts, strict=True):
            row |= anatomy_sums(edge.anatomy) | {name: value for name, (_, value) in part.items()}
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


# -- for people ------------------------------------------------------------------------------------


def _print_plain(console: Console, graph: CausalGraph, edges: Sequence[Edge]) -> None:
    answers = graph.run.answer is not None
    table = Table(
        "source", "target", "effect", *(["nats"] if answers else []), "the source", "graph"
    )
    for edge in edges:
        nats = [f"{number_of(edge):+.3g}"] if answers else []
        table.add_row(
            *_ends(graph, edge),
            _effect(edge),
            *nats,
            Text(edge.sign, style=_STYLES[edge.sign]),
            str(graph[edge.source].component),
        )
    console.print(table)
    console.print(Text(_units(edges), style="dim"))
    ends = {end for edge in edges for end in (edge.source, edge.target)}
    print_pages(console, graph, [node for node in graph.nodes if node.feature in ends])


def print_pages(console: Console, graph: CausalGraph, nodes: Sequence[Node]) -> None:
    """What Neuronpedia says of some features, and where; nothing where it was not asked.

    One line says of how many it could not be asked.
    """
    silent = sum(node.page is not None and node.page.status == "unavailable" for node in nodes)
    if silent:
        said = f"Neuronpedia was unavailable for {counted(silent, 'feature')}"
        console.print(Text(said, style="dim"), soft_wrap=True)
    asked = [node for node in nodes if node.page is not None and node.page.status != "unavailable"]
    if not asked:
        return
    table = Table("feature", "Neuronpedia says", "active on", "address")
    for column, least in zip(table.columns, (7, 24, 9, 24), strict=True):
        column.overflow, column.min_width = "fold", least
    for node in asked:
        page, place = node.page, address_of(node)
        assert page is not None
        known = page.explanation is not None
        density = "" if page.density is None else density_words(page.density)
        words = Text(visible(page_words(page), space=" "), style="" if known else "dim")
        name = name_of(graph.run, node.feature)
        table.add_row(name, words, density, Text(str(place or ""), style="dim"))
    console.print(table)


def _ends(graph: CausalGraph, edge: Edge) -> tuple[Text, Text]:
    """The source's and the target's name; with their tokens, where features have positions."""
    names = []
    for end in (edge.source, edge.target):
        here = "" if not end.is_feature else shortened(token_at(graph.run, end) or "", 12)
        names.append(Text(name_of(graph.run, end)).append(f" {here}" if here else "", style="dim"))
    return names[0], names[1]


def _effect(edge: Edge) -> Text:
    return Text(f"{edge.effect:+.4g}", style=_STYLES[edge.sign])


def _units(edges: Sequence[Edge]) -> str:
    words = (
        f"{counted(len(edges), 'edge')}. Effect: change of the target's activation when the source "
        "is ablated (ablated - clean)"
    )
    if any(edge.flow is not None for edge in edges):
        return (
            f"{words}; of the answer's score, in nats. Nats: what the source contributes to the "
            "answer through the target alone (clean - ablated): positive helps."
        )
    outputs = any(edge.target.is_output for edge in edges)
    return words + ("; of an output token's logit, in nats." if outputs else ".")


def _print_anatomies(console: Console, graph: CausalGraph, edges: Sequence[Edge]) -> None:
    known = [edge for edge in edges if edge.anatomy is not None]
    if known:
        parts = [max(len(edge.anatomy.blocks), _has_heads(edge)) for edge in known if edge.anatomy]
        console.print(_anatomy_table(graph, edges, strongest=max(parts) > 1))
        console.print(Text(_units(edges), style="dim"))
        console.print(
            Text(
                "Skip, attention, mlp: what came through each, as a change of the target's "
                "pre-activation, and as a share of the whole change.",
                style="dim",
            )
        )
    for line in missing_words(graph.run, edges):
        console.print(Text(line, style="yellow" if not known else "dim"))
    if not known:
        _print_plain(console, graph, edges)
    _print_provenance(console, graph, edges)


def _has_heads(edge: Edge) -> int:
    """2, which asks for a column of its own, where the edge's heads are known; else 0."""
    return 2 if edge.anatomy and any(block.heads for block in edge.anatomy.blocks) else 0


def _anatomy_table(graph: CausalGraph, edges: Sequence[Edge], *, strongest: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))  # eight columns, as narrow as can be
    last = ("strongest block",) if strongest else ()
    for name in ("source", "target", "effect", "pre-act.", "skip", "attention", "mlp", *last):
        table.add_column(name, overflow="fold", min_width=12 if name in last else None)
    for edge in edges:
        cells: list[Text | str] = [*_ends(graph, edge), _effect(edge)]
        if (anatomy := edge.anatomy) is None:
            table.add_row(*cells)
            continue
        cells.append(_number(anatomy.preactivation_effect))
        for value in (anatomy.skip, anatomy.attention, anatomy.mlp):
            share = _ascii(share_of(value, anatomy)) if value else ""
            cells.append(Text(_number(value)).append(f" {share}" if share else "", style="dim"))
        if strongest:
            cells.append(strongest_part(anatomy))
        table.add_row(*cells)
    return table


def _number(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _ascii(text: str) -> str:
    """A sign that no terminal loses."""
    return text.replace(MINUS, "-")


def _print_provenance(console: Console, graph: CausalGraph, edges: Sequence[Edge]) -> None:
    """Which blocks wrote the features of these edges, and which later ones scrub them."""
    ends = {end for edge in edges for end in (edge.source, edge.target)}
    nodes = [node for node in graph.nodes if node.feature in ends and _is_known(node)]
    if not nodes:
        return
    table = Table("feature", "written by", "erased by")
    for node in nodes:
        table.add_row(
            name_of(graph.run, node.feature),
            _ascii(shares_words(node.written_by)),
            _ascii(shares_words(node.scrubbed_by)),
        )
    console.print(table)


def _is_known(node: Node) -> bool:
    return bool(node.written_by or node.scrubbed_by)
