"""What was found of each unit as a table for pandas: one row a component, a graph or a path."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.text import encodable
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit
from sae_graphs.validation.answer.report import worst_equal_norm
from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.judging import deciding

if TYPE_CHECKING:
    import pandas as pd


def report_table(report: ValidationReport) -> pd.DataFrame:
    """See `ValidationReport.to_pandas`."""
    return _table(_row(unit) for unit in report.units)


def answer_table(report: AnswerReport) -> pd.DataFrame:
    """See `AnswerReport.to_pandas`."""
    return _table(_answer_row(unit, report) for unit in report.units)


def _table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [
            {name: encodable(it) if isinstance(it, str) else it for name, it in row.items()}
            for row in rows
        ]
    )


def _row(unit: UnitReport) -> dict[str, Any]:
    results, tested = deciding(unit), unit.tested
    before = fmean(result.score for result in results) if results else None
    change = fmean(result.change for result in results) if results else None
    return {
        "unit": unit.name,
        "kind": unit.kind,
        "verdict": unit.verdict,
        "supported": unit.supported,
        "reason": unit.reason,
        **_features(unit.features),
        "n_prompts": len(results),
        "before": before,
        "after": None if before is None or change is None else before + change,
        "change": change,
        "p": tested.p if tested else None,
        "q": tested.q if tested else None,
        "ratio": tested.ratio if tested else None,
        "carried": unit.mediation.fraction if unit.mediation else None,
    }


def _answer_row(unit: AnswerUnit, report: AnswerReport) -> dict[str, Any]:
    matched = unit.null("matched")
    return {
        "unit": unit.name,
        "kind": unit.kind,
        "verdict": unit.verdict,
        "supported": unit.supported,
        "necessary": unit.necessary,
        "sufficient": unit.sufficient,
        "mediates": unit.mediates,
        "reason": unit.reason,
        **_features(unit.features),
        "before": report.clean.nats,
        "after": unit.ablated.nats,
        "change": unit.ablated.nats - report.clean.nats,
        "lost": report.lost(unit),
        "left": report.left(unit),
        "carried": unit.flow.share if unit.flow else None,
        "p": matched.p if matched else None,
        "q": unit.outcome.q,
        "p_equal_norm": worst_equal_norm(unit),
    }


def _features(features: Iterable[FeatureId]) -> dict[str, Any]:
    names = [str(feature) for feature in features]
    return {"features": " ".join(names), "n_features": len(names)}
