"""What the numbers of a component or a path allow us to say: one of six kinds, and in words.

Two questions have answers of their own: whether its features matter, beyond controls (the kind,
from the prompts that decide), and whether it is a path, along whose edges the effect flows (a
sentence, from the graph's own prompt).
"""

from __future__ import annotations

from dataclasses import dataclass

from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.judging import (
    SAME_NORM,
    SIGNIFICANT,
    SIGNS,
    VerdictKind,
    corrected,
    kind_of,
    largest,
    pooled,
)
from sae_graphs.validation.sentences import (
    OUTCOMES,
    alone_words,
    change_words,
    control_words,
    flow_words,
    inactive_words,
    is_carried,
    kind_words,
    mean_change,
    shuffle_words,
)
from sae_graphs.words import (
    p_value,
    times,
)


@dataclass(frozen=True)
class Verdict:
    """What can be said of a unit: the kind, and in words.

    - `necessary`: whether the target hangs on it; `mediates`: whether what its sources do flows
      along it. None where that cannot be said, or was not measured.
    - `sentences`: the same, first what ablating it does beside controls, then what flows along it;
      each begins with the sign of its outcome. `more` is what else the numbers say.
    """

    kind: VerdictKind
    sentences: tuple[str, ...] = ()
    more: str = ""
    necessary: bool | None = None
    mediates: bool | None = None

    @property
    def supported(self) -> bool:
        """True where the claim that the unit matters is supported."""
        return self.kind == "supported"

    @property
    def words(self) -> str:
        """The sentences."""
        return " ".join(self.sentences)

    @property
    def full(self) -> str:
        """The sentences, and what else there is to say."""
        return f"{self.words} {self.more}".strip()


def verdict(unit: UnitReport, report: ValidationReport) -> Verdict:
    """The verdict on one component or path, from the prompts that decide."""
    kind = kind_of(unit, in_nats=report.in_nats)
    if kind == "inactive":
        return Verdict(kind, (f"{SIGNS[None]} {inactive_words(unit)}",))
    more = control_words(unit, report)
    mediates = None
    sentences = [change_words(unit, report, kind)]
    if kind != "no effect":
        found = unit.mediation if len(unit.features) > 1 else None
        mediates = None if found is None or found.fraction is None else is_carried(found)
        sentences.append(flow_words(unit))
        more += alone_words(unit)
    if kind == "supported":
        more = [*more, *shuffle_words(unit), *kind_words(unit)]
    necessary = OUTCOMES.get(kind, False)
    if necessary and mean_change(unit) > 0:
        necessary = False  # it matters, and holds the target back
    return Verdict(kind, tuple(sentences), " ".join(more), necessary, mediates)


def kind_in(unit: UnitReport) -> VerdictKind:
    """The kind alone; whether its score is a difference of logits, the results tell."""
    return kind_of(unit, in_nats=any(result.contrast is not None for result in unit.results))


def reason(unit: UnitReport) -> str:
    """What decides the verdict, in one line."""
    return short_words(unit, Verdict(kind_in(unit)))


def short_words(unit: UnitReport, found: Verdict) -> str:
    """The verdict as a caption: `supported, p = 0.005`."""
    tested, kind = unit.tested, found.kind
    p = tested.p if tested else None
    shown = "" if p is None else f"p = {p_value(p)}"
    if kind == "norm only":
        worst = largest(null.p for each in SAME_NORM if (null := pooled(unit, each)))
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
