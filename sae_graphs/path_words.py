"""Is it a path? What path patching, minimality, shuffles and kinds of ablation say, in sentences.

All but the shuffles was measured in the graph's own prompt alone, and every sentence says so.
"""

from __future__ import annotations

from sae_graphs.evidence import Mediation, UnitReport
from sae_graphs.verdict_kinds import SIGNIFICANT, pooled
from sae_graphs.words import nats, p_value, share

CARRIED = 0.5, 1.5  # the shares of a source's effect that speak for a path
ALONE = 0.5  # a feature that accounts for so much of the joint change is named


def shuffle_words(unit: UnitReport) -> list[str]:
    """Whether other nodes of the graph do as much in a path's place; nothing for components."""
    found = pooled(unit, "shuffles") if unit.kind == "path" else None
    if found is None:
        return []
    verb = "do less" if found.p <= SIGNIFICANT else "do as much"
    return [f"Other nodes of the graph in its place {verb} (p = {p_value(found.p)})."]


def own_prompt_words(unit: UnitReport, *, supported: bool) -> list[str]:
    """Whether the effect flows along the edges, and whether the kind of ablation matters."""
    found = unit.mediation
    told = []
    if found is not None and len(unit.features) > 1:
        told.append("; ".join([_flow_words(found, unit), *_alone_words(found)]))
    if supported and (kinds := _kind_words(unit)):
        told.append(kinds)
    where = "In the graph's own prompt", "There,"  # said once in full
    return [f"{place} {each}." for place, each in zip(where, told, strict=False)]


def _is_carried(found: Mediation) -> bool:
    """True where most of what the sources do, and not much more, comes along the features."""
    return found.fraction is not None and CARRIED[0] <= found.fraction <= CARRIED[1]


def _flow_words(found: Mediation, unit: UnitReport) -> str:
    """Whether what the sources do comes along the unit's own features."""
    path = unit.kind == "path"
    first = "its first feature" if path else "its sources"
    does, where = ("does", "along its edges") if path else ("do", "through its features")
    if found.fraction is None:
        whether = "whether it is a path" if path else "whether its features work together"
        alone = "alone does next to nothing" if path else "alone do next to nothing"
        return f"{whether} cannot be said: {first} {alone}"
    if _is_carried(found):
        opening = f"it is carried {'along the path' if path else 'through its features'}"
    else:
        what = "a path" if path else "that its features work together"
        opening = f"that does not show {what}"
    size = f"{share(found.fraction)} of what {first} {does}"
    if found.fraction < 0:
        return f"{opening}: what flows {where} goes the other way ({size})"
    along = where if path or not _is_carried(found) else "through them"
    against = "; the rest works against it" if found.fraction > CARRIED[1] else ""
    return f"{opening}: {size} flows {along}{against}"


def _alone_words(found: Mediation) -> list[str]:
    """The features without which half of the joint change or more is gone."""
    shares = {feature: found.needed(feature) for feature in found.without}
    large = {name: part for name, part in shares.items() if part is not None and part >= ALONE}
    if not large:
        return []
    if len(large) == 1:
        ((name, part),) = large.items()
        return [f"{name} alone accounts for {share(part)} of the change"]
    if len(large) > 3:
        return [f"each of {len(large)} features is needed for half of the change or more"]
    named = [f"{name} ({share(part)})" for name, part in large.items()]
    return [
        f"{', '.join(named[:-1])} and {named[-1]} are each needed for half of the change or more"
    ]


def _kind_words(unit: UnitReport) -> str | None:
    """The change under other kinds of ablation beside that under zero."""
    kinds = unit.kinds or {}
    if "zero" not in kinds:
        return None
    others = [
        f"{kind} ablation by {nats(kinds[kind])}" for kind in ("mean", "resample") if kind in kinds
    ]
    zero = f"zero ablation changes the logit difference by {nats(kinds['zero'])} nats"
    return f"{zero}, {' and '.join(others)}" if others else None
