"""Granger tests in the gallery: card, page and small picture."""

from __future__ import annotations

from sae_graphs.editing.granger.records import GrangerReport
from sae_graphs.editing.granger.sentences import findings
from sae_graphs.gallery.runs import Run, Summary, record_in
from sae_graphs.gallery.small import HEIGHT, MARGIN, WIDTH, picture
from sae_graphs.runs import GRANGER
from sae_graphs.words import counted

BARS = 12  # pairs in the small picture


def granger_summary(run: Run) -> Summary:
    """Over how many texts, and how many pairs got each verdict."""
    report = _report(run)
    told = f"{report.about} · {counted(report.n_texts, 'text')}"
    return Summary(told, report.model, " ".join(findings(report)), warnings=report.warnings)


def granger_page(run: Run) -> str:
    """The report, drawn from its record."""
    from sae_graphs.editing.granger.report import PAGE, granger_files  # matplotlib

    return granger_files(_report(run), ("html",))[PAGE].decode()


def granger_picture(run: Run) -> str:
    """What sources explain of their targets to the right, and targets of their sources below."""
    return bars(_report(run))


def bars(report: GrangerReport) -> str:
    """A small picture: two bars a pair, shares both ways, the largest as long as it is wide."""
    pairs = report.pairs[:BARS]
    both = [(0.0 if it is None else it.share) for p in pairs for it in (p.forward, p.backward)]
    most, high = max([*both, 0.0]) or 1.0, (HEIGHT - 2 * MARGIN) / (3 * max(len(pairs), 1))
    drawn = []
    for number, share in enumerate(both):
        pair, back = divmod(number, 2)
        drawn.append(
            f'<rect class="{"harms" if back else "feature"}" x="{MARGIN:.0f}" '
            f'y="{MARGIN + (3 * pair + back) * high:.1f}" height="{high:.1f}" '
            f'width="{(WIDTH - 2 * MARGIN) * max(share, 0) / most:.1f}"/>'
        )
    return picture("".join(drawn))


def _report(run: Run) -> GrangerReport:
    return record_in(run, GRANGER, GrangerReport.load)
