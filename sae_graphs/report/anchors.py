"""The verdict of each unit, and the anchor that its section has in a report."""

from __future__ import annotations

import re

from sae_graphs.evidence import UnitReport, ValidationReport
from sae_graphs.verdicts import Verdict, verdict

_UNFIT = re.compile(r"[^a-z0-9]+")


def judged(report: ValidationReport) -> tuple[tuple[UnitReport, Verdict, str], ...]:
    """Every unit with its verdict and its anchor; no two anchors are the same."""
    taken: set[str] = set()
    found = []
    for place, unit in enumerate(report.units, start=1):
        anchor = _slug(unit.name, place)
        anchor = f"unit-{place}" if anchor in taken else anchor
        taken.add(anchor)
        found.append((unit, verdict(unit, report), anchor))
    return tuple(found)


def _slug(name: str, place: int) -> str:
    """A name for anchors and files: `graph-1-path-2`; `place` keeps odd ones apart."""
    words = _UNFIT.sub("-", name.lower()).strip("-")
    return words if re.fullmatch(r"graph-\d{1,6}(-path-\d{1,6})?", words) else f"unit-{place}"
