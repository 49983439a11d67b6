"""The report on an answer graph: what a page, a Markdown file and a notebook are made of."""

from __future__ import annotations

from collections.abc import Iterator

from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.document.blocks import (
    Badge,
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
    unfolded,
)
from sae_graphs.render.document.markdown import markdown
from sae_graphs.render.document.page import page
from sae_graphs.render.document.templates import filled
from sae_graphs.render.marks import Finding, Marks, Standing
from sae_graphs.render.notebook import table_html
from sae_graphs.render.pictures import marked_pictures
from sae_graphs.text import token
from sae_graphs.validation.answer.outcomes import MEANINGS, NULL_NAMES, SAME_NORM, names_of
from sae_graphs.validation.answer.record_json import to_bytes
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit, Null
from sae_graphs.validation.evidence_json import FILE_NAME
from sae_graphs.words import (
    NONE,
    amount,
    counted,
    nats,
    norm,
    p_value,
    probability,
    said,
    share,
    target_said,
)

PICTURE = "graph-validated"
YES, NO, UNKNOWN = "yes", "no", "?"


def answer_files(
    report: AnswerReport,
    graph: CausalGraph | None = None,
    *,
    annotations: Annotations = NO_ANNOTATIONS,
) -> dict[str, bytes]:
    """`validation.json`, `.html` and `.md`, `plot-*.svg`, and the graph's picture with ticks."""
    pictures: dict[str, bytes] = {}
    picture: Figure | None = None
    if graph is not None:
        marks = marks_of(report, graph)
        drawn, inline = marked_pictures(graph, marks, annotations=annotations)
        pictures = {f"{PICTURE}.{kind}": data for kind, data in drawn.items()}
        picture = Figure(f"{PICTURE}.svg", inline, _caption(report))
    title, parts = cover(report), tuple(blocks(report))
    plots = {part.name: part.svg.encode() for part in unfolded(parts) if isinstance(part, Figure)}
    return {
        FILE_NAME: to_bytes(report),
        "validation.html": page(title, parts, picture=picture).encode(),
        "validation.md": markdown(title, parts, picture=picture).encode(),
        **pictures,
        **plots,
    }


def report_html(report: AnswerReport) -> str:
    """What was found, in a notebook: a row for the graph and each path, then each in words."""
    head, rows = summary(report)
    shown = [[("✓ " if unit.supported else "") + row[0], *row[1:]] for unit, row in rows]
    drawn = table_html("The graph and its paths, ablated", head, shown)
    name = "validation/report/notebook.html.j2"
    verdicts = [(unit.name, unit.words) for unit in report.units]
    return str(filled(name, warnings=report.warnings, table=drawn, verdicts=verdicts))


def summary(
    report: AnswerReport,
) -> tuple[tuple[str, ...], list[tuple[AnswerUnit, tuple[str, ...]]]]:
    """The heads of a table, and a row for each unit."""
    numbers = ("Features", "Score, before → after", "Lost", "q", "p, equal norm")
    head = ("", *numbers, "Necessary", "Sufficient", "Mediates")
    return head, [(unit, _row(unit, report)) for unit in report.units]


def worst_equal_norm(unit: AnswerUnit) -> float | None:
    """The larger p of the two nulls of exactly its norm; None where one was refused."""
    nulls = [unit.null(kind) for kind in SAME_NORM]
    known = [null.p for null in nulls if null is not None and null.p is not None]
    return max(known) if len(known) == len(SAME_NORM) else None


def yes_or_no(outcome: bool | None, *, asked: bool) -> str:
    """`yes`, `no`, `?` where it cannot be said, a dash where it is not asked."""
    if not asked:
        return NONE
    return UNKNOWN if outcome is None else YES if outcome else NO


def active_features(unit: AnswerUnit) -> str:
    """How many features are ablated, of how many that it has."""
    n = len(unit.features)
    return f"{n} of {n + unit.inactive}" if unit.inactive else str(n)


def _row(unit: AnswerUnit, report: AnswerReport) -> tuple[str, ...]:
    is_graph = unit.kind == "graph"
    sufficient = yes_or_no(unit.sufficient, asked=is_graph)
    mediates = yes_or_no(unit.mediates, asked=not is_graph)
    left, along = report.left(unit), unit.flow.share if unit.flow else None
    return (
        unit.name,
        active_features(unit),
        f"{amount(report.clean.nats)} → {amount(unit.ablated.nats)}",
        share(report.lost(unit)),
        p_value(unit.outcome.q),
        p_value(worst_equal_norm(unit)),
        yes_or_no(unit.necessary, asked=True),
        sufficient if left is None else f"{sufficient}, {share(left)} left",
        mediates if along is None else f"{mediates}, {share(along)}",
    )


OTHERS_HEAD = (
    *("Prompt", "Aligned", "Answer", "Unit", "Features", "Score, before → after"),
    *("Necessary", "Sufficient", "Mediates"),
)


def others(report: AnswerReport) -> list[tuple[str, ...]]:
    """A row for each unit in each further prompt, below `OTHERS_HEAD`."""
    found: list[tuple[str, ...]] = []
    for test in report.tests:
        for unit in test.units:
            name, active, move, *_, necessary, sufficient, mediates = _row(unit, test)
            first = said(test.prompt), test.aligned or NONE, target_said(test.target, test.contrast)
            outcomes = necessary, sufficient, mediates
            found.append((*first, name, active, move, *outcomes))
    return found


# -- the page --------------------------------------------------------------------------------------


def cover(report: AnswerReport) -> Cover:
    """What stands above all of it."""
    return Cover(
        "Validation of the answer graph of",
        "Validation",
        report.prompt,
        f"model {report.model} · SAEs {report.saes}",
        report.warnings,
    )


