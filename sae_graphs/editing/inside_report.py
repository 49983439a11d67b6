"""What an edit does inside, as one page, and in Markdown, with the two graphs. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sae_graphs.editing.inside_plot import activations
from sae_graphs.render.document.blocks import (
    Block,
    Cover,
    Figure,
    Heading,
    Paragraph,
    number,
    table,
    text,
)
from sae_graphs.render.document.plot import written
from sae_graphs.render.document.written import documents
from sae_graphs.render.pictures import png, svg
from sae_graphs.text import visible
from sae_graphs.words import NONE, nats, plain, said, share

if TYPE_CHECKING:
    from sae_graphs.editing.inside import Inside, Moved, Part
    from sae_graphs.graph.graph import CausalGraph

STEM, ACTIVATIONS = "inside", "inside-activations"
_CAPTION = (
    "What the two graphs do not share: features of the graph without the edit alone (left) and of "
    "that with it alone (right), from their activation without the edit (open) to that with it."
)
SIDES = (("before", "Without the edit"), ("after", "With the edit in force"))


def inside_files(found: Inside) -> dict[str, bytes]:
    """The page, its Markdown, and the two graphs' pictures; the same edit gives the same bytes."""
    files: dict[str, bytes] = {}
    figures = []
    for (side, title), graph in zip(SIDES, (found.before, found.after), strict=True):
        drawn = svg(graph, title=title)
        files[f"{STEM}-{side}.svg"] = drawn.encode()
        files[f"{STEM}-{side}.png"] = png(graph, title=title)
        figures.append(
            Figure(f"{STEM}-{side}.svg", drawn, f"{title}: {answer_of(graph)}.", title, wide=True)
        )
    moved = activations(found)
    drawn = written(moved, "svg").decode()
    files |= {f"{ACTIVATIONS}.svg": drawn.encode(), f"{ACTIVATIONS}.png": written(moved, "png")}
    what = "Features of one of the two graphs alone: activations without the edit and with it"
    figures.append(Figure(f"{ACTIVATIONS}.svg", drawn, _CAPTION, what))
    return {**files, **documents(STEM, _cover(found), list(_blocks(found, figures)))}


def answer_of(graph: CausalGraph) -> str:
    """What the graph says comes next."""
    return f"the answer is {said(graph.run.outputs[0].token)}"


def summary(found: Inside) -> str:
    """What an edit does inside, in sentences."""
    silent = sum(it.after == 0 for it in found.carried)
    new = sum(it.before == 0 for it in found.carries)
    missed = ""
    if found.missed is not None:
        before, after = map(share, found.missed)
        missed = f" The SAE after the block misses {before} of the stream there, {after} with it."
    return (
        f"The key matches to {plain(found.match)} at its token.{missed} Of "
        f"{len(found.carried)} features that only the graph without the edit has, {silent} fall "
        f"silent; of {len(found.carries)} that only the graph with it has, {new} were silent "
        "before."
    )


def _cover(found: Inside) -> Cover:
    edit = found.edit
    about = f"model {edit.model} · block {edit.layer} · SAEs {found.before.run.saes}"
    return Cover(
        "Inside the edit of", "Inside", f"{edit.asked}{edit.target}", about,
        tuple(found.difference.warnings),
    )  # fmt: skip


def _blocks(found: Inside, figures: Sequence[Figure]) -> Iterator[Block]:
    yield Paragraph(summary(found), "verdict")
    yield Paragraph(found.difference.words)
    yield from figures
    yield Heading("Which features carry the new object")
    yield from _moved("In the graph with the edit alone.", found.carries)
    yield Heading("Which carried the old one")
    yield from _moved("In the graph without the edit alone.", found.carried)
    yield Heading("What the key is made of")
    yield Paragraph(
        "Features of the SAE before the edited block, at the key's token, each zero-ablated alone "
        "and the block run again. The match is 1 at k* itself: so much of the value is added.",
        "note",
    )
    yield from _key(found.key)
    yield Heading("What the value is made of")
    yield Paragraph(
        "Features of the SAE after the edited block, at that token, without the edit and with it.",
        "note",
    )
    yield from _moved("Furthest moved first.", found.value)


def _key(parts: Sequence[Part]) -> Iterator[Block]:
    rows = [
        (text(str(it.feature)), number(plain(it.activation)), number(nats(it.effect)))
        for it in parts
    ]
    head = ("Feature", "Activation", "Match, ablated minus clean")
    yield from table("Strongest first.", head, rows)


def _moved(caption: str, moved: Sequence[Moved]) -> Iterator[Block]:
    rows = [
        (
            text(visible(it.label, space=" ")),
            number(plain(it.before)),
            number(plain(it.after)),
            number(NONE if it.effect is None else nats(it.effect)),
        )
        for it in moved
    ]
    head = ("Feature", "Without", "With", "Effect on its graph's answer, nats")
    yield from table(caption, head, rows)
