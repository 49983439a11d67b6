"""Granger tests as one page, as Markdown, and as pictures. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sae_graphs.editing.granger.plots import bic, shares
from sae_graphs.editing.granger.records import GrangerReport
from sae_graphs.editing.granger.sentences import (
    CAUTION,
    HEAD,
    VERDICTS,
    detail,
    findings,
    lag_words,
    meaning_rows,
    question,
    row,
)
from sae_graphs.render.document.blocks import (
    Block,
    Cover,
    Definitions,
    Figure,
    Fold,
    Paragraph,
    Part,
    number,
    table,
    text,
)
from sae_graphs.render.document.plot import with_figures
from sae_graphs.render.notebook import table_html
from sae_graphs.words import counted

STEM = "granger"
PAGE = "granger.html"
BIC = f"{STEM}-lag"
LISTED = 100  # pairs of the first table; all of them are in the JSON file
SHOWN = 10  # pairs in a notebook


def granger_files(report: GrangerReport, formats: Collection[str]) -> dict[str, bytes]:
    """The pictures, the page and its Markdown, by name; the record itself is written apart.

    The same report gives the same bytes.
    """
    if not set(formats) - {"json"}:
        return {}
    figures = {STEM: shares(report)}
    if len(report.criteria) > 1:
        figures[BIC] = bic(report)
    about = f"model {report.model} · SAEs {report.saes} · {counted(report.n_texts, 'text')}"
    cover = Cover("Granger tests of", "Granger", report.about, about, report.warnings)
    return with_figures(STEM, formats, figures, cover, lambda drawn: _blocks(report, drawn))


def granger_html(report: GrangerReport) -> str:
    """A report as the last line of a cell: its strongest pairs."""
    rows = [row(pair, report.settings.level) for pair in report.pairs[:SHOWN]]
    return table_html(" ".join(findings(report)), HEAD, rows)


def _blocks(report: GrangerReport, drawn: Mapping[str, str]) -> Iterator[Block]:
    yield Paragraph(question(report), "lead")
    for sentence in findings(report):
        yield Paragraph(sentence, "verdict")
    yield Paragraph(CAUTION)
    caption = "Shares both ways, the strongest pairs first."
    yield Figure(f"{STEM}.svg", drawn[STEM], caption, "Pairs of series, and what they explain")
    yield from _pairs(report)
    yield Fold("Each pair in full", tuple(_details(report)))
    yield Fold("The series", tuple(_series(report)))
    if BIC in drawn:
        told = Paragraph(f"{lag_words(report)}.".capitalize())
        yield Fold("The lag", (told, Figure(f"{BIC}.svg", drawn[BIC], "", "BIC by lag")))
    yield Fold("What the words mean", (_meanings(),))
    yield Fold("How it was made", (_made(report),))


def _pairs(report: GrangerReport) -> list[Part]:
    level = report.settings.level
    rows = [
        [text(cell) if place < 3 else number(cell) for place, cell in enumerate(row(pair, level))]
        for pair in report.pairs[:LISTED]
    ]
    more = len(report.pairs) - LISTED
    told = "What the other one's past explains of what the own past leaves, and q over all tests"
    told += f"; {more} weaker pairs are in granger.json" if more > 0 else ""
    return table(told, HEAD, rows)


def _details(report: GrangerReport) -> list[Part]:
    head = ("From", "To", "F", "Partial R²", "Wald", "p", "p of F alone", "Coefficients by lag")
    rows = []
    for pair in report.pairs[:LISTED]:
        for ends, test, reason in (
            ((pair.source, pair.target), pair.forward, pair.reason),
            ((pair.target, pair.source), pair.backward, pair.reason_back),
        ):
            *numbers, weights = detail(test)
            rows.append([*map(text, ends), *map(number, numbers), text(reason or weights)])
    return table("Both directions", head, rows)


def _series(report: GrangerReport) -> list[Part]:
    rows = [
        [text(name), text(meaning), number(tokens), number(texts)]
        for name, meaning, tokens, texts in meaning_rows(report)
    ]
    return table("At how many tokens and in how many texts they are not 0", SERIES_HEAD, rows)


SERIES_HEAD = ("Series", "Peaks on", "Tokens", "Texts")


def _meanings() -> Definitions:
    entries = {
        VERDICTS["forward"]: "the source's past adds to what the target's own past predicts, and "
        "not the other way round; both, none: of the two directions",
        "partial R²": "of what the restricted model, the target's own past, leaves unexplained, so "
        "much is explained by the source's past; large in short texts even without an arrow",
        "F": "the gain by column of the source, over what is left by degree of freedom",
        "Wald": "the sum of the texts' scores, squared, over the sum of their squares: each text "
        "counts as one observation, however many tokens in it are alike",
        "p": "how often the Wald statistic gets as large by chance: permutations of the source's "
        "series between texts of one length, and turned signs of whole texts' scores; the larger "
        "of the two. It takes texts for independent of each other, and for no more than that",
        "p of F alone": "that of the F distribution, for comparison: on series such as these it "
        "rejects far too often",
        "q": "Benjamini and Hochberg's, over all tests, both ways",
        "untestable": "a feature is on at too few tokens, or a series does not vary",
    }
    return Definitions("", tuple(entries.items()))


def _made(report: GrangerReport) -> Definitions:
    settings = report.settings
    entries = [
        ("model", report.model),
        ("SAEs", report.saes),
        ("texts", report.texts),
        ("lag", lag_words(report)),
        ("test", settings.test),
        ("taken out of each text", "mean and slope" if settings.detrend == "linear" else "mean"),
        ("lag 0 from earlier layers", "yes" if settings.same_token else "no"),
        ("given", ", ".join(settings.given) or "nothing further"),
        ("all other series given", "yes" if settings.multivariate else "no"),
        ("permutations", f"{settings.permutations}, of about {settings.together} texts each"),
        ("seed", str(settings.seed)),
        ("seconds", str(report.made.get("seconds", "–"))),
    ]
    return Definitions("", tuple(entries))
