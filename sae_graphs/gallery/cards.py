"""The gallery: a card for each run, to filter, open, and choose two of for a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.gallery.kinds import kind_of
from sae_graphs.gallery.runs import Card, Summary
from sae_graphs.gallery.skeleton import Page, page, prompt_html, quoted_name, run_address
from sae_graphs.graph.records import RunRecord
from sae_graphs.render.document.templates import filled
from sae_graphs.render.marks import CHECK
from sae_graphs.runs import REPORT, VALIDATION
from sae_graphs.text import shortened, visible
from sae_graphs.validation.answer.outcomes import MEANINGS as OUTCOMES
from sae_graphs.validation.judging import MEANINGS
from sae_graphs.words import counted, percent

if TYPE_CHECKING:
    from markupsafe import Markup

NAME_LENGTH = 60


class Badge(NamedTuple):
    """What validation found, in a frame; `title` is what it means."""

    words: str
    kind: str = ""
    title: str = ""


class CardWords(NamedTuple):
    """What a card says and where it leads; all is text but `prompt`.

    `run` is what is known of it, None where the run cannot be opened, and `problem` says why.
    `sent` is the name that a form sends, None where it cannot; `folder` is the folder's name where
    a title stands in its place.
    """

    searched: str
    heading: str
    created: datetime | None
    run: RunRecord | Summary | None = None
    problem: str = ""
    made_of: str = ""
    address: str = ""
    picture: str = ""
    report: str = ""
    folder: str = ""
    sent: str | None = None
    prompt: Markup | str = ""
    counts: str = ""
    badges: tuple[Badge, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def heading_cut(self) -> str:
        """The heading as a label of a box to tick reads it."""
        return shortened(self.heading, NAME_LENGTH)


def gallery(cards: Sequence[Card], *, folder: str) -> Page:
    """The page of all runs in a folder, in the order given."""
    able = sum(card.record is not None for card in cards)
    values: dict[str, Any] = {"cards": [*map(_words, cards)], "able": able, "folder": folder}
    body = filled("gallery/cards.html.j2", **values, longest=NAME_LENGTH)
    return page("Causal graphs", body, styles=["skeleton", "gallery"], script="gallery")


def _words(card: Card) -> CardWords:
    run, name, when = card.record, card.run.name, _date(card.created)
    if card.summary is not None:
        return _of_other(card, card.summary)
    if run is None:
        text = visible(f"{name} {card.problem}", space=" ").lower()
        return CardWords(text, name, when, problem=card.problem or "")
    return CardWords(
        _searched(card, run),
        card.title or name,
        when,
        run,
        address=run_address(name),
        picture=f"/thumbnail/{quoted_name(name)}.svg",
        report=run_address(name, f"{VALIDATION}/{REPORT}") if card.has_report else "",
        folder=name if card.title else "",
        sent=name if _is_unicode(name) else None,
        prompt=prompt_html(run),
        counts=_counts(card, run),
        made_of=_made_of(run.model, run.saes),
        badges=tuple(_badges(card)),
        told=tuple(_told(card)),
    )


def _of_other(card: Card, found: Summary) -> CardWords:
    """A run that is no graph: it opens its page, and is compared with none."""
    name, kind = card.run.name, kind_of(card.run)
    said = found.found if found.tokens else f"{found.prompt} · {found.found}"
    words = (name, found.prompt, found.model, kind.words, *(it for it, _ in found.next_tokens[:1]))
    warned = [f"{counted(len(found.warnings), 'warning')} in this run"] if found.warnings else []
    return CardWords(
        visible(" ".join(words), space=" ").lower(),
        name,
        _date(card.created),
        found,
        address=run_address(name),
        picture=f"/thumbnail/{quoted_name(name)}.svg",
        prompt=prompt_html(found) if found.tokens else "",
        counts=visible(said, space=" "),
        made_of=_made_of(found.model),
        badges=(Badge(kind.words, "faint", kind.meaning),),
        told=tuple(warned),
    )


def _made_of(model: str, saes: str | None = None) -> str:
    """Which model, and which SAEs."""
    cut = [shortened(visible(it, space=" "), NAME_LENGTH) for it in (model, saes) if it]
    return " · SAEs ".join([f"model {cut[0]}", *cut[1:]]) if cut else ""


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _searched(card: Card, run: RunRecord) -> str:
    """What the filter looks through, in small letters."""
    kinds = [kind for kind, count in (card.verdicts or {}).items() if count]
    words = [card.run.name, card.title or "", run.prompt, run.model, run.saes, *kinds]
    words += [text for text, _ in run.next_tokens[:1]]
    words += ["not validated"] if card.verdicts is None else ["validated"]
    return visible(" ".join(words), space=" ").lower()


def _counts(card: Card, run: RunRecord) -> str:
    parts = [counted(card.features, "feature")]
    parts += [counted(card.outputs, "output token")] if card.outputs else []
    parts += [counted(card.edges, "arrow"), f"{percent(run.kept_share)} of the effect"]
    return " · ".join(parts)


def _badges(card: Card) -> Iterator[Badge]:
    """How many of the tested components and paths are supported; the others by what they are."""
    if not card.verdicts:
        yield Badge("not validated", "faint")
        return
    total = sum(card.verdicts.values())
    supported = card.verdicts.get("supported", 0)
    words = f"{f'{CHECK} ' if supported else ''}{supported} of {total} supported"
    is_answer = card.record is not None and card.record.answer is not None
    meanings: Mapping[Any, str] = OUTCOMES if is_answer else MEANINGS
    yield Badge(words, "supported" if supported else "", meanings["supported"])
    for kind in dict.fromkeys((*meanings, *card.verdicts)):
        count = card.verdicts.get(kind, 0)
        if kind != "supported" and count:
            yield Badge(f"{count} {kind}", title=meanings.get(kind, ""))


def _told(card: Card) -> Iterator[str]:
    if card.unread:
        yield card.unread
    if card.record is not None and card.record.warnings:
        yield f"{counted(len(card.record.warnings), 'warning')} in this run"


def _date(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, tz=UTC)
    except (OverflowError, OSError, ValueError):
        return None
