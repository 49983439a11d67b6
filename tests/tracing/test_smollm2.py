"""A trace of SmolLM2, where its wheel is installed: the published picture, and full passes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

import sae_graphs as sg
from sae_graphs.model.language_model import LanguageModel
from tests.support.real_model import PROMPT, SUBJECT, real_folder
from tests.support.trace_oracle import Plain
from tests.tracing.test_trace import assert_is_oracle

IFFEL = 2


class Real(NamedTuple):
    """The model, and the folder that was made of its file."""

    model: LanguageModel
    folder: Path


@pytest.fixture(scope="module")
def real() -> Real:
    folder = real_folder()
    return Real(sg.load_model("smollm2", dtype="float64"), folder)


@pytest.mark.slow
def test_the_tower_is_read_at_its_name_and_told_at_the_end(real: Real) -> None:
    """As published, and in each cell at "iffel" what a full pass of the plain model gives."""
    import torch
    from transformers import AutoModelForCausalLM

    trace = sg.trace(
        real.model,
        PROMPT,
        subject=SUBJECT,
        strength="3s",
        noise_runs=1,
        sweeps=("state", "mlp"),
    )
    assert trace.targets == (" Paris",) and trace.tokens[IFFEL] == "iffel"
    assert trace.clean.probability == pytest.approx(0.702, abs=0.005)
    (corrupted,) = trace.corrupted
    assert corrupted.probability < 0.1
    probability = trace.sweep("state").probability[0]
    assert probability[IFFEL, 10] > 0.2 > probability[IFFEL, -1]
    assert probability[trace.read, 10] < 0.1 < 0.5 < probability[trace.read, -2]

    theirs = AutoModelForCausalLM.from_pretrained(real.folder, dtype=torch.float64)
    assert_is_oracle(trace, real.model, Plain(theirs.eval(), "llama"), [IFFEL], 1e-9)
