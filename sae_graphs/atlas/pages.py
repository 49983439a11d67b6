"""Two pages of an atlas: its own, with what recurs in it, and that of a feature.

A feature's page has every prompt where it matters, for which answers, with which features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.pictures import circuit_source
from sae_graphs.atlas.views import identifier
from sae_graphs.graph.feature_id import OWN_LAYERS, FeatureId
from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Figure,
    Heading,
    Paragraph,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.render.document.page import page
from sae_graphs.words import counted, percent, plain, signed

LISTED = 30  # rows of each table
LONGEST = 200  # characters of a prompt
ROUNDING = 1e-9
SIGNIFICANT = 0.05  # with a larger q no category is named: where it is 1, it may hold no prompt
_FEATURES = """
SELECT any_value(feature) AS feature, count(DISTINCT prompt_id) AS prompts, mode(token) AS token,
    avg(effect_on_answer) AS mean_effect
FROM nodes WHERE layer NOT IN (?, ?, ?) GROUP BY layer, index
ORDER BY prompts DESC, layer, index LIMIT ?"""


class _Column(NamedTuple):
    """A heading, the column of the table that it stands over, and how a value is written."""

    head: str
    name: str
    cell: Callable[[Any], Cell]


def atlas_page(atlas: Atlas, *, features: str, drawn: Mapping[str, str]) -> str:
    """The page as HTML: what the atlas is of, what recurs in it, and its features.

    `features` is what stands before a feature's name in the address of its page; `drawn` are
    pictures that lie beside the page, and what they show.
    """
    total = atlas.sql("SELECT count(*) AS n FROM prompts")["n"][0]
    failed = atlas.sql("SELECT count(*) AS n FROM failures")["n"][0]
    facts = atlas.facts
    cover = Cover(
        f"{counted(int(total), 'prompt')} in",
        "Atlas",
        atlas.folder.name,
        about=f"model {facts['model']} · SAEs {facts.get('saes', '')}",
        warnings=(f"{counted(int(failed), 'prompt')} failed",) if failed else (),
    )
    into = _linked(features)
    edges = atlas.recurring_edges(least=1, limit=LISTED)
    if "category" in edges:
        said = ["category", "in_category"]
        edges[said] = edges[said].where(edges["q"] <= SIGNIFICANT)
    of_edges = [_Column("from", "source", into), _Column("to", "target", into), _count()]
    of_edges += [_Column("share", "share", _share), _effect()]
    if "category" in edges:
        of_edges += [
            _Column("most beyond chance in", "category", _said),
            _Column("there", "in_category", _whole),
            _Column("q", "q", _plain),
        ]
    parts: list[Block] = [
        *(_circuit(atlas, edges) if len(edges) else []),
        *table(
            "Drawn with `sae-graphs atlas draw`",
            ["file", "what it shows"],
            [[Cell(name, address=name), text(words)] for name, words in drawn.items()],
        ),
        *_listed("Edges that recur", edges, of_edges),
        *_listed(
            "Features in most prompts",
            atlas.sql(_FEATURES, [*OWN_LAYERS, LISTED]),
            [
                _Column("feature", "feature", into),
                _count(),
                _Column("mostly at", "token", _token),
                _Column("mean effect on the answer", "mean_effect", _signed),
            ],
        ),
        *(block for column in atlas.categories for block in _category(atlas, column)),
    ]
    return page(cover, parts)


def feature_page(atlas: Atlas, feature: str | FeatureId) -> str:
    """The page as HTML. Effects are ablated minus clean, in nats: below 0 supports the answer.

    Raises `SaeGraphsError` for what is no feature of the atlas's layers.
    """
    use = atlas.feature(feature, limit=LISTED, most=LISTED)
    places = counted(use.total, "prompt")
    cover = Cover(
        f"Feature {use.feature} in {places} of",
        f"Feature {use.feature}",
        atlas.folder.name,
        about=f"model {atlas.facts['model']} · SAEs {atlas.facts.get('saes', '')}",
    )
    if not use.total:
        return page(cover, [Paragraph("No prompt's graph holds it.")])
    flow = _Column("mean flow to the answer", "mean_flow", _signed)
    ends = [_Column("feature", "feature", _linked("")), _count(), _effect(), flow]
    parts: list[Block] = [
        Paragraph(
            "Effects are ablated minus clean: below 0 it supports the answer (nats), or promotes "
            "the feature (activation). Means are over prompts.",
            "note",
        ),
        *_listed(
            "For which answers", use.answers, [_Column("answer", "answer", _token), *_means()]
        ),
        *_listed("At which tokens", use.tokens, [_Column("token", "token", _token), *_means()]),
        *_listed("Comes from", use.sources, ends),
        *_listed("Leads to", use.targets, ends),
        *_listed(
            "In which prompts, the strongest first",
            use.prompts,
            [
                _Column("prompt", "prompt", lambda value: text(str(value)[:LONGEST])),
                _Column("answer", "target", _token),
                _Column("at", "token", _token),
                _Column("activation", "activation", _plain),
                _Column("effect on the answer", "effect_on_answer", _signed),
            ],
        ),
    ]
    return page(cover, parts)


# -- inside ----------------------------------------------------------------------------------------


def _listed(title: str, rows: Any, columns: Sequence[_Column]) -> list[Block]:
    """A heading and a table, or nothing where it has no rows."""
    cells = [
        [column.cell(row[column.name]) for column in columns] for row in rows.to_dict("records")
    ]
    found = table("", [column.head for column in columns], cells)
    return [Heading(title), *found] if found else []


def _circuit(atlas: Atlas, edges: Any) -> list[Block]:
    """These edges that recur, the most common first, as a picture."""
    from sae_graphs.render.picture.engine import draw_svg

    share = float(edges["share"].iloc[-1]) * (1 - ROUNDING)
    source = circuit_source(atlas, share=share, most=len(edges))
    words = "Red promotes, blue suppresses; the wider the more prompts have it."
    return [Figure("circuit.svg", draw_svg(source), words, wide=True)]


def _category(atlas: Atlas, column: str) -> list[Block]:
    place = identifier(column)
    asked = (
        f"SELECT {place} AS value, count(*) AS prompts FROM prompts GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    values = _Column("value", "value", lambda it: _said(it, "none"))
    return _listed(f"Prompts by {column}", atlas.sql(f"{asked} LIMIT {LISTED}"), [values, _count()])


def _linked(before: str) -> Callable[[Any], Cell]:
    """Features lead to their pages; other ends of edges, such as the answer, are plain."""

    def cell(value: Any) -> Cell:
        address = f"{before}{quote(value, safe='')}" if "." in value else None
        return Cell(value, token=True, address=address)

    return cell


def _count() -> _Column:
    return _Column("prompts", "prompts", _whole)


def _effect() -> _Column:
    return _Column("mean effect", "mean_effect", _signed)


def _means() -> list[_Column]:
    return [_count(), _effect(), _Column("mean activation", "mean_activation", _plain)]


def _said(value: Any, none: str = "") -> Cell:
    """A text; where there is none, pandas has NaN."""
    return text(value if isinstance(value, str) else none)


def _token(value: Any) -> Cell:
    return replace(_said(value), token=True)


def _whole(value: Any) -> Cell:
    return number("" if value != value else f"{int(value)}")


def _plain(value: Any) -> Cell:
    return number("" if value is None or value != value else plain(float(value)))


def _share(value: Any) -> Cell:
    return number(percent(float(value)))


def _signed(value: Any) -> Cell:
    if value is None or value != value:  # not measured: NaN
        return number("")
    return number(signed(float(value)), tone_of(float(value)))
