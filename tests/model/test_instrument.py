"""`InstrumentedModel`: tokens, clean runs, replays, and hooks that do not stay behind."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.exact import packs
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model import language_model
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.replay import PACK_ROWS, steps_between
from sae_graphs.model.rows import Rows, Where
from sae_graphs.model.stream import StreamPoint
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.linear_model import LinearModel, identity_sae, linear_model
from tests.support.models import ARCHITECTURES, PROMPT, STACKS, random_stack
from tests.support.slow import only


def hooks_of(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "gpt2", "neox", "gemma3"))
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
        change, reads = same(clean.streams[depth], [2, 4, 6], 3)
        logits = model.run_to_logits(clean, clean.points[depth], change, reads)
        assert torch.allclose(logits, expected[6].expand(3, -1), atol=1e-9)
        if depth + 1 < len(model.stack.layers):
            points = clean.points[depth : depth + 2]
            onward = model.advance(clean, points[0], points[1], change, reads)
            assert torch.allclose(onward, clean.streams[depth + 1][6].expand(3, -1), atol=1e-9)


def same(stream: Tensor, positions: list[int], n_copies: int) -> tuple[Rows, Where]:
    """A change that changes nothing, and where to read: at the last of the positions."""
    copies = torch.arange(n_copies)
    where = Where(copies.repeat_interleave(len(positions)), torch.tensor(positions * n_copies))
    return Rows(where, stream[where.positions]), Where(
        copies, torch.full_like(copies, positions[-1])
    )


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
    effect_graph(model, PROMPT)
    assert list(hooks_of(bridge)) == before


def test_hooks_are_removed_after_an_error(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["mixed"], ["standard"]))
    clean = model.clean_run(PROMPT)
    points = clean.points

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    failing = bridge.blocks[2].ln2.register_forward_hook(fail)
    try:
        before = list(hooks_of(bridge))
        for work in (
            lambda: model.clean_run(PROMPT),
            lambda: model.streams_of(torch.tensor([clean.token_ids])),
            lambda: model.run_to_logits(clean, points[0], *same(clean.streams[0], [3, 9], 2)),
            lambda: model.run_to_logits(clean, points[2], *same(clean.streams[2], [3, 9], 2)),
            lambda: model.advance(clean, points[1], points[2], *same(clean.streams[1], [3, 9], 2)),
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
        effect_graph(tiny, PROMPT)


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


def random_change(stream: Tensor) -> tuple[Rows, Where]:
    """Four copies, each with other rows changed, and read at one row or at several."""
    changed = Where(torch.tensor([0, 0, 1, 2, 3, 3, 3]), torch.tensor([1, 4, 5, 6, 2, 3, 6]))
    reads = Where(torch.tensor([0, 1, 1, 2, 3, 3]), torch.tensor([6, 5, 7, 9, 3, 6]))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(changed), stream.shape[-1], generator=generator, dtype=stream.dtype)
    return Rows(changed, stream[changed.positions] + noise), reads


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "llama", "gemma2"))
def test_some_rows_alone_give_what_all_rows_give(bridge_of: BridgeOf, architecture: str) -> None:
    """Through one block, through all of them, and from and to the middle of one."""
    bridge = bridge_of(architecture, "float64")
    stack = "post" if architecture == "neox" else "mixed"
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS[stack], ["standard"]))
    clean = model.clean_run(PROMPT)
    assert model.replay.rows_alone
    assert all(kept is not None for kept in clean.kept)
    points = clean.points
    for start, stop in [*pairwise(points), (points[0], points[2]), (points[0], model.end)]:
        change, reads = random_change(model.replay.stream_at(clean, start))
        alone = model.advance(clean, start, stop, change, reads)
        model.replay.rows_alone = False
        whole = model.advance(clean, start, stop, change, reads)
        model.replay.rows_alone = True
        assert torch.allclose(alone, whole, atol=1e-10)
        moved = (alone - model.replay.stream_at(clean, stop)[reads.positions]).norm(dim=-1) > 1e-2
        attends = any(step.part != "from mid" for step in steps_between(start, stop))
        assert moved.all() if attends else moved.tolist() == [False, True, False, False, True, True]


def test_rows_before_the_change_are_clean(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    change, _ = random_change(clean.streams[0])
    reads = Where(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 4, 5, 1]))
    onward = tiny.advance(clean, clean.points[0], tiny.end, change, reads)
    assert torch.allclose(onward, clean.inputs[-1][reads.positions], atol=1e-10)


@pytest.mark.parametrize("prompt", only([PROMPT, "("], "("))
def test_rows_that_go_wrong_are_noticed(
    bridge_of: BridgeOf, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    """All rows are run then, and the graph stays the same; whatever the first prompt was."""
    from sae_graphs.model import replay

    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["pre"], ["standard"])
    expected = effect_graph(InstrumentedModel(bridge, saes), PROMPT)
    run_rows: Any = replay.run_rows
    monkeypatch.setattr(replay, "run_rows", lambda *args: run_rows(*args) * 1.01)
    model = InstrumentedModel(bridge, saes)
    model.clean_run(prompt)
    assert not model.replay.rows_alone
    graph = effect_graph(model, PROMPT)
    assert [str(e) for e in graph.edges] == [str(e) for e in expected.edges]


def test_all_rows_count_against_the_memory(tiny: InstrumentedModel) -> None:
    """Where rows cannot be run alone, a pack of 40 rows holds four copies of ten tokens."""
    clean = tiny.clean_run(PROMPT)
    places = places_of(clean, effect_settings(ablate="read"))
    ablations = ablations_of(clean, 0, places)
    assert len(ablations) > 8
    sizes = [len(pack) for _, pack in packs(tiny, clean, ablations, places, tiny.end, rows=40)]
    assert 4 < max(sizes) <= 40
    tiny.replay.rows_alone = False
    try:
        few = [len(pack) for _, pack in packs(tiny, clean, ablations, places, tiny.end, rows=40)]
    finally:
        tiny.replay.rows_alone = True
    assert max(few) == 4
    assert sum(few) == sum(sizes) == len(ablations)


def test_little_memory_makes_small_packs(tiny: InstrumentedModel) -> None:
    model = tiny.between("0", "2")
    assert model.rows_at_once(10) == PACK_ROWS
    model.working_memory = 2**20
    assert 1 < model.rows_at_once(10) < PACK_ROWS
    model.working_memory = 1
    assert model.rows_at_once(10) == 1
    assert tiny.rows_at_once(10) == PACK_ROWS


def test_long_prompts_are_checked_anew(
    bridge_of: BridgeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []

    def counted(replay: Any, clean: Any, name: str, *, n_rows: int) -> bool:
        checked.append(len(clean))
        return True

    monkeypatch.setattr(language_model, "rows_agree", counted)
    bridge = bridge_of("gpt2", "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], ["standard"]))
    for words in (1, 2, 3, 1, 12, 13):
        model.clean_run(" cat" * words, prepend_bos=False)
    assert checked == [2, 12]


def test_what_lies_above_the_deepest_place_is_not_run(bridge_of: BridgeOf) -> None:
    """And the next run is whole again."""
    model = LanguageModel(bridge_of("llama", "float64"))
    clean = model.run(PROMPT)
    tokens = torch.tensor([clean.token_ids])
    called: list[str] = []
    hooks = [
        part.register_forward_hook(lambda *given, name=name: called.append(name))
        for name, part in (("block 1", model.model.blocks[1]), ("head", model.model.unembed))
    ]
    first = model.streams_at(tokens, [StreamPoint(0, "post"), StreamPoint(0, "pre")])
    assert called == []
    last = model.streams_at(tokens, [StreamPoint(1, "post")])
    assert called == ["block 1"]
    for hook in hooks:
        hook.remove()
    assert torch.equal(first[0][0], clean.inputs[1])
    assert torch.equal(first[1][0], clean.inputs[0])
    assert torch.equal(last[0][0], clean.inputs[2])
    assert torch.equal(model.run(PROMPT).logits, clean.logits)
