"""`sae-graphs validate`: from a saved graph, or from prompts to find one on, to a report.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from sae_graphs.cli.console import err, out, print_files, progress
from sae_graphs.cli.options import (
    Device,
    Dtype,
    Memory,
    SaePattern,
    Saes,
    Source,
    basics,
    beside,
    compute,
    measured,
    output,
    some_text,
)
from sae_graphs.errors import SaeGraphsError

if TYPE_CHECKING:
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.validation.answer.records import AnswerReport
    from sae_graphs.validation.evidence import ValidationReport
    from sae_graphs.validation.settings import ValidationSettings


def validate(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run, or its graph.json.", show_default=False)
    ] = None,
    prompt: Annotated[
        list[str] | None,
        basics(
            metavar="<text>",
            help="Test on this prompt, too; repeatable.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        basics(help="Test on the prompts of this file, one a line.", show_default=False),
    ] = None,
    discover: Annotated[
        float | None,
        basics(
            help="Without a run: find a graph on this part of the prompts, test the rest.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, basics(help="As for `graph`.", show_default="the graph's own")
    ] = None,
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    target: Annotated[
        str | None,
        measured(
            metavar="<token>",
            help="The token that is watched.",
            show_default="each prompt's likeliest",
        ),
    ] = None,
    contrast: Annotated[
        str | None,
        measured(
            metavar="<token>",
            help="Watch the difference of the target's logit to this token's.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        measured(
            metavar="<path>",
            help="Test this path alone, e.g. '0.715 > 1.187'; repeatable.",
            show_default=False,
        ),
    ] = None,
    paths: Annotated[int, measured(help="Strongest paths tested of each component.")] = 3,
    curve: Annotated[
        list[str] | None,
        measured(
            metavar="<pair>",
            help="Response curve, e.g. '3.309 > 4.436', or '3.309 > )'; repeatable.",
            show_default=False,
        ),
    ] = None,
    controls: Annotated[int, beside(help="Matched controls for each path.")] = 200,
    text: Annotated[
        str | None,
        beside(
            help="Other text for snippets: a file, or a dataset's name.",
            show_default="the bundled corpus",
        ),
    ] = None,
    snippets: Annotated[int, beside(help="Pieces of other text; 0 for none.")] = 32,
    quick: Annotated[
        bool | None,
        beside(
            "--quick/--full",
            help="What decides alone, or the long report.",
            show_default="quick of answer graphs, full of others",
        ),
    ] = None,
    intervention: Annotated[
        str | None,
        measured(
            metavar="<kind>",
            help="Of an answer graph: what a feature's activation becomes.",
            show_default="the graph's own",
        ),
    ] = None,
    out_folder: Annotated[
        Path | None,
        output("--out", help="Folder to write.", show_default="RUN/validation"),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    seed: Annotated[int, compute(help="Of all that is drawn at random.")] = 0,
) -> None:
    """Test a graph: ablate its paths, beside controls that could have done as much.

    Example: `sae-graphs validate outputs/copyright-c --prompt "All rights reserved. (C"`

    On prompts that had no say in the graph: `sae-graphs validate --prompts FILE --discover 0.5`
    """
    from sae_graphs.validation.settings import ValidationSettings

    settings = ValidationSettings(
        controls=controls,
        paths=paths,
        path=tuple(path or ()),  # type: ignore[arg-type]  # parsed by the settings
        target=target,
        contrast=contrast,
        curve=tuple(curve or ()),  # type: ignore[arg-type]
        snippets=snippets,
        quick=quick,
        seed=seed,
    )
    given = prompts_given(prompt, prompts)
    if discover is None and run is None:
        raise SaeGraphsError(
            "nothing to validate; give the folder of a run, such as outputs/copyright-c, or "
            "prompts and --discover 0.5"
        )
    if discover is not None and run is not None:
        raise SaeGraphsError(
            f"{run} holds a graph, and --discover {discover:g} asks for another; give one of them"
        )
    if discover is not None and not given:
        raise SaeGraphsError("no prompts to discover a graph on; give --prompts FILE")
    source = Source(model or "demo", saes, device, dtype, memory, sae_pattern)
    if intervention is not None:
        from sae_graphs.effects.intervention_kinds import parse_intervention

        parse_intervention(intervention)
    named = model is not None
    asked = Asked(run, given, discover, text, out_folder, intervention, names_model=named)
    validate_and_print(asked, settings, source)


class Asked(NamedTuple):
    """What was given on the command line, beside the model; and whether that was named."""

    run: Path | None
    prompts: tuple[str, ...]
    discover: float | None
    text: str | None
    out_folder: Path | None
    intervention: str | None
    names_model: bool


class _Found(NamedTuple):
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
        result, written = _validated(found, asked, settings, texts)
    from sae_graphs.validation.answer.records import AnswerReport

    if isinstance(result, AnswerReport):
        from sae_graphs.cli.answer_verdict_table import print_answer_report

        print_answer_report(out, result)
    else:
        from sae_graphs.cli.verdict_table import print_report

        print_report(out, result)
    print_files(out, found.folder, written)


def _validated(
    found: _Found, asked: Asked, settings: ValidationSettings, texts: Iterator[str] | None
) -> tuple[ValidationReport | AnswerReport, tuple[str, ...]]:
    """The report, and the names of the files that it was written to."""
    from sae_graphs.cli.outputs import write_validation
    from sae_graphs.runs import partial_folder
    from sae_graphs.validation.answer.partial import AnswerPartial
    from sae_graphs.validation.partial import ValidationPartial
    from sae_graphs.validation.validate import validate

    kind = ValidationPartial if found.graph.run.answer is None else AnswerPartial
    partial = kind(partial_folder(found.folder), told=_resumed)
    started = time.perf_counter()
    try:
        with progress("ablating paths and controls", unit="copies") as report:
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
                foretold=None if settings.quick is not False else _foretold,
                resume=partial,
            )
    except KeyboardInterrupt:
        if partial.n_kept:
            done = f"{partial.n_kept} of {partial.n_parts} paths"
            err.print(f"{done} are tested; run the same command again to go on from there")
        raise
    seconds = time.perf_counter() - started
    with err.status("drawing"):
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


def _saved(asked: Asked, source: Source) -> _Found:
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
    return _Found(
        model=source.load(),
        graph=graph,
        test=asked.prompts,
        discovery=None,
        folder=to_write,
    )


def _discovered(asked: Asked, part: float, settings: ValidationSettings, source: Source) -> _Found:
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
    return _Found(instrumented, found.graph, found.test, found.discovery, folder / "validation")


def prompts_given(prompt: Sequence[str] | None, file: Path | None) -> tuple[str, ...]:
    """The prompts of the options and of the file; empty ones raise `SaeGraphsError`."""
    given = tuple(prompt or ())
    for text in given:
        some_text(text)
    if file is None:
        return given
    from sae_graphs.pretrained.corpora import prompts_of

    return (*given, *prompts_of(file))
