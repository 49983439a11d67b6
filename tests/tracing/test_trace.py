"""`trace`, against full forward passes of the plain transformers model with hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import sae_graphs as sg
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.tracing.corrupt import corrupted, embedding_scale
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.settings import SWEEPS
from tests.conftest import BridgeOf
from tests.support.models import PROMPT
from tests.support.trace_oracle import Plain, cell

SUBJECT = "cat sat"
RUNS = 2


@pytest.fixture(scope="module")
def model_of(bridge_of: BridgeOf) -> Callable[..., LanguageModel]:
    """A `LanguageModel` by architecture, made once."""
    made: dict[tuple[str, str], LanguageModel] = {}

    def model(architecture: str = "gpt2", dtype: str = "float64") -> LanguageModel:
        key = architecture, dtype
        if key not in made:
            made[key] = LanguageModel(bridge_of(architecture, dtype), name=architecture)
        return made[key]

    return model


@pytest.fixture
def gpt2(model_of: Callable[..., LanguageModel]) -> LanguageModel:
    """A tiny GPT-2 in double precision."""
    return model_of()


def fed(model: LanguageModel, trace: Trace) -> torch.Tensor:
    """The corrupted embeddings `[R, T, D]` of a trace, made again."""
    clean = model.run(trace.about["token_ids"])
    made = corrupted(
        model,
        clean,
        trace.subject,
        trace.settings,
        std=embedding_scale(model, clean).std,
        probability=trace.clean.probability,
        answered=lambda _: 0.0,
    )
    return made.embeddings


def assert_is_oracle(
    trace: Trace, model: LanguageModel, plain: Plain, tokens: Sequence[int], tolerance: float
) -> float:
    """Every cell at some tokens is what a full pass gives; returns the largest deviation."""
    ids, targets = trace.about["token_ids"], list(trace.target_ids)
    clean_logits, clean = plain.run(ids)
    log_clean = clean_logits[trace.read].double().log_softmax(-1)
    worst = 0.0
    for run, embeddings in enumerate(fed(model, trace)):
        corrupted_logits, below = plain.run(ids, embeddings)
        share = corrupted_logits[trace.read].double().softmax(-1)[targets].sum()
        assert trace.corrupted[run].probability == pytest.approx(float(share), abs=tolerance)
        for sweep in trace.sweeps:
            for token in tokens:
                for layer in range(trace.n_layers):
                    logits = cell(
                        plain, ids, embeddings, clean, below, sweep.name, token, layer, sweep.window
                    )
                    logs = logits[trace.read].double().log_softmax(-1)
                    probability = float(logs[targets].exp().sum())
                    at = run, token, layer
                    worst = max(worst, abs(sweep.probability[at] - probability))
                    odds = np.log(probability) - np.log1p(-probability)
                    assert sweep.log_odds[at] == pytest.approx(odds, abs=1e3 * tolerance)
                    kl = float((log_clean.exp() * (log_clean - logs)).sum())
                    assert sweep.kl[at] == pytest.approx(kl, abs=1e3 * tolerance)
    assert worst <= tolerance
    return worst


@pytest.mark.parametrize(
    ("architecture", "window"),
    [
        ("gpt2", 1),
        ("llama", 3),
        *(
            pytest.param(name, window, marks=pytest.mark.slow)
            for name in ("gpt2", "llama", "neox", "gemma2", "qwen3", "gemma3")
            for window in (1, 2, 3)
            if (name, window) not in {("gpt2", 1), ("llama", 3)}
        ),
    ],
)
def test_every_cell_is_a_full_forward_pass(
    model_of: Callable[..., LanguageModel],
    model_folder: Callable[[str], Path],
    record_property: Callable[[str, Any], None],
    architecture: str,
    window: int,
) -> None:
    model = model_of(architecture)
    trace = sg.trace(
        model,
        PROMPT,
        subject=SUBJECT,
        sweeps=SWEEPS,
        strength="2s",
        noise_runs=RUNS,
        window=window,
        target=(" old", " the") if window == 1 else None,
    )
    plain = AutoModelForCausalLM.from_pretrained(
        model_folder(architecture), dtype=torch.float64, attn_implementation="eager"
    )
    worst = assert_is_oracle(trace, model, Plain(plain.eval(), architecture), range(10), 1e-6)
    record_property(f"deviation trace, {architecture}, float64", worst)
