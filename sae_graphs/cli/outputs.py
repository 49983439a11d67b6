"""What a run leaves behind: its folder under `outputs/`, complete or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.files import save_at, write_atomically
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations, fitting
from sae_graphs.graph.annotations import load as load_annotations
from sae_graphs.graph.annotations import to_bytes as annotations_to_bytes
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.node_link import to_bytes
from sae_graphs.runs import (
    ANNOTATIONS,
    EFFECTS,
    GRAPH,
    OF_RUN,
    PAGE,
    RECORD,
    VALIDATION,
    alone_in,
    holds_effects,
    made_with,
    record_of,
    replace_folder,
    run_folder,
)
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.report.marks import explorer_of


def check_keeps_effects(folder: Path) -> None:
    """Fail where a run that saves no effects would delete those of an earlier one."""
    if holds_effects(folder):
        raise SaeGraphsError(
            f"{folder} holds {EFFECTS}, the saved effects of an earlier run, which this run would "
            "delete; add --save-effects, or give another folder with --out"
        )


def write_run(
    folder: Path,
    graph: CausalGraph,
    *,
    formats: Sequence[str],
    seconds: float,
    saes: str | None = None,
    sae_pattern: str | None = None,
    effects: Path | None = None,
    replotted_from: Path | None = None,
    annotations: Annotations = NO_ANNOTATIONS,
) -> tuple[str, ...]:
    """Draw the graph and put all files of the run in place at once; returns their names.

    `saes` and `sae_pattern` are what the user asked for, None where the model's own were taken;
    `effects` the file of all effects, where they are saved; `replotted_from` the folder of the run
    that measured them, where this one did not. Those `annotations` that fit the graph are drawn;
    all are kept, where there are any: another choice of edges may have the others' features.
    """
    from sae_graphs.render.pictures import files

    pictures = files(graph, formats, annotations=fitting_or_words(annotations, graph))
    written: dict[str, bytes | Path] = {GRAPH: to_bytes(graph.parts), **pictures}
    if annotations:
        written[ANNOTATIONS] = annotations_to_bytes(annotations)
    if effects is not None:
        written[EFFECTS] = effects
    names = (*written, RECORD)
    measured = record_of(replotted_from) if replotted_from is not None else None
    if measured is not None:
        saes, sae_pattern = measured.get("saes_given"), measured.get("sae_pattern_given")
    record: dict[str, Any] = {
        "prompt": graph.run.prompt,
        "model": graph.run.model,
        "saes": graph.run.saes,
        "saes_given": saes,
        "sae_pattern_given": sae_pattern,
        "settings": dict(graph.run.settings),
        "features": sum(node.feature.is_feature for node in graph.nodes),
        "output_tokens": sum(node.feature.is_output for node in graph.nodes),
        "edges": len(graph.edges),
        "neuronpedia": _pages(graph),
        "replotted_from": None if replotted_from is None else str(replotted_from.resolve()),
        "seconds": round(seconds, 4),
        **made_with(),
        "files": list(names),
    }
    written[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    replace_folder(folder, written)
    return names


def rewrite_graph(run: Path, graph: CausalGraph, *, loaded: CausalGraph) -> tuple[str, ...]:
    """Put a saved graph in its place again, with more known of its features; returns the names.

    `run` is its folder or its file, `loaded` the graph that was read from there. The pictures that
    lie beside `graph.json` are drawn again, with what `annotations.json` says, and the record says
    what Neuronpedia answered; all else stays: effects, validation, a user's notes. Each file is
    replaced in one step, and none before all are drawn. Raises `SaeGraphsError` where another run
    has put its graph there meanwhile: that one stays.
    """
    from sae_graphs.render.pictures import files

    folder = run_folder(run)
    if folder == run and not run.is_dir():  # a graph saved under another name
        with _while_it_holds(loaded, run, run.resolve().parent):
            return (save_at(run, GRAPH, to_bytes(graph.parts)).name,)
    formats = _formats_in(folder)
    said = annotations_of(folder, graph)
    drawn = [kind for kind in formats if kind != "html"]
    written = {**files(graph, drawn, annotations=said), GRAPH: to_bytes(graph.parts)}
    if "html" in formats:
        written[PAGE] = explorer_of(folder, graph, annotations=said)
    with _while_it_holds(loaded, folder, folder.resolve().parent):
        if _formats_in(folder) != formats:
            raise SaeGraphsError(_changed(folder))
        held = record_of(folder)
        if held is not None:
            record = {**held, "neuronpedia": _pages(graph)}
            written[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
        try:
            for name, data in written.items():
                write_atomically(folder / name, data)
        except OSError as problem:
            why = problem.strerror or problem
            raise SaeGraphsError(
                f"cannot write into {folder}: {why}; make room, or give a copy"
            ) from problem
    return tuple(written)


@contextmanager
def _while_it_holds(loaded: CausalGraph, path: Path, parent: Path) -> Iterator[None]:
    """Other runs wait, once it is known that none of them has replaced the graph at `path`."""
    try:
        with alone_in(parent):
            if CausalGraph.load(path) != loaded:
                raise SaeGraphsError(_changed(path))
            yield
    except (GraphFileError, FileNotFoundError) as gone:
        raise SaeGraphsError(_changed(path)) from gone


def _changed(path: Path) -> str:
    return (
        f"{path} has changed while Neuronpedia was asked, and stays as it is now; give the same "
        "command again: answers are kept"
    )


def _formats_in(folder: Path) -> list[str]:
    """What the run in a folder was drawn as."""
    from sae_graphs.render.pictures import FORMATS

    return [kind for kind in FORMATS if (folder / f"graph.{kind}").is_file()]


def _pages(graph: CausalGraph) -> dict[str, int] | None:
    """How many features Neuronpedia knew, and did not; None where it was not asked."""
    counts: Counter[str] = Counter(
        node.page.status for node in graph.nodes if node.page is not None
    )
    kinds = ("found", "missing", "unavailable")
    return {kind: counts[kind] for kind in kinds} if counts else None


def annotations_of(folder: Path, graph: CausalGraph) -> Annotations:
    """What `annotations.json` in a run's folder says of its graph; nothing where there is none.

    Features that the graph lacks are passed over: a user may have put the file there. Raises
    `GraphFileError` where it cannot be read.
    """
    return fitting_or_words(kept_annotations(folder), graph)


def kept_annotations(folder: Path) -> Annotations:
    """All that `annotations.json` in a run's folder says, whatever features its graph has.

    Raises `GraphFileError` where it cannot be read.
    """
    return load_annotations(folder) if (folder / ANNOTATIONS).is_file() else NO_ANNOTATIONS


def check_keeps_annotations(folder: Path, run: Sequence[str | None]) -> None:
    """Fail where a run would delete what was said of another; `run` is what `OF_RUN` names."""
    held = record_of(folder) or {}
    if (folder / ANNOTATIONS).is_file() and [held.get(name) for name in OF_RUN] != list(run):
        raise SaeGraphsError(
            f"{folder} holds {ANNOTATIONS}, what was said of a run of another prompt or model, "
            "which this run would replace; move it, or give another folder with --out"
        )


def fitting_or_words(
    annotations: Annotations, graph: CausalGraph, *, told: Callable[[str], None] | None = None
) -> Annotations:
    """As `annotations.fitting`; where no annotated feature is in the graph, `told` gets that, and
    the title, the caption and the note are left."""
    try:
        return fitting(annotations, graph.parts.features, told=told)
    except SaeGraphsError as problem:
        if told is not None:
            told(str(problem))
        return replace(annotations, pins=(), groups=(), labels={}, notes={})


def write_validation(
    folder: Path, report: ValidationReport | AnswerReport, graph: CausalGraph, *, seconds: float
) -> tuple[str, ...]:
    """Put a report's files in place at once, and into the record of the run that it belongs to.

    Where that has a page, the page tells what was found.
    """
    from sae_graphs.validation.report.files import report_files

    annotations = annotations_of(folder.parent, graph)
    written: dict[str, bytes | Path] = dict(report_files(report, graph, annotations=annotations))
    names = (*written, RECORD)
    record = {
        "prompt": report.prompt,
        "model": report.model,
        "saes": report.saes,
        "settings": dict(report.settings),
        "tested": len(report.units),
        "seconds": round(seconds, 4),
        **made_with(),
        "files": list(names),
    }
    written[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    replace_folder(folder, written)
    run = folder.parent
    held = record_of(run)
    if held is not None and isinstance(held.get("files"), list) and (run / GRAPH).is_file():
        files = [*(name for name in held["files"] if name != folder.name), folder.name]
        # a new graph in this place is another one, and takes the old one's validation away
        write_atomically(
            run / RECORD, (json.dumps({**held, "files": files}, indent=1) + "\n").encode()
        )
        if folder.name == VALIDATION and (run / PAGE).is_file():
            write_atomically(run / PAGE, explorer_of(run, graph, annotations=annotations))
    return names
