"""The report on an answer graph: what a page, a Markdown file and a notebook are made of."""

from __future__ import annotations

from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.document.blocks import Figure
from sae_graphs.render.document.templates import filled
from sae_graphs.render.document.written import documents
from sae_graphs.render.marks import Finding, Marks, Standing
from sae_graphs.render.notebook import table_html
from sae_graphs.render.pictures import marked_pictures
from sae_graphs.validation.answer.content import blocks, cover
from sae_graphs.validation.answer.outcomes import names_of, sentences
from sae_graphs.validation.answer.record_json import to_bytes
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.answer.rows import anchors, summary
from sae_graphs.validation.evidence_json import FILE_NAME

PICTURE = "graph-validated"


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
        picture = Figure(f"{PICTURE}.svg", inline, _caption(report), wide=True)
    parts = tuple(blocks(report, picture))
    return {
        FILE_NAME: to_bytes(report),
        **documents("validation", cover(report), parts),
        **pictures,
    }


def report_html(report: AnswerReport) -> str:
    """What was found, in a notebook: a row for the graph and each path, then each in words."""
    head, rows = summary(report)
    drawn = table_html("The graph and its paths, ablated", head, [row for _, row in rows])
    name = "validation/report/notebook.html.j2"
    verdicts = [(f"{unit.name}: {unit.verdict}", sentences(unit, report)) for unit in report.units]
    return str(filled(name, warnings=report.warnings, table=drawn, verdicts=verdicts))


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
    for unit, anchor in zip(report.units, anchors(report), strict=True):
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
                " ".join(sentences(unit, report)),
                needed=needed,
                anchor=anchor,
            )
        )
    return tuple(found)
