"""`InstrumentedModel`: tokens, clean runs, replays, and hooks that do not stay behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.rows import RowChange
from tests.conftest import BridgeOf
from tests.linear_model import LinearModel, identity_sae, linear_model
from tests.models import ARCHITECTURES, PROMPT, STACKS, random_stack


def hooks_of(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replays_are_exact(bridge_of: BridgeOf, architecture: str) -> None:
    """From every SAE layer the clean stream runs on to the next one and to the logits."""
    bridge = bridge_of(architecture, "float64")
    stack = "pre" if architecture == "neox" else "mixed"
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS[stack], ["standard"]))
    clean = model.clean_run(PROMPT)
    tokens = torch.tensor([clean.token_ids])
    expected = bridge(tokens, use_cache=False)[0]
    assert torch.allclose(clean.logits, expected, atol=1e-10)
    for depth in range(len(model.stack.layers)):
        change = same(clean.streams[depth], [6, 2, 4], 3)
        logits = model.run_to_logits(clean, depth, change)
        assert torch.allclose(logits, expected[6].expand(3, -1), atol=1e-9)
        if depth + 1 < len(model.stack.layers):
            onward = model.run_segment(clean, depth, change)
            assert torch.allclose(onward, clean.streams[depth + 1][6].expand(3, -1), atol=1e-9)


def same(stream: Tensor, positions: list[int], copies: int) -> RowChange:
    """A change that changes nothing, read at the first of the positions."""
    rows = torch.tensor([positions] * copies)
    return RowChange(rows, stream[rows])


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_streams_of_batches(bridge_of: BridgeOf, architecture: str) -> None:
    bridge = bridge_of(architecture, "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["mixed"], ["standard"]))
    runs = [model.clean_run(text) for text in ("the cat sat", "(the old")]
    batch = model.streams_of(torch.tensor([run.token_ids for run in runs]))
    for depth, streams in enumerate(batch):
        for row, run in zip(streams, runs, strict=True):
            assert torch.allclose(row, run.streams[depth], atol=1e-9)


def test_hooks_are_removed(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["mixed"], ["standard"]))
    before = list(hooks_of(bridge))
    sg.causal_graph(model, PROMPT)
    assert list(hooks_of(bridge)) == before


def test_hooks_are_removed_after_an_error(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["mixed"], ["standard"]))
    clean = model.clean_run(PROMPT)

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    failing = bridge.blocks[2].ln2.register_forward_hook(fail)
    try:
        before = list(hooks_of(bridge))
        for work in (
            lambda: model.clean_run(PROMPT),
            lambda: model.streams_of(torch.tensor([clean.token_ids])),
            lambda: model.run_to_logits(clean, 0, same(clean.streams[0], [9, 3], 2)),
            lambda: model.run_to_logits(clean, 2, same(clean.streams[2], [9, 3], 2)),
            lambda: model.run_segment(clean, 1, same(clean.streams[1], [9, 3], 2)),
        ):
            with pytest.raises(RuntimeError, match="out of memory"):
                work()
            assert list(hooks_of(bridge)) == before
    finally:
        failing.remove()


def test_a_model_that_keeps_state_is_refused() -> None:
    """A replay that does not repeat the clean run must be noticed, not believed."""

    class Drifting(LinearModel):
        def __init__(self) -> None:
            super().__init__()
            block, calls = self.blocks[1], iter(range(1000))
            forward = block.forward
            block.forward = lambda stream: forward(stream) + next(calls)

    saes = [identity_sae(f"blocks.{block}.hook_resid_pre") for block in (0, 1)]
    model = InstrumentedModel(Drifting(), saes)
    with pytest.raises(SaeGraphsError, match="re-running block 1"):
        model.clean_run("ab")


def test_a_model_that_answers_nan_is_refused() -> None:
    model = linear_model()
    model.model.blocks[0].here.data[0, 0] = float("nan")
    with pytest.raises(SaeGraphsError, match="NaN"):
        model.clean_run("ab")


def test_no_gradients_are_recorded(tiny: InstrumentedModel) -> None:
    with torch.enable_grad():
        clean = tiny.clean_run(PROMPT)
        assert not clean.logits.requires_grad
        assert not any(stream.requires_grad for stream in clean.streams)
        sg.causal_graph(tiny, PROMPT)


def test_token_strings(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run("the cat (old")
    assert "".join(clean.tokens) == "<bos>the cat (old"
    assert len(clean.tokens) == len(clean) == len(clean.token_ids)
    assert tiny.token_string(clean.token_ids[2]) == " cat"


def test_sentencepiece_spaces_are_shown() -> None:
    model = linear_model()
    model.model.tokenizer.convert_ids_to_tokens = lambda token_id: "▁the"
    assert model.token_string(1) == " the"


# -- running some rows alone -----------------------------------------------------------------------


def random_change(stream: Tensor) -> RowChange:
    """Four copies, each with other rows changed; short ones are filled up with the row to read."""
    rows = torch.tensor([[6, 1, 4], [6, 5, 6], [6, 6, 6], [6, 2, 3]])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(10, stream.shape[-1], generator=generator, dtype=stream.dtype)
    return RowChange(rows, (stream + noise)[rows])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_some_rows_alone_give_what_all_rows_give(bridge_of: BridgeOf, architecture: str) -> None:
    bridge = bridge_of(architecture, "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], ["standard"]))
    clean = model.clean_run(PROMPT)
    assert model._rows_alone
    assert all(kept is not None for kept in clean.kept)
    for depth in range(3):
        change = random_change(clean.streams[depth])
        alone = model.run_segment(clean, depth, change)
        model._rows_alone = False
        whole = model.run_segment(clean, depth, change)
        model._rows_alone = True
        assert torch.allclose(alone, whole, atol=1e-10)
        assert not torch.allclose(alone, clean.streams[depth + 1][6], atol=1e-2)


@pytest.mark.parametrize("prompt", [PROMPT, "("])
def test_rows_that_go_wrong_are_noticed(
    bridge_of: BridgeOf, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    """All rows are run then, and the graph stays the same; whatever the first prompt was."""
    from sae_graphs import instrument

    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["pre"], ["standard"])
    expected = sg.causal_graph(InstrumentedModel(bridge, saes), PROMPT)
    run_rows: Any = instrument.run_rows
    monkeypatch.setattr(instrument, "run_rows", lambda *args: run_rows(*args) * 1.01)
    model = InstrumentedModel(bridge, saes)
    model.clean_run(prompt)
    assert not model._rows_alone
    graph = sg.causal_graph(model, PROMPT)
    assert [str(e) for e in graph.edges] == [str(e) for e in expected.edges]
