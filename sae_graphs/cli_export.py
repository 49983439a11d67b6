"""`sae-graphs export`: a saved graph in the formats of other programs.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_graphs.cli_console import err, out, warn
from sae_graphs.errors import SaeGraphsError, quoted

if TYPE_CHECKING:
    from sae_graphs.graph.annotations import Annotations
    from sae_graphs.graph.graph import CausalGraph


def export(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or its graph.json.", show_default=False)
    ],
    formats: Annotated[
        str | None,
        typer.Option(
            help="Some of graphml, gexf, csv, parquet, attribution.", show_default="all of them"
        ),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write.", show_default="RUN/exports")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Pins, groups, labels and notes that the explorer in graph.html saved.",
            show_default="RUN/annotations.json, where it is",
        ),
    ] = None,
) -> None:
    """Write a saved graph for Gephi, pandas, circuit-tracer's viewer or Neuronpedia.

    Example: `sae-graphs export outputs/copyright-c --formats gexf,attribution`

    `graphml` and `gexf` are for Gephi, Cytoscape, yEd and igraph; `csv` and `parquet` are a table
    of the edges and one of the nodes (in pandas, names stay names with
    `read_csv(file, dtype={"source": str, "target": str, "feature": str})`); `attribution` is the
    attribution graph of circuit-tracer's viewer and Neuronpedia, where a link's weight is minus the
    effect. Exports that were in the folder before are replaced.
    """
    wanted = _formats(formats)
    from sae_graphs.export_run import exports_folder, write_exports
    from sae_graphs.graph.graph import CausalGraph

    graph = CausalGraph.load(run)
    folder = exports_folder(run, out_folder)
    said = _annotations(run, annotations, graph)
    with err.status("writing"):
        files = _files(graph, wanted, said, strict=formats is not None)
        names = write_exports(folder, files, graph)
    from sae_graphs.terminal import print_files

    print_files(out, folder, names)


def _formats(text: str | None) -> tuple[str, ...]:
    from sae_graphs.graph.export.formats import FORMATS

    if text is None:
        return FORMATS
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not wanted or not set(wanted) <= set(FORMATS):
        raise SaeGraphsError(
            f"formats {text!r}: expected some of {quoted(FORMATS)}, separated by commas"
        )
    return wanted


def _annotations(run: Path, given: Path | None, graph: CausalGraph) -> Annotations:
    """What a reader says of the graph: as given, else the run's own where they fit."""
    from sae_graphs.graph.annotations import NO_ANNOTATIONS, fitting, load
    from sae_graphs.runs import ANNOTATIONS

    if given is not None:
        return fitting(load(given), graph, told=warn)
    own = (run if run.is_dir() else run.parent) / ANNOTATIONS
    if not own.is_file():
        return NO_ANNOTATIONS
    try:
        return fitting(load(own), graph, told=warn)
    except SaeGraphsError as problem:  # nobody asked for them
        warn(f"{own} is left out: {problem}")
        return NO_ANNOTATIONS


def _files(
    graph: CausalGraph, wanted: tuple[str, ...], said: Annotations, *, strict: bool
) -> dict[str, bytes]:
    """All files by name; a format that cannot be is left out unless the user asked for it."""
    from sae_graphs.graph.export.formats import exported

    files: dict[str, bytes] = {}
    for kind in wanted:
        try:
            files |= exported(graph, kind, annotations=said, told=warn)
        except SaeGraphsError as problem:
            if strict:
                raise
            warn(f"no {kind}: {problem}")
    return files
