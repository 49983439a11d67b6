"""A feature's page: every prompt where it matters, for which answers, with which features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Heading,
    Paragraph,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.render.document.page import page
from sae_graphs.words import counted, plain, signed

LISTED = 30  # rows of each table
LONGEST = 200  # characters of a prompt


class _Column(NamedTuple):
    """A heading, the column of the table that it stands over, and how a value is written."""

    head: str
    name: str
    cell: Callable[[Any], Cell]


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
    ends = [_Column("feature", "feature", _token), _count(), _effect(), flow]
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


def _count() -> _Column:
    return _Column("prompts", "prompts", _plain)


def _effect() -> _Column:
    return _Column("mean effect", "mean_effect", _signed)


def _means() -> list[_Column]:
    return [_count(), _effect(), _Column("mean activation", "mean_activation", _plain)]


def _token(value: Any) -> Cell:
    return Cell("" if value is None else str(value), token=True)


def _plain(value: Any) -> Cell:
    return number("" if value is None or value != value else plain(float(value)))


def _signed(value: Any) -> Cell:
    if value is None or value != value:  # not measured: NaN
        return number("")
    return number(signed(float(value)), tone_of(float(value)))
