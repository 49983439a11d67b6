"""An edit of a tiny random model, made with as little work as shows something."""

from __future__ import annotations

from typing import Any

from tests.support.models import CORPUS

SAID = "the cat sat on"
ASKED: dict[str, Any] = {"subject": "cat", "prompt": "the {} sat on", "target": " mat", "layer": 1}
LITTLE: dict[str, Any] = {"prefixes": 0, "steps": 1, "texts": [CORPUS] * 9}
LITTLE |= {"tokens": 120, "stop": 0.0, "rate": 0.5}
