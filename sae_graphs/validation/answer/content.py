"""The page on an answer graph: what was tested, what came out, how far to trust it; then unit by
unit, two sentences beside a strip plot, and all else folded."""

from __future__ import annotations

from collections.abc import Iterator

from sae_graphs.render.document.blocks import (
    Badge,
    Beside,
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
from sae_graphs.validation.answer.outcomes import MEANINGS, sentences
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit, Null
from sae_graphs.validation.answer.rows import (
    OTHERS_HEAD,
    anchors,
    of_verdict,
    others,
    summary,
)
from sae_graphs.validation.answer.strips import kept_strip_of, strip_of
from sae_graphs.validation.judging import CONTRIBUTION, CONTROLS_TOLD, EQUAL_NORM, NULL_NAMES, SIGNS
from sae_graphs.validation.report.strip import figure
from sae_graphs.words import (
    NONE,
    amount,
    counted,
    listed,
    nats,
    norm,
    p_value,
    probability,
    target_said,
)


def cover(report: AnswerReport) -> Cover:
    """What stands above all of it."""
    return Cover(
        "Validation of the answer graph of",
        "Validation",
        report.prompt,
        f"model {report.model} · SAEs {report.saes}",
        report.warnings,
    )


def blocks(report: AnswerReport, picture: Figure | None = None) -> Iterator[Block]:
    """All of the report below its title; `picture` is the graph's, with ticks."""
    yield Paragraph(_tested(report), "lead")
    yield Paragraph(_came_out(report), "verdict")
    yield from _summary(report)
    yield Paragraph(CONTROLS_TOLD, "note")
    yield Paragraph(_trust(report), "note")
    for unit, anchor in zip(report.units, anchors(report), strict=True):
        yield from _unit_blocks(unit, anchor, report)
    yield from _others_blocks(report)
    yield Heading("More")
    if picture is not None:
        yield Fold("The graph's picture, with ticks where supported", (picture,))
    yield Fold("What the words and columns mean", (_meanings(),))
    yield Fold("Made with", (Definitions("", tuple(_made_with(report))),))


# -- what was tested, what came out, would you believe it ------------------------------------------


def _tested(report: AnswerReport) -> str:
    """The claim, in one sentence, and what was done to test it in another."""
    whole = next((unit for unit in report.units if unit.kind == "graph"), None)
    n_paths = sum(unit.kind == "path" for unit in report.units)
    answer = target_said(report.target, report.contrast)
    tested = []
    claim = "The graph says which features make the model give its answer"
    if whole is not None:
        n = counted(len(whole.features), "feature")
        claim = f"The graph says that {n}, each at its token, make the model give its answer"
        tested = ["all of them together"]
    if n_paths:
        tested.append("those of each of its strongest paths")
    what = "log-odds" if report.contrast is None else "logit difference"
    how = report.intervention.partition(" (")[0]
    means = ", each put to its mean over ordinary text" if how == "mean" else ""
    return (
        f"What was tested: {claim}, {answer} ({what} {amount(report.clean.nats)} nats, probability "
        f"{probability(report.clean.probability)}). So {listed(tested)} were ablated "
        f"({how}-ablation{means}), beside controls."
    )


def _came_out(report: AnswerReport) -> str:
    """Every unit's verdict, those that are supported first."""
    told = []
    for verdict in ("supported", "not supported", "cannot be said"):
        names = [unit.name for unit in report.units if unit.verdict == verdict]
        if names:
            sign = SIGNS[{"supported": True, "not supported": False}.get(verdict)]
            told.append(f"{sign} {verdict}: {listed(names)}")
    return f"What came out: {'; '.join(told)}." if told else "What came out: nothing was tested."


def _summary(report: AnswerReport) -> Iterator[Part]:
    head, rows = summary(report)
    links = anchors(report)
    cells = [
        [Cell(row[0], link=links[place]), *map(number, row[1:5]), *map(text, row[5:])]
        for place, (_, row) in enumerate(rows)
    ]
    yield from table("The graph and its strongest paths, each ablated as a whole", head, cells)


def _trust(report: AnswerReport) -> str:
    """What the verdicts rest on, and what they do not say."""
    drawn = [len(null.scores) for unit in report.units for null in unit.nulls if null.scores]
    where = (
        f"in this prompt and in {counted(len(report.tests), 'other')}"
        if report.tests
        else "in this one prompt, which the graph was made from, and nothing is said of others "
        "(add --prompt to test some)"
    )
    told = [f"How far to trust it: the verdicts hold {where}."]
    if drawn:
        told.append(
            f"With {max(drawn)} controls of a kind no p is below {p_value(1 / (1 + max(drawn)))}, "
            f"and q is p corrected for the {counted(len(report.units), 'unit')} tested."
        )
    told.append(
        "Supported is what is necessary and, if it is a path, mediates: the answer hangs on these "
        "features more than on others. It does not say that they alone make it, nor that their "
        "labels are right."
    )
    return " ".join(told)


# -- unit by unit ----------------------------------------------------------------------------------


def _unit_blocks(unit: AnswerUnit, anchor: str, report: AnswerReport) -> Iterator[Block]:
    """The verdict, its two sentences beside the plot, and what they rest on, folded."""
    yield Heading(unit.name, 2, anchor, Badge(unit.verdict, SIGNS[of_verdict(unit)]))
    members = f"{counted(len(unit.features), 'feature')}: {_members(unit, report)}"
    kept = kept_strip_of(unit, report)
    rows = [
        [
            text(str(one.feature)),
            number(nats(-one.alone), tone_of(one.alone)),
            number(nats(-one.without), tone_of(one.without)),
        ]
        for one in unit.singles
    ]
    heads = ("Feature", "Of it alone, nats", "Of all but it, nats")
    details = (
        *_null_table(unit, report),
        *([] if kept is None else figure(kept, f"plot-{anchor}-kept.svg")),
        *table("Contributions of single features", heads, rows),
    )
    words: list[Part | Fold] = [Paragraph(told, "verdict") for told in sentences(unit, report)]
    words.append(Paragraph(members, "note"))
    words.append(Fold(f"All that was measured of {unit.name}", details))
    drawn = figure(strip_of(unit, report), f"plot-{anchor}.svg")
    yield Beside(tuple(words), drawn[0] if drawn else None)


def _members(unit: AnswerUnit, report: AnswerReport) -> str:
    """Its features; those of a path in their order, and which of them are relays."""
    if unit.kind != "path":
        return ", ".join(map(str, unit.features))
    kept = {feature for each in report.units if each.kind == "graph" for feature in each.features}
    relays = set(unit.features) - kept if kept else set()
    return " → ".join(f"{it} (a relay)" if it in relays else str(it) for it in unit.features)


def _null_table(unit: AnswerUnit, report: AnswerReport) -> list[Part]:
    clean = report.clean.nats
    rows = [
        _null_row(NULL_NAMES[null.kind], null, [clean - score for score in null.scores])
        for null in unit.nulls
    ]
    if unit.keep_only is not None:
        null, none = unit.keep_only.null, report.without_any.nats
        above = [score - none for score in null.scores]
        rows.append(_null_row("matched controls, kept: score above none kept", null, above))
    head = ["Controls", "Number", "Median contribution, nats", "p"]
    head += ["Norm removed, 5 / 50 / 95 %", "Fewest sets of a layer and token", "Refused"]
    return table("Controls, one-sided: how often they do at least as much", head, rows)


def _null_row(name: str, null: Null, values: list[float]) -> list[Cell]:
    sizes = (null.match.low, null.match.middle, null.match.high) if null.match else ()
    middle = sorted(values)[len(values) // 2] if values else None
    return [
        text(name),
        number(str(len(values))),
        number(nats(middle)),
        number(p_value(null.p)),
        number(" / ".join(map(norm, sizes)) or NONE),
        number(NONE if null.narrowest is None else f"{null.narrowest:,}"),
        text(null.refused or NONE),
    ]


# -- what stands below -----------------------------------------------------------------------------


def _others_blocks(report: AnswerReport) -> Iterator[Block]:
    if not report.tests:
        return
    yield Heading("In other prompts")
    yield Paragraph(
        "The graph's features, ablated in other prompts, beside controls drawn there. Each has an "
        "answer of its own; q is corrected for the units of one prompt. Features that are not "
        "active there change nothing, and are left out."
    )
    rows = [
        [*map(text, row[:4]), *map(number, row[4:6]), *map(text, row[6:])] for row in others(report)
    ]
    yield from table("The graph and its paths in other prompts", OTHERS_HEAD, rows)


def _meanings() -> Definitions:
    columns = {
        "Contribution": CONTRIBUTION,
        "q": "how often matched controls do as much, corrected for all units "
        "(Benjamini-Hochberg); p is (1 + those that do) / (1 + all)",
        "p, equal norm": EQUAL_NORM,
        "left": "kept alone, how far the score is from none of the rarely-on features kept to all",
        "relay": "on a path, but not among the graph's features: it hands on what one of them does",
        "rarely-on": "features on at less than 30 % of ordinary tokens; others are left out",
    }
    return Definitions("", (*MEANINGS.items(), *columns.items()))


def _made_with(report: AnswerReport) -> Iterator[tuple[str, str]]:
    yield "model", report.model
    yield "SAEs", report.saes
    yield "prompt", report.prompt
    for count, prompt in enumerate(report.discovery, start=1):
        yield f"found on, {count}", prompt
    yield "target", token(report.target)
    if report.contrast is not None:
        yield "contrast", token(report.contrast)
    yield "intervention", report.intervention
    for name, value in report.settings.items():
        yield str(name), "none" if value in (None, []) else str(value)
    yield "time", f"{amount(report.seconds)} s of measuring, not of loading or writing"
