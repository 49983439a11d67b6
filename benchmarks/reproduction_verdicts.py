"""Whether what we find agrees with what was published: computed from the numbers, by table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from sae_graphs.significance import p_value, rank_correlation
from sae_graphs.validation.evidence import LEAST_CHANGE

PRINTED = 0.1  # percentage points: what was published is rounded to these, and so may ours be
POINTS = 1.0  # percentage points that an ablation's change may be off
RELATIVE = 0.01  # of an activation, at each token
FLOOR = 1.0  # activation units: smaller activations count as so large where shares are taken
MOVED = 0.05  # percentage points: less counts as no change
MOST = 0.8  # of the signs, where only these can be compared
LINEAR = 0.9  # of the variance that a line explains
LEVEL = 0.05  # controls that may do as well: above their 95th percentile
SIZE = 0.1  # of the published changes, up and down apart; of a clean activation
RANK = 0.5  # Spearman's, of our changes and the published
LOST = 0.5  # of the clean probability: with less, a target is lost
EDGE = 1e-3  # activation units: less counts as no effect
JUMP = 3.0  # times the median step, and a tenth of the range at least

Answer = Literal[
    "agrees", "agrees in sign", "differs", "not comparable", "not comparable (other weights)"
]
Found = Mapping[str, Any]
Row = Sequence[Any]  # a token, what was published of it, ours or None


class Verdict(NamedTuple):
    """One table's answer, and the numbers that it rests on."""

    answer: Answer
    why: str

    def __str__(self) -> str:
        return f"{self.answer}: {self.why}"


def elsewhere(verdict: Verdict) -> Verdict:
    """What a verdict is worth where the clean distribution was not reproduced: nothing."""
    return Verdict("not comparable (other weights)", f"on these weights, {verdict.why}")


def of_clean(found: Iterable[Found]) -> Verdict:
    """Do all prompts have the published next tokens?"""
    return _within([row for one in found for row in one["rows"]], PRINTED)


def of_ablation(found: Found) -> Verdict:
    """A figure's changes: exactly where its features are known, else signs, beside controls'."""
    if "refused" in found:
        return Verdict("not comparable", found["refused"])
    if found["active"] == 0:
        return Verdict("not comparable", "none of its features is active here")
    if found["exact"]:
        return _within(found["rows"], POINTS)
    return _beside_controls(found, "which features this figure has was not published; ")


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
    """Do the named features move as one reading of the text says, by a real share of the clean?"""
    known = [one for one in found if one["effect"] is not None and shared(one) is not None]
    words = "only signs were published, and what was measured is ambiguous; "
    if not known or len(known) < len(found) / 2:
        why = f"{words}only {len(known)} of {len(found)} are active there, or can be measured"
        return Verdict("not comparable", why)
    same = sum(one["published"] * (shared(one) or 0.0) >= SIZE for one in known)
    why = (
        f"{words}{same} of {len(known)} move in the published direction by {SIZE:.0%} of the clean "
        "activation or more"
    )
    return Verdict("agrees in sign" if same >= MOST * len(known) else "differs", why)


def shared(one: Found) -> float | None:
    """An effect as a share of the clean activation, or of `FLOOR`; None where it is never active"""
    if one["clean"] <= 0 and one["effect"] <= 0:
        return None
    return float(one["effect"]) / max(float(one["clean"]), FLOOR)


def of_edges(found: Sequence[Found]) -> Verdict:
    """Colours are signs: is each colour one sign, and the two opposite?"""
    known = [one for one in found if one["effect"] is not None]
    words = f"{len(known)} of {len(found)} edges can be measured in this prompt"
    if len(known) < len(found) / 2 or len({one["colour"] for one in known}) < 2:
        refused = next((f": {one['refused']}" for one in found if "refused" in one), "")
        return Verdict("not comparable", words + refused)
    idle = sum(abs(one["effect"]) < EDGE for one in known)
    if idle:
        return Verdict("differs", f"{words}; {idle} of these have no effect")
    red = {one["effect"] < 0 for one in known if one["colour"] == "red"}
    blue = {one["effect"] < 0 for one in known if one["colour"] == "blue"}
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
    """The largest deviation at any token, relative to the activation there, or to `FLOOR`."""
    off = []
    for row in rows:
        if row[name] is None:
            return float("inf")
        pairs = zip(row["published"], row[name], strict=True)
        off += [abs(ours - said) / max(abs(said), FLOOR) for said, ours in pairs]
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


