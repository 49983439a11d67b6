"""All that was found of one component or path, as tables and plots."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from statistics import median

from sae_graphs.evidence import (
    Curve,
    Mediation,
    Null,
    PromptResult,
    Spread,
    TokenChange,
    UnitReport,
)
from sae_graphs.evidence_words import (
    NONE,
    amount,
    factor,
    nats,
    norm,
    p_value,
    points,
    probability,
    relative_to,
    said,
    score_change,
    score_size,
    share,
)
from sae_graphs.records import FeatureId
from sae_graphs.render.text import counted
from sae_graphs.report.blocks import (
    Block,
    Cell,
    Figure,
    Heading,
    Paragraph,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.report.plots import (
    NULL_NAMES,
    curve_plot,
    keep_only_plot,
    leave_one_out_plot,
    nulls_plot,
)
from sae_graphs.verdicts import LEAST_WHOLE, Verdict

LEAST_MOVED = 0.01  # points: tokens whose probability changes less are not listed
MOST_ROWS = 16  # edges and features of a unit that are listed; a component may have very many
_UNFIT = re.compile(r"[^a-z0-9]+")


def slug(name: str, place: int) -> str:
    """A name for anchors and files: `graph-1-path-2`; `place` keeps odd ones apart."""
    words = _UNFIT.sub("-", name.lower()).strip("-")
    return words if re.fullmatch(r"graph-\d{1,6}(-path-\d{1,6})?", words) else f"unit-{place}"


def unit_blocks(unit: UnitReport, found: Verdict, anchor: str, *, in_nats: bool) -> Iterator[Block]:
    """The section of one unit: the verdict first, then what it rests on."""
    yield Heading(unit.name, 2, anchor, found.kind)
    yield Paragraph(found.words, "verdict")
    yield Paragraph(_members(unit), "note")
    yield from _nulls(unit, anchor, in_nats=in_nats)
    yield from _prompts(unit, in_nats=in_nats)
    yield from _mediation(unit, anchor)
    yield from _keep_only(unit, anchor)
    yield from curve_blocks(unit.curves, anchor)
    yield from _kinds(unit)
    yield from _background(unit)


def _members(unit: UnitReport) -> str:
    named = ", ".join(map(str, unit.features))
    if unit.kind == "path":
        named = " → ".join(map(str, unit.features))
    edges = counted(len(unit.edges), "edge")
    return f"{counted(len(unit.features), 'feature')}, {edges}: {named}"


# -- the ablation, prompt by prompt ----------------------------------------------------------------


def _prompts(unit: UnitReport, *, in_nats: bool) -> Iterator[Block]:
    rows = []
    for result in unit.results:
        ranks = f"{result.rank_before} → {result.rank_after}"
        row = [
            text(result.role),
            Cell(result.prompt, token=True),
            number(f"{result.active} of {len(unit.features)}"),
            *_change_cells(result.target),
            number(ranks),
            number(amount(result.kl)),
        ]
        if in_nats:
            row.append(number(amount(result.score)))
            row.append(number(nats(result.change), tone_of(result.change)))
        rows.append(row)
    head = ["Role", "Prompt", "Active", *_CHANGE_HEAD, "Rank", "KL, nats"]
    head += ["Logit difference", "Its change, nats"] if in_nats else []
    yield from table("The target in each prompt: all the features ablated together", head, rows)
    least = f"{LEAST_MOVED:g} points or more"
    moved = [
        [
            text(_which(result, unit)),
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


def _which(result: PromptResult, unit: UnitReport) -> str:
    """The role, and the number among the prompts of that role where there are several."""
    same = [other for other in unit.results if other.role == result.role]
    return result.role if len(same) == 1 else f"{result.role} {same.index(result) + 1}"


def _nulls(unit: UnitReport, anchor: str, *, in_nats: bool) -> Iterator[Block]:
    picture = nulls_plot(unit, in_nats=in_nats)
    if picture:
        yield Figure(
            f"plot-{anchor}-nulls.svg",
            picture,
            f"{unit.name} beside its controls: each dot is one control, the line is the "
            f"{unit.kind} itself. A real effect lies to the right of the dots.",
        )
    rows = [
        [text(_which(result, unit)), text(NULL_NAMES[null.kind]), *_null_cells(null, in_nats)]
        for result in unit.results
        for null in result.nulls
    ]
    for result in unit.results:
        if (zero := result.feature_zero) is not None:
            active = f"feature 0 of the same layers ({zero.active} of {zero.n} active)"
            change = score_change(zero.change, in_nats=in_nats)
            numbers = ("1", NONE, NONE, change, amount(zero.kl), NONE, NONE)
            rows.append([text(_which(result, unit)), text(active), *map(number, numbers)])
    head = ["Prompt", "Controls", "Number", "Distinct", "Norm removed, 5 / 50 / 95 %"]
    head += ["Median |change|", "Median KL, nats", "p", "p of KL"]
    yield from table("Controls, prompt by prompt", head, rows)
    for result in unit.results:
        for null in result.nulls:
            if null.refused:
                name = NULL_NAMES[null.kind]
                yield Paragraph(f"{_which(result, unit)}, {name}: refused, {null.refused}", "note")


def _null_cells(null: Null, in_nats: bool) -> list[Cell]:
    match = null.match
    sizes = (match.low, match.middle, match.high) if match else ()
    middle = null.median_change
    return [
        number(str(len(null.changes)) if null.changes else "refused"),
        number(NONE if null.distinct is None else str(null.distinct)),
        number(" / ".join(map(norm, sizes)) or NONE),
        number(NONE if middle is None else score_size(middle, in_nats=in_nats)),
        number(amount(median(null.kls) if null.kls else None)),
        number(p_value(null.p)),
        number(p_value(null.p_kl)),
    ]


# -- why: path patching, minimality, what is kept --------------------------------------------------


def _mediation(unit: UnitReport, anchor: str) -> Iterator[Block]:
    found = unit.mediation
    if found is None:
        return
    edges = sorted(found.edges, key=lambda edge: -abs(edge.total))[:MOST_ROWS]
    rows = [
        [
            text(f"{edge.source} → {edge.target}"),
            number(nats(edge.effect), tone_of(edge.effect)),
            number(nats(edge.total)),
            number(nats(edge.mediated)),
            number(_told_share(edge.fraction, edge.total)),
        ]
        for edge in edges
    ]
    numbers = NONE, nats(found.total), nats(found.mediated)
    rows.append(
        [
            text("all of it together"),
            *map(number, numbers),
            number(_told_share(found.fraction, found.total)),
        ]
    )
    head = ("Edge", "Effect, activation", "Source's effect, nats", "Through the edge", "Share")
    yield Heading("Does the effect flow along the edges?", 3)
    caption = "Path patching: ablate the source, let only the target respond"
    yield from table(caption + _of_all(len(edges), len(found.edges), "edges"), head, rows)
    yield Paragraph(
        f"A share is left out where the source changes the metric by less than {LEAST_WHOLE} nats.",
        "note",
    )
    yield Heading("Is every feature needed?", 3)
    kept = _most_needed(found)
    yield Figure(
        f"plot-{anchor}-features.svg",
        leave_one_out_plot(found, kept),
        "Each feature left in place in turn. A bar that reaches the dashed line: the rest does as "
        "much without the feature. Diamonds: the feature ablated alone.",
    )
    rows = [
        [
            text(str(feature)),
            number(nats(found.singles.get(feature))),
            number(nats(found.without[feature])),
            number(_told_share(found.needed(feature), found.joint)),
        ]
        for feature in kept
    ]
    yield from table(
        "Minimality: what is gone when a feature is left in place"
        + _of_all(len(kept), len(found.without), "features"),
        ("Feature", "Alone, nats", "All but it, nats", "Gone when it stays"),
        rows,
    )
    singles = math.fsum(found.singles.values())
    yield Paragraph(
        f"All ablated together: {nats(found.joint)} nats; the sum of each alone: {nats(singles)} "
        f"nats; interaction (the difference): {nats(found.interaction)} nats.",
    )


def _most_needed(found: Mediation) -> tuple[FeatureId, ...]:
    """The features whose return changes most, in the unit's own order."""
    names = list(found.without)
    best = sorted(names, key=lambda name: -abs(found.joint - found.without[name]))[:MOST_ROWS]
    return tuple(name for name in names if name in best)


