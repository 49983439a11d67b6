"""Numbers and counts in words: `1 feature`, `99.2 %`, `−96.1 points`, `p = 0.005`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sae_graphs.text import visible

NONE = "–"  # stands where there is no number
SMALLEST = 1e-6  # a smaller probability is only said to be smaller
LARGEST = 1000  # a larger ratio, or share in per cent, is only said to be larger
FACTOR = 10.0  # a relative change of this or more is told as a factor


MINUS = "\u2212"


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, `digits` significant ones.

    >>> signed(-12.34), signed(0.5), signed(0.0), signed(-4, 2)
    ('−12.3', '+0.500', '0', '−4.0')
    """
    return ("+" if value > 0 else "") + plain(value, digits)


def plain(value: float, digits: int = 3) -> str:
    """A number of `digits` significant ones without a plus sign; thousands are grouped.

    >>> plain(14.52), plain(3574.2), plain(0.00001234)
    ('14.5', '3,574', '1.23e-05')
    """
    if not value:
        return "0"
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".")
    return text.replace("-", MINUS, 1) if value < 0 else text


def counted(number: int, noun: str) -> str:
    """`1 feature`, `2 features`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
    ('a, b and c', 'a', '')
    """
    *first, last = names or [""]
    return f"{', '.join(first)} and {last}" if first else last


def percent(share: float) -> str:
    """A share as per cent, small ones with a decimal.

    >>> percent(0.63), percent(0.012), percent(0.0002), percent(0.0)
    ('63%', '1.2%', '<0.1%', '0%')
    """
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def probability_words(probability: float) -> str:
    """A probability as per cent; one that would read as all of it, or as nothing, says so.

    >>> [probability_words(p) for p in (1.0, 0.9999, 0.997, 0.97, 0.0123, 0.0002, 0.0)]
    ['100%', '>99.9%', '99.7%', '97%', '1.2%', '<0.1%', '0%']
    """
    if 0.995 <= probability < 1:
        return f"{probability:.1%}" if probability < 0.9995 else ">99.9%"
    return percent(probability)


def said(text: str) -> str:
    """A token within a sentence: quoted, everything in it visible.

    >>> said(" Paris\\n")
    '" Paris↵"'
    """
    return f'"{visible(text, space=" ")}"'


def target_said(target: str | None, contrast: str | None) -> str:
    """What is watched, within a sentence; without a target, it is each prompt's likeliest."""
    subject = "the likeliest next token" if target is None else said(target)
    return subject if contrast is None else f"{subject} over {said(contrast)}"


