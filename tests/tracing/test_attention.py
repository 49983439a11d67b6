"""What the read token looks at, against the plain transformers model's own attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sae_graphs.errors import CannotSplitError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.tracing.attention import first_token, last_token, long_text, patterns
from sae_graphs.tracing.last_token import Looked, by_head, by_layer, diffuse_layers, starts_of
from tests.conftest import BridgeOf
from tests.support.models import ARCHITECTURES, PROMPT


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=[] if name == "gpt2" else pytest.mark.slow)
        for name in ARCHITECTURES
    ],
)
def test_attention_and_motion_are_those_of_the_plain_model(
    architecture: str, bridge_of: BridgeOf, model_folder: Callable[[str], Path]
) -> None:
    model = LanguageModel(bridge_of(architecture, "float64"), name=architecture)
    run = model.run(PROMPT)
    read = len(run) - 1
    plain = AutoModelForCausalLM.from_pretrained(
        model_folder(architecture), dtype=torch.float64, attn_implementation="eager"
    )
    with torch.no_grad():
        ids = torch.tensor([run.token_ids])
        out = plain.eval()(ids, output_attentions=True, output_hidden_states=True)
    found = last_token(model, run, 2, read)
    rows = torch.stack([each[0, :, read] for each in out.attentions]).numpy()  # [L, H, T]
    places: tuple[tuple[Looked, int], ...] = (("first", 0), ("corrupted", 2), ("own", read))
    for name, at in places:
        np.testing.assert_allclose(by_head([found], name), rows[:, :, at], atol=1e-5)
    safe = np.where(rows > 0, rows, 1.0)
    entropy = -(rows * np.log(safe)).sum(-1) / np.log(len(run))
    np.testing.assert_allclose(by_head([found], "entropy"), entropy, atol=1e-5)
    states = np.stack([each[0, read].numpy() for each in out.hidden_states[:-1]])  # [L, D]
    norms = np.linalg.norm(states, axis=1)
    np.testing.assert_allclose(by_layer([found], "norm")[0][:-1], norms, rtol=1e-4)
    change = np.linalg.norm(np.diff(states, axis=0), axis=1)
    np.testing.assert_allclose(by_layer([found], "velocity")[0][:-1], change, rtol=1e-4)
    cosine = (states[1:] * states[:-1]).sum(1) / norms[1:] / norms[:-1]
    np.testing.assert_allclose(by_layer([found], "cosine")[0][:-1], cosine, atol=1e-4)


def test_the_first_token_of_a_long_text(bridge_of: BridgeOf) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    ids = long_text(model, [PROMPT] * 50, prepend_bos=None)
    assert len(ids) == min(512, int(model.model.cfg.n_ctx))
    ids = ids[:12]
    found = first_token(model, ids)
    whole = np.stack([each[:, :, 0].mean(0).numpy() for each in patterns(model, model.run(ids))])
    assert found.starts == starts_of(12) == (1, 2, 4, 8)
    assert found.stretches == ("1", "2 to 3", "4 to 7", "8 to 11")
    np.testing.assert_allclose(found.shares[2], whole[:, 4:8].mean(1), rtol=1e-4)


def test_a_model_that_does_not_show_its_attention(bridge_of: BridgeOf) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"), name="blind")
    run = model.run(PROMPT)
    model.model = SimpleNamespace(hook_dict={})
    with pytest.raises(CannotSplitError, match="blind has no hook where its attention is seen"):
        next(patterns(model, run))


def test_diffuse_layers_are_named() -> None:
    assert diffuse_layers(np.array([0.1, 0.2])) == ""
    assert diffuse_layers(np.array([0.9, 0.9, 0.9, 0.1, 0.5])) == "0 to 2 and 4"
