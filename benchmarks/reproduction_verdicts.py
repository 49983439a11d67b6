"""Whether what we find agrees with what was published: computed from the numbers, by table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

PRINTED = 0.1  # percentage points: what was published is rounded to these, and so may ours be
POINTS = 1.0  # percentage points that an ablation's change may be off
RELATIVE = 0.01  # of an activation
MOVED = 0.05  # percentage points: less counts as no change
MOST = 0.8  # of the signs, where only these can be compared
LINEAR = 0.9  # of the variance that a line explains
JUMP = 3.0  # times the median step, and a tenth of the range at least

Answer = Literal["agrees", "agrees in sign", "differs", "not comparable"]
Found = Mapping[str, Any]
Row = Sequence[Any]  # a token, what was published of it, ours or None


class Verdict(NamedTuple):
    """One table's answer, and the numbers that it rests on."""

    answer: Answer
    why: str

    def __str__(self) -> str:
        return f"{self.answer}: {self.why}"


def of_clean(found: Iterable[Found]) -> Verdict:
    """Do all prompts have the published next tokens?"""
    return _within([row for one in found for row in one["rows"]], PRINTED)


def of_ablation(found: Found) -> Verdict:
    """A figure's changes: exactly where its features are known, else their signs."""
    if "refused" in found:
        return Verdict("not comparable", found["refused"])
    if found["active"] == 0:
        return Verdict("not comparable", "none of its features is active here")
    if found["exact"]:
        return _within(found["rows"], POINTS)
    return _signs(found["rows"], "which features this figure has was not published; ")


def of_zero(found: Found) -> Verdict:
    """The source's control: feature 0 of the same layers."""
    if "refused" in found:
        return Verdict("not comparable", found["refused"])
    zero = found["zero"]
    if zero["active"]:
        return _within(zero["rows"], POINTS)
    published = max(abs(value) for _, value, _ in zero["rows"])
    why = (
        f"none of the {zero['n']} features is active, so they cannot change anything "
        f"(largest change {zero['largest']:.2g}); published are changes up to {published:.1f} "
        "points"
    )
    return Verdict("agrees" if published < MOVED else "differs", why)


def of_sweep(found: Found) -> Verdict:
    """Is the narrow curve almost linear, with one jump?"""
    if "refused" in found:
        return Verdict("not comparable", found["refused"])
    curve = found["curves"][0]
    linear, jumps = curve["r_squared"], n_jumps(curve["responses"])
    if linear is None:
        return Verdict("differs", "the response does not change at all")
    why = f"a line explains {linear:.1%} of it, and it jumps {jumps} time{'s' * (jumps != 1)}"
    return Verdict("agrees" if linear >= LINEAR and jumps == 1 else "differs", why)


def n_jumps(responses: Sequence[float]) -> int:
    """Places where a curve jumps: steps much larger than the others; neighbours are one place."""
    values = np.asarray(responses, dtype=float)
    steps = np.abs(np.diff(values))
    extent = float(values.max() - values.min())
    high = steps > max(JUMP * float(np.median(steps)), extent / 10.0)
    return int(high[0]) + int((high[1:] & ~high[:-1]).sum())


def of_weighted(found: Sequence[Found]) -> Verdict:
    """Do the named features rise where they were said to, and fall where they were said to?"""
    rows = [[one["feature"], one["published"], one["effect"]] for one in found]
    return _signs(rows, "only signs were published; ", least=1e-6)


def of_edges(found: Sequence[Found]) -> Verdict:
    """Colours are signs: is each colour one sign, and the two opposite?"""
    known = [one for one in found if one["effect"] is not None]
    if len({one["colour"] for one in known}) < 2:
        why = next((one["refused"] for one in found if "refused" in one), "no edges of both kinds")
        return Verdict("not comparable", why)
    red = {one["effect"] < 0 for one in known if one["colour"] == "red"}
    blue = {one["effect"] < 0 for one in known if one["colour"] == "blue"}
    words = f"{len(known)} of {len(found)} edges can be measured in this prompt"
    if len(red) == len(blue) == 1 and red != blue:
        return Verdict("agrees in sign", f"{words}; the two colours are opposite signs")
    return Verdict("differs", f"{words}; the colours are not opposite signs")


def of_graph(found: Found, said: Found) -> Verdict:
    """How many graphs, whether the lowest layer is out of it, which features are in it."""
    faint = found["strongest_touching"] < 0.1 * found["strongest"]
    right = found["graphs"] == said["n_graphs"] and faint and len(found["named"]) > 0
    layer = said["untouched_layer"]
    why = (
        f"{found['graphs']} graphs (published {said['n_graphs']}); {found['touching']} edges from "
        f"layer {layer} (published: none strong), the strongest {found['strongest_touching']:.3g}, "
        f"of all {found['strongest']:.3g}; {len(found['named'])} of {len(said['features'])} "
        f"features of the text, {len(found['path_nodes'])} of the paths'"
    )
    return Verdict("agrees" if right else "differs", why)


