"""What was measured, as tables: on the terminal and as Markdown for the README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from benchmarks.plan import Plan

WORK = "ablated, T, L0"  # mode, tokens, features active at a token
LETTERS = (
    "One whole graph. (a) the public method, a full pass for every feature; (b) the same for "
    "active features only; (c) ours; (d) its bare matrix multiplications; (e) gradients at 1 and "
    "at 10 points. ~ a sample, scaled up."
)


class Sheet(NamedTuple):
    """A title, column heads, rows of text, and what to know of them."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(
            title=self.title,
            caption=self.caption or None,
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for number, head in enumerate(self.heads):
            table.add_column(head, justify="left" if number == 0 else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a README."""
        lines = [self.heads, ("---", *("---:" for _ in self.heads[1:])), *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.caption}\n" if self.caption else "")


def with_ratios(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with seconds for a whole graph by (a) and (b), and ours against the others.

    Medians throughout, all of one run on one machine.
    """
    seconds = cell["seconds"]
    one_pass, ours = seconds["full pass"]["median"], seconds["ours"]["median"]
    every, active = one_pass * cell["features"], one_pass * cell["ablations"]
    found = {
        "all_features_seconds": every,
        "active_features_seconds": active,
        "faster_than_all_features": every / ours,
        "faster_than_active_features": active / ours,
        "ours_to_floor": ours / seconds["floor"]["median"],
        "floor_gflop_per_second": cell["floor_operations"]
        * cell["ablations"]
        / cell["measured"]
        / seconds["floor"]["median"]
        / 1e9,
        "ours_ms_an_ablation": 1e3 * ours / cell["ablations"],
    }
    if "integrated gradients" in seconds:
        found["ours_to_integrated_gradients"] = ours / seconds["integrated gradients"]["median"]
    return {**cell, "ratios": found}


def growth_in_read_mode(cells: Sequence[dict[str, Any]]) -> float | None:
    """Ours at the longest prompt against the shortest, ablating at the last token alone."""
    found = {cell["tokens"]: cell["seconds"]["ours"]["median"] for cell in cells if _reads(cell)}
    return found[max(found)] / found[min(found)] if len(found) > 1 else None


def sheets(plan: Plan, results: dict[str, Any], machine: dict[str, Any]) -> Iterator[Sheet]:
    """Times, what was active, memory, profile."""
    cells = [results[cell.key] for cell in plan.cells]
    yield _times(cells, machine)
    yield _ratios(cells)
    yield _actives(cells)
    yield _memory(plan, results)
    yield Sheet(
        "Where ours spends its time (one layer pair)",
        ("operation", "calls", "seconds", "share"),
        [
            (row["operation"], str(row["calls"]), f"{row['seconds']:.3f}", f"{row['share']:.0%}")
            for row in results["profile"]
        ],
    )


# -- inside ----------------------------------------------------------------------------------------


def _reads(cell: dict[str, Any]) -> bool:
    return bool(cell["mode"] == "read")


def _times(cells: Sequence[dict[str, Any]], machine: dict[str, Any]) -> Sheet:
    rows = []
    for cell in cells:
        ratios, seconds = cell["ratios"], cell["seconds"]
        about = "~" if cell["measured"] < cell["ablations"] else ""
        timed = [
            about + _duration(seconds[name]["median"]) if name in seconds else ""
            for name in ("ours", "floor", "gradient", "integrated gradients")
        ]
        rows.append(
            (
                _work(cell),
                f"{cell['ablations']:,}",
                "~" + _duration(ratios["all_features_seconds"]),
                "~" + _duration(ratios["active_features_seconds"]),
                *timed,
                _duration(seconds["clean run"]["median"]),
            )
        )
    threads = machine["threads"]
    title = f"Time: {machine['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
    heads = (WORK, "ablations", "(a)", "(b)", "(c)", "(d)", "(e) 1", "(e) 10", "clean run")
    return Sheet(title, heads, rows, LETTERS)


def _ratios(cells: Sequence[dict[str, Any]]) -> Sheet:
    rows = []
    for cell in cells:
        ratios = cell["ratios"]
        integrated = ratios.get("ours_to_integrated_gradients")
        rows.append(
            (
                _work(cell),
                f"{ratios['faster_than_all_features']:,.0f}",
                f"{ratios['faster_than_active_features']:,.0f}",
                f"{ratios['ours_to_floor']:.2f}",
                "" if integrated is None else f"{integrated:.2f}",
                f"{ratios['ours_ms_an_ablation']:.2f}",
                f"{ratios['floor_gflop_per_second']:.0f}",
            )
        )
    heads = (WORK, "(a)/(c)", "(b)/(c)", "(c)/(d)", "(c)/(e)", "ms each", "GFLOP/s")
    caption = "(c)/(e): to 10 points. ms each: an ablation of ours. GFLOP/s: of the floor."
    return Sheet("Ratios", heads, rows, caption)


def _work(cell: dict[str, Any]) -> str:
    return f"{cell['mode']}, {cell['tokens']}, {cell['active']['wanted']}"


def _actives(cells: Sequence[dict[str, Any]]) -> Sheet:
    rows = []
    for cell in cells:
        if _reads(cell):
            continue
        active = cell["active"]
        rows.append(
            (
                str(cell["tokens"]),
                str(active["wanted"]),
                _range(active["l0"]),
                _range(active["at_read"]),
                _range(active["anywhere"]),
                _range(active["rows_an_ablation"]),
            )
        )
    heads = ("tokens", "wanted", "L0", "at the last", "anywhere", "rows each")
    return Sheet("Features active a layer: fewest to most", heads, rows)


def _memory(plan: Plan, results: dict[str, Any]) -> Sheet:
    rows = []
    for method, mode, tokens in plan.memory:
        found = results[f"memory {method} {mode} {tokens}"]
        if found is not None:
            sizes = (f"{found[key] / 2**20:,.0f}" for key in ("added", "peak"))
            rows.append((method, mode, str(tokens), *sizes))
    heads = ("method", "ablated", "tokens", "added, MiB", "whole process, MiB")
    return Sheet("Peak memory, each in a process of its own", heads, rows)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):g} to {max(values):g}" if min(values) < max(values) else f"{values[0]:g}"


def _duration(seconds: float) -> str:
    if seconds >= 36_000:
        return f"{seconds / 3600:,.0f} h"
    if seconds >= 600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
