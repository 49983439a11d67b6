"""Validation reports made by hand: a full one, and the odd ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.significance import Spread
from sae_graphs.validation.evidence import (
    Background,
    Curve,
    EdgeMediation,
    FeatureZero,
    KeepOnly,
    Kept,
    Match,
    Mediation,
    Noise,
    Null,
    NullKind,
    PromptResult,
    Tested,
    TokenChange,
    UnitReport,
    ValidationReport,
)

NAMES = ("0.1", "1.1", "2.10600", "3.5")
HOSTILE = "<script>alert(1)</script>|`\n$x_1$\x00\u202e\ud83d\"'&[a](javascript:b)"


def features(*names: str) -> tuple[FeatureId, ...]:
    return tuple(FeatureId.parse(name) for name in names or NAMES)


def token_change(token: str = ")", before: float = 0.75, after: float = 0.03125) -> TokenChange:
    return TokenChange(token, 340, before, after, -5.5, -3.178)


def null(kind: NullKind = "matched", **changes: Any) -> Null:
    """Nineteen controls that change the probability by 0.5 to 9.5 points: p = 0.05 or less."""
    sizes = tuple((-1) ** n * 0.005 * n for n in range(1, 20))
    values: dict[str, Any] = {
        "changes": sizes,
        "kls": tuple(abs(size) * 2 for size in sizes),
        "p": 0.05,
        "p_kl": 0.05,
        "distinct": 17,
        "narrowest": 1330,
        "match": Match(0.81, 0.94, 1.07),
    }
    return Null(kind, **{**values, **changes})


def result(**changes: Any) -> PromptResult:
    """The first prompt: 75 % to 3.1 %, with every null."""
    target = changes.get("target", token_change())
    values: dict[str, Any] = {
        "prompt": "Copyright (C",
        "role": "discovery",
        "tokens": ("<bos>", "Copyright", " (", "C"),
        "active": 4,
        "target": target,
        "rank_before": 1,
        "rank_after": 9,
        "kl": 2.345,
        "score": target.before,
        "change": target.after - target.before,
        "top": (target, token_change("C", 0.125, 0.25), token_change(" of", 0.02, 0.01)),
        "lowered": (target, token_change(" of", 0.02, 0.01)),
        "raised": (token_change("C", 0.125, 0.25), token_change("\n", 0.0, 0.0625)),
        "nulls": (
            null(),
            null("scaled", match=Match(1.0, 1.0, 1.0)),
            null("directions", distinct=None, match=None),
            null("shuffles", p=0.35),
        ),
        "feature_zero": FeatureZero(n=4, active=1, change=-0.0123, kl=0.0456),
    }
    return PromptResult(**{**values, **changes})


def tested(**changes: Any) -> Tested:
    values: dict[str, Any] = {
        "role": "discovery",
        "n_prompts": 1,
        "change": 0.71875,
        "signed": -0.71875,
        "low": None,
        "high": None,
        "p": 0.05,
        "q": 0.05,
        "control_median": 0.05,
        "ratio": 14.375,
    }
    return Tested(**{**values, **changes})


def mediation() -> Mediation:
    a, b, c, d = features()
    return Mediation(
        edges=(
            EdgeMediation(a, b, -4.0, -2.5, -2.0),
            EdgeMediation(b, c, -2.0, -3.0, 0.75),
            EdgeMediation(c, d, -1.5, 0.0, 0.0),
        ),
        total=-2.5,
        mediated=-2.025,
        joint=-3.178,
        without={a: -2.9, b: -1.0, c: -3.5, d: -0.2},
        singles={a: -0.5, b: -1.25, c: 0.25, d: -2.0},
    )


def keep_only() -> KeepOnly:
    return KeepOnly(
        first="0",
        last="3",
        clean=Kept(-0.288, 0.75),
        kept=Kept(-1.1, 0.333),
        none=Kept(-6.2, 0.002),
        complement=Kept(-3.466, 0.031),
        all_bare=Kept(-0.4, 0.67),
        kept_bare=Kept(-2.5, 0.082),
        none_bare=Kept(-9.1, 0.0001),
    )


def curve(largest: float = 2.0, **changes: Any) -> Curve:
    coefficients = tuple(largest * step / 8 for step in range(-4 if largest > 2 else 0, 9))
    values: dict[str, Any] = {
        "cause": "Graph 1, path 1",
        "effect": 'probability of ")"',
        "unit": "points",
        "coefficients": coefficients,
        "responses": tuple(min(75.0, 60.0 * value**3 + 3) for value in coefficients),
        "r_squared": 0.87,
        "slope": 41.5,
        "gradient": 55.0,
        "largest_jump": 0.31,
        "jump_at": 0.75,
    }
    return Curve(**{**values, **changes})


def background() -> Background:
    return Background(
        active=Spread(12, 0.41, 0.2, 0.6),
        inactive=Spread(52, 0.0, 0.0, 0.0),
        everywhere=Spread(64, 0.077, 0.03, 0.12),
        controls_active=Spread(12, 0.11, 0.05, 0.2),
        controls_everywhere=Spread(0, None, None, None),
    )


def unit(name: str = "Graph 1, path 1", **changes: Any) -> UnitReport:
    """A path with everything that can be found of one."""
    found = features()
    values: dict[str, Any] = {
        "name": name,
        "kind": "path" if "path" in name else "component",
        "component": 1,
        "features": found,
        "edges": tuple(pairwise(found)),
        "results": (result(),),
        "tested": tested(),
        "mediation": mediation(),
        "keep_only": keep_only(),
        "curves": (curve(), curve(8.0)),
        "kinds": {"zero": -3.178, "mean": -2.9, "resample": -2.75},
        "background": background(),
    }
    return UnitReport(**{**values, **changes})


def bare_unit(name: str = "Graph 2", **changes: Any) -> UnitReport:
    """A component of which only its ablation is known."""
    values: dict[str, Any] = {
        "name": name,
        "kind": "component",
        "component": 2,
        "features": features("0.9", "1.9"),
        "edges": (features("0.9", "1.9"),),
        "results": (result(nulls=(), feature_zero=None, top=(), lowered=(), raised=()),),
    }
    return UnitReport(**{**values, **changes})


def report(units: Sequence[UnitReport] | None = None, **changes: Any) -> ValidationReport:
    """A report over `graphs.example()`: a component and its path, and a bare component."""
    weak = result(
        target=token_change(after=0.74),
        nulls=(null(p=0.9), null("scaled", refused="no set of that norm", changes=(), p=None)),
    )
    values: dict[str, Any] = {
        "model": "tiny",
        "saes": "tiny-saes",
        "prompt": "Copyright (C",
        "target": ")",
        "contrast": None,
        "discovery": ("Copyright (C",),
        "test": (),
        "settings": {"controls": 19, "seed": 0, "paths": 1},
        "units": units
        or (
            unit("Graph 1", mediation=None, curves=()),
            unit(),
            bare_unit(
                results=(weak,),
                tested=tested(change=0.01, signed=-0.01, p=0.9, q=0.95, ratio=0.2),
            ),
        ),
        "noise": (Noise(1, Spread(64, 0.01, 0.005, 0.02)), Noise(8, Spread(64, 0.2, 0.1, 0.3))),
        "curves": (curve(cause="0.1", effect="1.1", unit="activation"),),
        "agreement": {"zero, mean": 0.93, "zero, resample": None},
        "corpus": "the bundled corpus, 64 snippets",
        "warnings": ("layer 2 does not fit its stream",),
        "seconds": 12.5,
    }
    return ValidationReport(**{**values, **changes})


def over_prompts() -> UnitReport:
    """A path whose verdict rests on two test prompts."""
    rare = (
        null(p=0.02),
        null("scaled", p=0.02, match=Match(0.9, 0.95, 1.0)),
        null("shuffles", p=0.4),
    )
    others = [
        result(
            role="test", prompt=prompt, target=token_change(before=before, after=after), nulls=rare
        )
        for prompt, before, after in (("© (C", 0.5, 0.125), ("(C", 0.25, 0.0625))
    ]
    numbers = tested(
        role="test", n_prompts=2, change=0.28125, signed=-0.28125, low=0.1875, high=0.375
    )
    return unit(results=(result(), *others), tested=numbers)


def with_contrast() -> ValidationReport:
    """Scores are differences of logits, in nats."""
    numbers = result(score=3.25, change=-2.8, contrast=token_change("]", 0.01, 0.2))
    found = unit(results=(numbers,), tested=tested(change=2.8, signed=-2.8))
    return report(units=(found,), contrast="]")


def refused() -> UnitReport:
    """No control set can differ from the path."""
    nothing: dict[str, Any] = {"changes": (), "kls": (), "p": None, "p_kl": None, "match": None}
    why = "only 4 features are active in its layers"
    numbers = result(nulls=(null(refused=why, distinct=1, **nothing),))
    gone = tested(p=None, q=None, control_median=None, ratio=None)
    return unit(results=(numbers,), tested=gone)


def hostile(text: str = HOSTILE) -> ValidationReport:
    """The same text wherever a text can come from outside."""
    change = token_change(text)
    numbers = result(
        prompt=text,
        tokens=(text,),
        target=change,
        top=(change,),
        lowered=(change,),
        raised=(change,),
        nulls=(null(), null("scaled", refused=text, changes=(), p=None)),
    )
    found = unit(results=(numbers,), curves=(curve(cause=text, effect=text, unit=text),))
    return replace(
        report(units=(found, replace(found, name=text), replace(found, name=text))),
        model=text,
        saes=text,
        prompt=text,
        target=text,
        discovery=(text,),
        settings={text: text},
        curves=(curve(cause=text, effect=text, unit=text),),
        agreement={text: 0.5},
        corpus=text,
        warnings=(text,),
    )
