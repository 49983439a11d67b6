"""Fixtures that tests share, and a summary of how far the engine strays from the oracle."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import settings

from sae_graphs.late import put_off
from tests.support.once import done_once, search_less
from tests.support.slow import FULL_EXAMPLES

if TYPE_CHECKING:
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.model.instrument import InstrumentedModel
    from tests.support.commands import Commands
    from tests.support.neuronpedia_server import Neuronpedia

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported: no test waits for it
gc.disable()  # until the tests are collected: of a thousand modules imported none is garbage
put_off("wandb")  # as the commands do

BridgeOf = Callable[..., Any]

# A deadline would measure what else the machine does.
settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("full", max_examples=FULL_EXAMPLES, deadline=None)
settings.load_profile("quick")  # `--hypothesis-profile=full` takes its place


def pytest_collection_finish() -> None:
    search_less()


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    """The command line, in an empty folder."""
    from tests.support.commands import Commands

    return Commands(monkeypatch, capsys, tmp_path)


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """What is logged meanwhile, at the level of the root logger, which is put back.

    pytest's own `caplog` is not there: for its sake each of a test's three phases adds two handlers
    to every logger that keeps to itself, of which the libraries have sixty. Those are not heard.
    """
    root, heard = logging.getLogger(), StringIO()
    handler, level = logging.StreamHandler(heard), root.level
    root.addHandler(handler)
    try:
        yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def _fitting_messages() -> Iterator[None]:
    """Whoever logs words that do not fit their values fails, as under pytest's own handlers."""

    def fail(handler: logging.Handler, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], TypeError):
            raise

    with mock.patch.object(logging.Handler, "handleError", fail):
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small models run slower on several threads; and nothing here needs gradients."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with torch.no_grad():
        yield


@pytest.fixture(scope="session", autouse=True)
def _once(_one_thread: None) -> Iterator[None]:
    with done_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def _double_softmax() -> Iterator[None]:
    """In float64 models attention's softmax is float64, for the engine and the oracle alike.

    The bridge rounds it to float32 whatever the model's precision. Then the last digits depend on
    the order of the keys, and float64 could not tell a wrong formula from that rounding. In
    float32, the models run exactly as they come.
    """
    import torch

    softmax = torch.nn.functional.softmax

    def in_own_precision(values: Any, *args: Any, **kwargs: Any) -> Any:
        if values.dtype == torch.float64:
            kwargs.pop("dtype", None)
        return softmax(values, *args, **kwargs)

    torch.nn.functional.softmax = in_own_precision  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.functional.softmax = softmax


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A saved random model by architecture, made once."""
    from tests.support.models import save_model

    made: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = save_model(
                architecture, tmp_path_factory.mktemp(architecture) / "model"
            )
        return made[architecture]

    return folder


@pytest.fixture(scope="session")
def bridge_of(model_folder: Callable[[str], Path]) -> BridgeOf:
    """A loaded bridge by architecture and precision, loaded once; tests must not change it."""
    import torch

    from tests.support.models import load_bridge

    loaded: dict[tuple[str, str], Any] = {}

    def bridge(architecture: str = "gpt2", dtype: str = "float32") -> Any:
        key = architecture, dtype
        if key not in loaded:
            loaded[key] = load_bridge(model_folder(architecture), getattr(torch, dtype))
        return loaded[key]

    return bridge


@pytest.fixture
def hooked(model_folder: Callable[[str], Path]) -> Any:
    """A random `HookedTransformer`, the deprecated class, in float64."""
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformers import AutoTokenizer

    from tests.support.models import tokenizer

    torch.manual_seed(0)
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=3,
            d_model=16,
            n_ctx=32,
            d_head=4,
            n_heads=4,
            d_vocab=len(tokenizer()),
            act_fn="gelu_new",
            normalization_type="LN",
            initializer_range=0.4,
            dtype=torch.float64,
        ),
        tokenizer=AutoTokenizer.from_pretrained(model_folder("gpt2")),
    )
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def tiny(bridge_of: BridgeOf) -> Any:
    """A GPT-2 with four standard SAEs, `0` to `3`, in float64: for tests that need any model."""
    from sae_graphs.model.instrument import InstrumentedModel
    from tests.support.models import STACKS, random_stack

    bridge = bridge_of("gpt2", "float64")
    return InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], ["standard"]), name="tiny")


@pytest.fixture(scope="session")
def tiny_graph(tiny: InstrumentedModel) -> CausalGraph:
    """What `select="effect"` makes of it and `PROMPT`, measured once."""
    from tests.support.effect_graphs import effect_graph
    from tests.support.models import PROMPT

    return effect_graph(tiny, PROMPT)


@pytest.fixture
def neuronpedia(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Neuronpedia]:
    """A Neuronpedia on this machine, which commands and `annotate` ask; an empty cache."""
    from tests.support.neuronpedia_server import Neuronpedia

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NEURONPEDIA_API_KEY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Neuronpedia() as service:
        monkeypatch.setenv("NEURONPEDIA_URL", service.url)
        yield service


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The largest deviation from the oracle, by group and precision."""
    worst: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name.startswith("deviation "):
                    worst[name] = max(worst.get(name, 0.0), value)
    if worst:
        terminalreporter.section("largest deviation of the engine from the oracle")
        for name, value in sorted(worst.items()):
            terminalreporter.write_line(f"{name.removeprefix('deviation '):44} {value:.1e}")
