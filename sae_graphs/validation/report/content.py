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
    Fold,
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
from sae_graphs.validation.judging import (
    CONTRIBUTION,
    CONTROLS_TOLD,
    EQUAL_NORM,
    MEANINGS,
    VerdictKind,
    deciding,
    pooled,
)
from sae_graphs.validation.report.marks import badge, judged
from sae_graphs.validation.report.plots import noise_plot
from sae_graphs.validation.report.reasons import curve_blocks, spread_cells
from sae_graphs.validation.report.rows import row_head, unit_row
from sae_graphs.validation.report.units import prompt_name, score_name, target_words, unit_blocks
from sae_graphs.validation.verdicts import Verdict
from sae_graphs.words import (
    NONE,
    amount,
    change_range,
    counted,
    listed,
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


def blocks(report: ValidationReport, picture: Figure | None = None) -> Iterator[Block]:
    """All of the report below its title; `picture` is the graph's, with ticks."""
    units = judged(report)
    yield Paragraph(_tested(report), "lead")
    yield Paragraph(_came_out(units), "verdict")
    yield from _summary(report, units)
    yield Paragraph(CONTROLS_TOLD, "note")
    yield Paragraph(_trust(report), "note")
    for unit, found, anchor in units:
        yield from unit_blocks(unit, found, anchor, report)
    yield from _whole_graph(report)
    yield Heading("More")
    if picture is not None:
        yield Fold("The graph's picture, with ticks where supported", (picture,))
    numbers = (*_numbers(report, units), *_clean_tokens(report))
    yield Fold("All numbers side by side, and the next tokens of each prompt", numbers)
    meanings = _meanings(report, {found.kind for _, found, _ in units})
    yield Fold("What the words and columns mean", (meanings,))
    yield Fold("Made with", (_made_with(report),))


def _tested(report: ValidationReport) -> str:
    """What was tested, in which prompts."""
    n_controls = max((len(null.changes) for null in _nulls(report)), default=0)
    how = f", beside up to {n_controls:,} controls each" if n_controls else ""
    what = target_words(report)
    kinds = [unit.kind for unit in report.units]
    counts = [counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds)]
    verb = "was" if len(kinds) == 1 else "were"
    found = [said(prompt) for prompt in report.discovery]
    told = f"The graph was found on {', '.join(found)}."
    if len(found) > 1:
        told = (
            f"The graph was found on {len(found)} prompts: {', '.join(found)}. Its own prompt, in "
            f"which some things are measured alone, is {said(report.prompt)}."
        )
    if not kinds:
        return f"What was tested: nothing; the graph has no part to ablate. {told}"
    return (
        f"What was tested: {' and '.join(counts)} of the graph {verb} ablated as a whole{how}, and "
        f"{what} was read after the prompt. {told}"
    )


def _came_out(units: Sequence[tuple[UnitReport, Verdict, str]]) -> str:
    """Every unit's verdict, those that are supported first."""
    if not units:
        return "What came out: nothing, for nothing could be tested."
    told = []
    for kind in MEANINGS:
        names = [unit.name for unit, found, _ in units if found.kind == kind]
        if names:
            told.append(f"{badge(kind).sign} {kind}{_IN_SHORT[kind]}: {listed(names)}")
    return f"What came out: {'; '.join(told)}."


_IN_SHORT: dict[VerdictKind, str] = {
    "supported": "",
    "norm only": " (beats matched controls, but not every other kind of change of its size)",
    "not distinguishable": " (matched controls do about as much)",
    "no effect": "",
    "inactive": "",
    "no controls": " (nothing can be said)",
}


def _trust(report: ValidationReport) -> str:
    """What the verdicts rest on, and what they do not say."""
    where = (
        "the prompt that the graph was made from: they say that the graph is right there, not that "
        "it holds for other prompts. Give test prompts to find out"
    )
    if report.test:
        n_tests = len(report.test)
        no_part = "which had no part" if n_tests == 1 else "none of which had a part"
        where = f"{counted(n_tests, 'test prompt')}, {no_part} in making the graph"
    return (
        f"How far to trust it: verdicts rest on {where}. Supported means that the features matter "
        "more than others do; whether what they do flows along the path is told beside it."
    )


