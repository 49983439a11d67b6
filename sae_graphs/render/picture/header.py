"""What stands above a picture: the prompt, the prediction, how to read the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sae_graphs.errors import quoted
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import (
    counted_nodes,
    coverage_sentence,
    output_words,
    score_sentence,
)
from sae_graphs.graph.records import RunRecord
from sae_graphs.render.marks import NO_MARKS, Marks
from sae_graphs.render.picture.excerpt import Excerpt
from sae_graphs.render.picture.legend import legend
from sae_graphs.render.picture.markup import (
    at_own_size,
    cell,
    font,
    heading,
    in_label,
    row,
    table,
    words,
    wrapped,
)
from sae_graphs.render.style import (
    ALARM,
    ALARM_LINE,
    BAR,
    FAINT,
    INK,
    LINE,
    MONO,
    PANEL,
    SOFT,
    WHITE,
    EffectScale,
)
from sae_graphs.text import HARD_SPACE, columns, shortened, token, visible
from sae_graphs.words import counted, percent, plain, probability_words

FACT_COLUMNS = 72
FACT_LENGTH = 400
WARNING_COLUMNS = 120
PROMPT_COLUMNS = 64
PROMPT_LINES = 5
NEXT_TOKENS = 6
BAR_POINTS = 90
LEAST_SHOWN = 0.001  # probability: a bar of less is none
RARE_COLUMNS = 36
RARE_WORDS = f"then, each below {percent(LEAST_SHOWN)}:"

Predictions = tuple[tuple[str, float], ...]  # tokens and their probabilities
TITLE_COLUMNS = 44


def header(
    part: Excerpt,
    *,
    where: str,
    scale: EffectScale,
    title: str | None,
    marks: Marks = NO_MARKS,
    annotations: Annotations = NO_ANNOTATIONS,
) -> str:
    """The HTML-like label above the whole picture; `where` says what holds what is left out."""
    run = part.whole.run
    columns_ = [
        cell(at_own_size(_about(part, where, title, marks.subtitle))),
        cell(at_own_size(_next_tokens(run))),
        cell(at_own_size(legend(part, scale, marks, annotations))),
    ]
    rows = [row(cell(warnings_panel(run.warnings), colspan=3))] if run.warnings else []
    rows.append(row(*columns_))
    return font(table(*rows, cellpadding=10), colour=INK)


def heading_of(run: RunRecord) -> str:
    """What stands above a picture without a title."""
    if run.answer is None:
        return "Causal graph"
    return f"What {output_words(run.outputs[0], 24)} hangs on"


def settings_words(settings: Mapping[str, Any], *, n_tokens: int = 2) -> str:
    """The settings that decide what is drawn, in words; those not recorded are left out."""
    if settings.get("select") == "answer":
        return _answer_settings(settings, n_tokens=n_tokens)
    parts = []
    if (k := settings.get("top_k")) is not None:
        per = {"layer": "layer pair", "source": "source feature", "graph": "graph"}
        per_words = per.get(str(settings.get("per")), "layer pair")
        parts.append(f"the {k} strongest effects of each {per_words}")
    if (least := settings.get("min_path_edges")) is not None:
        parts.append(f"on paths of at least {least} edges")
    if (where := settings.get("ablate")) is not None:
        first = "" if settings.get("ablate_first") or n_tokens == 1 else " but the first"
        places = {
            "all": f"each feature ablated at every token{first}",
            "read": "each feature ablated at the read token",
            "each": f"each feature ablated at one token at a time{first and ', never the first'}"
            + (", read at every token" if settings.get("read") == "all" else ""),
        }
        parts.append(places.get(str(where), f"ablated at {where}"))
    if (at := settings.get("summed_at")) is not None:
        kept = "and target tokens" if at == "all" else f"tokens, target token {at}"
        parts.append(f"effects summed over source {kept}")
    if (method := settings.get("method", "exact")) != "exact":
        named = {
            "gradient": "gradients",
            "integrated-gradients": f"integrated gradients in {settings.get('steps')} steps",
        }
        parts.append(f"effects estimated from {named.get(str(method), str(method))}")
    if (kind := settings.get("intervention", "zero")) != "zero":
        parts.append(f"intervention: {kind}")
    if layers := settings.get("layers"):
        parts.append(f"layers {' to '.join(map(str, layers))} only")
    if pins := settings.get("pin"):
        parts.append(f"measured from {quoted(pins)} only")
    return "; ".join(parts)


def _answer_settings(settings: Mapping[str, Any], *, n_tokens: int) -> str:
    """Those of an answer graph."""
    kind = settings.get("intervention", "mean")
    dense = "" if settings.get("dense") else " that are rarely on"
    first = "" if n_tokens == 1 else ", never at the first"
    parts = [
        f"the {settings.get('nodes')} features at tokens{dense} with the largest effect on the "
        f"answer, each ablated at one token alone{first}",
        f"at most {settings.get('top_k')} arrows into each",
        f"intervention: {kind}",
    ]
    if (method := settings.get("method", "exact")) != "exact":
        parts.append(f"chosen by {str(method).replace('-', ' ')}")
    if layers := settings.get("layers"):
        parts.append(f"layers {' to '.join(map(str, layers))} only")
    if pins := settings.get("pin"):
        parts.append(f"with {quoted(pins)} whatever the effect")
    if (prompts := settings.get("common_to")) is not None:
        parts.append(f"shared by the graphs of {prompts} prompts, {settings.get('aligned')}")
    return "; ".join(parts)


def share_words(graph: CausalGraph) -> str:
    """How much of what was measured the arrows show; of an answer, how much hangs on the boxes."""
    if graph.run.answer is not None:
        return f"{score_sentence(graph.run)}. {coverage_sentence(graph.run.answer.coverage)}"
    arrows = counted(len(graph.edges), "arrow")
    verb = "holds" if len(graph.edges) == 1 else "hold"
    return f"{arrows} between {counted_nodes(graph.nodes)} {verb} " + (
        f"{percent(graph.run.kept_share)} of the total |effect| measured"
    )


def total_words(graph: CausalGraph, number: int) -> str:
    """What a component's caption says of its arrows; nothing in an answer graph."""
    if graph.run.answer is not None:
        ends = any(each.feature.is_output and each.component == number for each in graph.nodes)
        return "" if ends else " · leads nowhere that the SAEs express"
    total = sum(abs(edge.effect) for edge in graph.edges if graph[edge.source].component == number)
    return f" · total |effect| {plain(total)}"


