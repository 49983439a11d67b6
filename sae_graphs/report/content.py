"""The whole report in order: what was tested, the summary, then unit by unit."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from sae_graphs.evidence import Null, UnitReport, ValidationReport
from sae_graphs.evidence_words import (
    NONE,
    amount,
    norm,
    p_value,
    probability,
    score_change,
    times,
)
from sae_graphs.render.text import counted, token
from sae_graphs.report.blocks import (
    Block,
    Cell,
    Definitions,
    Figure,
    Heading,
    Paragraph,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.report.plots import noise_plot
from sae_graphs.report.reasons import curve_blocks, spread_cells
from sae_graphs.report.units import slug, target_words, unit_blocks
from sae_graphs.verdicts import MEANINGS, Verdict, VerdictKind, deciding, pooled, verdict

SUMMARY_HEAD: tuple[str, ...] = (
    "",
    "Verdict",
    "Features",
    "Target, before → after",
    "Change",
    "p",
    "q",
    "× controls' median",
    "Controls' norm",
)


def judged(report: ValidationReport) -> tuple[tuple[UnitReport, Verdict, str], ...]:
    """Every unit with its verdict and its anchor; no two anchors are the same."""
    taken: set[str] = set()
    found = []
    for place, unit in enumerate(report.units, start=1):
        anchor = slug(unit.name, place)
        anchor = f"unit-{place}" if anchor in taken else anchor
        taken.add(anchor)
        found.append((unit, verdict(unit, report), anchor))
    return tuple(found)


def blocks(report: ValidationReport) -> Iterator[Block]:
    """All of the report below its title."""
    units = judged(report)
    yield from opening(report)
    yield from table(
        "Components and paths",
        SUMMARY_HEAD,
        [_summary_row(report, *judgement) for judgement in units],
    )
    yield _meanings({found.kind for _, found, _ in units})
    for unit, found, anchor in units:
        yield from unit_blocks(unit, found, anchor, in_nats=report.contrast is not None)
    yield from _whole_graph(report)
    yield from _made_with(report)


def opening(report: ValidationReport) -> Iterator[Block]:
    """What was tested, in which prompts, and what the numbers are not."""
    n_controls = max((len(null.changes) for null in _nulls(report)), default=0)
    how = f" beside up to {n_controls:,} controls each" if n_controls else ""
    what = target_words(report.target, report.contrast)
    kinds = [unit.kind for unit in report.units]
    counts = [counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds)]
    yield Paragraph(
        f"Each of {' and '.join(counts)} of the graph is ablated{how}, and {what} is read after "
        "the prompt. Changes are ablated minus clean.",
    )
    if report.test:
        where = counted(len(report.test), "test prompt")
        yield Paragraph(f"Verdicts rest on {where} that had no part in making the graph.", "note")
    else:
        yield Paragraph(
            "Verdicts rest on the prompt that the graph was made from: they say that the graph is "
            "right there, not that it holds for other prompts. Give test prompts to find out.",
            "note",
        )


def _nulls(report: ValidationReport) -> Iterator[Null]:
    for unit in report.units:
        for result in unit.results:
            yield from result.nulls


def _summary_row(
    report: ValidationReport, unit: UnitReport, found: Verdict, anchor: str
) -> list[Cell]:
    results, tested, in_nats = deciding(unit), unit.tested, report.contrast is not None
    before = fmean(result.target.before for result in results) if results else 0.0
    after = fmean(result.target.after for result in results) if results else 0.0
    change = fmean(result.change for result in results) if results else 0.0
    matched = pooled(unit, "matched")
    match = matched.match if matched else None
    return [
        Cell(unit.name, link=anchor),
        Cell(found.kind, badge=found.kind),
        number(str(len(unit.features))),
        number(f"{probability(before)} → {probability(after)}"),
        number(score_change(change, in_nats=in_nats), tone_of(change)),
        number(p_value(tested.p if tested else None)),
        number(p_value(tested.q if tested else None)),
        number(times(tested.ratio if tested else None)),
        number(NONE if match is None else norm(match)),
    ]


def _meanings(kinds: set[VerdictKind]) -> Definitions:
    """What the verdicts that occur, and the columns, mean."""
    entries = [(kind, words) for kind, words in MEANINGS.items() if kind in kinds]
    columns = {
        "p": "how often controls change the target as much: (1 + those that do) / (1 + all)",
        "q": "p corrected for the number of units tested (Benjamini-Hochberg)",
        "× controls' median": "the change as a multiple of the median |change| of matched controls",
        "Controls' norm": "how much matched controls take from the stream, as a share of what this "
        "takes (median)",
    }
    return Definitions("How to read it", (*entries, *columns.items()))


def _whole_graph(report: ValidationReport) -> Iterator[Block]:
    """What was found beyond the units: curves of edges, kinds that agree, noise."""
    parts = [*curve_blocks(report.curves, "graph")]
    if report.agreement:
        rows = [[text(kinds), number(amount(value))] for kinds, value in report.agreement.items()]
        parts.append(Heading("Do kinds of ablation agree?", 3))
        head = ("Kinds", "Spearman rank correlation")
        parts += table("Ranks of the paths by their changes", head, rows)
    picture = noise_plot(report.noise)
    if picture:
        parts.append(Heading("How sensitive is the model to any ablation?", 3))
        parts.append(
            Figure("plot-noise.svg", picture, "Random features ablated in snippets of other text.")
        )
        rows = [[number(str(noise.n_features)), *spread_cells(noise.kl)] for noise in report.noise]
        names = ("Features", "Snippets", "Mean KL, nats", "95 % interval")
        parts += table("Random ablations", names, rows)
    if parts:
        yield Heading("The whole graph")
        yield from parts


def _made_with(report: ValidationReport) -> Iterator[Block]:
    entries = [("model", report.model), ("SAEs", report.saes), ("prompt", report.prompt)]
    entries += [("discovery prompt", prompt) for prompt in report.discovery]
    entries += [("test prompt", prompt) for prompt in report.test]
    target = "each prompt's likeliest" if report.target is None else token(report.target)
    entries += [("target", target)]
    entries += [("contrast", token(report.contrast))] if report.contrast is not None else []
    entries += [("snippets from", report.corpus)] if report.corpus is not None else []
    entries += [(str(name), _setting(value)) for name, value in report.settings.items()]
    entries += [("time", f"{amount(report.seconds)} s")]
    yield Heading("Made with")
    yield Definitions("", tuple(entries))


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
