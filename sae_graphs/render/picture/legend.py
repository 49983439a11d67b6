"""How to read a picture: what each thing in it stands for, as words and as samples."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.feature_id import OUTPUT_LAYER
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import opposes
from sae_graphs.render.marks import CHECK, LEAST_SHARE, NO_MARKS, Marks
from sae_graphs.render.picture.excerpt import Excerpt
from sae_graphs.render.picture.explained import is_explained
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
from sae_graphs.render.picture.remarks import PENCIL, PIN
from sae_graphs.render.style import (
    BAND,
    FAINT,
    INK,
    LINE,
    LOWERS,
    LOWERS_TINT,
    MONO,
    NOTE,
    PANEL,
    RAISES,
    RAISES_TINT,
    SHADES,
    SOFT,
    WHITE,
    EffectScale,
    shade,
)
from sae_graphs.words import plain, signed

LEGEND_COLUMNS = 84

ANSWER_LEAD_WORDS = (
    "What the answer, on top, hangs on. Each box is a feature at one token: a direction that a "
    "sparse autoencoder (SAE) has found in the model's state at one layer. An arrow says that "
    "ablating one (setting it to what it is on ordinary text) moves another."
)
LEAD_WORDS = (
    "Each box is a feature: a direction that a sparse autoencoder (SAE) has found in the model's "
    "state at one layer. An arrow says what ablating one (switching it off) does to another: the "
    "effect, ablated minus clean."
)

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
    "supports",
    "opposes",
    "relay",
    "token",
    "supported",
    "ticked",
    "carried",
    "not_supported",
    "pinned",
    "labelled",
    "noted",
    "grouped",
    "folded",
    "rest",
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


_READERS: dict[Kind, str] = {
    "pinned": "pinned by a reader of the graph",
    "labelled": "in bold under the name: what a reader takes the feature for",
    "noted": "a reader's note; hover over the box for all of it",
    "grouped": "a group that a reader made of features: its name above each of them",
    "folded": (
        "a group drawn as one box: its arrows are those of its members, each with its own effect "
        "and none added up; those that cannot lead upwards turn at right angles around other "
        "boxes, and name both ends"
    ),
}
REST_WORDS = "below a layer's name: the number of its features that are not drawn"


class Entry(NamedTuple):
    """A thing in the picture, and what it stands for."""

    kind: Kind
    words: str


def entries(
    graph: CausalGraph,
    scale: EffectScale,
    marks: Marks = NO_MARKS,
    annotations: Annotations = NO_ANNOTATIONS,
) -> tuple[Entry, ...]:
    """The legend of this picture: only what occurs in it."""
    found = _of_answer(graph)
    found += [Entry("promotes", PROMOTES_WORDS), Entry("suppresses", SUPPRESSES_WORDS)]
    if scale.largest:
        found.append(Entry("scale", scale_words(scale, answers=graph.run.answer is not None)))
    found.append(Entry("effect", _effect_words(graph)))
    if graph.resolves_positions and any(node.feature.is_feature for node in graph.nodes):
        found.append(Entry("place", _place_words(graph)))
    found.append(Entry("activation", _activation_words(graph)))
    found.append(Entry("tokens", TOKEN_WORDS))
    if is_explained(graph):
        found.append(Entry("explained", EXPLAINED_WORDS))
    if any(node.feature.layer == OUTPUT_LAYER for node in graph.nodes):
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
    return (*found, *_annotated(graph, annotations))


SUPPORTS_WORDS = (
    "supports: ablating it there lowers the answer's score; the number is its contribution, clean "
    "minus ablated, in nats"
)
OPPOSES_WORDS = "opposes (dashed frame): ablating it there raises the answer's score"
RELAY_WORDS = (
    "relay (grey): not among the strongest, but most of what the box below it does flows by it"
)
OF_TOKENS_WORDS = "a token of the prompt, which the features of the first layer stand at"


def _of_answer(graph: CausalGraph) -> list[Entry]:
    """What only answer graphs have, and of that what occurs in this one."""
    if graph.run.answer is None:
        return []
    measured = [node for node in graph.nodes if node.effect_on_answer is not None]
    occurring: dict[Kind, tuple[bool, str]] = {
        "supports": (not all(map(opposes, measured)), SUPPORTS_WORDS),
        "opposes": (any(map(opposes, measured)), OPPOSES_WORDS),
        "relay": (any(node.relay for node in measured), RELAY_WORDS),
        "token": (any(node.feature.is_token for node in graph.nodes), OF_TOKENS_WORDS),
    }
    return [Entry(kind, told) for kind, (occurs, told) in occurring.items() if occurs]


def _annotated(graph: CausalGraph, annotations: Annotations) -> list[Entry]:
    """Of what a reader has added to the graph."""
    here = {node.feature for node in graph.nodes}
    folded = {group.folded for group in annotations.groups if here & {*group.features}}
    occurring = {
        "pinned": bool(here & {*annotations.pins}),
        "labelled": bool(here & annotations.labels.keys()),
        "noted": bool(here & annotations.notes.keys()),
        "grouped": False in folded,
        "folded": True in folded,
    }
    return [Entry(kind, told) for kind, told in _READERS.items() if occurring[kind]]


def scale_words(scale: EffectScale, *, answers: bool = False) -> str:
    """What the arrows' darkness and width stand for in this picture."""
    ends = f"{plain(scale.smallest)} (faintest) to {plain(scale.largest)} (strongest)"
    if answers:
        return f"the more flows along it to the answer, the darker and thicker: {ends} nats"
    return f"the larger |effect|, the darker and thicker: {ends}"


