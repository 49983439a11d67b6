"""What `sae-graphs validate` prints of an answer graph: a table, then two sentences a unit."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sae_graphs.text import visible
from sae_graphs.validation.answer.outcomes import sentences
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit
from sae_graphs.validation.answer.rows import (
    active_features,
    of_verdict,
    worst_equal_norm,
    yes_or_no,
)
from sae_graphs.validation.answer.strips import contribution_of
from sae_graphs.validation.judging import CONTRIBUTION, CONTROLS_TOLD, SIGNS
from sae_graphs.words import NONE, amount, nats, p_value, probability, said, share, target_said

_MEANING = (
    f"Contribution, in nats: {CONTRIBUTION}. {CONTROLS_TOLD} q: against matched controls, "
    "corrected for all units; equal norm: the larger p of these nulls. Supported: necessary and, "
    "of a path, mediates."
)
WIDE = 86  # columns: with fewer, those of the table stand closer
_WHERE = " It holds in this prompt alone."


def print_answer_report(console: Console, report: AnswerReport) -> None:
    """The table, which fits 80 columns, then two sentences for each unit."""
    what = "log-odds" if report.contrast is None else "logit difference"
    target = target_said(report.target, report.contrast)
    clean = f"{amount(report.clean.nats)} nats, {probability(report.clean.probability)}"
    console.print(Text(f"{what} of {target}: {clean}", style="bold"))
    console.print(_table(report, console.width), "", sep="\n")
    for unit in report.units:
        members = f" ({' → '.join(map(str, unit.features))})" if unit.kind == "path" else ""
        told = f"{visible(unit.name, space=' ')}{members}: {unit.verdict}"
        console.print(Text(told, style="bold"))
        for words in sentences(unit, report):
            console.print(Padding(Text(visible(words, space=" ")), (0, 0, 0, 2)))
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
            console.print(_table(test, console.width), "", sep="\n")


def _table(report: AnswerReport, width: int) -> Table:
    gap = int(width >= WIDE)
    table = Table(box=SIMPLE_HEAD, padding=(0, gap, 0, 0), show_edge=False)
    for name in ("unit", "features", "contribution", "q", "equal norm", "necessary"):
        words = name in ("unit", "necessary")
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for name in ("sufficient", "mediates"):
        table.add_column(name, overflow="fold")
    for unit in report.units:
        table.add_row(*_cells(unit, report))
    return table


def _cells(unit: AnswerUnit, report: AnswerReport) -> list[Text]:
    is_graph = unit.kind == "graph"
    part = unit.flow.share if unit.flow else report.left(unit)
    second = unit.sufficient if is_graph else unit.mediates
    own = Text(f"{SIGNS[second]} {share(part)}", style=_style(second))
    other = Text(NONE, style="dim")
    named = f"{SIGNS[of_verdict(unit)]} {visible(unit.name, space=' ')}"
    return [
        Text(named, style=_style(of_verdict(unit))),
        Text(active_features(unit)),
        Text(nats(contribution_of(unit, report))),
        Text(p_value(unit.outcome.q)),
        Text(p_value(worst_equal_norm(unit))),
        Text(yes_or_no(unit.necessary, asked=True), style=_style(unit.necessary)),
        *((own, other) if is_graph else (other, own)),
    ]


def _style(outcome: bool | None) -> str:
    return "bold green" if outcome else "dim" if outcome is None else ""