def _told_share(fraction: float | None, whole: float) -> str:
    """A share, unless it is one of next to nothing."""
    return share(fraction) if abs(whole) >= LEAST_WHOLE else NONE


def _of_all(kept: int, whole: int, noun: str) -> str:
    """What a table's caption says where it does not hold them all."""
    if kept == whole:
        return ""
    return f"; the {kept} that matter most of {whole} {noun}, all are in validation.json"


def _keep_only(unit: UnitReport, anchor: str) -> Iterator[Block]:
    found = unit.keep_only
    if found is None:
        return
    told = {
        "everything (clean)": found.clean,
        "only these features": found.kept,
        "no feature": found.none,
        "all but these features": found.complement,
        "every feature, without the SAEs' errors": found.all_bare,
        "only these features, without the errors": found.kept_bare,
        "no feature, without the errors": found.none_bare,
    }
    yield Heading("Is it enough on its own?", 3)
    yield Figure(
        f"plot-{anchor}-kept.svg",
        keep_only_plot(found),
        f"What is left where only these features stay, all others of layers {found.first} to "
        f"{found.last} ablated.",
    )
    rows = [
        [text(name), number(nats(kept.metric)), number(probability(kept.probability))]
        for name, kept in told.items()
    ]
    caption = f"Kept in layers {found.first} to {found.last}"
    yield from table(caption, ("Kept", "Metric, nats", "Target's probability"), rows)
    ends = f"(no feature {nats(found.none.metric)} nats, everything {nats(found.clean.metric)} nats"
    yield Paragraph(
        f"Faithfulness {share(found.faithfulness)}: how much of the way from nothing to everything "
        f"these features alone go {ends}; 100 % is all of it). Completeness "
        f"{share(found.completeness)}: how far the model gets without them "
        "(0 % where nothing but these features does it).",
    )


