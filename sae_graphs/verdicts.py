"""What the numbers of a component or a path allow us to say: one of six kinds, and in words.

Two questions have answers of their own: whether its features matter, beyond controls (the kind,
from the prompts that decide), and whether it is a path, along whose edges the effect flows (a
sentence, from the graph's own prompt).
"""

from __future__ import annotations

from dataclasses import dataclass

from sae_graphs.evidence import UnitReport, ValidationReport
from sae_graphs.path_words import own_prompt_words, shuffle_words
from sae_graphs.verdict_kinds import (
    LEAST_RATIO,
    SAME_NORM,
    SIGNIFICANT,
    VerdictKind,
    corrected,
    kind_of,
    pooled,
)
from sae_graphs.verdict_words import change_words, control_words, inactive_words
from sae_graphs.words import p_value, times


@dataclass(frozen=True)
class Verdict:
    """What can be said of a unit: the kind, and sentences with the numbers it rests on."""

    kind: VerdictKind
    words: str

    @property
    def supported(self) -> bool:
        """True where the claim that the unit matters is supported."""
        return self.kind == "supported"


def verdict(unit: UnitReport, report: ValidationReport) -> Verdict:
    """The verdict on one component or path, from the prompts that decide."""
    kind = kind_of(unit, in_nats=report.contrast is not None)
    if kind == "inactive":
        return Verdict(kind, inactive_words(unit))
    sentences = [change_words(unit, report, kind), *control_words(unit, report)]
    if kind == "not distinguishable" and unit.tested and corrected(unit.tested) <= SIGNIFICANT:
        told = f"Its change is less than {LEAST_RATIO:.0f} times theirs, too little to claim it."
        sentences.insert(2, told)
    if kind == "supported":
        sentences += shuffle_words(unit)
    if kind != "no effect":
        sentences += own_prompt_words(unit, supported=kind == "supported")
    return Verdict(kind, " ".join(sentences))


def short_words(unit: UnitReport, found: Verdict) -> str:
    """The verdict as a caption: `supported, p = 0.005`."""
    tested, kind = unit.tested, found.kind
    p = tested.p if tested else None
    shown = "" if p is None else f"p = {p_value(p)}"
    if kind == "norm only":
        nulls = [null for each in SAME_NORM if (null := pooled(unit, each))]
        worst = max((null.p for null in nulls), default=None)
        beaten = f" ({shown})" if shown else ""
        return (
            f"beats its matched controls{beaten}, but not other changes of its norm "
            f"(p = {p_value(worst)})"
        )
    if kind == "not distinguishable" and tested:
        if p is not None and p <= SIGNIFICANT and corrected(tested) > SIGNIFICANT:
            shown += f", q = {p_value(tested.q)}"
        if tested.ratio is not None:
            shown += f", {times(tested.ratio)} × their median"
    names: dict[VerdictKind, str] = {
        "supported": "supported: its features matter",
        "not distinguishable": "not distinguishable from controls",
        "no effect": "no effect on the target",
        "inactive": "inactive in the deciding prompts",
        "no controls": "no fair controls",
    }
    silent = not shown or kind in ("inactive", "no controls")
    return names.get(kind, kind) + ("" if silent else f", {shown}")
