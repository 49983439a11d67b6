"""What `sae-graphs compare` prints: tables and verdicts for people, JSON for programs."""

from __future__ import annotations

import json
from typing import get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.cli.console import prompt_line
from sae_graphs.effects.agreement import (
    LEADERS,
    ROUGH_OVERLAP,
    SAFE_OVERLAP,
    WIDE,
    Agreement,
    MethodComparison,
    Miss,
    Verdict,
)

_SHORT = {"gradient": "grad.", "integrated-gradients": "IG"}
_STYLES = {"safe": "green", "rough": "yellow", "not safe": "red"}


def print_comparison(console: Console, found: MethodComparison, style: str) -> None:
    """The comparison as a `table` with verdicts, or as `json` with all numbers."""
    if style == "json":
        console.out(json.dumps(found.to_json(), indent=1), highlight=False)
        return
    console.print(prompt_line(found.tokens, found.read_position))
    console.print(_figures(found))
    console.print(_misses(found))
    for method in found.overall:
        console.print(_verdicts(found, method))
    console.print(Text(_meaning(found), style="dim"))
    console.print(Text(_times(found)))


def _figures(found: MethodComparison) -> Table:
    k = next(iter(found.overall.values())).k
    table = Table(
        "layers",
        "by",
        "corr.",
        f"top {LEADERS}",
        f"same {k}",
        f"same {WIDE * k}",
        "sign",
        "unseen",
        "verdict",
        title="estimates beside exact effects" + (" on the answer" if found.of_answer else ""),
        box=SIMPLE_HEAD,
        padding=(0, 0),
    )
    for column in table.columns:  # no number is cut; headings of two words may take two lines
        column.min_width, column.no_wrap = 4, " " not in str(column.header)
    for pair in found.pairs:
        for number, (method, figures) in enumerate(pair.methods.items()):
            layers = "" if number else f"{pair.source} -> {pair.target}"
            table.add_row(layers, _SHORT[method], *_row(figures))
        table.add_section()
    for number, (method, figures) in enumerate(found.overall.items()):
        table.add_row("" if number else "all", _SHORT[method], *_row(figures), style="bold")
    return table


def _row(figures: Agreement) -> list[Text | str]:
    return [
        _number(figures.rank_correlation),
        _number(figures.leaders_correlation),
        _percent(figures.overlap),
        _percent(figures.wide_overlap),
        _percent(figures.wrong_sign),
        _percent(figures.unseen),
        Text(figures.verdict, style=_STYLES[figures.verdict]),
    ]


def _misses(found: MethodComparison) -> Table:
    table = Table("by", "edge", "exact", "estimate", "", title="worst misses")
    table.box, table.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    for column in table.columns:
        column.no_wrap = bool(column.header)  # remarks may take two lines, edges and numbers not
    for method, figures in found.overall.items():
        unseen = [miss for miss in figures.strongest_unseen if miss not in figures.worst]
        for number, miss in enumerate((*figures.worst, *unseen)):
            edge = f"{miss.source} -> {miss.target}"
            values = f"{miss.exact:+.4g}", f"{miss.estimate:+.4g}"
            table.add_row("" if number else _SHORT[method], edge, *values, _remark(miss))
        table.add_section()
    return table


def _remark(miss: Miss) -> str:
    if miss.exact == 0:
        return "no effect"
    if miss.estimate == 0:
        return "unseen: wakes up" if miss.exact > 0 else "unseen"
    return "wrong sign" if miss.exact * miss.estimate < 0 else ""


def _verdicts(found: MethodComparison, method: str) -> Text:
    line = Text(f"{method}: ", style="bold")
    parts: list[Text] = []
    for verdict in get_args(Verdict):
        where = found.with_verdict(method, verdict)
        if where:
            everywhere = len(where) == len(found.pairs)
            places = "at all layer pairs" if everywhere else f"at {', '.join(where)}"
            parts.append(Text(f"{verdict} {places}", style=_STYLES[verdict]))
    return line + Text("; ").join(parts)


def _meaning(found: MethodComparison) -> str:
    k = next(iter(found.overall.values())).k
    strongest = (
        f"{k} strongest features at tokens, of the layer and of all,"
        if found.of_answer
        else f"{k} strongest edges of the layer pair"
    )
    return (
        f"IG: integrated gradients, {found.steps} steps. Corr.: rank correlation with the exact "
        f"effects; top {LEADERS}: with the strongest of them. Same {k}: share of the {k} strongest "
        f"that both name. Sign, unseen: of the exact {k}, those whose estimate has the wrong sign, "
        "or is 0.\n"
        f"Safe: the estimate's {strongest} hold {SAFE_OVERLAP:.0%} or "
        f"more of the exact {k}, and of these none has an estimate of 0 or of the wrong sign. "
        f"Rough: they hold {ROUGH_OVERLAP:.0%} or more; measure what you build on. "
        "All of it holds for this prompt."
    )


def _times(found: MethodComparison) -> str:
    estimates = ", ".join(
        f"{method} {figures.seconds:.2f} s"
        + (f" ({found.steps} steps)" if method == "integrated-gradients" else "")
        for method, figures in found.overall.items()
    )
    n = next(iter(found.overall.values())).n_exact
    return f"{n} exact effects took {found.exact_seconds:.2f} s; {estimates}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
