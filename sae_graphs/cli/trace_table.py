"""A trace on the terminal: the answer, its sites, the handover; many prompts by category."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.text import visible
from sae_graphs.tracing.confounds import confounds
from sae_graphs.tracing.drawn import corruption_words, ends_words, target_words
from sae_graphs.tracing.many import Traces
from sae_graphs.tracing.many_report import HEAD, findings, transition_rows
from sae_graphs.tracing.overlay import Overlay
from sae_graphs.tracing.reading import Reading, read
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.sentences import SITE_HEAD, handover_words, site_row
from sae_graphs.tracing.sentences import findings as found_in
from sae_graphs.words import counted

NUMBERS = frozenset({"Layers", "Restores", "Log-odds", "Interval"})


def print_trace(
    console: Console, traces: Sequence[Trace], *, seconds: float, overlay: Overlay | None = None
) -> None:
    """The first of these traces; of others, which are at other strengths, one line each."""
    trace, reading = traces[0], read(traces[0])
    console.print(_prompt(trace))
    for each in traces:
        line = f"{target_words(each)}: {ends_words(each)}; {corruption_words(each)}"
        console.print(Text(line, style="bold"), soft_wrap=True)
    if reading.sites:
        console.print(_sites(trace, reading))
        told = handover_words(trace, reading)
        if told:
            console.print(Text(told))
    else:
        for sentence in found_in(trace, reading):
            console.print(Text(sentence))
    if overlay is not None:
        console.print(Text(f"beside the answer graph, {overlay.about}: {overlay.words}"))
    for warning in trace.warnings:
        console.print(Text(f"warning: {visible(warning, space=' ')}", style="bold yellow"))
    console.print(Text(f"traced in {seconds:.2f} s", style="dim"))


def _prompt(trace: Trace) -> Text:
    """The prompt, its corrupted tokens with a star, the read one highlighted."""
    words = Text()
    for at, piece in enumerate(trace.tokens):
        corrupted = at in trace.subject
        style = "bold reverse" if at == trace.read else "bold magenta" if corrupted else ""
        words.append(visible(piece, space=" "), style=style)
        words.append("*" if corrupted else "", style="magenta")
    return words


def _sites(trace: Trace, reading: Reading) -> Table:
    table = Table(title="sites: what restoring them brings back, in nats of log-odds")
    for name in SITE_HEAD:
        table.add_column(
            name.lower(), justify="right" if name in NUMBERS else "left", overflow="fold"
        )
    for site in reading.sites:
        style = "red" if site.is_harmful else ""
        table.add_row(*(Text(cell, style=style) for cell in site_row(trace, site)))
    return table


def print_traces(console: Console, traces: Traces, *, seconds: float) -> None:
    """How many prompts were left in each category, and where each hands over."""
    table = Table(
        title="layers, with 95 % intervals over prompts",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # seven columns, as narrow as can be
    )
    for place, name in enumerate(HEAD):
        table.add_column(name.lower(), justify="right" if place else "left", overflow="fold")
    for category, *cells in transition_rows(traces):
        under = (cell.replace(", ", "\n").replace(" to ", "–") for cell in cells)
        table.add_row(Text(visible(category, space=" ")), *map(Text, under))
    console.print(table)
    for sentence in findings(traces, confounds(traces)):
        console.print(Text(sentence))
    for name in traces.categories:
        reasons = traces.reasons(name)
        told = ", ".join(f"{count} {visible(why, space=' ')}" for why, count in reasons.items())
        if told:
            line = f"{visible(name, space=' ')}: left out {told}"
            console.print(Text(line, style="dim"), soft_wrap=True)
    done = f"{counted(len(traces.traced), 'prompt')} traced in {seconds:.2f} s"
    console.print(Text(done, style="dim"))
