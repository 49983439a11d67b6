"""A trace as one page, as Markdown, and as pictures. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Definitions,
    Figure,
    Fold,
    Heading,
    Paragraph,
    Part,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.render.document.plot import with_figures, written
from sae_graphs.render.document.templates import filled, ours
from sae_graphs.render.notebook import table_html
from sae_graphs.text import token, visible
from sae_graphs.tracing.drawn import (
    Measure,
    corruption_words,
    ends_words,
    measure_words,
    sweep_words,
    target_words,
    values,
)
from sae_graphs.tracing.lines_plot import lines
from sae_graphs.tracing.overlay import Overlay
from sae_graphs.tracing.overlay_plot import overlay_maps
from sae_graphs.tracing.plots import heat_maps
from sae_graphs.tracing.reading import FEWEST_RUNS, Reading, read
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.sentences import (
    SITE_HEAD,
    findings,
    question,
    site_row,
    sweeps_words,
)
from sae_graphs.words import amount, counted, listed, probability

STEM = "trace"
PAGE = "trace.html"
LINES = f"{STEM}-lines"
GRAPH = f"{STEM}-graph"


def trace_files(
    trace: Trace,
    formats: Collection[str],
    measure: Measure = "probability",
    *,
    overlay: Overlay | None = None,
) -> dict[str, bytes]:
    """The pictures, the page and its Markdown, by name; the record itself is written apart.

    With an `overlay`, the answer graph beside it as well. The same trace gives the same bytes.
    """
    if not set(formats) - {"json"}:
        return {}
    reading = read(trace)
    figures = {
        STEM: heat_maps(trace, measure),
        LINES: lines(trace, measure, reading=reading),
    }
    if overlay is not None:
        figures[GRAPH] = overlay_maps(trace, overlay)
    return with_figures(
        STEM,
        formats,
        figures,
        cover(trace),
        lambda drawn: _blocks(trace, reading, drawn, measure, overlay),
    )


def trace_page(trace: Trace, measure: Measure = "probability") -> str:
    """The page alone."""
    return trace_files(trace, ("html",), measure)[PAGE].decode()


def cover(trace: Trace) -> Cover:
    """What stands above all of it."""
    about = f"model {trace.model} · {ends_words(trace)} · {corruption_words(trace)}"
    return Cover("Causal trace of", "Trace", trace.prompt, about, trace.warnings)


def _blocks(
    trace: Trace,
    reading: Reading,
    drawn: Mapping[str, str],
    measure: Measure,
    overlay: Overlay | None,
) -> Iterator[Block]:
    yield Paragraph(question(trace), "lead")
    for sentence in findings(trace, reading):
        style = "verdict" if sentence.startswith(("Handover", "No ")) else "plain"
        yield Paragraph(sentence, style)  # type: ignore[arg-type]
    yield Figure(f"{STEM}.svg", drawn[STEM], _heat_caption(trace), f"Heat maps: {_alt(trace)}")
    yield Figure(f"{LINES}.svg", drawn[LINES], _lines_caption(reading), f"Lines: {_alt(trace)}")
    yield from site_table(trace, reading)
    if overlay is not None:
        yield Heading("Beside the answer graph")
        yield Paragraph(f"{overlay.sentence}.")
        told = f"Features: {_alt(trace)}, and features that contribute to it"
        yield Figure(f"{GRAPH}.svg", drawn[GRAPH], OVERLAY_CAPTION, told)
    yield Heading("More")
    yield Fold("The two rows, layer by layer", tuple(_rows(trace, reading, measure)))
    yield Fold("What comes next, clean and corrupted", tuple(_next(trace)))
    yield Fold("What the words mean", (_meanings(reading),))
    yield Fold("How it was made", (_made(trace),))


def site_table(trace: Trace, reading: Reading) -> list[Part]:
    """The sites, a row each; nothing where there are none."""
    rows = []
    for site in reading.sites:
        restored, tokens, layers, most, effect, ends, strongest = site_row(trace, site)
        tone = tone_of(site.effect)
        cells = [text(restored), text(tokens), number(layers), number(most, tone)]
        rows.append([*cells, number(effect, tone), number(ends), text(strongest)])
    return table("Sites: what restoring them brings back, in nats of log-odds", SITE_HEAD, rows)


def _alt(trace: Trace) -> str:
    return f"tokens and layers whose restoration brings {target_words(trace)} back"


def _heat_caption(trace: Trace) -> str:
    return (
        f"Restored at each token and layer: {sweeps_words(trace)}. Pale is the corrupted run, "
        "marked on each scale; a second hue is worse than that. Tokens with a star are corrupted. "
        "Each panel has a scale of its own."
    )


OVERLAY_CAPTION = (
    "Left, what restoring the state restores, with a dot where the graph has features: its area is "
    "what they contribute together, pale where they oppose the answer. Right, the sum over "
    "features of |contribution|: the answer's log-odds minus those with the feature alone ablated."
)


def _lines_caption(reading: Reading) -> str:
    told = (
        "The rows of a corrupted token, the last or the one that hands over, and of the token "
        "that is read."
    )
    if reading.handover is not None:
        told += " The upright line is the handover, shaded over its interval."
    return told


def _rows(trace: Trace, reading: Reading, measure: Measure) -> list[Part]:
    """What is drawn as lines, in numbers."""
    source = trace.subject[-1] if reading.source is None else reading.source
    places = list(dict.fromkeys((source, trace.read)))
    drawn = [(sweep, values(trace, sweep, measure)) for sweep in trace.sweeps]
    head = ["Layer"]
    head += [f"{sweep_words(it)}, {token(trace.tokens[at])}" for it, _ in drawn for at in places]
    rows = []
    for layer in range(trace.n_layers):
        cells = [number(str(layer))]
        for _, found in drawn:
            for at in places:
                told = amount(float(found.mean[at, layer]))
                if found.error is not None:
                    told += f" ± {amount(float(found.error[at, layer]))}"
                cells.append(number(told, tone_of(float(found.helps[at, layer]))))
        rows.append(cells)
    caption = f"{measure_words(trace, measure)}: mean and standard error over noise runs"
    return table(caption, head, rows)


def _next(trace: Trace) -> list[Part]:
    rows = []
    for place in range(max(len(trace.next_tokens), len(trace.corrupted_next_tokens))):
        cells: list[Cell] = []
        for likely in (trace.next_tokens, trace.corrupted_next_tokens):
            piece, chance = likely[place] if place < len(likely) else ("", None)
            shown = Cell(piece, token=True) if chance is not None else text("")
            cells += [shown, number("" if chance is None else probability(chance))]
        rows.append(cells)
    return table("Likeliest next tokens", ("Clean", "", "Corrupted", ""), rows)


def _meanings(reading: Reading) -> Definitions:
    entries = {
        "site": "connected tokens and layers whose restoration changes the answer's log-odds by a "
        "tenth or more of what was lost, by half or more of the best of their token's row, and by "
        "more than chance: over noise runs, |t| exceeds what the largest of all cells of all "
        "panels reaches in 19 of 20 cases when the signs of whole runs are turned",
        "interval": "of a site's strongest cell; it holds for all cells at once",
        "of what was lost": "clean minus corrupted log-odds of the answer, the mean over runs",
        "handover": "where the read token's row overtakes that of the last corrupted token, for "
        "good; 13.4 lies between the inputs of blocks 13 and 14, so block 13 moves it; intervals "
        "are a bootstrap's over noise runs",
        "log-odds": "of the answer against all other tokens, in nats; all that is claimed is "
        "claimed of it, as probabilities saturate",
    }
    if reading.critical is not None:
        entries["critical |t|"] = f"{reading.critical:.2f} here; with fewer than {FEWEST_RUNS} "
        entries["critical |t|"] += "runs nothing could exceed it"
    return Definitions("", tuple(entries.items()))


def _made(trace: Trace) -> Definitions:
    settings = trace.settings
    entries = [
        ("model", trace.model),
        ("prompt", trace.prompt),
        ("tokens", counted(len(trace.tokens), "token")),
        ("corrupted", listed([token(trace.tokens[at]) for at in trace.subject])),
        ("corruption", corruption_words(trace)),
        ("read", f"after {token(trace.tokens[trace.read])}, token {trace.read}"),
        ("answer", listed([token(it) for it in trace.targets])),
        ("layers", str(trace.n_layers)),
        ("restored", listed([sweep_words(sweep) for sweep in trace.sweeps])),
        ("strength asked for", settings.strength),
        ("seed", str(settings.seed)),
    ]
    entries += [("other prompt", settings.other)] if settings.other is not None else []
    entries += [(str(name), _plain(value)) for name, value in trace.about.items()]
    return Definitions("", tuple(entries))


def _plain(value: object) -> str:
    if isinstance(value, float):
        return amount(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


# -- in a notebook ---------------------------------------------------------------------------------


def trace_html(trace: Trace) -> str:
    """A trace as the last line of a cell: what it says, its heat maps, its sites."""
    reading = read(trace)
    rows = [site_row(trace, site) for site in reading.sites]
    sites = table_html("Sites", SITE_HEAD, rows) if rows else ""
    told = [visible(sentence, space=" ") for sentence in findings(trace, reading)]
    picture = written(heat_maps(trace), "svg").decode()
    values_of = {"told": told, "picture": ours(picture), "table": sites, "warnings": trace.warnings}
    return str(filled("tracing/notebook.html.j2", **values_of))