def no_path_words(run: RunRecord) -> str:
    """What an empty picture says: that it is empty, and what would keep something."""
    if run.answer is not None:
        return "No feature that is active here does anything to the answer. --dense may keep some."
    least = run.settings.get("min_path_edges")
    length = f" of at least {counted(least, 'edge')}" if isinstance(least, int) else ""
    remedy = "A larger top-k or a smaller min-path-edges would keep more."
    return f"No path{length} is left to draw. {remedy}"


def _about(part: Excerpt, where: str, title: str | None, subtitle: Sequence[str]) -> str:
    graph = part.whole
    run = graph.run
    facts = [f"model {run.model}", f"SAEs {run.saes}"]
    words_of_settings = settings_words(run.settings, n_tokens=len(run.tokens))
    shown = textwrap.wrap(visible(title or heading_of(run), space=" "), TITLE_COLUMNS)
    rows = [row(cell(words(line, size=18, bold=True, colour=INK), align="LEFT")) for line in shown]
    rows += [
        row(cell(wrapped(shortened(line, 200), FACT_COLUMNS, size=11), align="LEFT"))
        for line in subtitle
    ]
    rows.append(row(cell(_prompt(run), align="LEFT", cellpadding=3)))
    if not part.is_whole:
        told = wrapped(part.words(where), FACT_COLUMNS - 10, size=10.5, colour=INK, bold=True)
        rows.append(row(cell(told, align="LEFT")))
    share = share_words(graph) + ("" if part.is_whole else ", drawn or not")
    rows += [
        row(cell(wrapped(shortened(fact, FACT_LENGTH), FACT_COLUMNS, size=10), align="LEFT"))
        for fact in [" · ".join(facts), share, words_of_settings]
        if fact
    ]
    return table(*rows, cellpadding=2, align="LEFT")


# -- the prompt ------------------------------------------------------------------------------------


