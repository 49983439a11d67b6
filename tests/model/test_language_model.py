"""`LanguageModel`: runs and replays without SAEs, against plain transformers and plain hooks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.rows import Rows, Where
from sae_graphs.model.run import Run
from sae_graphs.model.stream import StreamPoint
from sae_graphs.model.vocabulary import prepends_bos
from tests.conftest import BridgeOf
from tests.support.linear_model import LinearModel
from tests.support.models import (
    ARCHITECTURES,
    CONTEXT,
    D_MODEL,
    PROMPT,
    STACKS,
    load_bridge,
    random_stack,
    tokenizer,
)
from tests.support.slow import only
from tests.support.stacks import one_line

EVERY = (*ARCHITECTURES, "gpt_neo", "bloom")
EXACT = dict.fromkeys(EVERY, 1e-10)
EXACT["gpt_neo"] = 1e-6  # its attention is in float32, whatever the model's precision


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    only(
        product(EVERY, ["float32", "float64"]),
        *[("gpt2", "float32"), ("llama", "float64"), ("gemma3", "float32")],
    ),
)
def test_a_run_is_the_plain_model_s(
    model_folder: Callable[[str], Path], bridge_of: BridgeOf, architecture: str, dtype: str
) -> None:
    """Its logits, and the stream before every block."""
    run = LanguageModel(bridge_of(architecture, dtype)).run(PROMPT)
    plain = AutoModelForCausalLM.from_pretrained(
        model_folder(architecture), dtype=getattr(torch, dtype)
    )
    out = plain.eval()(torch.tensor([run.token_ids]), output_hidden_states=True)
    assert_close(run.logits, out.logits[0], 1e-5)
    # The last hidden state of transformers is after the final norm.
    for stream, hidden in zip(run.inputs[:-1], out.hidden_states[:-1], strict=True):
        assert_close(stream, hidden[0], 1e-5)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Up to a share of the largest number."""
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= tolerance * largest


@contextmanager
def rows_replaced(bridge: Any, block: int, positions: Tensor, streams: Tensor) -> Iterator[None]:
    """A plain hook: other rows `[R, D]` enter a block, whatever comes from below."""

    def replace(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        stream = args[0].clone()
        stream[0, positions] = streams
        return stream, *args[1:]

    handle = bridge.blocks[block].register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def corrupted_run(model: LanguageModel, clean: Run) -> tuple[Run, Tensor, Tensor]:
    """A run with noise on three tokens' embeddings; which, and what they became."""
    noisy = clean.inputs[0].clone()
    positions = torch.tensor([2, 3, 5])
    generator = torch.Generator().manual_seed(7)
    noisy[positions] += torch.randn(3, D_MODEL, generator=generator, dtype=torch.float64)
    return model.run(clean.token_ids, embeddings=noisy), positions, noisy[positions]


@pytest.mark.parametrize("architecture", only(EVERY, "gpt2", "gemma2", "bloom"))
def test_a_corrupted_run_is_a_forward_pass_with_a_hook(
    bridge_of: BridgeOf, architecture: str
) -> None:
    bridge = bridge_of(architecture, "float64")
    model = LanguageModel(bridge)
    clean = model.run(PROMPT)
    corrupted, positions, rows = corrupted_run(model, clean)
    with rows_replaced(bridge, 0, positions, rows):
        expected = bridge(torch.tensor([clean.token_ids]), use_cache=False)[0]
    assert_close(corrupted.logits, expected, EXACT[architecture])
    assert float((corrupted.logits - clean.logits).norm()) > 1e-2
    assert torch.equal(corrupted.inputs[0][positions], rows)
    again = model.run(clean.token_ids, embeddings=clean.inputs[0])
    assert torch.equal(again.logits, clean.logits)


@pytest.mark.parametrize(
    ("architecture", "corrupt"),
    only(
        product(EVERY, [False, True]),
        *[("gpt2", False), ("llama", True), ("gpt_neo", False), ("neox", True)],
    ),
)
def test_replays_are_full_forward_passes_with_hooks(
    bridge_of: BridgeOf, architecture: str, corrupt: bool
) -> None:
    """Rows changed before a block, from any run: each copy alone, read at all its positions."""
    bridge = bridge_of(architecture, "float64")
    model = LanguageModel(bridge)
    clean = model.run(PROMPT)
    base, noised, noise = corrupted_run(model, clean)
    if not corrupt:
        base, noise = clean, clean.inputs[0][noised]
    tokens, n_tokens = torch.tensor([clean.token_ids]), len(clean)
    changes = {0: torch.tensor([4]), 1: torch.tensor([2, 3, 6]), 2: torch.tensor([1, 8])}
    generator = torch.Generator().manual_seed(1)
    reads = Where(torch.arange(3).repeat_interleave(n_tokens), torch.arange(n_tokens).repeat(3))
    for block in range(len(bridge.blocks)):
        where = Where(
            torch.cat([torch.full_like(at, copy) for copy, at in changes.items()]),
            torch.cat([*changes.values()]),
        )
        shift = torch.randn(len(where), D_MODEL, generator=generator, dtype=torch.float64)
        change = Rows(where, base.inputs[block][where.positions] + shift)
        found = model.run_to_logits(base, StreamPoint(block, "pre"), change, reads)
        found = found.unflatten(0, (3, n_tokens))
        for copy, positions in changes.items():
            with (
                rows_replaced(bridge, 0, noised, noise),
                rows_replaced(bridge, block, positions, change.streams[where.copies == copy]),
            ):
                expected = bridge(tokens, use_cache=False)[0]
            assert_close(found[copy], expected, EXACT[architecture])


def test_restoring_all_that_was_corrupted_gives_the_clean_run(bridge_of: BridgeOf) -> None:
    """Causal tracing's ends: every row restored gives the clean answer, none the corrupted one."""
    model = LanguageModel(bridge_of("gpt2", "float64"))
    clean = model.run(PROMPT)
    corrupted, _, _ = corrupted_run(model, clean)
    last = torch.tensor([0]), torch.tensor([len(clean) - 1])
    everywhere = Where(torch.zeros(len(clean), dtype=torch.int64), torch.arange(len(clean)))
    none = Where(*(places[:0] for places in everywhere))
    for block in range(3):
        for where, run in ((everywhere, clean), (none, corrupted)):
            change = Rows(where, clean.inputs[block][where.positions])
            start = StreamPoint(block, "pre")
            logits = model.run_to_logits(corrupted, start, change, Where(*last))
            assert_close(logits[0], run.logits[-1], 1e-10)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_the_middle_of_a_block_needs_no_sae(bridge_of: BridgeOf, architecture: str) -> None:
    bridge = bridge_of(architecture, "float64")
    plain = LanguageModel(bridge)
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["mid"], ["standard"]))
    run, clean = plain.run(PROMPT), model.clean_run(PROMPT)
    point = StreamPoint(1, "mid")
    assert run.kept_stream(point) is None
    assert clean.kept_stream(point) is clean.streams[1]
    assert torch.allclose(plain.replay.stream_at(run, point), clean.streams[1], atol=1e-12)
    change = Rows(Where(torch.tensor([0, 1]), torch.tensor([3, 5])), clean.streams[1][[4, 4]])
    reads = Where(torch.tensor([0, 1, 1]), torch.tensor([9, 5, 9]))
    found = plain.run_to_logits(run, point, change, reads)
    assert torch.allclose(found, model.run_to_logits(clean, point, change, reads), atol=1e-10)


