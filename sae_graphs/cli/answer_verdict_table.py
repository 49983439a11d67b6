"""What `sae-graphs validate` prints of an answer graph: a table, then each unit in words."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.text import visible
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit
from sae_graphs.validation.answer.report import active_features, worst_equal_norm, yes_or_no
from sae_graphs.words import amount, p_value, probability, said, share, target_said

_MEANING = (
    "q: against matched sets, corrected for all units; equal norm: the larger p of matched sets "
    "scaled to its norm, and of random directions. Supported: necessary and, of a path, mediates."
)
_WHERE = " Found in this prompt alone."


def print_answer_report(console: Console, report: AnswerReport) -> None:
    """The table, which fits 80 columns, then at most two sentences for each unit."""
    what = "log-odds" if report.contrast is None else "logit difference"
    target = target_said(report.target, report.contrast)
    clean = f"{amount(report.clean.nats)} nats, {probability(report.clean.probability)}"
    console.print(Text(f"{what} of {target}: {clean}", style="bold"))
    console.print(_table(report), "", sep="\n")
    for unit in report.units:
        members = f" ({' → '.join(map(str, unit.features))})" if unit.kind == "path" else ""
        mark = "✓ " if unit.supported else ""
        line = Text(f"{mark}{visible(unit.name, space=' ')}{members}: ", style="bold")
        console.print(line + Text(visible(unit.words, space=" "), style=""))
    _print_others(console, report)
    for warning in report.warnings:
        console.print(Text(f"warning: {visible(warning, space=' ')}", style="bold yellow"))
    console.print(Text(_MEANING + ("" if report.tests else _WHERE), style="dim"))


def _print_others(console: Console, report: AnswerReport) -> None:
    """A small table for each further prompt, below how it is aligned."""
    if report.tests:
        console.print("", Text("in other prompts", style="bold"), sep="\n")
    for test in report.tests:
        answer = f"{target_said(test.target, test.contrast)}, {amount(test.clean.nats)} nats"
        line = f"{said(test.prompt)}: {answer}; {test.aligned}"
        console.print(Text(visible(line, space=" ")))
        if test.units:
            console.print(_table(test), "", sep="\n")


def _table(report: AnswerReport) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("unit", "features", "after", "q", "equal norm", "necessary", "sufficient"):
        words = name in ("unit", "necessary", "sufficient")
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    table.add_column("mediates", overflow="fold")
    for unit in report.units:
        table.add_row(*_cells(unit, report))
    return table


def _cells(unit: AnswerUnit, report: AnswerReport) -> list[Text]:
    is_graph = unit.kind == "graph"
    part = unit.flow.share if unit.flow else report.left(unit)
    second = unit.sufficient if is_graph else unit.mediates
    told = [yes_or_no(second, asked=True), share(part)]
    own, other = Text(", ".join(told), style=_style(second)), Text("–", style="dim")
    return [
        Text(visible(unit.name, space=" ")),
        Text(active_features(unit)),
        Text(amount(unit.ablated.nats)),
        Text(p_value(unit.outcome.q)),
        Text(p_value(worst_equal_norm(unit))),
        Text(yes_or_no(unit.necessary, asked=True), style=_style(unit.necessary)),
        *((own, other) if is_graph else (other, own)),
    ]


def _style(outcome: bool | None) -> str:
    return "bold green" if outcome else "dim" if outcome is None else ""
