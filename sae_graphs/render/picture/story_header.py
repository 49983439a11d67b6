"""Above and below the picture of an answer graph: the question, and how to read the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import opposes
from sae_graphs.render.marks import CHECK, Marks, Standing
from sae_graphs.render.picture.excerpt import Excerpt
from sae_graphs.render.picture.header import (
    heading_of,
    likely,
    settings_words,
    share_words,
    total_words,
    warnings_panel,
)
from sae_graphs.render.picture.legend import TICKED_WORDS
from sae_graphs.render.picture.markup import at_own_size, cell, font, in_label, row, table, words
from sae_graphs.render.picture.remarks import below
from sae_graphs.render.style import (
    BAND,
    BAR,
    INK,
    LINE,
    LOWERS,
    MONO,
    MONO_ASPECT,
    RAISES,
    SOFT,
    WHITE,
    shade,
)
from sae_graphs.text import shortened, token, visible
from sae_graphs.words import counted, plain, probability_words, signed

TITLE, PROMPT, FACT, SMALL = 19, 11, 9, 8  # points; Graphviz takes whole ones
WIDTH = 740.0  # points, of the picture without its margins
ASIDE = 170.0  # of the next tokens, at the right
LETTER = 0.56  # of the type's size, a letter's width, in a sentence
PROMPT_LINES = 4
PLACES, CHIPS = 3, 4  # tokens that the header names, dense features
NEXT, BAR_POINTS = 4, 56
WARNING_COLUMNS = 90


def story_header(
    part: Excerpt, *, where: str, title: str | None, marks: Marks, annotations: Annotations
) -> str:
    """What is asked, the prompt with its answer, how much the picture accounts for."""
    graph, run = part.whole, part.whole.run
    room = WIDTH - ASIDE
    lines = textwrap.wrap(visible(title or heading_of(run), space=" "), int(room / (TITLE * 0.65)))
    rows = [words(line, size=TITLE, bold=True, colour=INK) for line in lines]
    rows += [_sentence(line, room, size=10) for line in marks.subtitle]
    rows.append(_prompt(graph, room))
    if not part.is_whole:
        rows.append(_sentence(part.words(where), room, bold=True, colour=INK))
    drawn = "" if part.is_whole else ", drawn or not"
    rows += [_sentence(told, room, colour=INK) for told in where_words(graph)]
    rows.append(_sentence(f"{share_words(graph)}{drawn}.", room))
    rows.append(_folded(graph))
    settings = settings_words(run.settings, n_tokens=len(run.tokens))
    rows.append(_sentence(f"model {run.model} · SAEs {run.saes} · {settings}", room, size=SMALL))
    rows += [_standing(graph, number, marks) for number in graph.component_numbers]
    about = table(*(row(cell(each, align="LEFT")) for each in rows if each), cellpadding=2)
    columns = row(
        cell(at_own_size(about), align="LEFT", width=room),
        cell(at_own_size(_next_tokens(graph)), width=ASIDE),
    )
    warned = (
        [row(cell(warnings_panel(run.warnings, WARNING_COLUMNS), colspan=2))]
        if run.warnings
        else []
    )
    told = below(annotations, WIDTH)
    said = [row(cell(told, colspan=2, align="LEFT"))] if told else []
    return font(table(*warned, columns, *said, cellpadding=3), colour=INK)


def where_words(graph: CausalGraph) -> list[str]:
    """At which tokens the answer is made, by the strongest supporter at each; nothing of none."""
    strongest: dict[str, float] = {}
    for node in graph.nodes:
        at, helps = node.feature.position, -(node.effect_on_answer or 0.0)
        if node.feature.is_feature and at is not None and helps > 0:
            text = f"“{shortened(token(graph.tokens[at]), 18)}”"
            strongest[text] = max(helps, strongest.get(text, 0.0))
    first = sorted(strongest, key=lambda text: -strongest[text])[:PLACES]
    if not first:
        return []
    shown = [f"{text} ({plain(strongest[text])}" for text in first]
    told = ", ".join([f"{shown[0]} nats)", *(f"{each})" for each in shown[1:])])
    return [f"Strongest support, by a feature at {told}."]


def _folded(graph: CausalGraph) -> str:
    """The strongest of the dense features, which are not drawn, in grey."""
    dense = graph.run.answer.dense if graph.run.answer is not None else ()
    if not dense:
        return ""
    told = "left out, since they are on at many tokens of any text (dense):"
    cells = [cell(words(told, size=SMALL, colour=SOFT))]
    for each in dense[:CHIPS]:
        chip = f"{each.feature} {signed(-each.effect_on_answer)}"
        inner = row(cell(words(chip, size=SMALL, colour=SOFT)))
        cells.append(
            cell(table(inner, border=1, color=LINE, bgcolor=BAND, style="ROUNDED", cellpadding=2))
        )
    return at_own_size(table(row(*cells), cellspacing=3))


def _sentence(
    text: str, room: float, *, size: float = FACT, colour: str = SOFT, bold: bool = False
) -> str:
    """Text in lines that fit."""
    lines = textwrap.wrap(visible(text, space=" "), int(room / (size * LETTER))) or [""]
    return table(
        *(row(cell(words(it, size=size, colour=colour, bold=bold), align="LEFT")) for it in lines)
    )


def _prompt(graph: CausalGraph, room: float) -> str:
    """The prompt as it reads, and what comes next."""
    run = graph.run
    letters = int(room / (PROMPT * MONO_ASPECT)) - 2
    tokens = run.tokens[: run.read_position + 1]
    own = "".join(tokens[1:])
    said = own if own and run.prompt.startswith(own) else "".join(tokens)  # BOS is no text
    text = visible(said, space=" ")
    lines = textwrap.wrap(text, letters, drop_whitespace=False) or [" "]
    if len(lines) > PROMPT_LINES:
        lines = [
            lines[0],
            f"… {counted(len(lines) - PROMPT_LINES + 1, 'line')} …",
            *lines[2 - PROMPT_LINES :],
        ]
    answer = shortened(token(run.outputs[0].token), 24)
    if len(lines[-1]) + len(answer) + 3 > letters:
        lines.append("")
    shown = [[cell(_mono(line or " "))] for line in lines]
    shown[-1].append(cell(_mono(answer, colour=WHITE, bold=True), bgcolor=INK, cellpadding=2))
    return table(*(row(cell(at_own_size(table(row(*it), cellspacing=1)))) for it in shown))


def _mono(text: str, *, colour: str = INK, bold: bool = False) -> str:
    shown = in_label(text.replace(" ", "\u00a0"))
    return font(shown, face=MONO, size=PROMPT, colour=colour, bold=bold)


def _standing(graph: CausalGraph, number: int, marks: Marks) -> str:
    """What was found of a component, where it was tested; of several, its size too."""
    standing: Standing | None = marks.standing(number)
    several = graph.n_components > 1
    if standing is None:
        return _sentence(_component(graph, number), WIDTH - ASIDE) if several else ""
    name = f"{_component(graph, number)}: " if several else ""
    sign = f"{CHECK} " if standing.supported else ""
    colour = INK if standing.supported else SOFT
    told = f"{sign}{name}{standing.words}"
    return _sentence(told, WIDTH - ASIDE, size=FACT, colour=colour, bold=standing.supported)


def _component(graph: CausalGraph, number: int) -> str:
    features = sum(it.component == number and it.feature.is_feature for it in graph.nodes)
    return f"Graph {number}, {counted(features, 'feature')}{total_words(graph, number)}"


def _next_tokens(graph: CausalGraph) -> str:
    shown, rare = likely(graph.run)
    rows = [row(cell(words("next token", size=SMALL, colour=SOFT), align="LEFT", colspan=3))]
    for text, probability in (*shown, *rare)[:NEXT]:
        filled = max(1, round(BAR_POINTS * min(max(probability, 0.0), 1.0)))
        bar = cell(bgcolor=BAR, width=filled, height=7, fixedsize="TRUE")
        name = font(in_label(shortened(token(text), 12)), face=MONO, size=9)
        rows.append(
            row(
                cell(name, align="RIGHT"),
                cell(at_own_size(table(row(cell(height=3)), row(bar))), width=BAR_POINTS),
                cell(words(probability_words(probability), size=8, colour=SOFT), align="RIGHT"),
            )
        )
    return table(*rows, cellspacing=2)


# -- below -----------------------------------------------------------------------------------------


def story_footer(graph: CausalGraph, marks: Marks) -> str:
    """How to read the picture, in a few samples."""
    items = [
        (
            _sample("Paul", "before", "after"),
            "a feature above its token: what it fires on in ordinary text, between what; below, "
            "its strongest text",
        ),
        (
            _bar_sample(LOWERS, "supports"),
            "ablating it there (setting it to its mean over ordinary text) lowers the answer's "
            "log-odds by so many nats",
        ),
    ]
    if any(opposes(node) for node in graph.nodes):
        items.append(
            (_bar_sample(RAISES, "opposes", dashed=True), "ablating it raises them: dashed frame")
        )
    if any(node.relay for node in graph.nodes):
        items.append(
            (_relay_sample(), "a relay: not among the strongest, but most of what another hands on")
        )
    items.append(
        (
            _arrow_sample(),
            "its source strengthens what it points at; dashed, blue: weakens it. The number: what "
            "that does to the answer, in nats; below 0: against it",
        )
    )
    if marks.features:
        items.append((words(CHECK, size=11, bold=True), TICKED_WORDS))
    return _side_by_side(items)


def _side_by_side(items: Sequence[tuple[str, str]]) -> str:
    room = (WIDTH + 20) / len(items)
    cells = []
    for sample, text in items:
        lines = textwrap.wrap(text, int((room - 12) / (SMALL * LETTER)))
        told = [row(cell(words(line, size=SMALL, colour=SOFT), align="LEFT")) for line in lines]
        inner = table(row(cell(sample, align="LEFT", cellpadding=2)), *told)
        cells.append(cell(at_own_size(inner), width=room, valign="TOP"))
    title = words("How to read it", size=FACT, bold=True, colour=INK)
    return table(row(cell(title, align="LEFT", colspan=len(items))), row(*cells), cellpadding=4)


def _sample(peak: str, before: str, after: str) -> str:
    return at_own_size(
        table(
            row(
                cell(words(f"{before} ", size=8, colour=SOFT)),
                cell(words(peak, size=8, bold=True), bgcolor=shade(4)),
                cell(words(f" {after}", size=8, colour=SOFT)),
            ),
        )
    )


def _bar_sample(colour: str, does: str, *, dashed: bool = False) -> str:
    bar = table(row(cell(bgcolor=colour, width=40, height=4, fixedsize="TRUE")))
    inner = table(
        row(cell(words(f"{does} 5.6 nats", size=8, colour=colour, bold=True), align="LEFT")),
        row(cell(bar, align="LEFT")),
        border=1,
        color=colour,
        style="DASHED" if dashed else "ROUNDED",
        cellpadding=2,
    )
    return at_own_size(inner)


def _relay_sample() -> str:
    inner = table(
        row(cell(words("relay", size=8, colour=SOFT))),
        border=1,
        color=LINE,
        bgcolor=BAND,
        style="ROUNDED",
        cellpadding=3,
    )
    return at_own_size(inner)


def _arrow_sample() -> str:
    return words("↑ +5.6", size=10, colour=LOWERS) + words("  ⇡ +0.7", size=10, colour=RAISES)