def test_an_instrumented_model_is_a_language_model(tiny: InstrumentedModel) -> None:
    """The same run, to which it adds the features; of a corrupted one as well."""
    assert isinstance(tiny, LanguageModel)
    clean, run = tiny.clean_run(PROMPT), tiny.run(PROMPT)
    assert isinstance(clean, Run)
    assert type(run) is Run
    assert torch.equal(run.logits, clean.logits)
    corrupted, positions, _ = corrupted_run(tiny, clean)
    features = tiny.features_of(corrupted)
    layer = tiny.stack.layers[0]
    assert torch.equal(features.streams[0], corrupted.inputs[0])
    assert torch.equal(features.activations[0].dense(), layer.encode(corrupted.inputs[0]))
    assert not torch.equal(
        features.activations[0].dense()[positions], clean.activations[0].dense()[positions]
    )


def test_a_hooked_transformer(hooked: Any) -> None:
    model = LanguageModel(hooked, name="hooked")
    clean = model.run("the cat sat on the mat", prepend_bos=True)
    assert torch.allclose(clean.logits, hooked(torch.tensor([clean.token_ids]))[0], atol=1e-10)
    noisy = clean.inputs[0] + 0.1
    corrupted = model.run(clean.token_ids, embeddings=noisy)
    last = Where(torch.tensor([0]), torch.tensor([len(clean) - 1]))
    change = Rows(last, corrupted.inputs[1][-1:])
    logits = model.run_to_logits(corrupted, StreamPoint(1, "pre"), change, last)
    assert torch.allclose(logits[0], corrupted.logits[-1], atol=1e-10)
    assert repr(model) == "<LanguageModel hooked>"


