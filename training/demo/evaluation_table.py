"""The evaluation as tables for the terminal and for Markdown files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.demo.evaluation import LAYER_TARGETS

if TYPE_CHECKING:
    from rich.table import Table

UNITS = {"l0": "L0", "fvu": "FVU", "ce_recovered": "CE recovered", "dead_percent": "dead %"}


def phenomenon_rows(report: dict[str, Any]) -> list[list[str]]:
    """Header and one row per phenomenon, as strings."""
    rows = [["phenomenon", "held-out cases", "top-1", "target", "mean p(right)"]]
    for item in report["phenomena"]:
        target = "" if item["target"] is None else f"{item['target']:.2f}"
        row = [item["phenomenon"], str(item["cases"]), f"{item['top1']:.3f}", target]
        rows.append([*row, f"{item['mean_probability']:.3f}"])
    return rows


def layer_rows(report: dict[str, Any]) -> list[list[str]]:
    """Header, targets, and one row per SAE, as strings."""
    header = ["SAE", "L0", "FVU", "CE recovered", "dead features"]
    targets = [
        "target",
        f"<= {LAYER_TARGETS['l0']:.0f}",
        f"<= {LAYER_TARGETS['fvu']:.2f}",
        f">= {LAYER_TARGETS['ce_recovered']:.2f}",
        f"<= {LAYER_TARGETS['dead_percent']:.0f} %",
    ]
    rows = [header, targets]
    for item in report["layers"]:
        rows.append(
            [
                item["hook_name"],
                f"{item['l0']:.2f}",
                f"{item['fvu']:.4f}",
                f"{item['ce_recovered']:.4f}",
                f"{item['dead_percent']:.2f} %",
            ]
        )
    return rows


def spot_rows(report: dict[str, Any]) -> list[list[str]]:
    """Header and one row per spot prompt, as strings."""
    rows = [["prompt", "next token", "p", "top"]]
    for item in report["spots"]:
        top = "yes" if item["is_top"] else "no"
        rows.append([item["prompt"], repr(item["expected"]), f"{item['probability']:.3f}", top])
    return rows


def shortfalls(report: dict[str, Any]) -> list[str]:
    """One line for every number that misses its target."""
    lines = [
        f"{item['phenomenon']}: top-1 {item['top1']:.3f}, target {item['target']:.2f}"
        for item in report["phenomena"]
        if item["target"] is not None and item["top1"] < item["target"]
    ]
    for item in report["layers"]:
        for name, target in LAYER_TARGETS.items():
            missed = item[name] < target if name == "ce_recovered" else item[name] > target
            if missed:
                lines.append(
                    f"{item['hook_name']}: {UNITS[name]} {item[name]:.4g}, target {target:g}"
                )
    return lines


def markdown(rows: list[list[str]]) -> str:
    """Rows as a Markdown table; the first row is the header."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def rich_table(title: str, rows: list[list[str]]) -> Table:
    """Rows as a table for the terminal; the first row is the header."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*(escape(cell) for cell in row))
    return table


def print_tables(report: dict[str, Any]) -> None:
    """Prints all tables to the terminal."""
    from rich.console import Console

    console = Console()
    for title, rows in (
        ("Held-out cases", phenomenon_rows(report)),
        ("Spot prompts", spot_rows(report)),
        ("SAEs on fresh text", layer_rows(report)),
    ):
        console.print(rich_table(title, rows))
    console.print(report["protocol"], style="dim")
    for line in shortfalls(report):
        console.print(f"misses its target: {line}")
