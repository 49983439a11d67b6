"""What `sae-graphs validate --all` prints: a row for each unit of every run, then what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.text import shortened, visible
from sae_graphs.validation.judging import CONTRIBUTION, SIGNS
from sae_graphs.validation.report.tables import verdict_rows
from sae_graphs.words import NONE, counted, nats, points

if TYPE_CHECKING:
    from sae_graphs.validation.answer.records import AnswerReport
    from sae_graphs.validation.evidence import ValidationReport

_TARGET, _UNIT = 8, 15  # columns of a name, at most
_OTHERS = 66  # columns of all but the prompt
_MEANING = (
    f"Contribution, in nats: {CONTRIBUTION}. ✓ yes, ✗ no, ? cannot be said or was not measured; "
    "suff/med: of a graph, whether it is sufficient; of all else, whether it mediates."
)


@dataclass(frozen=True)
class Found:
    """A run, and its report or, where there is none, the reason in one line."""

    name: str
    report: ValidationReport | AnswerReport | None = None
    failed: str | None = None


def print_verdicts(console: Console, found: Sequence[Found]) -> None:
    """The table, which fits 80 columns, and a line for each run that failed."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 0), show_edge=False)
    for name in ("prompt", "target", "unit"):
        table.add_column(name, overflow="fold")
    table.add_column("contribution", justify="right")
    for name in ("necessary", "suff/med"):
        table.add_column(name, justify="center")
    table.add_column("supported", justify="center")
    n_supported = n_units = 0
    room = min(max(console.width - _OTHERS, 14), 48)
    for each in found:
        last = None
        for row in verdict_rows([each.report]) if each.report is not None else []:
            table.add_row(*_cells(row, room if last != row["prompt"] else 0))
            last = row["prompt"]
            n_units, n_supported = n_units + 1, n_supported + row["supported"]
    if n_units:
        console.print(table, "", sep="\n")
    told = sum(each.report is not None for each in found)
    line = f"{n_supported} of {counted(n_units, 'unit')} supported, in {counted(told, 'run')}"
    console.print(Text(line, style="bold"))
    for each in found:
        if each.failed is not None:
            line = f"failed: {each.name}: {each.failed}"
            console.print(Text(visible(line, space=" "), style="bold yellow"))
    console.print(Text(_MEANING, style="dim"))


def _cells(row: dict[str, Any], room: int) -> list[Text]:
    second = row["sufficient"] if row["kind"] == "graph" else row["mediates"]
    size = -row["effect"] if row["effect"] is not None else None
    told = nats(size) if row["effect_unit"] == "nats" else f"{points(size or 0.0)} pt"
    outcomes = row["necessary"], second, row["supported"]
    return [
        Text(_short(row["prompt"], room) if room else ""),
        Text(_short(row["target"], _TARGET) if row["target"] is not None else NONE),
        Text(_short(row["unit"], _UNIT)),
        Text(told),
        *(Text(SIGNS[it], style="bold green" if it else "dim") for it in outcomes),
    ]


def _short(text: str, width: int) -> str:
    return shortened(visible(text, space=" "), width)