def of_activations(found: Found) -> Verdict:
    """Does the source's formula, on these weights, give its activations?"""
    rows = [row for row in found["rows"] if row["formula"] is not None]
    if not rows:
        return Verdict("not comparable", "the SAEs have none of these features")
    if any(len(row["formula"]) != len(row["published"]) for row in rows):
        return Verdict("not comparable", f"the prompt has {len(found['tokens'])} tokens here")
    here, late = (_relative(rows, name) for name in ("formula", "formula_late"))
    why = f"the formula is off by {here:.2%} at most, a block later by {late:.2%}"
    if here <= RELATIVE:
        return Verdict("agrees", why)
    if late <= RELATIVE:
        return Verdict("agrees", f"a block late; {why}")
    return Verdict("differs", why)


def _relative(rows: Iterable[Found], name: str) -> float:
    """The largest deviation of a row's activations, relative to the row's largest."""
    off = []
    for row in rows:
        if row[name] is None:
            return float("inf")
        pairs = zip(row["published"], row[name], strict=True)
        off.append(max(abs(a - b) for a, b in pairs) / max(max(row["published"]), 1e-9))
    return max(off)


def of_promotes(found: Iterable[Found]) -> Verdict:
    """How many of the tokens that a feature promotes are the published ones?"""
    known = [one for one in found if one["ours"] is not None]
    if not known:
        return Verdict("not comparable", "the SAEs have none of these features")
    shares = [
        len({token.strip() for token in one["ours"]} & set(one["published"]))
        / len(set(one["published"]))
        for one in known
    ]
    why = f"of the published tokens, {min(shares):.0%} to {max(shares):.0%} are among ours"
    return Verdict("agrees" if min(shares) >= 0.5 else "differs", why)


def of_keep_only(found: Iterable[Found]) -> Verdict:
    """Keeping a path alone makes a hash of the logits: is the target lost?"""
    kept = [one["keep_only"] for one in found if "keep_only" in one]
    if not kept:
        return Verdict("not comparable", "the SAEs have none of the paths' features")
    lost = sum(one["kept"] < 0.5 * one["clean"] for one in kept)
    why = f"in {lost} of {len(kept)} figures the target falls by half or more"
    return Verdict("agrees" if lost == len(kept) else "differs", why)


def of_corpus(found: Sequence[Found]) -> Verdict:
    """Over a corpus, a path's ablation is noise, not zero: does it do something?"""
    known = [one for one in found if one["mean"] is not None]
    if not known:
        return Verdict("not comparable", "no snippets, or none of the paths' features")
    some = sum(one["mean"] > 0 and (one["low"] is None or one["low"] > 0) for one in known)
    why = f"for {some} of {len(known)} paths the mean divergence is above 0 with its interval"
    return Verdict("agrees" if some == len(known) else "differs", why)


# -- inside ----------------------------------------------------------------------------------------


def _within(rows: Sequence[Row], tolerance: float) -> Verdict:
    known = [(abs(ours - value), token) for token, value, ours in rows if ours is not None]
    if not known:
        return Verdict("not comparable", "none of its tokens is one token of this model")
    worst, token = max(known)
    count = "" if len(known) == len(rows) else f"; {len(known)} of {len(rows)} tokens compared"
    if len(known) < len(rows) / 2:
        few = f"only {len(known)} of {len(rows)} tokens are tokens of this model"
        return Verdict("not comparable", few)
    if worst <= tolerance:
        return Verdict("agrees", f"within {tolerance:g} points{count}")
    return Verdict("differs", f"by up to {worst:.1f} points, at {token!r}{count}")


def _signs(rows: Sequence[Row], words: str, least: float = MOVED) -> Verdict:
    known = [(value, ours) for _, value, ours in rows if ours is not None and abs(value) >= least]
    if not known:
        return Verdict("not comparable", f"{words}nothing to compare")
    told = sum(abs(value) >= least for _, value, _ in rows)
    if len(known) < told / 2:
        return Verdict("not comparable", f"{words}only {len(known)} of {told} changes are known")
    same = sum(value * ours > 0 and abs(ours) >= least for value, ours in known)
    why = f"{words}{same} of {len(known)} changes have the published sign"
    return Verdict("agrees in sign" if same >= MOST * len(known) else "differs", why)