def _effect_words(graph: CausalGraph) -> str:
    if graph.run.answer is not None:
        return (
            "at an arrow: what its source contributes to the answer through its target alone, in "
            "nats (path patching); positive helps"
        )
    at = graph.run.summed_at
    where = "its own token" if graph.resolves_positions else "the read token"
    if at is not None:
        where = "any token, all added up" if at == "all" else f"token {at}, added up over sources"
    return (
        f"effect: change of the target's activation at {where}, ablated − clean, "
        "in SAE activation units"
    )


def _place_words(graph: CausalGraph) -> str:
    named = next(node.feature for node in graph.nodes if node.feature.is_feature)
    return (
        f"{named}: feature {named.layer}.{named.index} at token {named.position}, counted from 0 "
        "and framed in its box; the boxes of a layer follow the prompt from left to right"
    )


def _activation_words(graph: CausalGraph) -> str:
    number = "its own token" if graph.resolves_positions else "the read token"
    told = (
        "activation on a token, white none to blue the feature's maximum: first line in this "
        "prompt, below where it is most active"
    )
    return told if graph.run.answer is not None else f"{told}; the number is that at {number}"


def _output_words(graph: CausalGraph) -> str:
    if all(output.contrast is None for output in graph.run.outputs):
        return "output token, with its clean probability and logit; the effect on it is its logit's"
    return (
        "output token A - B: the difference of their clean logits, and A's probability; "
        "the effect on it is that difference's change, in nats"
    )


# -- as part of a picture --------------------------------------------------------------------------


def lead_words(graph: CausalGraph) -> str:
    """What the picture is, in two sentences."""
    return LEAD_WORDS if graph.run.answer is None else ANSWER_LEAD_WORDS


def legend(
    part: Excerpt,
    scale: EffectScale,
    marks: Marks = NO_MARKS,
    annotations: Annotations = NO_ANNOTATIONS,
) -> str:
    """The legend as an HTML-like table."""
    samples = {
        "promotes": arrow_sample("━━▶", LOWERS),
        "suppresses": arrow_sample("╍╍┫", RAISES),
        "scale": _strokes(scale),
        "effect": table(row(cell(words(signed(-1.5), size=8, colour=LOWERS), bgcolor=PANEL))),
        "place": _framed(),
        "activation": _ramp(),
        "tokens": _chips(),
        "out": _dark(),
        "supports": words("supports", size=8, colour=LOWERS, bold=True),
        "opposes": words("opposes", size=8, colour=RAISES, bold=True),
        "relay": table(row(cell(words("relay", size=9, colour=SOFT), bgcolor=BAND, border=1))),
        "token": table(row(cell(arrow_sample("a", INK), bgcolor=BAND, border=1, color=SOFT))),
        "supported": _signed(CHECK),
        "ticked": _signed(CHECK),
        "carried": arrow_sample(f"{CHECK} −1", INK),
        "not_supported": arrow_sample("╌╌╌", FAINT),
        "pinned": _signed(PIN),
        "explained": words("words", size=9, colour=INK),
        "labelled": words("words", size=9, colour=INK, bold=True),
        "noted": table(row(cell(arrow_sample(PENCIL, INK), bgcolor=NOTE, width=20))),
        "grouped": _on(SOFT),
        "folded": _folded(),
        "rest": words("+ 9 more", size=8, colour=SOFT, bold=True),
    }
    found = entries(part.drawn, scale, marks, annotations)
    found += () if part.is_whole else (Entry("rest", REST_WORDS),)
    rows = [
        row(
            cell(at_own_size(samples[entry.kind]) if entry.kind in samples else "", width=56),
            cell(wrapped(entry.words, LEGEND_COLUMNS, size=9.5), align="LEFT"),
        )
        for entry in found
    ]
    title = row(cell(heading("How to read it"), align="LEFT", colspan=2))
    lead = wrapped(lead_words(part.drawn), LEGEND_COLUMNS + 10, size=10, colour=INK)
    return table(title, row(cell(lead, align="LEFT", colspan=2)), *rows, cellspacing=2)


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
    return _on(INK)


def _on(ground: str) -> str:
    return table(row(cell(words("a", size=11, colour=WHITE, face=MONO), bgcolor=ground, width=20)))


def _folded() -> str:
    """A small box as that of a folded group."""
    name = cell(words("group", size=9, colour=INK, bold=True), bgcolor=BAND, border=2, color=SOFT)
    return table(row(name), cellpadding=3)


def _signed(sign: str) -> str:
    return table(row(cell(words(sign, size=11, colour=INK), border=2, color=INK, width=20)))