def of_keep_only(found: Iterable[Found], *, bare: bool) -> Verdict:
    """Keeping a path alone makes a hash of the logits: is the target lost, and by that alone?

    Any wreck loses it. So it counts only where the path still keeps more than nothing does, and
    than equally large sets of other features do.
    """
    there = [one for one in found if "keep_only" in one]
    if not there:
        return Verdict("not comparable", "the SAEs have none of the paths' features")
    active = [one["keep_only"] for one in there if one["active"]]
    if not active:
        return Verdict("not comparable", "no feature of any path is active in its prompt")
    lost = sum(not _holds(kept, "kept_bare" if bare else "kept") for kept in active)
    why = f"in {lost} of {len(active)} figures with active features the target is lost"
    if lost < len(active):
        return Verdict("differs", why)
    told = sum(_tells(kept, bare=bare) for kept in active)
    why += (
        f"; in {told} the path keeps more than nothing and than equally large sets of other "
        "features"
    )
    if bare:
        whole = sum(_holds(kept, "all_bare") for kept in active)
        why += f"; in {whole} all features together hold it without the errors"
    if told < len(active) / 2:
        return Verdict("not comparable", f"{why}: elsewhere any wreck would do the same")
    return Verdict("agrees", why)


def _holds(kept: Found, part: str) -> bool:
    return bool(kept[part] >= LOST * kept["clean"])


def _tells(kept: Found, *, bare: bool) -> bool:
    """Whether the path keeps more than nothing, and than 95 % of other sets: in nats."""
    end = "_bare" if bare else ""
    others = kept[f"others{end}"]["nats"]
    if not others or (bare and not _holds(kept, "all_bare")):
        return False
    own, none = kept["nats"][f"kept{end}"], kept["nats"][f"none{end}"]
    return bool(own >= none + LEAST_CHANGE and p_value(own, others) <= LEVEL)


def of_corpus(found: Sequence[Found]) -> Verdict:
    """Over a corpus, a path's ablation is noise, not zero.

    It differs where the figure's tokens move as in the figure, beyond what controls do to them;
    it agrees where they move, though not beyond controls; else nothing can be told.
    """
    known = [one for one in found if one["excess"]["low"] is not None and one["active_in"]]
    if not known:
        return Verdict("not comparable", "no path has both active features and controls there")
    beyond = sum(one["excess"]["low"] > 0 for one in known)
    moved = sum(not one["signed"]["low"] <= 0 <= one["signed"]["high"] for one in known)
    why = (
        f"the figure's tokens move on average for {moved} of {len(known)} paths, and as in the "
        f"figure beyond what controls do for {beyond}"
    )
    if beyond >= len(known) / 2:  # one of four may be chance
        return Verdict("differs", why)
    if moved < len(known) / 2:
        return Verdict("not comparable", f"{why}: noise cannot be told from nothing")
    return Verdict("agrees", why)


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


def _beside_controls(found: Found, words: str) -> Verdict:
    """Signs, which any destructive ablation may have right: so beside controls', sizes and ranks.

    Clean top tokens fall and others rise whatever is wrecked.
    """
    verdict = _signs(found["rows"], words)
    if verdict.answer != "agrees in sign":
        return verdict
    told = [(value, ours) for _, value, ours in found["rows"] if ours is not None]
    rank = rank_correlation([value for value, _ in told], [ours for _, ours in told])
    sizes = [
        sum(math.copysign(1, value) * ours for value, ours in told if (value > 0) == up)
        / max(sum(abs(value) for value, _ in told if (value > 0) == up), PRINTED)
        for up in (True, False)
        if any((value > 0) == up for value, _ in told)
    ]
    rank_words = "unknown" if rank is None else f"{rank:.2f}"
    why = (
        f"{verdict.why}, of {min(sizes):.1%} of their size or more up and down, ranks alike to "
        f"{rank_words}"
    )
    if min(sizes) < SIZE or rank is None or rank < RANK:
        return Verdict("differs", why)
    own = sign_score(found["rows"])
    for kind, control in found["controls"].items():
        if control["refused"] is not None:
            return Verdict("not comparable", f"{why}; no {kind} controls: {control['refused']}")
        theirs = [
            sign_score([[*row[:2], ours] for row, ours in zip(found["rows"], one, strict=True)])
            for one in control["changes"]
        ]
        p = p_value(own, theirs)
        why += f"; as many signs are right in {kind} controls at p {p:.2g}"
        if p > LEVEL:
            return Verdict("not comparable", f"{why}: so any ablation of this size would do")
    return Verdict("agrees in sign", why)


def sign_score(rows: Iterable[Row]) -> float:
    """The share of the published changes that have their sign, of those that are known."""
    known = [(value, ours) for _, value, ours in rows if ours is not None and abs(value) >= MOVED]
    return sum(value * ours > 0 and abs(ours) >= MOVED for value, ours in known) / len(known)


def _signs(rows: Sequence[Row], words: str) -> Verdict:
    told = sum(abs(value) >= MOVED for _, value, _ in rows)
    known = sum(ours is not None and abs(value) >= MOVED for _, value, ours in rows)
    if not known:
        return Verdict("not comparable", f"{words}nothing to compare")
    if known < told / 2:
        return Verdict("not comparable", f"{words}only {known} of {told} changes are known")
    score = sign_score(rows)
    why = f"{words}{round(score * known)} of {known} changes have the published sign"
    return Verdict("agrees in sign" if score >= MOST else "differs", why)
