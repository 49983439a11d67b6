"""A run with saved effects."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sae_graphs.model.instrument import InstrumentedModel
from tests.support.models import PROMPT
from tests.support.saved_effects import Saved, saved_run


@pytest.fixture(scope="module")
def made(tiny: InstrumentedModel, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("made") / "run"
    return saved_run(tiny, PROMPT, folder), folder


@pytest.fixture
def saved(made: Saved, tmp_path: Path) -> Saved:
    """A run and a copy of its folder."""
    return made[0], Path(shutil.copytree(made[1], tmp_path / "run"))
