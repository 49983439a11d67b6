"""What was found of an answer graph as rows of words, for a page, a notebook and a terminal."""

from __future__ import annotations

from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit
from sae_graphs.validation.answer.strips import contribution_of
from sae_graphs.validation.judging import SAME_NORM, SIGNS, largest
from sae_graphs.words import NONE, nats, p_value, said, share, target_said


def summary(
    report: AnswerReport,
) -> tuple[tuple[str, ...], list[tuple[AnswerUnit, tuple[str, ...]]]]:
    """The heads of a table, and a row for each unit."""
    numbers = ("Features", "Contribution, nats", "q", "p, equal norm")
    head = ("", *numbers, "Necessary", "Sufficient", "Mediates", "Verdict")
    return head, [(unit, _row(unit, report)) for unit in report.units]


def worst_equal_norm(unit: AnswerUnit) -> float | None:
    """The larger p of the nulls of exactly its norm that were run; None where none was."""
    return largest(null.p for kind in SAME_NORM if (null := unit.null(kind)) is not None)


def yes_or_no(outcome: bool | None, *, asked: bool) -> str:
    """`✓ yes`, `✗ no`, `?` where it cannot be said, a dash where it is not asked."""
    if not asked:
        return NONE
    return SIGNS[outcome] + {True: " yes", False: " no", None: ""}[outcome]


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
        nats(contribution_of(unit, report)),
        p_value(unit.outcome.q),
        p_value(worst_equal_norm(unit)),
        yes_or_no(unit.necessary, asked=True),
        sufficient if left is None else f"{sufficient}, {share(left)} left",
        mediates if along is None else f"{mediates}, {share(along)}",
        f"{SIGNS[of_verdict(unit)]} {unit.verdict}",
    )


def of_verdict(unit: AnswerUnit) -> bool | None:
    """Whether it is supported; None where that cannot be said."""
    return {"supported": True, "not supported": False}.get(unit.verdict)


OTHERS_HEAD = (
    *("Prompt", "Aligned", "Answer", "Unit", "Features", "Contribution, nats"),
    *("Necessary", "Sufficient", "Mediates", "Verdict"),
)


def others(report: AnswerReport) -> list[tuple[str, ...]]:
    """A row for each unit in each further prompt, below `OTHERS_HEAD`."""
    found: list[tuple[str, ...]] = []
    for test in report.tests:
        for unit in test.units:
            name, active, size, _, _, *outcomes = _row(unit, test)
            first = said(test.prompt), test.aligned or NONE, target_said(test.target, test.contrast)
            found.append((*first, name, active, size, *outcomes))
    return found


def anchors(report: AnswerReport) -> list[str]:
    """Where the page's links to each unit lead."""
    return [f"unit-{place}" for place in range(1, len(report.units) + 1)]
