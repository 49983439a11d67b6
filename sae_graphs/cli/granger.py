"""`sae-graphs granger`: does one feature's series over tokens help to predict another's?

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_graphs.cli.console import err, out, parts_kept, print_files, progress, resumable
from sae_graphs.cli.options import (
    Device,
    Dtype,
    Memory,
    Model,
    Out,
    SaePattern,
    Saes,
    Source,
    basics,
    compute,
    formats_of,
    is_given,
    measured,
    output,
)
from sae_graphs.errors import SaeGraphsError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sae_graphs.editing.granger.records import GrangerReport
    from sae_graphs.editing.granger.settings import GrangerSettings
    from sae_graphs.graph.graph import CausalGraph

ENDING = "-granger"


class DetrendOption(StrEnum):
    """What is taken out of each text."""

    linear = "linear"
    constant = "constant"


class RegressionOption(StrEnum):
    """How the past is regressed on."""

    linear = "linear"
    nonlinear = "nonlinear"


def granger(
    context: typer.Context,
    source: Annotated[
        list[str] | None,
        basics(
            metavar="<series>",
            help="A series that may predict: 2.232, projection:2.232, attended:2.232, norm:2. "
            "Repeatable: each is set beside each target, both ways.",
            show_default="features most often on",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        basics(
            metavar="<series>", help="One that may be predicted. Repeatable.", show_default=False
        ),
    ] = None,
    graph: Annotated[
        Path | None,
        basics(
            "--graph",
            help="Folder of a saved graph, in place of both: the ends of its edges.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        basics(
            metavar="FILE|DIR",
            help="Texts to read: one a line, a JSON list, or a folder of text files.",
            show_default="the bundled model's own; else bundled English text",
        ),
    ] = None,
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    features: Annotated[
        int,
        measured(help="Of each layer, the features most often on, where no series is named."),
    ] = 4,
    lag: Annotated[
        int | None,
        measured(help="Tokens back that a past reaches.", show_default="by BIC, once for all"),
    ] = None,
    max_lag: Annotated[int, measured(help="The largest lag that BIC may choose.")] = 5,
    same_token: Annotated[
        bool,
        measured(
            "--same-token/--no-same-token",
            help="Lag 0, too, where a source stands in an earlier layer than its target.",
        ),
    ] = True,
    test: Annotated[
        RegressionOption,
        measured(
            "--test",
            metavar="<kind>",
            help="`linear` regression, or `nonlinear` by random Fourier features.",
        ),
    ] = RegressionOption.linear,
    detrend: Annotated[
        DetrendOption,
        measured(
            "--detrend",
            metavar="<kind>",
            help="Taken out of each text: its mean and slope over tokens (`linear`), or its mean.",
        ),
    ] = DetrendOption.linear,
    given: Annotated[
        list[str] | None,
        measured(
            metavar="<series>",
            help="A further series whose past both models have. Repeatable.",
            show_default=False,
        ),
    ] = None,
    multivariate: Annotated[
        bool,
        measured("--multivariate", help="Give each pair all other series: one autoregression."),
    ] = False,
    permutations: Annotated[int, measured(help="Permutations of texts that calibrate p.")] = 999,
    level: Annotated[float, measured(help="The q at which a verdict is given.")] = 0.05,
    least_on: Annotated[
        int, measured(help="Tokens at which a feature must be on to be tested.")
    ] = 30,
    length: Annotated[int, measured(help="Tokens read of each text.")] = 128,
    together: Annotated[
        int, measured(help="Texts of nearly one length that are permuted with each other.")
    ] = 24,
    out_folder: Out = None,
    formats: Annotated[
        str, output(help="What to write beside granger.json: png, svg, pdf, html, md, json.")
    ] = "png,svg,html",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    seed: Annotated[int, compute(help="Of permutations, and of random Fourier features.")] = 0,
) -> None:
    """Test whether one series over tokens helps to predict another, over many texts, both ways.

    Prediction, not effect: what an ablation does is drawn by `sae-graphs graph`.

    Example: `sae-graphs granger --source 2.232 --target 3.734`

    The edges of a saved graph: `sae-graphs granger --graph outputs/mary`
    """
    from sae_graphs.editing.granger.records import SeriesName
    from sae_graphs.editing.granger.settings import GrangerSettings
    from sae_graphs.editing.granger.texts import texts_in

    kinds = formats_of(formats, ("png", "svg", "pdf", "html", "md", "json"))
    settings = GrangerSettings(
        features=features,
        lag=lag,
        max_lag=max_lag,
        same_token=same_token,
        detrend=detrend.value,
        test=test.value,
        given=tuple(given or ()),
        multivariate=multivariate,
        permutations=permutations,
        level=level,
        least_on=least_on,
        length=length,
        together=together,
        seed=seed,
    )
    for name in (*(source or ()), *(target or ()), *settings.given):
        SeriesName.parse(name)
    _check_ends(source, target, graph)
    drawn = _graph(graph)
    if texts is not None:
        texts_in(texts)
    place = Source(model, saes, device, dtype, memory, sae_pattern)
    if graph is not None and drawn is not None and not is_given(context, "model"):
        place = _of_graph(place, graph, drawn)
    _test(place, settings, (source, target), drawn, texts, out_folder, kinds)


def _of_graph(place: Source, folder: Path, graph: CausalGraph) -> Source:
    """The model that the graph was made of."""
    from sae_graphs.runs import record_of, run_folder

    place = place._replace(model=graph.run.model)
    if place.saes is None and place.sae_pattern is None:
        record = record_of(run_folder(folder)) or {}
        given, pattern = record.get("saes_given"), record.get("sae_pattern_given")
        place = place._replace(saes=given, sae_pattern=pattern)
    return place


def _check_ends(source: list[str] | None, target: list[str] | None, graph: Path | None) -> None:
    if graph is not None and (source or target):
        raise SaeGraphsError(
            "--graph names its own pairs; give that, or --source and --target, not both"
        )
    if bool(source) != bool(target):
        alone, other = ("--source", "--target") if source else ("--target", "--source")
        raise SaeGraphsError(f"{alone} alone; give {other}, too, such as {other} 3.734")


def _graph(folder: Path | None) -> CausalGraph | None:
    """The saved graph; raises where none of its edges joins two features."""
    if folder is None:
        return None
    from sae_graphs.graph.graph import CausalGraph

    graph = CausalGraph.load(folder)
    if not any(edge.source.is_feature and edge.target.is_feature for edge in graph.edges):
        raise SaeGraphsError(f"no edge of the graph in {folder} joins two features; give another")
    return graph


def _test(
    place: Source,
    settings: GrangerSettings,
    ends: tuple[list[str] | None, list[str] | None],
    graph: CausalGraph | None,
    texts: Path | None,
    out_folder: Path | None,
    formats: Sequence[str],
) -> None:
    """Load, test, write, print."""
    from sae_graphs.editing.granger.partial import TOGETHER, PairsPartial
    from sae_graphs.runs import (
        GRANGER,
        check_of_one_kind,
        check_writable,
        folder_for,
        partial_folder,
        writing,
    )

    about = _about(ends, graph)
    folder = out_folder or folder_for(
        Path("outputs"), about, place.model, place.saes, place.sae_pattern, ending=ENDING
    )
    check_writable(folder)
    check_of_one_kind(folder, GRANGER)
    with writing(folder):
        model = place.load()
        from sae_graphs.editing.granger.granger import granger as tested

        started, partial = time.perf_counter(), PairsPartial(partial_folder(folder), told=_resumed)
        with (
            resumable(lambda: parts_kept(partial, f"stretches of {TOGETHER} pairs are tested")),
            progress("reading texts", unit="") as told,
        ):
            report = tested(
                model,
                *ends,
                graph=graph,
                texts=texts,
                settings=settings,
                resume=partial,
                progress=told,
            )
        seconds = time.perf_counter() - started
        with err.status("drawing"):
            names = _write(folder, report, about, place, formats)
        partial.remove()
    from sae_graphs.cli.granger_table import print_granger

    print_granger(out, report, seconds=seconds)
    print_files(out, folder, names)


def _resumed(done: int, parts: int) -> None:
    err.print(f"resumed: {done} of {parts} stretches of pairs were tested before", highlight=False)


def _about(ends: tuple[list[str] | None, list[str] | None], graph: CausalGraph | None) -> str:
    """What the folder is called after."""
    if graph is not None:
        return graph.prompt
    sources, targets = (quoted(names or (), 2) for names in ends)
    return f"{sources} to {targets}" if sources else "most often on"


def _write(
    folder: Path, report: GrangerReport, about: str, place: Source, formats: Sequence[str]
) -> tuple[str, ...]:
    """Put all files in place at once; returns their names."""
    from sae_graphs.editing.granger.records import FILE_NAME, to_bytes
    from sae_graphs.editing.granger.report import granger_files
    from sae_graphs.runs import RECORD, made_with, replace_folder
    from sae_graphs.schema import plain

    files: dict[str, bytes | Path] = {FILE_NAME: to_bytes(report)}
    files |= granger_files(report, formats)
    names = (*files, RECORD)
    record: dict[str, Any] = {
        "kind": "granger",
        "prompt": about,
        "model": place.model,
        "saes_given": place.saes,
        "sae_pattern_given": place.sae_pattern,
        "settings": plain(report.settings),
        **made_with(),
        "files": list(names),
    }
    files[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    replace_folder(folder, files)
    return names
