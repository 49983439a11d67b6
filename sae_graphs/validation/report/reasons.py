"""Why a component or path matters: how its effect flows, what is needed, what is enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.render.document.blocks import (
    Cell,
    Figure,
    Heading,
    Paragraph,
    Part,
    number,
    table,
    text,
    tone_of,
)
from sae_graphs.significance import Spread
from sae_graphs.validation.evidence import LEAST_CHANGE, Curve, KeepOnly, Mediation, UnitReport
from sae_graphs.validation.report.plots import curve_plot, keep_only_plot, leave_one_out_plot
from sae_graphs.words import NONE, amount, factor, nats, probability, share

OWN = "(in the graph's own prompt)"
MUCH, LITTLE = 0.5, 0.1  # of the way from nothing to everything
MOST_ROWS = 16  # edges and features of a unit that are listed; a component may have very many


def mediation_blocks(unit: UnitReport, anchor: str) -> Iterator[Part]:
    """Path patching, then which features are needed."""
    found = unit.mediation
    if found is None:
        return
    yield Heading(f"Does the effect flow along the edges? {OWN}", 3)
    edges = sorted(found.edges, key=lambda edge: -abs(edge.total))[:MOST_ROWS]
    rows = [
        [
            text(f"{edge.source} → {edge.target}"),
            number(nats(edge.effect), tone_of(edge.effect)),
            number(nats(-edge.total)),
            number(nats(-edge.mediated)),
            number(share(edge.fraction)),
        ]
        for edge in edges
    ]
    numbers = NONE, nats(-found.total), nats(-found.mediated)
    rows.append(
        [
            text("all of it together"),
            *map(number, numbers),
            number(share(found.fraction)),
        ]
    )
    head = (
        "Edge",
        "Target's change",
        "Source's contribution, nats",
        "Through the edge",
        "Share",
    )
    caption = "Path patching: ablate the source, let only the target respond"
    yield from table(caption + _of_all(len(edges), len(found.edges), "edges"), head, rows)
    yield Paragraph(
        f"No share is given where the source changes the metric by less than {LEAST_CHANGE} nats.",
        "note",
    )
    yield from _minimality_blocks(found, anchor)


def _minimality_blocks(found: Mediation, anchor: str) -> Iterator[Part]:
    """Each feature left in place in turn, and the interaction of all."""
    yield Heading(f"Is every feature needed? {OWN}", 3)
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
            number(nats(_negative(found.singles.get(feature)))),
            number(nats(-found.without[feature])),
            number(share(found.needed(feature))),
        ]
        for feature in kept
    ]
    yield from table(
        "Minimality: what is gone when a feature is left in place"
        + _of_all(len(kept), len(found.without), "features"),
        ("Feature", "Contribution, nats", "Of all but it, nats", "Gone when it stays"),
        rows,
    )
    singles = math.fsum(found.singles.values())
    yield Paragraph(
        f"Contribution of all together: {nats(-found.joint)} nats; the sum of each alone: "
        f"{nats(-singles)} nats; interaction (the difference): {nats(-found.interaction)} nats.",
    )


def _most_needed(found: Mediation) -> tuple[FeatureId, ...]:
    """The features whose return changes most, the most needed first."""
    return tuple(
        sorted(found.without, key=lambda name: -abs(found.joint - found.without[name]))[:MOST_ROWS]
    )


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _of_all(kept: int, whole: int, noun: str) -> str:
    """What a table's caption says where it does not hold them all."""
    if kept == whole:
        return ""
    return f"; the {kept} that matter most of {whole} {noun}, all are in validation.json"


def keep_only_blocks(unit: UnitReport, anchor: str) -> Iterator[Part]:
    """What is left where only these features stay, beside both reference points."""
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
    yield Heading(f"Is it enough on its own? {OWN}", 3)
    if _finite(kept.metric for kept in told.values()):
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
    alone, without = share(found.faithfulness), share(found.completeness)
    none, clean = nats(found.none.metric), nats(found.clean.metric)
    yield Paragraph(
        f"Left with these features alone (faithfulness; 100 % is best): {alone}. Left without "
        f"them (completeness; 0 % is best): {without}. 0 % is the metric with no feature of these "
        f"layers ({none} nats), 100 % that with everything ({clean} nats).",
    )
    if _needs_errors(found):
        yield Paragraph(
            "These features do it only together with the SAEs' errors: without those next to "
            "nothing is left."
        )


def _needs_errors(found: KeepOnly) -> bool:
    """True where much is left with the SAEs' errors, and next to nothing without."""
    faithful = found.faithfulness
    if faithful is None or faithful < MUCH:
        return False
    bare = (found.kept_bare.metric - found.none.metric) / (found.clean.metric - found.none.metric)
    return bare <= LITTLE


def curve_blocks(curves: Sequence[Curve], anchor: str) -> Iterator[Part]:
    """Response curves: the plots, and their numbers."""
    curves = [curve for curve in curves if curve.coefficients and _finite(curve.responses)]
    if not curves:
        return
    yield Heading(f"How does the response scale? {OWN}", 3)
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


def _finite(values: Iterable[float]) -> bool:
    """True where all of it can be drawn."""
    return all(math.isfinite(value) for value in values)


def _clean_response(curve: Curve, curves: Sequence[Curve]) -> float | None:
    """The response at coefficient 1: of this curve, or of another of the same two things."""
    same = [each for each in curves if (each.cause, each.effect) == (curve.cause, curve.effect)]
    for each in (curve, *same):
        if 1.0 in each.coefficients:
            return each.responses[each.coefficients.index(1.0)]
    return None


def kinds_blocks(unit: UnitReport) -> Iterator[Part]:
    """The change under each kind of ablation."""
    if not unit.kinds:
        return
    rows = [[text(kind), number(nats(-value))] for kind, value in unit.kinds.items()]
    yield Heading(f"Does the kind of ablation matter? {OWN}", 3)
    yield from table("To the metric", ("Ablation", "Contribution, nats"), rows)


def background_blocks(unit: UnitReport) -> Iterator[Part]:
    """What ablating it does in other text."""
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
