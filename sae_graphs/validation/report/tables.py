"""What was found of each unit as a table for pandas: one row a component, a graph or a path."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.text import encodable
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit
from sae_graphs.validation.answer.rows import worst_equal_norm
from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.judging import deciding
from sae_graphs.validation.report.rows import worst_equal_norm as worst_of_effects
from sae_graphs.validation.verdicts import verdict

if TYPE_CHECKING:
    import pandas as pd


def report_table(report: ValidationReport) -> pd.DataFrame:
    """See `ValidationReport.to_pandas`."""
    return _table(unit_rows(report))


def answer_table(report: AnswerReport) -> pd.DataFrame:
    """See `AnswerReport.to_pandas`."""
    return _table(unit_rows(report))


def unit_rows(report: ValidationReport | AnswerReport) -> list[dict[str, Any]]:
    """The rows of a report's `to_pandas`, plain values by column."""
    if isinstance(report, AnswerReport):
        return [_answer_row(unit, report) for unit in report.units]
    return [_row(unit) for unit in report.units]


def verdicts(
    reports: ValidationReport | AnswerReport | Iterable[ValidationReport | AnswerReport],
) -> pd.DataFrame:
    """What many validations found: one row a unit, of answer graphs and graphs of effects alike.

    A report in several prompts has a row for each unit in each of them where the graph is an answer
    graph, and one for all prompts that decide where it is one of effects. The columns:

    - `prompt`: where it was tested; `found_on`: the prompt that the graph was made from;
    - `target`: the token whose score it is, None where each prompt has its own; `contrast`;
    - `unit`: such as `Graph` or `Path 1`; `kind`: `graph`, `component` or `path`;
    - `features`: their names, space between them; `n_features`: how many;
    - `effect`: the change of the score, ablated minus clean, below 0 where ablating hurts; in
      `effect_unit`, `nats` (in reports of before also `probability`);
    - `necessary`, `sufficient`, `mediates`: True, False, or None where that cannot be said, was not
      measured, or is not asked (`sufficient` of graphs, `mediates` of all else);
    - `supported`: whether the verdict is `supported`; `verdict`: all that it can be, by name;
      `reason`: what decides;
    - `q`: against matched controls, corrected for all units of its report; `p_equal_norm`: the
      larger p of the nulls of exactly its norm, of those that were run;
    - `controls`: how many of a kind; `intervention`: what an answer graph's features became;
    - `graph`: `answer` or `effect`; `model`, `saes`.

    Raises `SaeGraphsError` for what is no report.
    """
    single = isinstance(reports, ValidationReport | AnswerReport)
    return _table(verdict_rows([reports] if single else reports))  # type: ignore[list-item, arg-type]


def verdict_rows(reports: Iterable[ValidationReport | AnswerReport]) -> list[dict[str, Any]]:
    """The rows of `verdicts`, plain values by column."""
    found: list[dict[str, Any]] = []
    for report in reports:
        if isinstance(report, AnswerReport):
            for each in (report, *report.tests):
                found += [_of_answer(unit, each, report.prompt) for unit in each.units]
        elif isinstance(report, ValidationReport):
            found += [_of_effects(unit, report) for unit in report.units]
        else:
            raise SaeGraphsError(
                f"{report!r:.60} is no report; give what validate gave, one or several"
            )
    return found


def _of_answer(unit: AnswerUnit, report: AnswerReport, found_on: str) -> dict[str, Any]:
    full = _answer_row(unit, report)
    return {
        "prompt": report.prompt,
        "found_on": found_on,
        "target": report.target,
        "contrast": report.contrast,
        **{name: full[name] for name in ("unit", "kind", "features", "n_features", "effect")},
        "effect_unit": "nats",
        **{name: full[name] for name in (*_OUTCOMES, "verdict", "reason", "q", "p_equal_norm")},
        "controls": report.settings.get("controls"),
        "intervention": report.intervention,
        "graph": "answer",
        "model": report.model,
        "saes": report.saes,
    }


def _of_effects(unit: UnitReport, report: ValidationReport) -> dict[str, Any]:
    full, found = _row(unit), verdict(unit, report)
    prompts = dict.fromkeys(result.prompt for result in deciding(unit))
    return {
        "prompt": "\n".join(prompts),
        "found_on": report.prompt,
        "target": report.target,
        "contrast": report.contrast,
        **{name: full[name] for name in ("unit", "kind", "features", "n_features", "effect")},
        "effect_unit": "nats" if report.in_nats else "probability",
        "necessary": found.necessary,
        "sufficient": None,
        "mediates": found.mediates,
        "supported": found.supported,
        **{name: full[name] for name in ("verdict", "reason", "q")},
        "p_equal_norm": worst_of_effects(unit),
        "controls": report.settings.get("controls"),
        "intervention": None,
        "graph": "effect",
        "model": report.model,
        "saes": report.saes,
    }


_OUTCOMES = ("necessary", "sufficient", "mediates", "supported")


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
        "effect": change,
        "p": tested.p if tested else None,
        "q": tested.q if tested else None,
        "ratio": tested.ratio if tested else None,
        "mediated": unit.mediation.fraction if unit.mediation else None,
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
        "effect": unit.ablated.nats - report.clean.nats,
        "lost": report.lost(unit),
        "left": report.left(unit),
        "mediated": unit.flow.share if unit.flow else None,
        "p": matched.p if matched else None,
        "q": unit.outcome.q,
        "p_equal_norm": worst_equal_norm(unit),
    }


def _features(features: Iterable[FeatureId]) -> dict[str, Any]:
    names = [str(feature) for feature in features]
    return {"features": " ".join(names), "n_features": len(names)}