def curve_blocks(curves: Sequence[Curve], anchor: str) -> Iterator[Block]:
    """Response curves: the plots, and their numbers."""
    if not curves:
        return
    yield Heading("How does the response scale?", 3)
    rows = []
    for place, curve in enumerate(curves, start=1):
        reach = f"{factor(curve.coefficients[0])} to {factor(curve.coefficients[-1])}"
        caption = f"{curve.effect} as {curve.cause} is multiplied by {reach}; 1 is clean."
        yield Figure(
            f"plot-{anchor}-curve-{place}.svg",
            curve_plot(curve, _clean_response(curve, curves)),
            caption,
        )
        steps = len(curve.coefficients) - 1
        jump = f"{share(curve.largest_jump)} at {factor(curve.jump_at)}"
        straight = f"{share(1 / steps)}" if steps else NONE
        numbers = amount(curve.r_squared), amount(curve.slope), amount(curve.gradient)
        rows.append(
            [text(curve.cause), text(f"{curve.effect}, {curve.unit}"), number(reach)]
            + [number(value) for value in (*numbers, jump, straight)]
        )
    head = ["Cause", "Response", "Multiplied by", "R² of a line", "Slope", "Gradient at 1"]
    head += ["Largest step", "A line's step"]
    yield from table("Response curves", head, rows)


def _clean_response(curve: Curve, curves: Sequence[Curve]) -> float | None:
    """The response at coefficient 1: of this curve, or of another of the same two things."""
    same = [each for each in curves if (each.cause, each.effect) == (curve.cause, curve.effect)]
    for each in (curve, *same):
        if 1.0 in each.coefficients:
            return each.responses[each.coefficients.index(1.0)]
    return None


def _kinds(unit: UnitReport) -> Iterator[Block]:
    if not unit.kinds:
        return
    rows = [[text(kind), number(nats(value))] for kind, value in unit.kinds.items()]
    yield Heading("Does the kind of ablation matter?", 3)
    yield from table("Change of the metric", ("Ablation", "Change, nats"), rows)


def _background(unit: UnitReport) -> Iterator[Block]:
    found = unit.background
    if found is None:
        return
    spreads = {
        "where some of these features are active": found.active,
        "where none is": found.inactive,
        "all snippets": found.everywhere,
        "controls, where some of theirs are active": found.controls_active,
        "controls, all snippets": found.controls_everywhere,
    }
    rows = [[text(name), *spread_cells(spread)] for name, spread in spreads.items()]
    yield Heading("What does it do in other text?", 3)
    head = ("Snippets of other text", "Number", "Mean KL, nats", "95 % interval")
    yield from table("Ablated in text that has nothing to do with the prompt", head, rows)


def spread_cells(spread: Spread) -> list[Cell]:
    """Number, mean and interval of a mean over snippets."""
    known = spread.low is not None and spread.high is not None
    ends = f"{amount(spread.low)} to {amount(spread.high)}" if known else NONE
    return [number(str(spread.n)), number(amount(spread.mean)), number(ends)]


def target_words(target: str, contrast: str | None) -> str:
    """What is tested: a token's probability, or its logit over another's."""
    if contrast is None:
        return f"the probability of {said(target)}"
    return f"the logit of {said(target)} minus that of {said(contrast)}, in nats"
