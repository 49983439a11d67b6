"""What `sae-graphs trace` does once its arguments are checked: trace, read, draw, write, print.

Nothing slow is imported before that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.cli.console import err, out, print_files, progress
from sae_graphs.cli.options import Source, fetching_under
from sae_graphs.errors import SaeGraphsError
from sae_graphs.late import quick_imports

if TYPE_CHECKING:
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.tracing.drawn import Measure
    from sae_graphs.tracing.records import Trace
    from sae_graphs.tracing.settings import TraceSettings

ENDING = "-trace"


class Asked(NamedTuple):
    """One prompt, what of it is corrupted, and what is asked."""

    prompt: str
    subject: str | None
    target: tuple[str, ...]
    prepend_bos: bool | None


def trace_one(
    asked: Asked,
    settings: Sequence[TraceSettings],
    source: Source,
    out_folder: Path | None,
    formats: Sequence[str],
    measure: Measure,
) -> None:
    """One prompt at one strength or several, the first of which is the folder's trace."""
    from sae_graphs.runs import check_writable, folder_for, writing

    folder = out_folder or folder_for(
        Path("outputs"), asked.prompt, source.model, None, ending=ENDING
    )
    check_writable(folder)
    check_holds_no_graph(folder)
    with writing(folder):
        model = loaded(source)
        started = time.perf_counter()
        traces = [_traced(model, asked, each, folder) for each in settings]
        seconds = time.perf_counter() - started
        with err.status("drawing"):
            names = write_trace(folder, traces, formats, measure, seconds, source.model)
        forget_partial(folder)
    from sae_graphs.cli.trace_table import print_trace

    print_trace(out, traces, seconds=seconds)
    print_files(out, folder, names)


def check_holds_no_graph(folder: Path) -> None:
    """Fail where a graph lies in the folder, which a trace would replace."""
    from sae_graphs.runs import GRAPH

    if (folder / GRAPH).is_file():
        raise SaeGraphsError(
            f"{folder} holds a graph, which the trace would replace; give another folder with --out"
        )


def loaded(source: Source) -> LanguageModel:
    """The model alone; torch is imported here."""
    with err.status(f"loading {source.model}") as status:
        with quick_imports():
            from sae_graphs.pretrained.loading import load_model

        return load_model(
            source.model,
            device=source.device,
            dtype=source.dtype,
            memory=source.memory,
            fetching=fetching_under(status),
        )


def bos_of(model: LanguageModel, given: bool | None) -> bool | None:
    """Whether BOS comes first, where it was not said: the bundled model has never been without."""
    from sae_graphs.pretrained.loading import BUNDLED

    return True if given is None and model.name == BUNDLED else given


def _traced(model: LanguageModel, asked: Asked, settings: TraceSettings, folder: Path) -> Trace:
    from sae_graphs.runs import partial_folder
    from sae_graphs.tracing.trace import trace

    with progress("restoring states", unit="blocks") as report:
        return trace(
            model,
            asked.prompt,
            subject=asked.subject,
            target=asked.target or None,
            prepend_bos=bos_of(model, asked.prepend_bos),
            settings=settings,
            resume=partial_folder(folder),
            progress=report,
        )


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
    files |= trace_files(trace, formats, measure)
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
        "files": list(names),
    }
    files[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    replace_folder(folder, files)
    return names
