"""`sae-graphs trace --cases FILE`: many prompts one after another, then one page of all.

Nothing slow is imported before the file has been read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_graphs._version import __version__
from sae_graphs.cli.console import err, out, parts_kept, print_files, progress, resumable
from sae_graphs.cli.options import Source
from sae_graphs.errors import CannotSplitError, SaeGraphsError
from sae_graphs.words import counted

if TYPE_CHECKING:
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.model.run import Run
    from sae_graphs.tracing.cases_file import Case, Looked
    from sae_graphs.tracing.last_token import FirstToken
    from sae_graphs.tracing.many import LeftOut, TracedCase
    from sae_graphs.tracing.records import Trace
    from sae_graphs.tracing.settings import TraceSettings


def trace_many(
    file: str,
    settings: Sequence[TraceSettings],
    source: Source,
    out_folder: Path | None,
    formats: Sequence[str],
    prepend_bos: bool | None,
) -> None:
    """Read the cases, trace those that pass the filters, write, print.

    The first settings are those of the traces; others say how far strengths move them.
    """
    from sae_graphs.runs import (
        TRACES,
        check_of_one_kind,
        check_writable,
        partial_folder,
        slug_of,
        writing,
    )
    from sae_graphs.tracing.cases_file import read_cases
    from sae_graphs.tracing.many import CasesPartial, gathered

    cases = read_cases(file)
    stem = Path(file).stem
    name = slug_of(stem, "demo" if stem == source.model else source.model)
    folder = out_folder or Path("outputs") / f"{name}-traces"
    check_writable(folder)
    check_of_one_kind(folder, TRACES)
    with writing(folder):
        model = source.load_model()
        partial = CasesPartial(partial_folder(folder), told=_resumed)
        facts = {
            "sae_graphs": __version__,
            "device": source.device,
            "dtype": source.dtype,
            "cases": [[it.prompt, it.subject, it.category, it.target] for it in cases],
            "settings": repr(list(settings)),
            "prepend_bos": prepend_bos,
        }
        partial.begin(lambda: _key(model, facts), range(len(cases)))
        started = time.perf_counter()
        with resumable(lambda: parts_kept(partial, "prompts are done")):
            found = _all(model, cases, settings, prepend_bos, partial)
            long = _first_token(model, cases, prepend_bos)
        seconds = time.perf_counter() - started
        shown = {
            **{name: value for name, value in vars(settings[0]).items() if value is not None},
            "strength": tuple(each.strength for each in settings),
            "cases": Path(file).name,
        }
        traces = gathered(
            found,
            model=source.model,
            n_layers=len(model.model.blocks),
            settings={name: _plain(value) for name, value in shown.items()},
            seed=settings[0].seed,
            first_token=long,
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
    settings: Sequence[TraceSettings],
    prepend_bos: bool | None,
    partial: Any,
) -> list[TracedCase | LeftOut]:
    from sae_graphs.tracing.many import trace_cases

    tracer = _Tracer(model, settings, prepend_bos)
    with progress("tracing", unit="prompts") as report:
        return trace_cases(
            cases, tracer.look, tracer.trace, more=tracer.more, partial=partial, progress=report
        )


class _Tracer:
    """Everything that is asked of a case, from one clean run of it."""

    def __init__(
        self, model: LanguageModel, settings: Sequence[TraceSettings], prepend_bos: bool | None
    ) -> None:
        self.model, self.settings, self.prepend_bos = model, settings, prepend_bos
        self._held: tuple[Case, Run] | None = None

    def look(self, case: Case) -> Looked:
        from sae_graphs.tracing.subject import looked_at

        return looked_at(self.model, case, self._run(case))

    def trace(self, case: Case) -> Trace:
        return self._trace(case, self.settings[0])

    def more(self, traced: TracedCase) -> TracedCase:
        """The other strengths, where they take something, and what the read token looks at."""
        from sae_graphs.tracing.attention import last_token
        from sae_graphs.tracing.many import check_taken, two_rows

        others = {}
        for each in self.settings[1:]:
            with suppress(SaeGraphsError):
                found = self._trace(traced.case, each)
                check_taken(found)
                others[each.strength] = two_rows(found, "state")
        seen = None
        with suppress(CannotSplitError):
            seen = last_token(self.model, self._run(traced.case), traced.at, traced.read)
        return replace(traced, others=others, last_token=seen)

    def _trace(self, case: Case, settings: TraceSettings) -> Trace:
        from sae_graphs.tracing.trace import trace_ends

        return trace_ends(self.model, self._run(case), subject=case.subject, settings=settings)

    def _run(self, case: Case) -> Run:
        if self._held is None or self._held[0] is not case:
            self._held = case, self.model.run(case.prompt, prepend_bos=self.prepend_bos)
        return self._held[1]


def _first_token(
    model: LanguageModel, cases: Sequence[Case], prepend_bos: bool | None
) -> FirstToken | None:
    """Of the prompts as one text; None where the model reads none, or shows no attention."""
    from sae_graphs.tracing.attention import first_token, long_text

    texts = [case.prompt for case in cases]
    try:
        return first_token(model, long_text(model, texts, prepend_bos=prepend_bos))
    except SaeGraphsError:
        return None


def _resumed(done: int, cases: int) -> None:
    err.print(f"resumed: {done} of {cases} prompts were done before", highlight=False)


def _plain(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _write(folder: Path, traces: Any, formats: Sequence[str], seconds: float) -> tuple[str, ...]:
    from sae_graphs.runs import RECORD, made_with, replace_folder
    from sae_graphs.schema import record_bytes
    from sae_graphs.tracing.many import FILE_NAME
    from sae_graphs.tracing.many_report import many_files

    files: dict[str, bytes | Path] = {FILE_NAME: record_bytes(traces)}
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