def test_hooks_are_removed_after_an_error(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    model = LanguageModel(bridge)
    clean = model.run(PROMPT)

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    failing = bridge.blocks[1].register_forward_hook(fail)
    try:
        before = n_hooks(bridge)
        with pytest.raises(RuntimeError, match="out of memory"):
            model.run(clean.token_ids, embeddings=clean.inputs[0])
        assert n_hooks(bridge) == before
    finally:
        failing.remove()


def n_hooks(model: Any) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


def test_the_memory_counts_no_sae(bridge_of: BridgeOf) -> None:
    """A wide SAE makes for smaller packs; the model alone does not know of it."""
    bridge = bridge_of("gpt2", "float64")
    wide = random_stack(bridge, STACKS["pre"], ["standard"], n_features=30_000)
    plain, model = LanguageModel(bridge), InstrumentedModel(bridge, wide)
    plain.working_memory = model.working_memory = 8 * 2**20
    assert model.rows_at_once(10) < plain.rows_at_once(10)


# -- text and tokens -------------------------------------------------------------------------------


def without_bos(folder: Path) -> None:
    """The stored tokenizer as GPT-2's: it knows BOS, and puts none first."""
    for name, change in (
        ("tokenizer.json", {"post_processor": None}),
        ("tokenizer_config.json", {"add_bos_token": False}),
    ):
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


@pytest.mark.parametrize("bos", [False, True])
def test_bos_is_the_tokenizer_s_own_habit(
    model_folder: Callable[[str], Path], tmp_path: Path, bos: bool
) -> None:
    """TransformerLens's copy always prepends it; the stored one is asked."""
    folder = shutil.copytree(model_folder("gpt2"), tmp_path / "model")
    if not bos:
        without_bos(folder)
    bridge = load_bridge(folder, torch.float32)
    assert bridge.tokenizer("the")["input_ids"][0] == 0
    model = LanguageModel(bridge)
    assert model.prepend_bos is bos
    text = ("the", " cat")
    assert model.run("the cat").tokens == (("<bos>", *text) if bos else text)
    assert model.run("the cat", prepend_bos=True).tokens == ("<bos>", *text)
    assert model.run("the cat", prepend_bos=False).tokens == text
    assert model.run("<bos>the cat", prepend_bos=True).tokens == ("<bos>", *text)


def test_a_tokenizer_that_lies_nowhere_is_asked_itself() -> None:
    model = LanguageModel(LinearModel())
    assert not model.prepend_bos
    assert model.run("ab").tokens == ("a", "b")
    kept = tokenizer()
    assert kept.name_or_path == ""
    assert prepends_bos(kept)


def test_the_saes_decide_where_there_are_any(tiny: InstrumentedModel, bridge_of: BridgeOf) -> None:
    assert tiny.prepend_bos
    bridge = bridge_of("gpt2", "float64")
    without = random_stack(bridge, STACKS["pre"], ["standard"], prepend_bos=False)
    model = InstrumentedModel(bridge, without)
    assert not model.prepend_bos
    assert model.run("the cat").tokens == model.clean_run("the cat").tokens == ("the", " cat")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        ((), "has no tokens"),
        (None, "the prompt is None; give some text, or token ids"),
        (5, "the prompt is 5; give some text, or token ids"),
        ([[1, 2]], r"the prompt is \[\[1, 2\]\]; give some text, or token ids in one row"),
        ([1.7, 2.2], r"the prompt is \[1.7, 2.2\]; give some text, or token ids"),
        ([1, -1], "token id -1 is none of gpt2's; expected 0 to "),
        ([1, 10**6], "token id 1000000 is none of gpt2's"),
        ([1] * (CONTEXT + 1), f"has {CONTEXT + 1} tokens, gpt2 reads at most {CONTEXT}"),
        ("( " * CONTEXT, "shorten it"),
    ],
)
def test_wrong_prompts(bridge_of: BridgeOf, prompt: Any, message: str) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"), name="gpt2")
    with pytest.raises(SaeGraphsError, match=message) as caught:
        model.run(prompt)
    one_line(caught)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.zeros(3, D_MODEL), r"the embeddings are \(3, 16\); expected a tensor \[2, 16\]"),
        (torch.zeros(2, D_MODEL + 1), r"are \(2, 17\)"),
        (torch.zeros(1, 2, D_MODEL), r"are \(1, 2, 16\)"),
        ([[0.0] * D_MODEL] * 2, "expected a tensor"),
        (torch.full((2, D_MODEL), float("nan")), "hold NaN or infinity"),
    ],
)
def test_wrong_embeddings(bridge_of: BridgeOf, embeddings: Any, message: str) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"), name="gpt2")
    with pytest.raises(SaeGraphsError, match=message) as caught:
        model.run([1, 2], embeddings=embeddings)
    one_line(caught)


def test_bos_cannot_be_asked_for_with_token_ids(bridge_of: BridgeOf) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"), name="gpt2")
    with pytest.raises(SaeGraphsError, match="prepend_bos=True with token ids") as caught:
        model.run([1, 2], prepend_bos=True)
    one_line(caught)


@pytest.mark.parametrize("given", ["gpt2", None, torch.nn.Linear(2, 2)])
def test_what_is_no_language_model(given: Any) -> None:
    with pytest.raises(SaeGraphsError, match=r"has no .*blocks.*expected a TransformerB") as caught:
        LanguageModel(given)
    one_line(caught)


def test_no_tokenizer(bridge_of: BridgeOf) -> None:
    model = LanguageModel(LinearModel(), name="bare")
    model.model.tokenizer = None
    with pytest.raises(SaeGraphsError, match="bare has no tokenizer") as caught:
        model.run("ab")
    one_line(caught)


def test_a_token_that_is_added_later_is_shown() -> None:
    model = LanguageModel(LinearModel(), name="bare")
    model.model.tokenizer = tokenizer()
    new = len(model.model.tokenizer)
    assert model.token_string(new) == f"#{new}" and model.vocabulary.with_text("hello!") is None
    model.model.tokenizer.add_tokens(["hello!"])
    assert model.token_string(new) == "hello!" and model.vocabulary.with_text("hello!") == new
