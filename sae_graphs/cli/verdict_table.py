"""What `sae-graphs validate` prints: a table of all units, then the verdicts in sentences."""

from __future__ import annotations

from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sae_graphs.text import visible
from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.judging import CONTRIBUTION, CONTROLS_TOLD, VerdictKind, deciding, pooled
from sae_graphs.validation.sentences import mean_change
from sae_graphs.validation.verdicts import Verdict, verdict
from sae_graphs.words import (
    NONE,
    amount,
    counted,
    nats,
    norm,
    p_value,
    points,
    probability,
    share,
    target_said,
    times,
)

SENTENCES = 5  # so many units are told in sentences
LARGE = 0.1  # of a probability: an unsupported change of this or more is told in a sentence, too
LARGE_NATS = 1.0  # the same for log-odds and differences of logits
_STYLES: dict[VerdictKind, str] = {"supported": "bold green", "norm only": "yellow"}
_FIRST = "unit"
_CLEAN = "before → after"
_LEFT_OUT = ("features", "p", "norm", "ratio", _CLEAN)  # in this order, until the table fits


def print_report(console: Console, report: ValidationReport) -> None:
    """The table, then a sentence for components, supported paths and other large changes."""
    judged = [(unit, verdict(unit, report)) for unit in report.units]
    target = target_said(report.target, report.contrast)
    n_prompts = max((len(deciding(unit)) for unit in report.units), default=0)
    role = "test" if report.test else "discovery"
    decide = "decides" if n_prompts == 1 else "decide"
    console.print(Text(f"target {target}; {counted(n_prompts, f'{role} prompt')} {decide}", "bold"))
    rows = [_row(unit, found, in_nats=report.in_nats) for unit, found in judged]
    names, gap = _fitting(rows, console.width)
    console.print(_table(rows, judged, names, gap), "", sep="\n")
    for unit, found in _told(judged, in_nats=report.in_nats):
        members = f" ({' → '.join(map(str, unit.features))})" if unit.kind == "path" else ""
        line = f"{visible(unit.name, space=' ')}{members}: {found.kind}"
        console.print(Text(line, style="bold"))
        for words in found.sentences:
            console.print(Padding(Text(visible(words, space=" ")), (0, 0, 0, 2)))
    for warning in report.warnings:
        console.print(Text(f"warning: {visible(warning, space=' ')}", style="bold yellow"))
    console.print(Text(_meaning(report, names), style="dim"))


def _told(
    judged: list[tuple[UnitReport, Verdict]], *, in_nats: bool
) -> list[tuple[UnitReport, Verdict]]:
    """Components, then supported paths, then other large changes; the largest of each first."""
    large = LARGE_NATS if in_nats else LARGE

    def group(each: tuple[UnitReport, Verdict]) -> int | None:
        unit, found = each
        if unit.kind == "component":
            return 0
        if found.supported:
            return 1
        told = found.kind in ("norm only", "not distinguishable")
        return 2 if told and abs(mean_change(unit)) >= large else None

    chosen = [(place, each) for each in judged if (place := group(each)) is not None]
    chosen.sort(key=lambda pair: (pair[0], -abs(mean_change(pair[1][0]))))
    return [each for _, each in chosen[:SENTENCES]]


def _table(
    rows: list[dict[str, str]], judged: list[tuple[UnitReport, Verdict]], names: list[str], gap: int
) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), show_edge=False)
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


def _fitting(rows: list[dict[str, str]], width: int) -> tuple[list[str], int]:
    """The columns that fit side by side, and the gap between them.

    Empty ones are left out, and then, first, what the sentences say, too.
    """
    names = [name for name in rows[0] if any(row[name] != NONE for row in rows)] if rows else []
    for unneeded in ("", *_LEFT_OUT):
        names = [name for name in names if name != unneeded]
        widest = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
        for gap in (3, 2, 1):
            if sum(widest) + gap * len(names) <= width + 1:
                return names, gap
    return names, 1


def _row(unit: UnitReport, found: Verdict, *, in_nats: bool) -> dict[str, str]:
    results, tested, matched = deciding(unit), unit.tested, pooled(unit, "matched")
    change, before = mean_change(unit), fmean(each.score for each in results) if results else None
    ends = [] if before is None else [before, before + change]
    shown = [amount(value) if in_nats else probability(value) for value in ends]
    match = matched.match if matched else None
    return {
        _FIRST: visible(unit.name, space=" "),
        "features": str(len(unit.features)),
        _CLEAN: " → ".join(shown) or NONE,
        "contribution": nats(-change) if in_nats else points(-change),
        "mediated": share(unit.mediation.fraction if unit.mediation else None),
        "p": p_value(tested.p if tested else None),
        "q": p_value(tested.q if tested else None),
        "ratio": times(tested.ratio if tested else None),
        "norm": NONE if match is None else norm(match),
        "verdict": found.kind,
    }


def _meaning(report: ValidationReport, names: list[str]) -> str:
    """What the columns that are shown, and `supported`, mean."""
    where = "" if report.test else " here, in the prompt that the graph was made from"
    columns = {
        _CLEAN: ("the log-odds" if report.contrast is None else "the difference of logits")
        if report.in_nats
        else "",
        "contribution": f"{CONTRIBUTION}, in {'nats' if report.in_nats else 'percentage points'}",
        "ratio": "its size beside the median of matched controls",
        "norm": "how much of its norm those remove",
        "mediated": "how much of what its first feature (of a component, its sources) does flows "
        "along it, in the graph's own prompt",
    }
    told = "; ".join(
        f"{name}: {words}" for name, words in columns.items() if words and name in names
    )
    return (
        f"{told}. {CONTROLS_TOLD} Supported{where}: its features matter; q ≤ 0.05, a ratio of 2 or "
        "more, and nulls of its norm rarely do as much. Whether it is a path is another question."
    )
