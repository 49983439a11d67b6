"""The whole report in order: what was tested, the summary, then unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from sae_graphs.render.document.blocks import (
    Block,
    Cell,
    Cover,
    Definitions,
    Figure,
    Heading,
    Paragraph,
    Part,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.text import token
from sae_graphs.validation.evidence import Null, UnitReport, ValidationReport
from sae_graphs.validation.judging import MEANINGS, VerdictKind, deciding, pooled
from sae_graphs.validation.report.marks import badge, judged
from sae_graphs.validation.report.plots import noise_plot
from sae_graphs.validation.report.reasons import curve_blocks, spread_cells
from sae_graphs.validation.report.units import prompt_name, score_name, target_words, unit_blocks
from sae_graphs.validation.verdicts import Verdict
from sae_graphs.words import (
    NONE,
    amount,
    change_range,
    counted,
    norm,
    p_value,
    probability,
    said,
    score_change,
    share,
    times,
)

TOP = 5  # likeliest next tokens shown of each prompt


def cover(report: ValidationReport) -> Cover:
    """What stands above all of it."""
    return Cover(
        "Validation of the causal graph of",
        "Validation",
        report.prompt,
        f"model {report.model} · SAEs {report.saes}",
        report.warnings,
    )


def blocks(report: ValidationReport) -> Iterator[Block]:
    """All of the report below its title."""
    units = judged(report)
    yield from opening(report)
    yield from _summary(report, units)
    yield _meanings(report, {found.kind for _, found, _ in units})
    yield from _clean_tokens(report)
    for unit, found, anchor in units:
        yield from unit_blocks(unit, found, anchor, report)
    yield from _whole_graph(report)
    yield from _made_with(report)


def opening(report: ValidationReport) -> Iterator[Block]:
    """What was tested, in which prompts, and what the numbers are not."""
    n_controls = max((len(null.changes) for null in _nulls(report)), default=0)
    how = f", beside up to {n_controls:,} controls each" if n_controls else ""
    what = target_words(report)
    kinds = [unit.kind for unit in report.units]
    counts = [counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds)]
    verb = "is" if len(kinds) == 1 else "are"
    yield Paragraph(
        f"{' and '.join(counts)} of the graph {verb} ablated{how}, and {what} is read after the "
        "prompt. Changes are ablated minus clean.",
    )
    found = [said(prompt) for prompt in report.discovery]
    told = f"The graph was found on {', '.join(found)}."
    if len(found) > 1:
        told = (
            f"The graph was found on {len(found)} prompts: {', '.join(found)}. Its own prompt, in "
            f"which some things are measured alone, is {said(report.prompt)}."
        )
    yield Paragraph(told, "note")
    if report.test:
        n_tests = len(report.test)
        no_part = "which had no part" if n_tests == 1 else "none of which had a part"
        where = counted(n_tests, "test prompt")
        yield Paragraph(f"Verdicts rest on {where}, {no_part} in making the graph.", "note")
    else:
        yield Paragraph(
            "Verdicts rest on the prompt that the graph was made from: they say that the graph is "
            "right there, not that it holds for other prompts. Give test prompts to find out.",
            "note",
        )


def _clean_tokens(report: ValidationReport) -> Iterator[Block]:
    """What the model says in each prompt before anything is ablated."""
    unit = max(report.units, key=lambda each: len(each.results), default=None)
    if unit is None:
        return
    rows = []
    widest = min(max(len(result.top) for result in unit.results), TOP)
    for result in unit.results:
        likeliest = [f"{said(each.token)} {probability(each.before)}" for each in result.top[:TOP]]
        likeliest += [NONE] * (widest - len(likeliest))
        cells = [text(prompt_name(result, unit)), Cell(result.prompt, token=True)]
        rows.append([*cells, *map(number, likeliest)])
    head = ["Prompt", "Its text", *(f"Next token {place}" for place in range(1, widest + 1))]
    if widest:
        yield from table("Likeliest next tokens of each prompt, nothing ablated", head, rows)


def _nulls(report: ValidationReport) -> Iterator[Null]:
    for unit in report.units:
        for result in unit.results:
            yield from result.nulls


def _summary(
    report: ValidationReport, units: Sequence[tuple[UnitReport, Verdict, str]]
) -> Iterator[Block]:
    """One row for each component and path; over several prompts also how the change differs."""
    in_nats = report.in_nats
    several = any(len(deciding(unit)) > 1 for unit, _, _ in units)
    head = ["", "Verdict", "Features", f"{score_name(report)}, before → after", "Change"]
    head += ["In single prompts"] if several else []
    patched = any(unit.mediation for unit, _, _ in units)
    head += ["Carried"] if patched else []
    head += ["p", "q", "× controls' median", "Controls' norm"]
    rows = [
        _summary_row(*each, in_nats=in_nats, several=several, patched=patched) for each in units
    ]
    yield from table("Components and paths", head, rows)


def _summary_row(
    unit: UnitReport, found: Verdict, anchor: str, *, in_nats: bool, several: bool, patched: bool
) -> list[Cell]:
    results, tested = deciding(unit), unit.tested
    before = fmean(result.score for result in results) if results else 0.0
    changes = [result.change for result in results]
    change = fmean(changes) if changes else 0.0
    ends = [amount(end) if in_nats else probability(end) for end in (before, before + change)]
    matched = pooled(unit, "matched")
    match = matched.match if matched else None
    cells = [
        Cell(unit.name, link=anchor),
        Cell(found.kind, badge=badge(found.kind)),
        number(str(len(unit.features))),
        number(" → ".join(ends)),
        number(score_change(change, in_nats=in_nats), tone_of(change)),
    ]
    cells += [number(change_range(changes, in_nats=in_nats) or NONE)] if several else []
    carried = unit.mediation.fraction if unit.mediation else None
    cells += [number(share(carried))] if patched else []
    return [
        *cells,
        number(p_value(tested.p if tested else None)),
        number(p_value(tested.q if tested else None)),
        number(times(tested.ratio if tested else None)),
        number(NONE if match is None else norm(match)),
    ]


def _meanings(report: ValidationReport, kinds: set[VerdictKind]) -> Definitions:
    """What the verdicts that occur, and the columns, mean."""
    entries = [(kind, words) for kind, words in MEANINGS.items() if kind in kinds]
    columns = {
        "p": "how often controls change the target as much: (1 + those that do) / (1 + all)",
        "q": "p corrected for the number of units tested (Benjamini-Hochberg)",
        "× controls' median": "the change as a multiple of the median |change| of matched controls",
        "Controls' norm": "how much matched controls take from the stream, as a share of what this "
        "takes (median)",
    }
    if any(unit.mediation for unit in report.units):
        columns["Carried"] = (
            "whether it is a path is a question of its own: how much of what its first feature (of "
            "a component, its sources) does flows along it, in the graph's own prompt"
        )
    if any(unit.mediation or unit.keep_only or unit.kinds for unit in report.units):
        columns["metric"] = (
            "the target's logit minus that of the contrast, or without one minus that of the "
            "likeliest other token; in nats"
        )
    return Definitions("How to read it", (*entries, *columns.items()))


def _whole_graph(report: ValidationReport) -> Iterator[Block]:
    """What was found beyond the units: curves of edges, kinds that agree, noise."""
    parts: list[Part] = [*curve_blocks(report.curves, "graph")]
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
    entries += _numbered("discovery prompt", report.discovery)
    entries += _numbered("test prompt", report.test)
    target = "each prompt's likeliest" if report.target is None else token(report.target)
    entries += [("target", target)]
    entries += [("contrast", token(report.contrast))] if report.contrast is not None else []
    entries += [("snippets from", report.corpus)] if report.corpus is not None else []
    entries += [(str(name), _setting(value)) for name, value in report.settings.items()]
    entries += [("time", f"{amount(report.seconds)} s of measuring, not of loading or writing")]
    yield Heading("Made with")
    yield Definitions("", tuple(entries))


def _numbered(name: str, prompts: Sequence[str]) -> list[tuple[str, str]]:
    """The prompts of a role, numbered where there are several, as in all tables."""
    if len(prompts) == 1:
        return [(name, prompts[0])]
    return [(f"{name} {place}", prompt) for place, prompt in enumerate(prompts, start=1)]


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
