"""How to read a picture: what each thing in it stands for, as words and as samples."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sae_graphs.graph import CausalGraph
from sae_graphs.render.explained import is_explained
from sae_graphs.render.marks import CHECK, LEAST_SHARE, NO_MARKS, Marks
from sae_graphs.render.markup import at_own_size, cell, font, heading, row, table, words, wrapped
from sae_graphs.render.style import (
    FAINT,
    INK,
    LINE,
    LOWERS,
    LOWERS_TINT,
    MONO,
    RAISES,
    RAISES_TINT,
    SHADES,
    WHITE,
    EffectScale,
    shade,
)
from sae_graphs.render.text import in_label, plain

LEGEND_COLUMNS = 84

Kind = Literal[
    "promotes",
    "suppresses",
    "scale",
    "effect",
    "activation",
    "tokens",
    "explained",
    "place",
    "out",
    "supported",
    "ticked",
    "carried",
    "not_supported",
]

PROMOTES_WORDS = "promotes: ablating the source lowers the target (effect < 0)"
SUPPRESSES_WORDS = "suppresses: ablating the source raises the target (effect > 0)"
TOKEN_WORDS = (
    "next tokens that ablating the feature lowers or raises: "
    "change of log-probability, ablated − clean, in nats"
)

EXPLAINED_WORDS = (
    "under the name: what the feature means, as Neuronpedia has it; mostly a language model's guess"
)
SUPPORTED_WORDS = (
    "thick frame: tested; ablated together, its features matter, beyond controls of their size"
)
TICKED_WORDS = (
    "box: part of what was tested and matters, beyond controls of its size; where it was left in "
    f"place, it undoes at least {LEAST_SHARE:.0%} of the change"
)
CARRIED_WORDS = (
    f"arrow: measured by path patching, at least {LEAST_SHARE:.0%} of what its source does flows "
    "through it"
)
NOT_SUPPORTED_WORDS = "dashed frame: tested, and not supported; the caption says why"


class Entry(NamedTuple):
    """A thing in the picture, and what it stands for."""

    kind: Kind
    words: str


def entries(graph: CausalGraph, scale: EffectScale, marks: Marks = NO_MARKS) -> tuple[Entry, ...]:
    """The legend of this picture: only what occurs in it."""
    found = [Entry("promotes", PROMOTES_WORDS), Entry("suppresses", SUPPRESSES_WORDS)]
    if scale.largest:
        found.append(Entry("scale", scale_words(scale)))
    found.append(Entry("effect", _effect_words(graph)))
    if graph.resolves_positions:
        found.append(Entry("place", _place_words(graph)))
    found.append(Entry("activation", _activation_words(graph)))
    found.append(Entry("tokens", TOKEN_WORDS))
    if is_explained(graph):
        found.append(Entry("explained", EXPLAINED_WORDS))
    if any(node.feature.is_output for node in graph.nodes):
        found.append(Entry("out", _output_words(graph)))
    standings = [marks.standing(number) for number in graph.component_numbers]
    if any(standing and standing.supported for standing in standings):
        found.append(Entry("supported", SUPPORTED_WORDS))
    if marks.features:
        found.append(Entry("ticked", TICKED_WORDS))
    if marks.edges:
        found.append(Entry("carried", CARRIED_WORDS))
    if any(standing and not standing.supported for standing in standings):
        found.append(Entry("not_supported", NOT_SUPPORTED_WORDS))
    return tuple(found)


def scale_words(scale: EffectScale) -> str:
    """What the arrows' darkness and width stand for in this picture."""
    ends = f"{plain(scale.smallest)} (faintest) to {plain(scale.largest)} (strongest)"
    return f"the larger |effect|, the darker and thicker: {ends}"


def _effect_words(graph: CausalGraph) -> str:
    at = graph.run.summed_at
    where = "its own token" if graph.resolves_positions else "the read token"
    if at is not None:
        where = "any token, all added up" if at == "all" else f"token {at}, added up over sources"
    return (
        f"effect: change of the target's activation at {where}, ablated − clean, "
        "in SAE activation units"
    )


def _place_words(graph: CausalGraph) -> str:
    named = next(node.feature for node in graph.nodes if not node.feature.is_output)
    return (
        f"{named}: feature {named.layer}.{named.index} at token {named.position}, counted from 0 "
        "and framed in its box; the boxes of a layer follow the prompt from left to right"
    )


def _activation_words(graph: CausalGraph) -> str:
    number = "its own token" if graph.resolves_positions else "the read token"
    return (
        "activation on a token, white none to blue the feature's maximum: first line in this "
        f"prompt, below where it is most active; the number is that at {number}"
    )


def _output_words(graph: CausalGraph) -> str:
    if all(output.contrast is None for output in graph.run.outputs):
        return "output token, with its clean probability and logit; the effect on it is its logit's"
    return (
        "output token A - B: the difference of their clean logits, and A's probability; "
        "the effect on it is that difference's change, in nats"
    )


# -- as part of a picture --------------------------------------------------------------------------


def legend(graph: CausalGraph, scale: EffectScale, marks: Marks = NO_MARKS) -> str:
    """The legend as an HTML-like table."""
    samples = {
        "promotes": arrow_sample("━━▶", LOWERS),
        "suppresses": arrow_sample("━━┫", RAISES),
        "scale": _strokes(scale),
        "effect": "",
        "place": _framed(),
        "activation": _ramp(),
        "tokens": _chips(),
        "explained": "",
        "out": _dark(),
        "supported": _checked(),
        "ticked": _checked(),
        "carried": arrow_sample(f"{CHECK} −1", INK),
        "not_supported": arrow_sample("╌╌╌", FAINT),
    }
    rows = [
        row(
            cell(at_own_size(sample) if (sample := samples[entry.kind]) else "", width=56),
            cell(wrapped(entry.words, LEGEND_COLUMNS, size=9.5), align="LEFT"),
        )
        for entry in entries(graph, scale, marks)
    ]
    title = row(cell(heading("How to read it"), align="LEFT", colspan=2))
    return table(title, *rows, cellspacing=2)


def arrow_sample(drawn: str, colour: str) -> str:
    """Characters that look like an arrow, or like a token."""
    return font(in_label(drawn), face=MONO, size=11, colour=colour)


def _strokes(scale: EffectScale) -> str:
    """Three strokes: the faintest, the middle and the strongest opacity of the picture."""
    middle = (scale.smallest + scale.largest) / 2
    return "".join(
        arrow_sample("━", scale.colour(-size)) for size in (scale.smallest, middle, scale.largest)
    )


def _ramp() -> str:
    steps = [
        cell(bgcolor=shade(step), width=5, height=9, fixedsize="TRUE") for step in range(SHADES + 1)
    ]
    return table(row(*steps), border=1, color=LINE)


def _chips() -> str:
    samples = [
        cell(arrow_sample("a", INK), bgcolor=LOWERS_TINT, width=16),
        cell(arrow_sample("b", INK), bgcolor=RAISES_TINT, width=16),
    ]
    return table(row(*samples), cellspacing=1)


def _framed() -> str:
    return table(row(cell(arrow_sample("a", INK), border=1, color=INK, width=16)))


def _dark() -> str:
    return table(row(cell(words("a", size=11, colour=WHITE, face=MONO), bgcolor=INK, width=20)))


def _checked() -> str:
    return table(row(cell(arrow_sample(CHECK, INK), border=2, color=INK, width=20)))
