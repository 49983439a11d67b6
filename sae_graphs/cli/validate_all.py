"""`sae-graphs validate --all DIR`: every saved run that has no verdict yet, then one table of all.

Nothing slow is imported before it is known that something is to be validated.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sae_graphs.cli.console import err, out, progress, resumable
from sae_graphs.cli.options import Source
from sae_graphs.cli.verdicts_table import Found, print_verdicts
from sae_graphs.errors import SaeGraphsError
from sae_graphs.words import counted

if TYPE_CHECKING:
    from sae_graphs.gallery.runs import Run
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.validation.answer.records import AnswerReport
    from sae_graphs.validation.evidence import ValidationReport
    from sae_graphs.validation.settings import ValidationSettings

JSON, CSV = "verdicts.json", "verdicts.csv"
SCHEMA = "sae_graphs/verdicts/1"


class _Todo(NamedTuple):
    """A run to validate: its graph, and the model that made it, not yet loaded."""

    run: Run
    graph: CausalGraph
    source: Source


def check_alone(given: Mapping[str, object]) -> None:
    """Fail where an option is given that is about one run alone."""
    unfit = [name for name, value in given.items() if value not in (None, [], ())]
    if unfit:
        raise SaeGraphsError(
            f"--all validates every run as it was made, and {unfit[0]} is for one alone; leave out "
            "one of the two"
        )


def validate_all(
    folder: Path, settings: ValidationSettings, device: str, dtype: str, memory: str | None
) -> int:
    """Validate what has no report yet, print and write the table; the exit code.

    A report that is there is never replaced, however it was made: the table says with how many
    controls. A run that fails is listed with its reason. What is done stays done: the same command
    again goes on from there. Raises `SaeGraphsError` where the folder holds no run.
    """
    from sae_graphs.gallery.runs import runs_in

    if not folder.is_dir():
        raise SaeGraphsError(f"{folder} is no folder; give one that holds runs, such as outputs")
    runs = {name: run for name, run in runs_in(folder).items() if run.is_graph}
    if not runs:
        raise SaeGraphsError(f"{folder} holds no runs; give a folder of runs, such as outputs")
    found: dict[str, Found] = {}
    todo: list[_Todo] = []
    for name, run in runs.items():
        each = _before(run, Source("", None, device, dtype, memory, None))
        if isinstance(each, Found):
            found[name] = each
        else:
            todo.append(each)
    todo.sort(key=lambda each: (each.source.model, str(each.source.saes), each.run.name))
    if done := _reports(found):
        err.print(f"{counted(done, 'run')} validated before", highlight=False)
    with resumable(lambda: f"{_reports(found)} of {len(runs)} runs are validated"):
        _validated(todo, settings, found)
    ordered = [found[name] for name in runs]
    _write(folder, ordered, settings)
    print_verdicts(out, ordered)
    out.print(f"wrote {folder / CSV} and {folder / JSON}", highlight=False, soft_wrap=True)
    return int(any(each.failed is not None for each in ordered))


# -- what is to be done ----------------------------------------------------------------------------


def _reports(found: Mapping[str, Found]) -> int:
    """How many runs have a report."""
    return sum(each.report is not None for each in found.values())


def _before(run: Run, plain: Source) -> Found | _Todo:
    """The report that a run has already, else what it takes to make one."""
    from sae_graphs.gallery.runs import graph_of, report_of, saes_given

    try:
        graph = graph_of(run)
        if not graph.edges:
            raise SaeGraphsError("the graph has no edges, so there is nothing to validate")
    except SaeGraphsError as problem:
        return Found(run.name, failed=str(problem))
    report, _ = report_of(run, graph)
    if report is not None:
        return Found(run.name, report)
    given, pattern = saes_given(run)
    source = plain._replace(model=graph.run.model, saes=given, sae_pattern=pattern)
    return _Todo(run, graph, source)


# -- one after another -----------------------------------------------------------------------------


def _validated(
    todo: Sequence[_Todo], settings: ValidationSettings, found: dict[str, Found]
) -> None:
    """Each of them, into `found` by name; runs of one model follow each other, and share it."""
    loaded: tuple[Source, InstrumentedModel] | None = None
    with progress("validating", unit="runs") as report:
        for place, each in enumerate(todo):
            report(place, len(todo))

            def told(done: int, total: int, place: int = place) -> None:
                report(place + min(done / total, 0.99) if total else place, len(todo))

            name = each.run.name
            try:
                if loaded is None or loaded[0] != each.source:
                    loaded = None  # before the next is in memory
                    loaded = each.source, each.source.load()
                found[name] = Found(name, _one(each, loaded[1], settings, told))
            except Exception as problem:  # whatever it is, the other runs are not to blame
                found[name] = Found(name, failed=_in_a_line(problem, each.run))
            report(place + 1, len(todo))


def _one(
    each: _Todo,
    model: InstrumentedModel,
    settings: ValidationSettings,
    told: Callable[[int, int], None],
) -> ValidationReport | AnswerReport:
    """One run validated, and its report written."""
    from sae_graphs.cli.validating import Asked, Target, tested
    from sae_graphs.runs import VALIDATION, check_writable, writing

    folder = each.run.folder / VALIDATION
    check_writable(folder)
    asked = Asked(each.run.folder, (), None, None, None, None, names_model=False)
    with writing(folder):
        report, _ = tested(Target(model, each.graph, (), None, folder), asked, settings, None, told)
    return report


def _in_a_line(problem: Exception, run: Run) -> str:
    from sae_graphs.gallery.runs import brief

    words = " ".join(brief(problem, run).split())
    return words if isinstance(problem, SaeGraphsError) else f"{type(problem).__name__}: {words}"


# -- the table, in files ---------------------------------------------------------------------------


def _write(folder: Path, found: Sequence[Found], settings: ValidationSettings) -> None:
    """The rows of `sg.verdicts`, with the run that each is of; and the runs that failed."""
    from sae_graphs.files import write_atomically
    from sae_graphs.text import encodable
    from sae_graphs.validation.report.tables import verdict_rows

    rows = [
        {"run": each.name, **row}
        for each in found
        if each.report is not None
        for row in verdict_rows([each.report])
    ]
    failed = {each.name: each.failed for each in found if each.failed is not None}
    data = {"schema": SCHEMA, "settings": settings.to_json(), "rows": rows, "failed": failed}
    text = io.StringIO()
    names = list(rows[0]) if rows else ["run"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: encodable(v) if isinstance(v, str) else v for k, v in row.items()})
    try:
        write_atomically(folder / JSON, (json.dumps(data, indent=1) + "\n").encode("ascii"))
        write_atomically(folder / CSV, text.getvalue().encode())
    except OSError as problem:
        raise SaeGraphsError(
            f"cannot write into {folder}: {problem.strerror or problem}; make room, and run the "
            "same command again"
        ) from problem
