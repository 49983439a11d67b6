"""`sae-graphs neuronpedia`: a saved graph with what Neuronpedia says of its features.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_graphs.cli.console import err, out, progress, warn
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.graph.graph import CausalGraph


def neuronpedia(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or its graph.json.", show_default=False)
    ],
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask again for what was asked before.")
    ] = False,
) -> None:
    """Ask Neuronpedia what a saved graph's features mean; print it, and draw the graph again.

    Example: `sae-graphs neuronpedia outputs/gpt2-small-copyright-c`

    What was asked before is kept in your cache, and with HF_HUB_OFFLINE=1 there is nothing else.
    The key in NEURONPEDIA_API_KEY is used where it is set. A folder's report of validation stays as
    it is.
    """
    from sae_graphs.features.neuronpedia.annotate import annotate
    from sae_graphs.features.neuronpedia.client import Service
    from sae_graphs.graph.addresses import address_of
    from sae_graphs.graph.graph import CausalGraph

    graph = CausalGraph.load(run)
    placed = [node for node in graph.nodes if address_of(node) is not None]
    if not placed:
        raise SaeGraphsError(
            f"{run}: no feature of this graph has a page on Neuronpedia, as {graph.run.saes} is "
            "not there; give a graph of SAEs that are, such as gpt2-small-res-jb"
        )
    service = Service.from_environment().patient()
    with progress("asking Neuronpedia") as report:
        annotated = annotate(graph, refresh=refresh, service=service, progress=report, told=warn)
    _write(run, annotated, graph)
    _print(annotated)


def _write(run: Path, graph: CausalGraph, loaded: CausalGraph) -> None:
    """The graph and its pictures in their places; all else in the folder stays as it is."""
    from sae_graphs.cli.outputs import rewrite_graph
    from sae_graphs.runs import run_folder

    with err.status("drawing"):
        written = rewrite_graph(run, graph, loaded=loaded)
    from sae_graphs.cli.console import print_files

    print_files(out, run_folder(run) if run.is_dir() else run.parent, written)


def _print(graph: CausalGraph) -> None:
    from rich.text import Text

    from sae_graphs.cli.edge_table import print_pages
    from sae_graphs.graph.addresses import address_of, quick_list_urls

    print_pages(out, graph, graph.nodes)
    # the site shows no list at all where it does not know a feature; those it was not asked for
    # are mostly there
    may = [node for node in graph.nodes if node.page is None or node.page.status != "missing"]
    places = [place for node in may if (place := address_of(node)) is not None]
    links = quick_list_urls(places, name=f"{graph.run.model}: {graph.run.prompt[:60]}")
    for number, link in enumerate(links, start=1):
        which = f", {number} of {len(links)}" if len(links) > 1 else ""
        out.print(Text(f"all of them{which}: {link}"), soft_wrap=True)
