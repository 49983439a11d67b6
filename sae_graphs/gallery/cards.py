"""The gallery: a card for each run, to filter, open, and choose two of for a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sae_graphs.gallery.runs import Card
from sae_graphs.gallery.skeleton import Page, page, prompt_html, quoted_name, run_address, shown
from sae_graphs.graph.records import RunRecord
from sae_graphs.render.marks import CHECK
from sae_graphs.runs import REPORT, VALIDATION
from sae_graphs.text import in_page, shortened, token, visible
from sae_graphs.validation.judging import MEANINGS
from sae_graphs.words import counted, percent, probability_words

NAME_LENGTH = 60
TOKEN_LENGTH = 24


def gallery(cards: Sequence[Card], *, folder: str) -> Page:
    """The page of all runs in a folder, in the order given."""
    able = sum(card.record is not None for card in cards)
    found = "".join(map(_card, cards)) or _EMPTY
    body = (
        f'<header><div><h1>Causal graphs</h1><p class="faint">{counted(len(cards), "run")} in '
        f"<code>{shown(folder)}</code></p></div>"
        '<label class="filter js-only">Filter<input type="search" id="filter" autocomplete="off" '
        'placeholder="prompt, token, model, verdict" aria-describedby="left"><kbd>/</kbd></label>'
        '<span id="left" class="faint" role="status"></span></header>'
        f'<form action="/compare" method="get"><main class="cards">{found}</main>'
        f"{_COMPARE if able > 1 else ''}</form>"
    )
    return page("Causal graphs", body, styles=["skeleton", "gallery"], script="gallery")


_EMPTY = (
    '<p class="nothing">No runs are here any more. <code>sae-graphs graph "Copyright (C"</code> '
    "makes one; reload this page then.</p>"
)
_COMPARE = (
    '<footer class="choice"><span id="chosen" role="status">Tick two graphs to see them side by '
    'side.</span><button id="clear" type="reset" class="js-only" hidden>clear</button>'
    '<button id="compare" class="strong">Compare</button></footer>'
)


def _card(card: Card) -> str:
    if card.record is None:
        return _broken(card)
    run, name = card.record, card.run.name
    heading = card.title or name
    address = run_address(name)
    thumbnail = f"/thumbnail/{quoted_name(name)}.svg"
    report = ""
    if card.has_report:
        report = f'<a href="{run_address(name, f"{VALIDATION}/{REPORT}")}">validation report</a>'
    return (
        f'<article class="card" data-text="{in_page(_searched(card, run))}">'
        f'<a class="picture" href="{address}" tabindex="-1" aria-hidden="true">'
        f'<img src="{thumbnail}" alt="" loading="lazy"></a>'
        f'<div class="about"><h2><a href="{address}">{_short(heading)}</a></h2>'
        f"{_folder(card)}{prompt_html(run)}{_next(run)}"
        f'<p class="facts">{_counts(card, run)}</p>{_badges(card)}'
        f'<p class="facts faint">model {_short(run.model)} · SAEs {_short(run.saes)}</p>'
        f'{_left(card)}<div class="last">{_date(card.created)}{report}{_tick(name, heading)}</div>'
        "</div></article>"
    )


def _broken(card: Card) -> str:
    text = visible(f"{card.run.name} {card.problem}", space=" ").lower()
    return (
        f'<article class="card broken" data-text="{in_page(text)}">'
        '<div class="picture" aria-hidden="true">?</div>'
        f'<div class="about"><h2>{_short(card.run.name)}</h2>'
        f"<p><b>This run cannot be opened.</b> {shown(card.problem or '')}</p>"
        f'<div class="last">{_date(card.created)}</div></div></article>'
    )


def _short(text: str) -> str:
    return in_page(shortened(visible(text, space=" "), NAME_LENGTH))


def _tick(name: str, heading: str) -> str:
    """The box that chooses a run for a comparison."""
    if not _is_unicode(name):  # a form cannot send such a name
        return ""
    label = f"compare {shortened(heading, NAME_LENGTH)}"
    return (
        f'<label class="tick"><input type="checkbox" name="run" value="{in_page(name)}" '
        f'aria-label="{shown(label)}">compare</label>'
    )


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


def _next(run: RunRecord) -> str:
    if not run.next_tokens:
        return ""
    text, probability = run.next_tokens[0]
    return (
        f'<p class="next"><span class="faint">next</span> <code>'
        f"{in_page(shortened(token(text), TOKEN_LENGTH))}</code> "
        f'<span class="track"><span style="width:{100 * probability:.1f}%"></span></span> '
        f"{probability_words(probability)}</p>"
    )


def _folder(card: Card) -> str:
    """The folder's name, where a title stands in its place."""
    return f'<p class="facts faint">{_short(card.run.name)}</p>' if card.title else ""


def _counts(card: Card, run: RunRecord) -> str:
    parts = [counted(card.features, "feature")]
    parts += [counted(card.outputs, "output token")] if card.outputs else []
    parts += [counted(card.edges, "arrow"), f"{percent(run.kept_share)} of the effect"]
    return in_page(" · ".join(parts))


def _badges(card: Card) -> str:
    """How many of the tested components and paths are supported; the others by what they are."""
    if not card.verdicts:
        return '<p class="badges"><span class="badge faint">not validated</span></p>'
    total = sum(card.verdicts.values())
    supported = card.verdicts.get("supported", 0)
    strong = " supported" if supported else ""
    badges = [
        f'<span class="badge{strong}" title="{in_page(MEANINGS["supported"])}">'
        f"{f'{CHECK} ' if supported else ''}{supported} of {total} supported</span>"
    ]
    for kind, meaning in MEANINGS.items():
        count = card.verdicts.get(kind, 0)
        if kind != "supported" and count:
            badges.append(f'<span class="badge" title="{in_page(meaning)}">{count} {kind}</span>')
    return f'<p class="badges">{" ".join(badges)}</p>'


def _left(card: Card) -> str:
    told = [card.unread] if card.unread else []
    if card.record is not None and card.record.warnings:
        told.append(f"{counted(len(card.record.warnings), 'warning')} in this run")
    return "".join(f'<p class="warned">⚠ {_short_of(text)}</p>' for text in told)


def _short_of(text: str) -> str:
    return in_page(shortened(visible(text, space=" "), 240))


def _date(seconds: float) -> str:
    try:
        when = datetime.fromtimestamp(seconds, tz=UTC)
    except (OverflowError, OSError, ValueError):
        return ""
    return f'<time datetime="{when:%Y-%m-%dT%H:%MZ}">{when:%Y-%m-%d %H:%M} UTC</time>'
