"""What was found of SmolLM2's graphs as tables, beside the bundled model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from sae_graphs.words import NONE
from training.demo.asked import FEW, NODES
from training.demo.evaluation_table import markdown, rich_table
from training.demo.phenomena import read
from training.demo.phenomena_table import (
    Found,
    found_in,
    graph_rows,
    hit_rows,
    necessity_rows,
)
from training.smollm2.truth import NATS, Seen, prompts_of

DEMO = Path("autoencoders/demo")
GOALS = (
    f"Goals, set before: without the {NODES} strongest supporters the log-odds fall by {NATS:g} "
    "nats or more in 0.70 of the prompts, with matched controls in their place in 0.10; one of "
    "the three strongest features stands at a deciding token in 0.80. Controls are matched to the "
    "boxes of the default graph, the strongest by size, opposers among them."
)
_BUNDLED = "bundled model, all"


def by_category(seen: Sequence[Seen]) -> list[Found]:
    """One for each category, in the order of the file."""
    names = dict.fromkeys(each.category for each in seen)
    return [Found(name, [it.asked for it in seen if it.category == name]) for name in names]


def lowered_rows(seen: Sequence[Seen]) -> list[list[str]]:
    """Header and one row per category: how often the answer falls, and at which cost."""
    head = ["category", "prompts", f"{NATS:g} nats without {NODES}", "matched controls", "seconds"]
    rows = [head]
    for name in [*dict.fromkeys(each.category for each in seen), "all"]:
        those = [each for each in seen if name in (each.category, "all")]
        controls = [it.controls_lower for it in those if it.controls_lower is not None]
        rows.append(
            [
                name,
                str(len(those)),
                f"{mean(each.lowered for each in those):.2f}",
                f"{mean(controls):.2f}" if controls else NONE,
                f"{median(each.asked.seconds for each in those):.0f}",
            ]
        )
    return rows


def tables(report: dict[str, Any], demo: Path = DEMO) -> list[tuple[str, list[list[str]]]]:
    """Titles, and rows with the bundled model's last."""
    seen = prompts_of(report)
    found, bundled = by_category(seen), read(demo)
    others = [] if bundled is None else found_in(bundled)
    made = [("Without the strongest supporters", lowered_rows(seen))]
    for title, rows_of in (
        ("Where the strongest features stand", _hits),
        (f"Without {FEW} and {NODES}, and with them alone", _necessity),
        ("The default graphs", graph_rows),
    ):
        rows = rows_of(found)
        if others:
            rows.append([_BUNDLED, *rows_of(others)[-1][1:]])
        made.append((title, rows))
    return made


def print_tables(report: dict[str, Any]) -> None:
    """Prints all of them to the terminal."""
    from rich.console import Console

    console = Console()
    for title, rows in tables(report):
        table = rich_table(title, rows)
        table.columns[0].no_wrap = True
        console.print(table)
    console.print(GOALS, style="dim")


def section(report: dict[str, Any]) -> str:
    """The tables as Markdown, for the README of the SAEs."""
    skipped = ", ".join(f"{number} ({why})" for why, number in report["skipped"].items())
    parts = [f"{title}:\n\n{markdown(rows)}" for title, rows in tables(report)]
    asked = f"Prompts that were not asked: {skipped or 'none'}."
    left = report["left"]
    still = f" {left} more are still to be asked." if left else ""
    return "\n\n".join([*parts, GOALS, asked + still])


# -- inside ----------------------------------------------------------------------------------------


def _hits(found: Sequence[Found]) -> list[list[str]]:
    """Those of the graphs alone, not of other rules."""
    return hit_rows(found, ())


def _necessity(found: Sequence[Found]) -> list[list[str]]:
    return [row[:1] + row[2:] for row in necessity_rows(found, ("answer",))]