def probability(share: float) -> str:
    """A probability in per cent; what is not quite nothing, or not quite all, says so.

    >>> probability(0.992), probability(0.0001), probability(0.99999), probability(1e-9)
    ('99.2 %', '0.01 %', '>99.9 %', '<0.0001 %')
    """
    if not math.isfinite(share):
        return NONE
    if 0 < share < SMALLEST:
        return f"<{100 * SMALLEST:.4f} %"
    if 0 < share < 0.0005:
        return f"{100 * share:.{-math.floor(math.log10(100 * share))}f} %"
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of two probabilities in percentage points, with its sign.

    >>> points(-0.961), points(0.0123), points(0.0), points(-0.00001)
    ('−96.1', '+1.2', '0', '−0.001')
    """
    return _with_sign(100 * share)


def relative(change: float) -> str:
    """A relative change in per cent: -1 is all of it lost. A large one as a factor.

    >>> relative(-0.97), relative(0.004), relative(-0.00001), relative(1233.0), relative(1e9)
    ('−97 %', '+0.4 %', '0 %', '×1,234', '×1e+09')
    """
    if math.isnan(change):
        return NONE
    if change >= FACTOR:
        return f"×{1 + change:,.0f}" if change < 1e6 else f"×{change:.0e}"
    if abs(change) < 0.0005:
        return "0 %"
    digits = 0 if abs(change) >= 0.1 else 1
    text = f"{abs(100 * change):,.{digits}f} %"
    return ("+" if change > 0 else MINUS if change < 0 else "") + text


def relative_to(change: float, before: float) -> str:
    """A relative change, and of what: `−97 % of 99.2 %`, `×1,234 from 0.001 %`.

    >>> relative_to(-0.97, 0.992), relative_to(1233.0, 0.00001), relative_to(math.inf, 0.0)
    ('−97 % of 99.2 %', '×1,234 from 0.001 %', 'from nothing')
    >>> relative_to(-0.00001, 0.992)
    'hardly moves'
    """
    if not math.isfinite(change):
        return NONE if math.isnan(change) else "from nothing"
    if relative(change) == "0 %":
        return "hardly moves"
    word = "of" if change < FACTOR else "from"
    return f"{relative(change)} {word} {probability(before)}"


def share(fraction: float | None) -> str:
    """A fraction in per cent, rounded to whole ones; it may be below 0 or above 1.

    >>> share(0.81), share(-0.2), share(43.0), share(None)
    ('81 %', '−20 %', '>1,000 %', '–')
    """
    if fraction is None or not math.isfinite(fraction):
        return NONE
    if abs(100 * fraction) > LARGEST:
        return f"{'>' if fraction > 0 else '<' + MINUS}{LARGEST:,} %"
    text = f"{100 * fraction:,.0f} %"
    return text.replace("-", MINUS) if round(100 * fraction) else "0 %"


def p_value(p: float | None) -> str:
    """A p or q value: three decimals, one digit where that would be nothing.

    >>> p_value(0.004975), p_value(0.00002), p_value(None)
    ('0.005', '2e-05', '–')
    """
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.001 or not p else f"{p:.1g}"


def times(ratio: float | None) -> str:
    """How many times larger.

    >>> times(46.2), times(1.34), times(4206.0)
    ('46', '1.3', '>1,000')
    """
    if ratio is None or math.isnan(ratio):
        return NONE
    if ratio > LARGEST:
        return f">{LARGEST:,}"
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def norm(match: float) -> str:
    """A norm as a share of another, two decimals."""
    return f"{match:.2f}" if math.isfinite(match) else NONE


def factor(value: float) -> str:
    """What a cause is multiplied by: `−2.5`, `20`."""
    return f"{value:g}".replace("-", MINUS)


def nats(value: float | None) -> str:
    """A change in nats with its sign, without the unit; a tidy one has few digits."""
    return NONE if value is None or not math.isfinite(value) else signed(value)


def amount(value: float | None) -> str:
    """A number without a plus sign, three digits."""
    return NONE if value is None or not math.isfinite(value) else plain(value)


def score_change(value: float, *, in_nats: bool) -> str:
    """A change of a score: `−96.1 points` or `−2.80 nats`."""
    return f"{nats(value)} nats" if in_nats else f"{points(value)} points"


def score_size(value: float, *, in_nats: bool) -> str:
    """How large a change is, without a sign: `96.1 points`."""
    return score_change(abs(value), in_nats=in_nats).lstrip("+")


def interval(low: float | None, high: float | None, *, in_nats: bool) -> str:
    """`88.0 to 97.1 points`; nothing where there is no interval."""
    if low is None or high is None:
        return ""
    first = score_size(low, in_nats=in_nats).split(" ")[0]
    return f"{first} to {score_size(high, in_nats=in_nats)}"


def change_range(changes: Sequence[float], *, in_nats: bool) -> str:
    """The changes of several prompts, from the smallest on: `−7.2 to −100.0 points`.

    >>> change_range([-1.0, -0.072], in_nats=False), change_range([-0.1, 0.2], in_nats=False)
    ('−7.2 to −100.0 points', '−10.0 to +20.0 points')
    """
    if not changes:
        return ""
    first, last = min(changes), max(changes)
    if last <= 0:
        first, last = last, first
    start = score_change(first, in_nats=in_nats).split(" ")[0]
    return f"{start} to {score_change(last, in_nats=in_nats)}"


def _with_sign(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    size = abs(value)
    text = f"{size:,.1f}" if size >= 0.095 else f"{size:.1g}" if size else "0"
    return ("+" if value > 0 else MINUS if value < 0 else "") + text