def _prompt(run: RunRecord) -> str:
    """The tokens in lines, each on a ground of its own, the read token dark."""
    lines = prompt_lines(run.tokens, run.read_position)
    tables = []
    for line in lines:
        cells = []
        for position in line:
            if position is None:
                cells.append(cell(words("…", size=12, colour=FAINT)))
                continue
            read = position == run.read_position
            text = in_label(_prompt_token(run.tokens[position]))
            cells.append(
                cell(
                    font(text, face=MONO, size=12, colour=WHITE if read else INK),
                    bgcolor=INK if read else PANEL,
                    border=1,
                    color=INK if read else LINE,
                    cellpadding=3,
                )
            )
            if read:
                cells.append(cell(words(" ← read here", size=9, colour=SOFT)))
        tables.append(row(cell(at_own_size(table(row(*cells), cellspacing=2)))))
    return table(*tables, align="LEFT")


def _prompt_token(text: str) -> str:
    return shortened(token(text), PROMPT_COLUMNS // 2)


def prompt_lines(tokens: Sequence[str], read: int) -> list[list[int | None]]:
    """Positions of the prompt's tokens in lines; None stands for tokens left out.

    A prompt of more than `PROMPT_LINES` lines keeps its first and those that end with the read
    token's.
    """
    lines: list[list[int | None]] = [[]]
    used = 0
    for position, text in enumerate(tokens):
        width = columns(_prompt_token(text)) + 1
        if lines[-1] and used + width > PROMPT_COLUMNS:
            lines.append([])
            used = 0
        lines[-1].append(position)
        used += width
    if len(lines) <= PROMPT_LINES:
        return lines
    at = next(number for number, line in enumerate(lines) if read in line)
    first = max(1, min(at - PROMPT_LINES + 3, len(lines) - PROMPT_LINES + 1))
    kept = lines[first : first + PROMPT_LINES - 1]
    opening: list[list[int | None]] = [[*lines[0], None]] if first > 1 else [lines[0]]
    if first + PROMPT_LINES - 1 < len(lines):
        kept = [*kept[:-1], [*kept[-1], None]]
    return [*opening, *kept]


# -- the prediction, and warnings ------------------------------------------------------------------


def likely(run: RunRecord) -> tuple[Predictions, Predictions]:
    """The next tokens that are worth a bar, the likeliest first, and those that hardly have one."""
    known = run.next_tokens[:NEXT_TOKENS]
    n_shown = sum(probability >= LEAST_SHOWN for _, probability in known) or len(known)
    return known[:n_shown], known[n_shown:]


def rare_names(rare: Predictions) -> str:
    """Unlikely tokens in a line."""
    return "  ".join(shortened(token(text), 12) for text, _ in rare)


def _next_tokens(run: RunRecord) -> str:
    """The likely ones with a bar; in a line those that hardly have one."""
    shown, rare = likely(run)
    rows = [row(cell(heading("Next token"), align="LEFT", colspan=3))]
    for text, probability in shown:
        name = shortened(token(text), 16)
        filled = max(1, round(BAR_POINTS * min(max(probability, 0.0), 1.0)))
        filled_cell = cell(bgcolor=BAR, width=filled, height=8, fixedsize="TRUE")
        bar = at_own_size(table(row(cell(height=4)), row(filled_cell)))
        rows.append(
            row(
                cell(font(in_label(name + HARD_SPACE), face=MONO, size=10.5), align="RIGHT"),
                cell(bar, align="LEFT", width=BAR_POINTS),
                cell(words(probability_words(probability), size=9.5, colour=SOFT), align="RIGHT"),
            )
        )
    if rare:
        told = [RARE_WORDS, *textwrap.wrap(rare_names(rare), RARE_COLUMNS)]
        lines = [row(cell(words(line, size=8.5, colour=SOFT), align="LEFT")) for line in told]
        rows.append(row(cell(table(*lines), align="LEFT", colspan=3)))
    return table(*rows, cellspacing=3, align="LEFT")


def warnings_panel(texts: Sequence[str], columns: int = WARNING_COLUMNS) -> str:
    """One panel, about as wide as the header, that cannot be overlooked."""
    sign = words("⚠  ", size=14, colour=ALARM_LINE)
    entries = [
        row(
            cell(sign, valign="TOP"),
            cell(
                wrapped(shortened(text, 400), columns, size=11, colour=INK, bold=True),
                align="LEFT",
            ),
        )
        for text in texts
    ]
    return table(
        row(cell(at_own_size(table(*entries, cellspacing=3)))),
        bgcolor=ALARM,
        border=1,
        color=ALARM_LINE,
        cellpadding=6,
    )
