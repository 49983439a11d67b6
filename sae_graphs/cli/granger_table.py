"""Granger tests on the terminal: the strongest pairs, both ways."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.editing.granger.records import GrangerReport
from sae_graphs.editing.granger.sentences import (
    CAUTION,
    HEAD,
    findings,
    lag_words,
    question,
    row,
    untested,
)
from sae_graphs.text import shortened, visible
from sae_graphs.words import counted

SHOWN = 20  # pairs
REASONS = 3  # why pairs could not be tested
WIDE = 110  # columns: with fewer, what features peak on is left out


def print_granger(console: Console, report: GrangerReport, *, seconds: float) -> None:
    """What was asked, the pairs, how many got each verdict, and what that does not say."""
    console.print(Text(question(report)))
    table = Table(title="partial R²: of what the own past leaves, explained by the other")
    for place, name in enumerate(HEAD):
        table.add_column(name.lower(), justify="left" if place < 3 else "right", overflow="fold")
    wide = console.width >= WIDE
    peaks = {it.name: it.meaning for it in report.series}
    for pair in report.pairs[:SHOWN]:
        cells = list(row(pair, report.settings.level))
        for place, name in enumerate((pair.source, pair.target) if wide else ()):
            said = shortened(visible(peaks.get(name, ""), space=" "), 28)
            cells[place] = f"{cells[place]} {said}".strip()
        table.add_row(*map(Text, cells))
    console.print(table)
    if len(report.pairs) > SHOWN:
        told = f"and {len(report.pairs) - SHOWN} weaker pairs, in granger.json"
        console.print(Text(told, style="dim"))
    for sentence in findings(report):
        console.print(Text(sentence, style="bold"))
    reasons = untested(report)
    for sentence in reasons[:REASONS]:
        console.print(Text(f"not tested: {sentence}", style="dim"))
    if len(reasons) > REASONS:
        told = f"and {counted(len(reasons) - REASONS, 'more reason')}, in granger.json"
        console.print(Text(told, style="dim"))
    console.print(Text(CAUTION))
    for warning in report.warnings:
        console.print(Text(f"warning: {visible(warning, space=' ')}", style="bold yellow"))
    console.print(Text(f"{lag_words(report)}; tested in {seconds:.2f} s", style="dim"))
