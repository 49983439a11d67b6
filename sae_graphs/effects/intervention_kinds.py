"""What an intervention is called: `zero`, `mean`, `scale:0.5`, `resample:FILE`.

Checked before anything slow is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

from sae_graphs.errors import SaeGraphsError

EXPECTED = "expected zero, mean, scale:0.5 or resample:FILE"


@dataclass(frozen=True)
class InterventionKind:
    """What an activation becomes where it is ablated, as it was asked for."""

    name: Literal["zero", "mean", "scale", "resample"]
    coefficient: float = 0.0  # of scale
    prompt: str = ""  # of resample: the other prompt, which has as many tokens


def parse_intervention(text: str) -> InterventionKind:
    """What is meant; raises `SaeGraphsError` for what is not known, or a file that cannot be read.

    >>> parse_intervention("scale:0.5").coefficient
    0.5
    """
    name, colon, value = text.strip().partition(":")
    if name in ("zero", "mean") and not colon:
        return InterventionKind("zero" if name == "zero" else "mean")
    if name == "scale" and colon:
        return InterventionKind("scale", coefficient=_number(value, text))
    if name == "resample" and value:
        return InterventionKind("resample", prompt=_prompt(Path(value)))
    raise SaeGraphsError(f"intervention {text!r}: {EXPECTED}")


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise SaeGraphsError(f"intervention {text!r}: expected a number, such as scale:0.5")
    return number


def _prompt(file: Path) -> str:
    """The text of a file, without the end of its last line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise SaeGraphsError(
            f"cannot read the prompt to resample from {file}: "
            f"{getattr(problem, 'strerror', None) or problem}; give a UTF-8 text file"
        ) from problem
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise SaeGraphsError(f"{file} holds no prompt; expected one of as many tokens as this one")
    return text
