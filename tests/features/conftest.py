"""The model whose contexts and references are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_graphs.features import batches as row_batches
from sae_graphs.features import reference
from sae_graphs.features import store as context_store
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.loaded import loaded


@pytest.fixture
def model(
    model_folder: Callable[[str], Path], bridge_of: Callable, tmp_path: Path
) -> InstrumentedModel:
    """Loaded from folders, so that stores and references lie beside the SAEs' weights."""
    return loaded(model_folder, bridge_of, tmp_path)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is read of the bundled text."""
    monkeypatch.setattr(reference, "TOKENS", 300)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each batch that was run."""
    heard: list[int] = []
    encoded = reference.encoded

    def counting(model: InstrumentedModel, tokens: torch.Tensor, *depths: Any) -> Any:
        heard.append(tokens.numel())
        return encoded(model, tokens, *depths)

    monkeypatch.setattr(reference, "encoded", counting)
    return heard


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows a batch, and what was found is kept after each."""
    monkeypatch.setattr(row_batches, "ROWS_TOGETHER", 2)
    monkeypatch.setattr(row_batches, "MOST_ROWS", 2)
    monkeypatch.setattr(context_store, "SAVED_EVERY", 0.0)
