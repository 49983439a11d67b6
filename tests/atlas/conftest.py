"""A tiny model whose features are on ordinary text what is drawn here, and prompts for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sae_graphs.atlas import measure
from sae_graphs.effects.answer import experiment
from tests.support.measured_answers import references

TEXTS = ("the cat sat on the mat", "the (dog) ran to the", "the old red house", "the mat sat on")


@pytest.fixture
def model(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for module in (measure, experiment):
        monkeypatch.setattr(module, "references_of", references)
    yield tiny
