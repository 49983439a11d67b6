"""All the files of a report, by name."""

from __future__ import annotations

from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.document.blocks import Figure
from sae_graphs.render.document.written import documents
from sae_graphs.render.pictures import marked_pictures
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.answer.report import answer_files
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.evidence_json import FILE_NAME, to_bytes
from sae_graphs.validation.report.content import blocks, cover
from sae_graphs.validation.report.marks import marks_of

PICTURE = "graph-validated"


def report_files(
    report: ValidationReport | AnswerReport,
    graph: CausalGraph | None = None,
    *,
    annotations: Annotations = NO_ANNOTATIONS,
) -> dict[str, bytes]:
    """`validation.json`, `.html` and `.md`, `plot-*.svg`, and the graph's picture with marks.

    `annotations` of the graph are drawn in the picture. Without the graph, as where only
    `validation.json` is at hand, there is no picture of it. The same report gives the same bytes.
    """
    if isinstance(report, AnswerReport):
        return answer_files(report, graph, annotations=annotations)
    pictures: dict[str, bytes] = {}
    picture: Figure | None = None
    if graph is not None:
        marks = marks_of(report)
        drawn, inline = marked_pictures(graph, marks, annotations=annotations)
        pictures = {f"{PICTURE}.{kind}": data for kind, data in drawn.items()}
        picture = Figure(f"{PICTURE}.svg", inline, marks.caption, wide=True)
    parts = tuple(blocks(report, picture))
    return {
        FILE_NAME: to_bytes(report),
        **documents("validation", cover(report), parts),
        **pictures,
    }