def blocks(report: AnswerReport) -> Iterator[Block]:
    """All of the report below its title."""
    what = "log-odds" if report.contrast is None else "logit difference"
    subject = target_said(report.target, report.contrast)
    yield Paragraph(
        f"The score is the {what} of {subject} after the prompt, in nats: "
        f"{amount(report.clean.nats)} clean (probability "
        f"{probability(report.clean.probability)}), {amount(report.without_any.nats)} with all "
        "rarely-on active features ablated. Ablation and all controls: "
        f"{report.intervention}. It says what holds in this prompt."
    )
    head, rows = summary(report)
    anchors = _anchors(report)
    cells = [
        [Cell(row[0], link=anchors[place]), *map(number, row[1:6]), *map(text, row[6:])]
        for place, (_, row) in enumerate(rows)
    ]
    yield from table("The graph and its strongest paths", head, cells)
    columns = {
        "Lost": "of what is lost with all rarely-on active features, the share lost with these",
        "q": "how often matched sets lower the score as much, corrected for all units",
        "p, equal norm": "the larger p of matched sets scaled to its norm and random directions",
    }
    yield Definitions("How to read it", (*MEANINGS.items(), *columns.items()))
    yield from _others_blocks(report)
    for unit, anchor in zip(report.units, anchors, strict=True):
        yield from _unit_blocks(unit, anchor, report)
    yield Heading("Made with")
    yield Definitions("", tuple(_made_with(report)))


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


def _anchors(report: AnswerReport) -> list[str]:
    return [f"unit-{place}" for place in range(1, len(report.units) + 1)]


def _unit_blocks(unit: AnswerUnit, anchor: str, report: AnswerReport) -> Iterator[Block]:
    from sae_graphs.validation.answer.plots import scores_plot  # marks and findings need no plots

    sign = "✓" if unit.supported else "~"
    badge = Badge("supported" if unit.supported else names_of(unit), sign)
    yield Heading(unit.name, 2, anchor, badge)
    yield Paragraph(unit.words, "verdict")
    between = " → " if unit.kind == "path" else ", "
    yield Paragraph(
        f"{counted(len(unit.features), 'feature')}: {between.join(map(str, unit.features))}", "note"
    )
    parts: list[Part] = []
    picture = scores_plot(unit, report.clean.nats)
    if picture:
        told = (
            f"{unit.name} beside its controls: each dot is the score after one control, the "
            "diamond the unit's own."
        )
        parts.append(Figure(f"plot-{anchor}.svg", picture, told))
    parts += _null_table(unit, report)
    rows = [
        [
            text(str(one.feature)),
            number(nats(one.alone), tone_of(one.alone)),
            number(nats(one.without), tone_of(one.without)),
        ]
        for one in unit.singles
    ]
    heads = ("Feature", "Ablated alone, nats", "All but it ablated, nats")
    parts += table("Single features: changes of the score", heads, rows)
    yield Fold(f"All that was measured of {unit.name}", tuple(parts), is_open=unit.supported)


def _null_table(unit: AnswerUnit, report: AnswerReport) -> list[Part]:
    rows = [_null_row(NULL_NAMES[null.kind], null) for null in unit.nulls]
    if unit.keep_only is not None:
        rows.append(_null_row("matched sets, kept alone", unit.keep_only.null))
    head = ["Controls", "Number", "Median score, nats", "p"]
    head += ["Norm removed, 5 / 50 / 95 %", "Fewest sets of a layer and token", "Refused"]
    return table("Controls, one-sided: how often they do at least as much", head, rows)


def _null_row(name: str, null: Null) -> list[Cell]:
    sizes = (null.match.low, null.match.middle, null.match.high) if null.match else ()
    middle = sorted(null.scores)[len(null.scores) // 2] if null.scores else None
    return [
        text(name),
        number(str(len(null.scores))),
        number(amount(middle)),
        number(p_value(null.p)),
        number(" / ".join(map(norm, sizes)) or NONE),
        number(NONE if null.narrowest is None else f"{null.narrowest:,}"),
        text(null.refused or NONE),
    ]


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


# -- in the graph's own pictures -------------------------------------------------------------------


def marks_of(report: AnswerReport, graph: CausalGraph) -> Marks:
    """What a picture says of the graph's largest part, and which features and arrows are ticked."""
    features: set[FeatureId] = set()
    standings: dict[int, Standing] = {}
    edges: set[tuple[FeatureId, FeatureId]] = set()
    for unit in report.units:
        if unit.kind == "graph" and graph.n_components:
            standings[1] = Standing(unit.supported, names_of(unit))
        if unit.supported:
            features.update(unit.features)
            if unit.kind == "path":
                edges.update(zip(unit.features, unit.features[1:], strict=False))
    return Marks(standings, frozenset(features), frozenset(edges))


def _caption(report: AnswerReport) -> str:
    if not any(unit.supported for unit in report.units):
        return "The graph, as tested: neither it nor a path is supported, so nothing is ticked."
    return (
        "The graph, as tested. ✓ on a box: its feature is part of a graph or path that is "
        "supported. ✓ on an arrow: it is part of such a path."
    )


def findings_of(report: AnswerReport) -> tuple[Finding, ...]:
    """What was found of the graph and each path, for the page that explores it."""
    found = []
    for unit, anchor in zip(report.units, _anchors(report), strict=True):
        change = unit.ablated.nats - report.clean.nats
        needed = {one.feature: 1 - one.without / change for one in unit.singles if change}
        kind, verdict = ("component" if unit.kind == "graph" else "path"), names_of(unit)
        found.append(
            Finding(
                unit.name,
                kind,  # type: ignore[arg-type]
                1,
                unit.features,
                verdict,
                unit.supported,
                unit.words,
                needed=needed,
                anchor=anchor,
            )
        )
    return tuple(found)
