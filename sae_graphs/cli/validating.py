"""What `sae-graphs validate` does once its options are known to fit: load, test, write, print."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sae_graphs.cli.console import err, out, parts_kept, print_files, progress, resumable
from sae_graphs.cli.options import Source
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.validation.answer.records import AnswerReport
    from sae_graphs.validation.evidence import ValidationReport
    from sae_graphs.validation.settings import ValidationSettings


class Asked(NamedTuple):
    """What was given on the command line, beside the model; and whether that was named."""

    run: Path | None
    prompts: tuple[str, ...]
    discover: float | None
    text: str | None
    out_folder: Path | None
    intervention: str | None
    names_model: bool


class Target(NamedTuple):
    """A graph to validate, and where its report goes."""

    model: InstrumentedModel
    graph: CausalGraph
    test: tuple[str, ...]
    discovery: tuple[str, ...] | None
    folder: Path


def validate_and_print(asked: Asked, settings: ValidationSettings, source: Source) -> None:
    """Check, load, validate, write, print."""
    from sae_graphs.runs import check_writable, writing

    texts = _texts(asked.text)
    if asked.discover is None:
        found = _saved(asked, source)
    else:
        found = _discovered(asked, asked.discover, settings, source)
    check_writable(found.folder)
    with writing(found.folder):
        result, written = tested(found, asked, settings, texts)
    from sae_graphs.validation.answer.records import AnswerReport

    if isinstance(result, AnswerReport):
        from sae_graphs.cli.answer_verdict_table import print_answer_report

        print_answer_report(out, result)
    else:
        from sae_graphs.cli.verdict_table import print_report

        print_report(out, result)
    print_files(out, found.folder, written)


def tested(
    found: Target,
    asked: Asked,
    settings: ValidationSettings,
    texts: Iterator[str] | None,
    bar: Callable[[int, int], None] | None = None,
) -> tuple[ValidationReport | AnswerReport, tuple[str, ...]]:
    """The report, and the names of the files that it was written to.

    Where there is a `bar` already, of all that is done, it is told; else there is one.
    """
    from sae_graphs.cli.outputs import write_validation
    from sae_graphs.runs import partial_folder
    from sae_graphs.validation.answer.partial import AnswerPartial
    from sae_graphs.validation.partial import ValidationPartial
    from sae_graphs.validation.validate import validate

    kind = ValidationPartial if found.graph.run.answer is None else AnswerPartial
    partial = kind(partial_folder(found.folder), told=_resumed)
    started = time.perf_counter()
    with resumable(lambda: parts_kept(partial, "paths are tested")):
        own = progress("ablating paths and controls", unit="copies")
        with nullcontext(bar) if bar is not None else own as report:
            result = validate(
                found.model,
                found.graph,
                found.test,
                settings=settings,
                texts=texts,
                corpus=asked.text,
                discovery=found.discovery,
                intervention=asked.intervention,
                progress=report,
                foretold=_foretold if settings.quick is False and bar is None else None,
                resume=partial,
            )
    seconds = time.perf_counter() - started
    with nullcontext() if bar is not None else err.status("drawing"):
        written = write_validation(found.folder, result, found.graph, seconds=seconds)
    partial.remove()
    return result, written


def _resumed(done: int, paths: int) -> None:
    err.print(f"resumed: {done} of {paths} paths were tested before", highlight=False)


def _foretold(seconds: float) -> None:
    err.print(f"the full report takes about {seconds:.0f} s", highlight=False)


def _texts(text: str | None) -> Iterator[str] | None:
    """The other text, begun to be read, so that a wrong name is known at once."""
    if text is None:
        return None
    import itertools

    from sae_graphs.pretrained.corpora import texts_of

    lines = texts_of(text)
    first = next(lines, None)
    if first is None:
        raise SaeGraphsError(f"{text} holds no text; give a file or dataset with some")
    return itertools.chain([first], lines)


def _saved(asked: Asked, source: Source) -> Target:
    """A graph from its folder, with the model that made it."""
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.runs import GRAPH, check_writable, record_of, run_folder

    assert asked.run is not None
    graph = CausalGraph.load(asked.run)
    if not graph.edges:
        raise SaeGraphsError(
            f"{asked.run}: the graph has no edges, so there is nothing to validate"
        )
    folder = run_folder(asked.run)
    to_write = asked.out_folder or folder / "validation"
    if (to_write / GRAPH).is_file():
        raise SaeGraphsError(
            f"{to_write} holds a graph, which the report would replace; give another folder"
        )
    check_writable(to_write)
    record = record_of(folder) or {}
    if not asked.names_model:
        source = source._replace(model=graph.run.model)
        if source.saes is None and source.sae_pattern is None:
            given, pattern = record.get("saes_given"), record.get("sae_pattern_given")
            source = source._replace(saes=given, sae_pattern=pattern)
    return Target(
        model=source.load(),
        graph=graph,
        test=asked.prompts,
        discovery=None,
        folder=to_write,
    )


def _discovered(asked: Asked, part: float, settings: ValidationSettings, source: Source) -> Target:
    """A graph that a part of the prompts have in common; the others are left to test it."""
    from sae_graphs.cli.outputs import write_run
    from sae_graphs.runs import check_writable, folder_for

    folder = asked.out_folder or folder_for(
        Path("outputs"),
        f"common {asked.prompts[0]}",
        source.model,
        source.saes,
        source.sae_pattern,
    )
    check_writable(folder)
    instrumented = source.load()
    from sae_graphs.effects.build import discover

    started = time.perf_counter()
    with progress("finding the graph", unit="prompts") as report:
        found = discover(
            instrumented,
            asked.prompts,
            part=part,
            seed=settings.seed,
            progress=report,
        )
    seconds = time.perf_counter() - started
    write_run(
        folder,
        found.graph,
        formats=("svg", "png"),
        seconds=seconds,
        saes=source.saes,
        sae_pattern=source.sae_pattern,
    )
    err.print(
        f"found on {len(found.discovery)} prompts, to be tested on {len(found.test)}",
        highlight=False,
    )
    return Target(instrumented, found.graph, found.test, found.discovery, folder / "validation")