def _summary(
    report: ValidationReport, units: Sequence[tuple[UnitReport, Verdict, str]]
) -> Iterator[Part]:
    """The outcomes, a row for each component and path."""
    rows = []
    for unit, found, anchor in units:
        name, *numbers, necessary, mediates, kind = unit_row(unit, found, report)
        cells = [Cell(name, link=anchor), *map(number, numbers), text(necessary), text(mediates)]
        rows.append([*cells, Cell(kind, badge=badge(found.kind))])
    yield from table("Components and paths, each ablated as a whole", row_head(report), rows)


def _clean_tokens(report: ValidationReport) -> Iterator[Part]:
    """What the model says in each prompt before anything is ablated."""
    unit = max(report.units, key=lambda each: len(each.results), default=None)
    if unit is None or not unit.results:
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


def _numbers(
    report: ValidationReport, units: Sequence[tuple[UnitReport, Verdict, str]]
) -> Iterator[Part]:
    """One row for each component and path; over several prompts also how the change differs."""
    in_nats = report.in_nats
    several = any(len(deciding(unit)) > 1 for unit, _, _ in units)
    head = ["", "Verdict", "Features", f"{score_name(report)}, before → after", "Contribution"]
    head += ["In single prompts"] if several else []
    patched = any(unit.mediation for unit, _, _ in units)
    head += ["Mediated"] if patched else []
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
        number(score_change(-change, in_nats=in_nats), tone_of(change)),
    ]
    each = [-change for change in changes]
    cells += [number(change_range(each, in_nats=in_nats) or NONE)] if several else []
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
        "Contribution": CONTRIBUTION,
        "p": "how often controls change the target as much: (1 + those that do) / (1 + all)",
        "q": "p corrected for the number of units tested (Benjamini-Hochberg)",
        "× controls' median": "|contribution| as a multiple of the median of matched controls",
        "Controls' norm": "how much matched controls take from the stream, as a share of what this "
        "takes (median)",
    }
    if any(unit.mediation for unit in report.units):
        columns["Mediated"] = (
            "whether it is a path is a question of its own: how much of what its first feature (of "
            "a component, its sources) does flows along it, in the graph's own prompt"
        )
    if any(unit.mediation or unit.keep_only or unit.kinds for unit in report.units):
        columns["metric"] = (
            "the target's logit minus that of the contrast, or without one minus that of the "
            "likeliest other token; in nats"
        )
    columns["p, equal norm"] = EQUAL_NORM
    return Definitions("", (*entries, *columns.items()))


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
        yield Fold("All that was measured of the whole graph", tuple(parts))


def _made_with(report: ValidationReport) -> Definitions:
    entries = [("model", report.model), ("SAEs", report.saes), ("prompt", report.prompt)]
    entries += _numbered("discovery prompt", report.discovery)
    entries += _numbered("test prompt", report.test)
    target = "each prompt's likeliest" if report.target is None else token(report.target)
    entries += [("target", target)]
    entries += [("contrast", token(report.contrast))] if report.contrast is not None else []
    entries += [("snippets from", report.corpus)] if report.corpus is not None else []
    entries += [(str(name), _setting(value)) for name, value in report.settings.items()]
    entries += [("time", f"{amount(report.seconds)} s of measuring, not of loading or writing")]
    return Definitions("", tuple(entries))


def _numbered(name: str, prompts: Sequence[str]) -> list[tuple[str, str]]:
    """The prompts of a role, numbered where there are several, as in all tables."""
    if len(prompts) == 1:
        return [(name, prompts[0])]
    return [(f"{name} {place}", prompt) for place, prompt in enumerate(prompts, start=1)]


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
