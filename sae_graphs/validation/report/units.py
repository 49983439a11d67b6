"""All that was found of one component or path, as tables and plots."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from sae_graphs.render.document.blocks import (
    Beside,
    Block,
    Cell,
    Fold,
    Heading,
    Paragraph,
    Part,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.validation.evidence import (
    Null,
    NullKind,
    PromptResult,
    TokenChange,
    UnitReport,
    ValidationReport,
)
from sae_graphs.validation.judging import NULL_NAMES
from sae_graphs.validation.report.marks import badge
from sae_graphs.validation.report.reasons import (
    background_blocks,
    curve_blocks,
    keep_only_blocks,
    kinds_blocks,
    mediation_blocks,
)
from sae_graphs.validation.report.strip import figure
from sae_graphs.validation.report.strips import strip_of
from sae_graphs.validation.verdicts import Verdict
from sae_graphs.words import (
    NONE,
    amount,
    counted,
    nats,
    norm,
    p_value,
    points,
    probability,
    relative_to,
    said,
    score_change,
    score_size,
    target_said,
)

LEAST_MOVED = 0.01  # points: tokens whose probability changes less are not listed


def unit_blocks(
    unit: UnitReport, found: Verdict, anchor: str, report: ValidationReport
) -> Iterator[Block]:
    """The section of one unit: the verdict first, then what it rests on."""
    yield Heading(unit.name, 2, anchor, badge(found.kind))
    words: list[Part | Fold] = [Paragraph(told, "verdict") for told in found.sentences]
    details = (
        *([Paragraph(found.more)] if found.more else []),
        *_nulls(unit, in_nats=report.in_nats),
        *_prompts(unit, score_name(report) if report.in_nats else None),
        *mediation_blocks(unit, anchor),
        *keep_only_blocks(unit, anchor),
        *curve_blocks(unit.curves, anchor),
        *kinds_blocks(unit),
        *background_blocks(unit),
    )
    words.append(Paragraph(_members(unit), "note"))
    words.append(Fold(f"All that was measured of {unit.name}", details))
    drawn = figure(strip_of(unit, report), f"plot-{anchor}-nulls.svg")
    yield Beside(tuple(words), drawn[0] if drawn else None)


def _members(unit: UnitReport) -> str:
    named = ", ".join(map(str, unit.features))
    if unit.kind == "path":
        named = " → ".join(map(str, unit.features))
    edges = counted(len(unit.edges), "edge")
    return f"{counted(len(unit.features), 'feature')}, {edges}: {named}"


# -- the ablation, prompt by prompt ----------------------------------------------------------------


def _prompts(unit: UnitReport, name: str | None) -> Iterator[Part]:
    """The target in each prompt; with the score under a `name` where that is no probability."""
    rows = []
    for result in unit.results:
        ranks = f"{result.rank_before} → {result.rank_after}"
        row = [
            text(prompt_name(result, unit)),
            Cell(result.prompt, token=True),
            number(f"{result.active} of {len(unit.features)}"),
            Cell(result.target.token, token=True),
            *_change_cells(result.target),
            number(ranks),
            number(amount(result.kl)),
        ]
        if name is not None:
            row.append(number(amount(result.score)))
            row.append(number(nats(-result.change), tone_of(result.change)))
        rows.append(row)
    head = ["Prompt", "Its text", "Active", "Target", *_CHANGE_HEAD, "Rank", "KL, nats"]
    head += [] if name is None else [name, "Contribution, nats"]
    yield from table("The target in each prompt: all the features ablated together", head, rows)
    least = f"{LEAST_MOVED:g} points or more"
    moved = [
        [
            text(prompt_name(result, unit)),
            text(what),
            Cell(change.token, token=True),
            *_change_cells(change),
            number(nats(change.log_probability_change)),
        ]
        for result in unit.results
        for what, change in _moved(result)
    ]
    head = ["Prompt", "", "Next token", *_CHANGE_HEAD, "Log-probability, nats"]
    yield from table(f"Next tokens that change most, by {least}", head, moved)


_CHANGE_HEAD = ("Probability", "Points", "Relative", "Logit, nats")


def _change_cells(change: TokenChange) -> list[Cell]:
    tone = tone_of(change.points)
    return [
        number(f"{probability(change.before)} → {probability(change.after)}"),
        number(points(change.points / 100), tone),
        number(relative_to(change.relative_change, change.before), tone),
        number(nats(change.logit_change)),
    ]


def _moved(result: PromptResult) -> Iterator[tuple[str, TokenChange]]:
    """What is lowered and raised, then the likeliest tokens before; not what hardly moves."""
    both = (*result.lowered, *result.raised)
    told = {change.token_id for change in both}
    others = [change for change in result.top if change.token_id not in told]
    for change in (*both, *others):
        if abs(change.points) >= LEAST_MOVED:
            yield "lowered" if change.points < 0 else "raised", change


def prompt_name(result: PromptResult, unit: UnitReport) -> str:
    """The role, and the number among the prompts of that role where there are several."""
    same = [other.prompt for other in unit.results if other.role == result.role]
    return result.role if len(same) == 1 else f"{result.role} {same.index(result.prompt) + 1}"


def _nulls(unit: UnitReport, *, in_nats: bool) -> Iterator[Part]:
    rows = [
        [text(prompt_name(result, unit)), text(NULL_NAMES[null.kind]), *_null_cells(null, in_nats)]
        for result in unit.results
        for null in result.nulls
        if null.changes
    ]
    for result in unit.results:
        if (zero := result.feature_zero) is not None:
            active = f"feature 0 of the same layers ({zero.active} of {zero.n} active)"
            change = score_change(-zero.change, in_nats=in_nats)
            numbers = ("1", NONE, NONE, NONE, change, amount(zero.kl), NONE, NONE)
            rows.append([text(prompt_name(result, unit)), text(active), *map(number, numbers)])
    head = [
        "Prompt",
        "Controls",
        "Number",
        "Distinct",
        "Fewest sets of a layer",
        "Norm removed, 5 / 50 / 95 %",
    ]
    head += ["Median |contribution|", "Median KL, nats", "p", "p of KL"]
    yield from table("Controls, prompt by prompt", head, rows)
    if any(null.narrowest is not None for result in unit.results for null in result.nulls):
        yield Paragraph(
            "Fewest sets of a layer: how many different sets can be drawn in the layer that has "
            "the fewest other features. If that layer alone does it all, p cannot be below "
            "1 / (1 + that number).",
            "note",
        )
    yield from _refusals(unit)


def _refusals(unit: UnitReport) -> Iterator[Part]:
    """Why controls were refused: each reason once, with the prompts that it holds for."""
    reasons: dict[tuple[NullKind, str], list[str]] = {}
    for result in unit.results:
        for null in result.nulls:
            if null.refused:
                where = reasons.setdefault((null.kind, _reason(null.refused)), [])
                where.append(prompt_name(result, unit))
    for (kind, why), where in reasons.items():
        everywhere = len(where) == len(unit.results)
        prompts = "" if everywhere else f" ({', '.join(where)})"
        yield Paragraph(f"No {NULL_NAMES[kind]}{prompts}: {why}.", "note")


def _reason(refused: str) -> str:
    """A refusal in plain words."""
    if refused == "the graph's nodes make only 0 other sets":
        return "it holds all of the graph's nodes in its layers"
    return refused.rstrip(".")


def _null_cells(null: Null, in_nats: bool) -> list[Cell]:
    match = null.match
    sizes = (match.low, match.middle, match.high) if match else ()
    middle = null.median_change
    return [
        number(str(len(null.changes))),
        number(NONE if null.distinct is None else str(null.distinct)),
        number(NONE if null.narrowest is None else f"{null.narrowest:,}"),
        number(" / ".join(map(norm, sizes)) or NONE),
        number(NONE if middle is None else score_size(middle, in_nats=in_nats)),
        number(amount(median(null.kls) if null.kls else None)),
        number(p_value(null.p)),
        number(p_value(null.p_kl)),
    ]


def target_words(report: ValidationReport) -> str:
    """What is tested: a token's log-odds, or its logit over another's."""
    subject = target_said(report.target, None)
    if report.contrast is not None:
        return f"the logit of {subject} minus that of {said(report.contrast)} (in nats)"
    return f"the {'log-odds' if report.log_odds else 'probability'} of {subject}" + (
        " (in nats)" if report.log_odds else ""
    )


def score_name(report: ValidationReport) -> str:
    """What the scores are, as the head of a column."""
    if report.contrast is not None:
        return "Logit difference"
    return "Log-odds" if report.log_odds else "Target"
