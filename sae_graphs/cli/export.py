"""`sae-graphs export`: a saved graph in the formats of other programs.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_graphs._version import __version__
from sae_graphs.cli.console import err, out, print_files, warn
from sae_graphs.cli.options import formats_of
from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.runs import GRAPH, RECORD, check_writable, record_of, replace_folder

if TYPE_CHECKING:
    from sae_graphs.graph.annotations import Annotations

NAME = "exports"
KIND = "exports"  # what such a folder's record says that it is


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
    viewer: Annotated[
        Path | None,
        typer.Option(
            help="Folder for circuit-tracer's viewer, to which the graph is added; alone, no other "
            "format is written.",
            show_default=False,
        ),
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
    from sae_graphs.graph.export.formats import FORMATS

    every = () if viewer is not None and out_folder is None else FORMATS
    wanted = every if formats is None else formats_of(formats, FORMATS)
    graph = CausalGraph.load(run)
    said = _annotations(run, annotations, graph)
    if viewer is not None:
        _add_to_viewer(viewer, graph, said)
    if not wanted:
        return
    folder = exports_folder(run, out_folder)
    with err.status("writing"):
        files = _files(graph, wanted, said, strict=formats is not None)
        names = write_exports(folder, files, graph)
    print_files(out, folder, names)


def _add_to_viewer(folder: Path, graph: CausalGraph, said: Annotations) -> None:
    """Put a graph into a folder that circuit-tracer's viewer serves, its list of graphs last."""
    from sae_graphs.graph.export.viewer import METADATA, listed_in, viewer_folder

    with err.status("writing"):
        made = viewer_folder(graph, annotations=said, others=listed_in(folder))
        try:
            for name in sorted(made.files, key=lambda name: name == METADATA):
                write_atomically(folder / name, made.files[name])
        except OSError as problem:
            raise SaeGraphsError(
                f"cannot write into {folder}: {problem.strerror or problem}; give another folder"
            ) from problem
    for line in made.warnings:
        warn(line)
    features = sum("/" in name for name in made.files)
    out.print(f"wrote {folder}: the graph, and what {features} features fire on", highlight=False)
    out.print(f"look at it: circuit-tracer start-server --graph_file_dir {folder}", highlight=False)


def _annotations(run: Path, given: Path | None, graph: CausalGraph) -> Annotations:
    """What a reader says of the graph: as given, else the run's own where they fit."""
    from sae_graphs.graph.annotations import NO_ANNOTATIONS, fitting, load
    from sae_graphs.runs import ANNOTATIONS

    if given is not None:
        return fitting(load(given), graph.parts.features, told=warn)
    own = (run if run.is_dir() else run.parent) / ANNOTATIONS
    if not own.is_file():
        return NO_ANNOTATIONS
    try:
        return fitting(load(own), graph.parts.features, told=warn)
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


def exports_folder(run: Path, given: Path | None) -> Path:
    """Where the exports of a run, or of a saved graph, go; `given` is what the user asked for.

    Raises `SaeGraphsError` where they would replace something else: a folder that is not empty
    must hold exports.
    """
    folder = given
    if folder is None and (run.is_dir() or run.name == GRAPH):
        folder = (run if run.is_dir() else run.parent) / NAME
    folder = folder or run.with_name(f"{run.stem}-{NAME}")
    if (folder / GRAPH).is_file():
        raise SaeGraphsError(
            f"{folder} holds a graph, which the exports would replace; give another folder"
        )
    check_writable(folder)
    if folder.is_dir() and any(folder.iterdir()) and (record_of(folder) or {}).get("kind") != KIND:
        raise SaeGraphsError(
            f"{folder} holds what another command wrote, which the exports would replace; give "
            "another folder"
        )
    return folder


def write_exports(folder: Path, files: Mapping[str, bytes], graph: CausalGraph) -> tuple[str, ...]:
    """Put all exports in place at once, and into the record of the run that they belong to.

    Exports that were there before go. Returns the names, that of their record included.
    """
    names = (*files, RECORD)
    record = {
        "kind": KIND,
        "prompt": graph.run.prompt,
        "model": graph.run.model,
        "saes": graph.run.saes,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sae_graphs": __version__,
        "files": list(names),
    }
    replace_folder(folder, {**files, RECORD: _json(record)})
    run = folder.resolve().parent
    held = record_of(run)
    if held is not None and isinstance(held.get("files"), list) and (run / GRAPH).is_file():
        # a new graph in this place is another one, and takes the old one's exports away
        listed = [*(name for name in held["files"] if name != folder.name), folder.name]
        write_atomically(run / RECORD, _json({**held, "files": listed}))
    return names


def _json(record: Mapping[str, object]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()
