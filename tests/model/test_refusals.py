"""What a user may bring: it works where it can, else one line says what is the matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import HookedSAETransformer
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.model_bridge import TransformerBridge

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.model import language_model
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.plain import heard_again, plain_of, require_same, require_same_answers
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_settings
from tests.support.models import PROMPT, STACKS, random_stack, tokenizer
from tests.support.oracle import Oracle
from tests.support.zoo import save_family

IDS = [0, 4, 5, 6, 7, 8]


def hooked(kind: type = HookedTransformer, **options: Any) -> Any:
    """A random `HookedTransformer` of float64, without a tokenizer unless given one."""
    torch.manual_seed(0)
    sizes = {"n_layers": 3, "d_model": 16, "n_ctx": 32, "d_head": 4, "n_heads": 4}
    usual = {
        **{"d_vocab": len(tokenizer()), "act_fn": "gelu_new", "normalization_type": "LN"},
        **{"initializer_range": 0.4, "dtype": torch.float64},
    }
    given = options.pop("tokenizer", None)
    model = kind(HookedTransformerConfig(**{**sizes, **usual, **options})).requires_grad_(False)
    model.tokenizer = given
    return model


def graph(model: InstrumentedModel, **options: Any) -> Any:
    return sg.causal_graph(model, PROMPT, settings=effect_settings(**options))


@pytest.mark.parametrize("read", [-1, 5])
def test_attention_that_looks_ahead_is_refused(bridge_of: BridgeOf, read: int) -> None:
    saes = random_stack(bridge_of("gpt2", "float64"), STACKS["gap"], ["standard"])
    model = InstrumentedModel(
        hooked(attention_dir="bidirectional", tokenizer=tokenizer()), saes, name="both ways"
    )
    with pytest.raises(SaeGraphsError, match="both ways does not read from left to right: in b"):
        graph(model, read=read)


def test_a_model_without_norms_is_measured(bridge_of: BridgeOf) -> None:
    bridge = hooked(normalization_type=None)
    run = sg.LanguageModel(bridge).run(IDS)
    again = sg.LanguageModel(bridge).unembed(run.inputs[-1])
    torch.testing.assert_close(again, bridge(torch.tensor([IDS]))[0])


def test_a_model_without_a_tokenizer_runs_ids() -> None:
    model = sg.LanguageModel(hooked())
    assert model.run(IDS).tokens == tuple(f"#{number}" for number in IDS)
    assert model.prepend_bos is False
    with pytest.raises(SaeGraphsError, match="has no tokenizer"):
        model.run("text")


def test_without_a_tokenizer_what_reads_text_says_so(bridge_of: BridgeOf) -> None:
    saes = random_stack(bridge_of("gpt2", "float64"), STACKS["post"], ["standard"])
    model = InstrumentedModel(hooked(), saes)
    found = sg.causal_graph(model, IDS, settings=effect_settings())
    assert found.edges and sg.validate(model, found, controls=5, paths=1, quick=True).units
    for made in (
        lambda: sg.causal_graph(model, IDS),
        lambda: sg.compare_methods(model, IDS),
        lambda: sg.ablate(model, IDS, {"0.1": "mean"}),
        lambda: sg.validate(model, found, controls=5, paths=1),
    ):
        with pytest.raises(SaeGraphsError, match=r"has no tokenizer .*; give it one"):
            made()


@pytest.mark.parametrize("wrong", [b"Copyright", {1, 2}, [True, False], 7, [1.5]])
def test_a_prompt_that_is_none_is_one_line(wrong: Any) -> None:
    with pytest.raises(SaeGraphsError, match=r"the prompt is .*; give some text, or token ids"):
        sg.LanguageModel(hooked(tokenizer=tokenizer())).run(wrong)


def test_blocks_that_cannot_be_run_again_are_not_the_models_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*given: object) -> None:
        raise AttributeError("'Recorder' has no state")

    monkeypatch.setattr(language_model, "check_replay", fails)
    with pytest.raises(SaeGraphsError, match=r"runs, but its blocks cannot be run again .*'Record"):
        sg.LanguageModel(hooked(tokenizer=tokenizer())).run(PROMPT)


def test_what_holds_no_plain_model_is_said_to_be_unchecked(bridge_of: BridgeOf) -> None:
    saes = random_stack(bridge_of("gpt2", "float64"), STACKS["gap"], ["standard"])
    brought = InstrumentedModel(hooked(tokenizer=tokenizer()), saes)
    assert any(said.startswith("not checked: ") for said in graph(brought).run.warnings)
    own = InstrumentedModel(bridge_of("gpt2", "float64"), saes)
    assert not any(said.startswith("not checked: ") for said in graph(own).run.warnings)
    assert own.compared is not None
    assert own.compared.streams is not None
    assert own.compared.streams < 1e-12


def test_a_plain_model_of_a_bridge_shares_its_weights(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("llama", "float32")
    plain = plain_of(bridge)
    held = {tensor.data_ptr() for tensor in bridge.original_model.parameters()}
    assert {tensor.data_ptr() for tensor in plain.parameters()} <= held


def test_saes_as_a_dict_are_a_stack(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["post"], ["standard"])
    named = {sae.cfg.metadata.hook_name: sae for sae in saes}
    assert (
        graph(InstrumentedModel(bridge, named)).edges
        == graph(InstrumentedModel(bridge, saes)).edges
    )


@pytest.mark.parametrize("wrong", ["gpt2-small-res-jb", ["a", "b"], None, 3])
def test_what_is_no_saes_is_one_line(bridge_of: BridgeOf, wrong: Any) -> None:
    with pytest.raises(SAELoadError, match="expected"):
        InstrumentedModel(bridge_of("gpt2", "float64"), wrong)


def test_a_raw_transformer_with_saes_is_one_line(bridge_of: BridgeOf) -> None:
    model = hooked(HookedSAETransformer, tokenizer=tokenizer())
    with pytest.raises(SaeGraphsError, match=r"^a HookedSAETransformer is no model with SAEs"):
        sg.causal_graph(model, PROMPT)
    saes = random_stack(bridge_of("gpt2", "float64"), STACKS["post"], ["standard"])
    expected = graph(InstrumentedModel(hooked(tokenizer=tokenizer()), saes)).edges
    assert graph(InstrumentedModel(model, saes)).edges == expected
    model.add_sae(saes[0])
    with pytest.raises(SaeGraphsError, match=r"take them off with reset_saes\(\)"):
        InstrumentedModel(model, saes)


@pytest.mark.slow
def test_a_name_is_loaded() -> None:
    options: dict[str, Any] = {"select": "effect", "top_k": 2}
    by_name = sg.causal_graph("demo", "Copyright (C", **options)  # type: ignore[call-overload]
    assert by_name.edges == sg.causal_graph(sg.load("demo"), "Copyright (C", **options).edges


def test_opts_stream_between_attention_and_mlp(tmp_path: Path) -> None:
    folder = save_family("OPT", tmp_path / "model")
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float64)
    bridge.eval().requires_grad_(False)
    hooks = STACKS["mid"]
    saes = random_stack(bridge, hooks, ["standard"], d_in=32)
    model = InstrumentedModel(bridge, saes)
    clean = model.run_tokens(IDS)
    oracle = Oracle(bridge, saes, IDS)
    for ours, theirs in zip(clean.streams, oracle.streams, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert model.streams_of(torch.tensor([IDS, IDS]))[0].shape == (2, len(IDS), 32)


@pytest.mark.parametrize("family", ["Mixtral", "Qwen3 MoE"])
def test_what_a_model_raises_is_one_line(family: str, tmp_path: Path) -> None:
    """Mixtures of experts cannot run in float64: torch has no such kernel."""
    folder = save_family(family, tmp_path / "model")
    with pytest.raises(SaeGraphsError, match=r"forward pass, in float64: RuntimeError, .*float32"):
        sg.load_model(folder, dtype="float64")


def test_what_a_brought_model_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hooked()

    def fails(*args: Any, **options: Any) -> Any:
        raise ZeroDivisionError("of its\nown")

    monkeypatch.setattr(model, "forward", fails)
    expected = "^mine fails in its own forward pass, in float64: ZeroDivisionError, of its own; try"
    with pytest.raises(SaeGraphsError, match=expected):
        sg.LanguageModel(model, name="mine").run(IDS)


def test_an_unknown_scale_of_logits_is_named(bridge_of: BridgeOf) -> None:
    model = hooked()
    forward: Callable[..., Any] = model.forward
    model.forward = lambda *args, **options: 0.25 * forward(*args, **options)
    with pytest.raises(SaeGraphsError, match=r"its logits are 0\.25 times those of its last str"):
        sg.LanguageModel(model).run(IDS)
    model.forward = lambda *args, **options: forward(*args, **options).tanh()
    with pytest.raises(SaeGraphsError, match="it does something after its last block"):
        sg.LanguageModel(model).run(IDS)


def test_a_bridge_that_changed_is_told_from_what_was_heard(tmp_path: Path) -> None:
    """In its streams, in its logits alone, and after its weights were processed."""
    folder = save_family("GPT-2", tmp_path / "model")
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
    heard = heard_again(bridge)
    assert heard is not None
    assert require_same(bridge, heard).unchecked == ""
    bridge.enable_compatibility_mode(disable_warnings=True)
    require_same_answers(bridge, heard)
    with pytest.raises(SaeGraphsError, match="the stream before block 0 is off by"):
        require_same(bridge, heard)
    with torch.no_grad():
        bridge.unembed.weight[:, 3] *= 1.5
    with pytest.raises(SaeGraphsError, match="changes its log-probabilities"):
        require_same_answers(bridge, heard)
