"""What was found of a prompt beside its graph, as rows: its trace's sites, its graph's verdicts.

The numbers are those of `trace`, as `tracing.reading` reads it, and of `validate`. A text in place
of either is the reason why there is none. Torch-free.
"""

from __future__ import annotations

from statistics import fmean

from sae_graphs.atlas.prompts import encodable
from sae_graphs.atlas.rows import Row
from sae_graphs.tracing.reading import Reading, Site, read
from sae_graphs.tracing.records import Trace
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.report.tables import unit_rows, verdict_rows

CANNOT = "cannot be said"
_PLAIN = ("unit", "verdict", "supported", "necessary", "sufficient", "mediates", "effect", "q")
_SHARES = ("lost", "left", "mediated")


def trace_rows(name: str, trace: Trace | str) -> dict[str, list[Row]]:
    """The row of a prompt's trace, and one of each of its sites."""
    if isinstance(trace, str):
        row = {"prompt_id": name, "reason": _line(trace), "sites": 0}
        return {"traces": [row], "sites": []}
    found = read(trace)
    return {
        "traces": [_trace(name, trace, found)],
        "sites": [_site(name, site, trace) for site in found.sites],
    }


def verdict_rows_of(
    name: str, report: AnswerReport | ValidationReport | str
) -> dict[str, list[Row]]:
    """A row of the graph's verdict, with the report's warnings, and of each of its paths'."""
    if isinstance(report, str):
        row = {"prompt_id": name, "unit": "Graph", "verdict": CANNOT, "supported": False}
        return {"verdicts": [{**row, "reason": _line(report)}]}
    found = []
    rows = zip(unit_rows(report), verdict_rows([report]), strict=True)
    for place, (numbers, told) in enumerate(rows):
        before, after = _probabilities(report, place)
        row = {
            "prompt_id": name,
            **{column: told[column] for column in (*_PLAIN, "p_equal_norm", "controls")},
            "claim": told["kind"],
            "features": told["features"].split(),
            **{column: numbers[column] for column in ("before", "after", "p")},
            **{f"share_{column}": numbers.get(column) for column in _SHARES},
            "probability_before": before,
            "probability_after": after,
            "warnings": list(map(_line, report.warnings)) if place == 0 else [],
            "reason": _line(told["reason"]),
        }
        found.append(row)
    return {"verdicts": found}


# -- inside ----------------------------------------------------------------------------------------


def _trace(name: str, trace: Trace, found: Reading) -> Row:
    return {
        "prompt_id": name,
        "subject_first": trace.subject[0],
        "subject_last": trace.subject[-1],
        "noise": trace.noise,
        "clean": trace.clean.log_odds,
        "corrupted": fmean(score.log_odds for score in trace.corrupted),
        "lost_nats": found.lost,
        "clean_probability": trace.clean.probability,
        "corrupted_probability": fmean(score.probability for score in trace.corrupted),
        "handover_block": None if found.handover is None else found.handover.block,
        "sites": len(found.sites),
        "reason": None if found.problem is None else _line(found.problem),
        "warnings": list(map(_line, trace.warnings)),
    }


def _site(name: str, site: Site, trace: Trace) -> Row:
    position, block = site.at
    return {
        "prompt_id": name,
        "sweep": site.sweep,
        "role": site.role,
        "block": block,
        "position": position,
        "token": trace.tokens[position],
        "first_block": site.layers[0],
        "last_block": site.layers[1],
        "first_position": site.tokens[0],
        "last_position": site.tokens[1],
        "restores": site.effect,
        "low": site.low,
        "high": site.high,
        "share": site.share,
    }


def _probabilities(report: AnswerReport | ValidationReport, place: int) -> tuple[float, float]:
    """The answer's, clean and with all of a unit ablated."""
    if isinstance(report, AnswerReport):
        return report.clean.probability, report.units[place].ablated.probability
    target = report.units[place].of_discovery.target
    return target.before, target.after


def _line(reason: str) -> str:
    return " ".join(encodable(reason).split())
