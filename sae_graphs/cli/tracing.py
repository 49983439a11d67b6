"""What `sae-graphs trace` does once its arguments are checked: trace, read, draw, write, print.

Nothing slow is imported before that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.cli.console import err, out, parts_kept, print_files, progress, resumable, warn
from sae_graphs.cli.drawing import told_of_another
from sae_graphs.cli.options import Source
from sae_graphs.errors import SaeGraphsError
from sae_graphs.words import said

if TYPE_CHECKING:
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.tracing.drawn import Measure
    from sae_graphs.tracing.overlay import Overlay
    from sae_graphs.tracing.records import Trace
    from sae_graphs.tracing.settings import TraceSettings

ENDING = "-trace"


class Asked(NamedTuple):
    """One prompt, what of it is corrupted, and what is asked."""

    prompt: str
    subject: str | None
    target: tuple[str, ...]
    prepend_bos: bool | None
    read: int | None = None


class Beside(NamedTuple):
    """The answer graph that is laid over a trace, and the folder of its effects, if it has them."""

    graph: CausalGraph
    effects: Path | None


def trace_one(
    asked: Asked,
    settings: Sequence[TraceSettings],
    source: Source,
    out_folder: Path | None,
    formats: Sequence[str],
    measure: Measure,
    beside: Beside | None = None,
) -> None:
    """One prompt at one strength or several, the first of which is the folder's trace."""
    from sae_graphs.runs import TRACE, check_of_one_kind, check_writable, folder_for, writing

    folder = out_folder or folder_for(
        Path("outputs"), asked.prompt, source.model, None, ending=ENDING
    )
    check_writable(folder)
    check_of_one_kind(folder, TRACE)
    told_of_another(folder, asked.prompt)
    with writing(folder):
        model = source.load_model()
        if beside is not None:
            asked = _asked_as(model, asked, beside.graph)
        started = time.perf_counter()
        traces = [_traced(model, asked, each, folder) for each in settings]
        seconds = time.perf_counter() - started
        overlay = None if beside is None else _laid_over(traces[0], beside)
        with err.status("drawing"):
            names = write_trace(folder, traces, formats, measure, seconds, source.model, overlay)
        forget_partial(folder)
    from sae_graphs.cli.trace_table import print_trace

    print_trace(out, traces, seconds=seconds, overlay=overlay)
    print_files(out, folder, names)


def _traced(model: LanguageModel, asked: Asked, settings: TraceSettings, folder: Path) -> Trace:
    from sae_graphs.runs import partial_folder
    from sae_graphs.tracing.partial import TracePartial
    from sae_graphs.tracing.trace import trace

    partial = TracePartial(partial_folder(folder), strength=settings.strength, told=_resumed)
    with (
        resumable(lambda: parts_kept(partial, "noise runs are restored")),
        progress("restoring states", unit="blocks") as report,
    ):
        return trace(
            model,
            asked.prompt,
            subject=asked.subject,
            target=asked.target or None,
            read=asked.read,
            prepend_bos=asked.prepend_bos,
            settings=settings,
            resume=partial,
            progress=report,
        )


def _resumed(done: int, runs: int) -> None:
    err.print(f"resumed: {done} of {runs} noise runs were restored before", highlight=False)


def _asked_as(model: LanguageModel, asked: Asked, graph: CausalGraph) -> Asked:
    """What the graph asks, too: its answer, read where it is, with BOS if it has one.

    Raises `SaeGraphsError` where the model reads other tokens, or is another.
    """
    from sae_graphs.tracing.overlay import check_model

    check_model(model.name, graph)
    answer = graph.run.outputs[0].token
    if asked.target not in ((), (answer,)):
        raise SaeGraphsError(
            f"the graph's answer is {said(answer)}, that asked for "
            f"{' or '.join(map(said, asked.target))}; name the same target"
        )
    asked = asked._replace(target=asked.target or (answer,), read=graph.run.read_position)
    if asked.prepend_bos is None:
        for bos in (None, False, True):
            ids = model.tokenize(asked.prompt, prepend_bos=bos)
            if len(ids) == len(graph.tokens):
                return asked._replace(prepend_bos=bos)
    return asked


def _laid_over(trace: Trace, beside: Beside) -> Overlay | None:
    """The graph laid over it; None, and a warning, where that cannot be: the trace is kept."""
    from sae_graphs.tracing.overlay import overlay_of

    try:
        return overlay_of(trace, beside.graph, effects=beside.effects, seed=trace.settings.seed)
    except SaeGraphsError as problem:
        warn(f"the graph is not laid over the trace: {problem}")
        return None


def forget_partial(folder: Path) -> None:
    """Remove the noise runs that were kept, now that the trace is in place."""
    from sae_graphs.runs import partial_folder
    from sae_graphs.tracing.partial import TracePartial

    TracePartial(partial_folder(folder)).remove()


def write_trace(
    folder: Path,
    traces: Sequence[Trace],
    formats: Sequence[str],
    measure: Measure,
    seconds: float,
    model: str,
    overlay: Overlay | None = None,
) -> tuple[str, ...]:
    """Put all files of a trace in place at once; returns their names."""
    from sae_graphs.render.document.plot import written
    from sae_graphs.runs import RECORD, made_with, replace_folder
    from sae_graphs.schema import plain
    from sae_graphs.tracing.plots import noise_levels
    from sae_graphs.tracing.record_json import FILE_NAME, to_bytes
    from sae_graphs.tracing.report import trace_files

    trace = traces[0]
    files: dict[str, bytes | Path] = {FILE_NAME: to_bytes(trace)}
    files |= trace_files(trace, formats, measure, overlay=overlay)
    for each in traces[1:]:
        files[f"trace-{each.settings.strength}.json"] = to_bytes(each)
    for kind in ("png", "svg", "pdf"):
        if len(traces) > 1 and kind in formats:
            files[f"trace-levels.{kind}"] = written(noise_levels(traces, measure), kind)
    names = (*files, RECORD)
    record: dict[str, Any] = {
        "kind": "trace",
        "prompt": trace.prompt,
        "model": model,
        "saes_given": None,
        "sae_pattern_given": None,
        "settings": plain(trace.settings),
        "seconds": round(seconds, 4),
        **made_with(),
        **({} if overlay is None else {"beside_graph": overlay.numbers}),
        "files": list(names),
    }
    files[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    replace_folder(folder, files)
    return names
