"""Many edits as one page, and in Markdown: the metrics with intervals, examples. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sae_graphs.editing.many import Edits
from sae_graphs.editing.scores import (
    MEASURES,
    Asked,
    Interval,
    Scored,
    measured,
    summarised,
    unedited,
)
from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Definitions,
    Fold,
    Heading,
    Paragraph,
    number,
    table,
    text,
)
from sae_graphs.render.document.written import documents
from sae_graphs.text import visible
from sae_graphs.words import MINUS, NONE, counted, percent, plain, probability

STEM = "edits"
EXAMPLES = 5
HEAD = ("Measure", "Unedited", "Edited", "95 % interval", "Cases")
SHARES = frozenset({"S", "ES", "PS", "NS", "retention"})
MEANINGS = (
    ("S", "harmonic mean of ES, PS and NS"),
    ("ES, EM", "efficacy: share of prompts after which the new object is likelier than the true "
     "one, and by how much probability"),
    ("PS, PM", "the same of paraphrases"),
    ("NS, NM", "neighbours, of which the true object is true: share of prompts after which it is "
     "likelier than the new one, and by how much"),
    ("fluency", "entropy of bigrams and trigrams of tokens in text that is written on, in bits"),
    ("retention", "of the subject's other facts that the model said, the share that it says still"),
    ("perplexity", "of other text, as a multiple of what it was"),
)  # fmt: skip


def edits_files(edits: Edits) -> dict[str, bytes]:
    """The page and its Markdown, by name; the same edits give the same bytes."""
    return documents(STEM, _cover(edits), list(_blocks(edits)))


def rows_of(edits: Edits) -> list[tuple[str, str, str, str, str]]:
    """The metrics before and after, in words, and of how many cases."""
    before, after = (made(edits.scored, edits.seed) for made in (unedited, summarised))
    return [
        (
            name,
            value(name, before[name].mean),
            value(name, after[name].mean),
            _range(name, after),
            str(after[name].n),
        )
        for name in MEASURES
    ]


def value(name: str, mean: float) -> str:
    """A measure in words: three decimals of shares and differences."""
    if mean != mean:
        return NONE
    if name in SHARES or name in ("EM", "PM", "NM"):
        return f"{mean:.3f}".replace("-", MINUS)
    return plain(mean)


def _range(name: str, found: dict[str, Interval]) -> str:
    low, high = found[name].low, found[name].high
    if low is None or high is None or low != low:
        return ""
    return f"{value(name, low)} to {value(name, high)}"


def _cover(edits: Edits) -> Cover:
    count = len(edits.scored) + len(edits.left_out)
    about = (
        f"model {edits.model} · {edits.method} at block {edits.layer} · "
        f"{len(edits.scored)} of {counted(count, 'case')}"
    )
    return Cover("Edits of the facts of", "Edits", edits.cases, about)


def _blocks(edits: Edits) -> Iterator[Block]:
    yield Paragraph(
        "Each fact was written into the model as it was, asked, and undone. Probabilities are of "
        "the objects' first tokens.",
        "lead",
    )
    rows = [(text(name), *(number(it) for it in rest)) for name, *rest in rows_of(edits)]
    yield from table("Means over cases; intervals are bootstraps over subjects.", HEAD, rows)
    yield Heading("What the model writes")
    yield from _examples(edits.scored)
    yield Heading("More")
    yield Fold(
        "Every case",
        tuple(table("Each fact as it was asked.", _CASE_HEAD, list(map(_case_row, edits.scored)))),
    )
    left = [
        tuple(text(visible(words, space=" ")) for words in (it.asked, it.reason))
        for it in edits.left_out
    ]
    if left:
        yield Fold(
            "What was left out, and why",
            tuple(table("Cases left out.", ("Prompt", "Reason"), left)),
        )
    yield Fold("What the words mean", (Definitions("Measures", MEANINGS),))
    made = tuple((name, str(it)) for name, it in {**edits.settings, **edits.about}.items())
    yield Fold("How it was made", (Definitions("Settings", made),))


def _examples(scored: Sequence[Scored]) -> Iterator[Block]:
    rows = [
        tuple(text(visible(words, space=" ")) for words in (f"{it.asked}{it.new}", *it.texts[0]))
        for it in scored
        if it.texts
    ]
    head = ("Fact written", "Prompt", "Went on before", "Goes on after")
    yield from table("Drawn by the seed, of the five likeliest tokens.", head, rows[:EXAMPLES])


_CASE_HEAD = ("Prompt", "New", "True", "p new", "p true", "PS", "NS", "Retention")


def _case_row(case: Scored) -> tuple[Cell, ...]:
    found, first = measured(case.before, case.after), case.after.rewrite[0]
    shares = (found[name] for name in ("PS", "NS", "retention"))
    return (
        text(visible(case.asked, space=" ")),
        Cell(case.new, token=True),
        Cell(case.true, token=True),
        *_both(first),
        *(number(NONE if it != it else percent(it)) for it in shares),
    )


def _both(asked: Asked) -> tuple[Cell, Cell]:
    return number(probability(asked.new)), number(probability(asked.true))


def summary(edits: Edits) -> str:
    """What came of it, in a sentence."""
    found = summarised(edits.scored, edits.seed)
    shares = ", ".join(
        f"{name} {value(name, found[name].mean)}" for name in ("S", "ES", "PS", "NS")
    )
    kept = value("retention", found["retention"].mean)
    return (
        f"{counted(len(edits.scored), 'fact')} written by {edits.method} at block {edits.layer}: "
        f"{shares}; of the subjects' other facts {kept} kept"
    )
