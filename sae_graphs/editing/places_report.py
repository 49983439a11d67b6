"""Where to write a fact, as heat maps and one page. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure as Drawn

from sae_graphs.editing.places import SHARES, Map, Places, sentences
from sae_graphs.editing.settings import TOKENS
from sae_graphs.render.document.blocks import (
    Block,
    Cover,
    Definitions,
    Figure,
    Fold,
    Heading,
    Paragraph,
    number,
    table,
    text,
)
from sae_graphs.render.document.plot import with_figures
from sae_graphs.text import visible
from sae_graphs.tracing.drawn import Values
from sae_graphs.tracing.plots import HUES, Panel, maps
from sae_graphs.words import NONE, counted

STEM = "places"
_MLP = HUES["mlp"]
_CAPTION = (
    "Left: S of facts written at each token and layer. Right: what tracing the same facts restores "
    "there, as a share of what corrupting the subject takes."
)


def places_files(places: Places, formats: Collection[str]) -> dict[str, bytes]:
    """The maps, the page and its Markdown, by name; the same sweep gives the same bytes."""
    drawn = {STEM: heat_maps(places)}
    return with_figures(STEM, formats, drawn, _cover(places), lambda svgs: _blocks(places, svgs))


def heat_maps(places: Places) -> Drawn:
    """S beside what tracing restores: tokens down, layers across."""
    state, mlp = (places.restored(name).mean(axis=0) for name in ("state", "mlp"))
    panels = [
        _panel("facts written there: S", places.s, "MLP that is changed", "S"),
        _panel("tracing: the layer's input", state, "layer whose input is restored", "share"),
        _panel("tracing: the MLP", mlp, "MLP that is restored", "share"),
    ]
    labels = [token.replace("-", " ") for token in TOKENS]
    told = f"means over {counted(len(places.placed), 'fact')}"
    rows = list(range(len(TOKENS)))
    return maps(panels, rows, labels, "Where a fact is written best", told, measure="share")


def _panel(title: str, values: Map, across: str, words: str) -> Panel:
    return Panel(title, Values(values, None, 1.0, 0.0), _MLP, across, words)


def _cover(places: Places) -> Cover:
    about = f"model {places.model} · {counted(len(places.placed), 'fact')}"
    return Cover("Where to write the facts of", "Where to edit", places.cases, about)


def _blocks(places: Places, drawn: Mapping[str, str]) -> Iterator[Block]:
    for sentence in sentences(places):
        yield Paragraph(sentence, "verdict")
    for name, svg in drawn.items():
        yield Figure(f"{name}.svg", svg, _CAPTION, "Heat maps of S and of what tracing restores")
    yield Heading("Numbers")
    yield from _map_table("S", places.s)
    for name in SHARES:
        yield from _map_table(name, np.nanmean(places.measure(name), axis=0))
    left = [
        tuple(text(visible(words, space=" ")) for words in (it.asked, it.reason))
        for it in places.left_out
    ]
    if left:
        yield Fold(
            "What was left out, and why",
            tuple(table("Cases left out.", ("Prompt", "Reason"), left)),
        )
    made = tuple((name, str(it)) for name, it in places.settings.items())
    yield Fold("How it was made", (Definitions("Settings", made),))


def _map_table(name: str, values: Map) -> Iterator[Block]:
    head = (name, *(f"layer {layer}" for layer in range(values.shape[1])))
    rows = [
        (
            text(token.replace("-", " ")),
            *(number(NONE if np.isnan(it) else f"{it:.3f}") for it in row),
        )
        for token, row in zip(TOKENS, values, strict=True)
    ]
    yield from table(f"{name}, means over facts.", head, rows)
