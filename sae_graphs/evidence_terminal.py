"""What `sae-graphs validate` prints: a table of all units, then the verdicts in sentences."""

from __future__ import annotations

from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.evidence import UnitReport, ValidationReport
from sae_graphs.evidence_words import (
    NONE,
    nats,
    norm,
    p_value,
    points,
    probability,
    target_said,
    times,
)
from sae_graphs.render.text import counted, visible
from sae_graphs.verdicts import Verdict, VerdictKind, deciding, pooled, verdict

WIDE, NARROW = 100, 72  # columns: with fewer, what the sentences say too is left out
PATHS = 3  # so many supported paths are told in sentences
_STYLES: dict[VerdictKind, str] = {"supported": "bold green", "norm only": "yellow"}
_FIRST = "unit"
_CLEAN = "before → after"
_WIDE_ONLY = ("features", "q", "norm")


def print_report(console: Console, report: ValidationReport) -> None:
    """The table, then a sentence for each component and for the strongest supported paths."""
    judged = [(unit, verdict(unit, report)) for unit in report.units]
    target = target_said(report.target, report.contrast)
    n_prompts = max((len(deciding(unit)) for unit in report.units), default=0)
    role = "test" if report.test else "discovery"
    console.print(Text(f"target {target}; {counted(n_prompts, f'{role} prompt')} decide", "bold"))
    console.print(_table(report, judged, console.width))
    for unit, found in _told(judged):
        line = Text(f"{visible(unit.name, space=' ')}: ", style="bold")
        console.print(line + Text(visible(found.words, space=" "), style=""))
    for warning in report.warnings:
        console.print(Text(f"warning: {visible(warning, space=' ')}", style="bold yellow"))
    console.print(Text(_meaning(report), style="dim"))


def _told(judged: list[tuple[UnitReport, Verdict]]) -> list[tuple[UnitReport, Verdict]]:
    """All components, and the supported paths with the largest changes."""
    components = [each for each in judged if each[0].kind == "component"]
    paths = [each for each in judged if each[0].kind == "path" and each[1].supported]
    paths.sort(key=lambda each: -abs(_mean_change(each[0])))
    return components + paths[:PATHS]


def _table(report: ValidationReport, judged: list[tuple[UnitReport, Verdict]], width: int) -> Table:
    rows = [_row(unit, found, in_nats=report.contrast is not None) for unit, found in judged]
    left_out = {*(_WIDE_ONLY if width < WIDE else ()), *([_CLEAN] if width < NARROW else [])}
    names = [name for name in rows[0] if name not in left_out] if rows else []
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        words = name in (_FIRST, "verdict")
        least = None if words else max(len(row[name]) for row in rows)
        table.add_column(
            name, justify="left" if words else "right", min_width=least, overflow="fold"
        )
    for row, (_, found) in zip(rows, judged, strict=True):
        cells = [Text(row[name]) for name in names]
        cells[-1].stylize(_STYLES.get(found.kind, "dim"))
        table.add_row(*cells)
    return table


def _row(unit: UnitReport, found: Verdict, *, in_nats: bool) -> dict[str, str]:
    results, tested, matched = deciding(unit), unit.tested, pooled(unit, "matched")
    before, after = (
        probability(fmean(values))
        if (values := [getattr(each.target, when) for each in results])
        else NONE
        for when in ("before", "after")
    )
    change = _mean_change(unit)
    match = matched.match if matched else None
    return {
        _FIRST: visible(unit.name, space=" "),
        "features": str(len(unit.features)),
        _CLEAN: f"{before} → {after}",
        "nats" if in_nats else "points": nats(change) if in_nats else points(change),
        "p": p_value(tested.p if tested else None),
        "q": p_value(tested.q if tested else None),
        "ratio": times(tested.ratio if tested else None),
        "norm": NONE if match is None else norm(match),
        "verdict": found.kind,
    }


def _mean_change(unit: UnitReport) -> float:
    changes = [result.change for result in deciding(unit)]
    return fmean(changes) if changes else 0.0


def _meaning(report: ValidationReport) -> str:
    where = "" if report.test else " here, in the prompt that the graph was made from"
    return (
        "ratio: the change beside the median of matched controls; norm: how much of its norm those "
        f"remove. Supported{where}: q ≤ 0.05, a ratio of 2 or more, not explained by its size."
    )
