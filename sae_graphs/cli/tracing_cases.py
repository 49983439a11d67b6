"""`sae-graphs trace --cases FILE`: many prompts one after another, then one page of all.

Nothing slow is imported before the file has been read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_graphs.cli.console import err, out, print_files, progress
from sae_graphs.cli.options import Source
from sae_graphs.cli.tracing import bos_of, check_holds_no_graph, loaded
from sae_graphs.errors import SaeGraphsError
from sae_graphs.words import counted

if TYPE_CHECKING:
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.tracing.cases_file import Case, Looked
    from sae_graphs.tracing.many import LeftOut, TracedCase
    from sae_graphs.tracing.records import Trace
    from sae_graphs.tracing.settings import TraceSettings


def trace_many(
    file: str,
    settings: TraceSettings,
    source: Source,
    out_folder: Path | None,
    formats: Sequence[str],
    prepend_bos: bool | None,
) -> None:
    """Read the cases, trace those that pass the filters, write, print."""
    from sae_graphs.runs import check_writable, partial_folder, slug_of, writing
    from sae_graphs.tracing.cases_file import read_cases
    from sae_graphs.tracing.many import CasesPartial, gathered

    cases = read_cases(file)
    stem = Path(file).stem
    name = slug_of(stem, "demo" if stem == source.model else source.model)
    folder = out_folder or Path("outputs") / f"{name}-traces"
    check_writable(folder)
    check_holds_no_graph(folder)
    with writing(folder):
        model = loaded(source)
        partial = CasesPartial(partial_folder(folder), told=_resumed)
        facts = {
            "cases": [[it.prompt, it.subject, it.category, it.target] for it in cases],
            "settings": repr(settings),
            "prepend_bos": prepend_bos,
        }
        partial.begin(lambda: _key(model, facts), range(len(cases)))
        started = time.perf_counter()
        try:
            found = _all(model, cases, settings, bos_of(model, prepend_bos), partial)
        except KeyboardInterrupt:
            if partial.n_kept:
                told = f"{partial.n_kept} of {partial.n_parts} prompts"
                err.print(f"{told} are done; run the same command again to go on from there")
            raise
        seconds = time.perf_counter() - started
        shown = {
            **{name: value for name, value in vars(settings).items() if value is not None},
            "cases": Path(file).name,
        }
        traces = gathered(
            found,
            model=source.model,
            n_layers=len(model.model.blocks),
            settings={name: _plain(value) for name, value in shown.items()},
            seed=settings.seed,
        )
        with err.status("drawing"):
            names = _write(folder, traces, formats, seconds)
        partial.remove()
    from sae_graphs.cli.trace_table import print_traces

    print_traces(out, traces, seconds=seconds)
    print_files(out, folder, names)


def _key(model: LanguageModel, facts: dict[str, Any]) -> str:
    from sae_graphs.checkpoint import run_key

    return run_key(facts, model.model.named_parameters())


def _all(
    model: LanguageModel,
    cases: Sequence[Case],
    settings: TraceSettings,
    prepend_bos: bool | None,
    partial: Any,
) -> list[TracedCase | LeftOut]:
    from sae_graphs.tracing.many import trace_cases
    from sae_graphs.tracing.trace import trace_ends

    def traced(case: Case) -> Trace:
        return trace_ends(
            model, case.prompt, subject=case.subject, settings=settings, prepend_bos=prepend_bos
        )

    with progress("tracing", unit="prompts") as report:
        return trace_cases(
            cases,
            lambda case: looked_at(model, case, prepend_bos),
            traced,
            partial=partial,
            progress=report,
        )


def looked_at(model: LanguageModel, case: Case, prepend_bos: bool | None) -> Looked:
    """One clean run of a case's prompt; raises `SaeGraphsError` where its subject is not found."""
    from sae_graphs.tracing.cases_file import Looked
    from sae_graphs.tracing.subject import find_subject

    run = model.run(case.prompt, prepend_bos=prepend_bos)
    read = len(run) - 1
    if read < 1:
        raise SaeGraphsError("the prompt is one token, in which nothing is handed on")
    subject = find_subject(model, run.token_ids, case.subject, read).positions
    chances = run.logits[read].double().softmax(-1)
    top = int(chances.argmax())
    return Looked(run.tokens, subject, read, model.token_string(top), float(chances[top]))


def _resumed(done: int, cases: int) -> None:
    err.print(f"resumed: {done} of {cases} prompts were done before", highlight=False)


def _plain(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _write(folder: Path, traces: Any, formats: Sequence[str], seconds: float) -> tuple[str, ...]:
    from sae_graphs.runs import RECORD, made_with, replace_folder
    from sae_graphs.tracing.many import FILE_NAME, to_bytes
    from sae_graphs.tracing.many_report import many_files

    files: dict[str, bytes | Path] = {FILE_NAME: to_bytes(traces)}
    files |= many_files(traces, formats)
    names = (*files, RECORD)
    record = {
        "kind": "traces",
        "prompt": f"{counted(len(traces.traced), 'prompt')} of {traces.settings['cases']}",
        "model": traces.model,
        "settings": dict(traces.settings),
        "seconds": round(seconds, 4),
        **made_with(),
        "files": list(names),
    }
    files[RECORD] = (json.dumps(record, indent=1) + "\n").encode()
    replace_folder(folder, files)
    return names
