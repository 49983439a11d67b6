"""`sae-graphs edges`: the edges of a saved graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_graphs.cli.console import out
from sae_graphs.cli.options import Format, Run, Sign

if TYPE_CHECKING:
    from sae_graphs.graph.graph import CausalGraph


def edges(
    run: Run,
    source: Annotated[
        str | None, typer.Option(help="Edges from this feature; or its address on Neuronpedia.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Edges to this feature.")] = None,
    layer: Annotated[str | None, typer.Option(help="Edges from this SAE layer.")] = None,
    sign: Annotated[Sign | None, typer.Option(help="Only what promotes, or suppresses.")] = None,
    min_effect: Annotated[float, typer.Option(help="Smallest |effect|.", min=0.0)] = 0.0,
    component: Annotated[int | None, typer.Option(help="Edges of this graph (1, 2, ...).")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many.", min=1)] = None,
    anatomy: Annotated[
        bool, typer.Option("--anatomy", help="Through which block each effect came.")
    ] = False,
    style: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """List the edges of a saved graph, strongest first.

    Example: `sae-graphs edges outputs/copyright-c --layer 3 --sign promotes`
    """
    from sae_graphs.cli.edge_table import print_edges

    saved = _saved(run)
    found = saved.find_edges(
        source=source,
        target=target,
        layer=layer,
        sign=None if sign is None else sign.value,
        min_abs_effect=min_effect,
        component=component,
    )[:limit]
    print_edges(out, saved, found, style.value, anatomy=anatomy)


def _saved(run: Path) -> CausalGraph:
    from sae_graphs.graph.graph import CausalGraph

    return CausalGraph.load(run)
