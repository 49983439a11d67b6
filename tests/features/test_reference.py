"""Reference means and densities: by hand, kept, refused where others', put in place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import batches as row_batches
from sae_graphs.features import reference, store
from sae_graphs.features.reference import (
    DENSE,
    Reference,
    Tally,
    bundled_text,
    mean_intervention,
    read_reference,
    reference_file,
    references_of,
)
from sae_graphs.features.store import build_store, stream_store
from sae_graphs.features.token_rows import batches_of_text
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, mean_where_active
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_graph
from tests.support.hub_cache import build, cache_in_use
from tests.support.linear_model import linear_model
from tests.support.models import CORPUS, N_FEATURES, PROMPT, STACKS, random_stack, save_saes
from tests.support.stacks import one_line

TEXTS = [CORPUS, "(the dog) ran to the old mat and sat", "the red (old) house and the cat"] * 2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(
    model_folder: Callable[[str], Path], bridge_of: Callable, tmp_path: Path
) -> InstrumentedModel:
    """Loaded from folders, so that references lie beside the SAEs' weights."""
    saes = random_stack(bridge_of("gpt2"), STACKS["mixed"], ["topk", "jumprelu"], dtype="float32")
    loaded = sg.load(model_folder("gpt2"), saes=save_saes(saes, tmp_path / "saes"))
    assert isinstance(loaded, InstrumentedModel)
    return loaded


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


def same(one: list[Reference], other: list[Reference]) -> bool:
    return all(
        torch.equal(a.mean, b.mean)
        and torch.equal(a.density, b.density)
        and (a.tokens, a.corpus, a.text) == (b.tokens, b.corpus, b.text)
        for a, b in zip(one, other, strict=True)
    )


def files_of(model: InstrumentedModel) -> list[Path]:
    return [reference_file(model, layer) for layer in model.stack.layers]


# -- what they are ---------------------------------------------------------------------------------


def test_by_hand() -> None:
    """`^ab` as in `tests/effects/test_analytic.py`; the last stream at a is (-8, 3, 33)."""
    found = references_of(linear_model(), texts=["ab"])
    assert [it.mean.tolist() for it in found] == [[1.5, 1.5, 1.5], [1.5, 4.5, 3], [2.5, 3, 18]]
    assert [it.density.tolist() for it in found] == [[1, 1, 0.5], [1, 1, 0.5], [0.5, 1, 1]]
    assert [it.tokens for it in found] == [2, 2, 2]
    assert found[0].dense.tolist() == [True, True, True]


def test_effects_by_hand() -> None:
    """At b: 0.0 from 2 to 1.5 makes y (1.5, 4, 0.5); 0.1 from 1 to 1.5 makes y1 5.5; 0.2 from 3
    to 1.5 leaves y2 below 0, and at a, where it is silent, it stays so."""
    model = linear_model()
    mean = mean_intervention(model, references_of(model, texts=["ab"]))
    graph = effect_graph(model, "ab", intervention=mean, top_k=100, min_path_edges=1)
    first = {(str(e.source), str(e.target)): e.effect for e in graph.edges if e.source.layer == "0"}
    assert first == {
        ("0.0", "1.0"): -0.5,
        ("0.0", "1.1"): -1.0,
        ("0.0", "1.2"): 0.5,
        ("0.1", "1.1"): 0.5,
    }


def test_equal_brute_force(model: InstrumentedModel) -> None:
    rows = torch.cat(list(batches_of_text(model, TEXTS)))
    for depth, found in enumerate(references_of(model, texts=TEXTS)):
        layer = model.stack.layers[depth]
        acts = torch.cat([layer.encode(model.streams_of(row[None])[depth][0, 1:]) for row in rows])
        assert torch.allclose(found.mean, acts.mean(0), atol=1e-5)
        assert found.density == pytest.approx((acts != 0).float().mean(0))
        assert found.tokens == len(acts) == rows[:, 1:].numel()
        assert found.dense.tolist() == [bool(share >= DENSE) for share in found.density]


def test_batches_change_no_bit(model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batches, "ROWS_TOGETHER", 2)
    whole = references_of(model, texts=TEXTS)
    monkeypatch.setattr(row_batches, "MOST_ROWS", 2)
    assert same(whole, references_of(model, texts=TEXTS))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_how_a_tally_is_cut_changes_no_bit(sizes: list[int], seed: int) -> None:
    acts = torch.randn(sum(sizes), 6, 5, generator=torch.Generator().manual_seed(seed)).relu()
    whole, parts = Tally.empty(5), Tally.empty(5)
    whole.add(acts)
    for part in acts.split(sizes):
        parts.add(part)
    assert torch.equal(whole.sums, parts.sums)
    assert torch.equal(whole.times_active, parts.times_active)


def test_what_is_not_finite_is_an_error() -> None:
    tally = Tally.empty(2)
    tally.add(torch.tensor([[[0.0, 1.0], [float("nan"), 0.0]]]))
    with pytest.raises(SaeGraphsError, match="not finite; check"):
        tally.reference(2, "", "")


@pytest.mark.parametrize(
    ("mean", "density", "tokens"),
    [
        (torch.zeros(3), torch.zeros(2), 1),
        (torch.zeros(2).double(), torch.zeros(2).double(), 1),
        (torch.tensor([0.0, float("inf")]), torch.zeros(2), 1),
        (torch.zeros(2), torch.tensor([0.0, 1.5]), 1),
        (torch.zeros(2), torch.zeros(2), 0),
    ],
)
def test_what_is_no_reference(mean: torch.Tensor, density: torch.Tensor, tokens: int) -> None:
    with pytest.raises(ValueError, match=r"float32|finite|between"):
        Reference(mean, density, tokens, "", "")


# -- in an activation's place ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_only_what_is_active_is_moved(dtype: torch.dtype) -> None:
    (layer, *_) = linear_model().stack.layers
    kind = mean_where_active({layer.point: torch.tensor([4.0, -5.0, 6.0])}, "mean")
    acts = torch.tensor([[1.0, 0.0], [0.0, -2.0]], dtype=dtype)  # [T, S]
    moved = torch.tensor([[6.0, 0.0], [0.0, -5.0]], dtype=dtype)
    features = torch.tensor([2, 1])
    assert torch.equal(kind.replace(layer.point, features, acts), moved)
    several = torch.stack([acts, acts * 2])  # [B, T, S]
    found = kind.replace(layer.point, features, several)
    assert torch.equal(found, torch.stack([moved, moved])) and found.dtype == dtype
    assert torch.equal(acts, torch.tensor([[1.0, 0.0], [0.0, -2.0]], dtype=dtype))
    assert len(kind.also(layer.point)) == 0


@pytest.mark.parametrize("ablate", ["all", "each"])
def test_a_mean_of_nothing_is_zero_ablation(model: InstrumentedModel, ablate: Any) -> None:
    nothing = [
        Reference(torch.zeros(N_FEATURES), torch.zeros(N_FEATURES), 9, "abc", "")
        for _ in model.stack.layers
    ]
    kind = mean_intervention(model, nothing)
    assert kind.name == "mean (of 9 tokens, abc)"
    found = effect_graph(model, PROMPT, intervention=kind, ablate=ablate)
    assert found.edges == effect_graph(model, PROMPT, intervention=ZERO, ablate=ablate).edges


def test_references_of_different_texts_say_so(model: InstrumentedModel) -> None:
    zeros = torch.zeros(N_FEATURES)
    mixed = [Reference(zeros, zeros, 9 * (n + 1), f"corpus{n}", "") for n in range(3)]
    name = mean_intervention(model, mixed).name
    assert name.startswith("mean (of 9 to 27 tokens, ") and "corpus" not in name


# -- a stack without any ---------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_taken_once_from_the_bundled_text(
    model: InstrumentedModel, runs: list[int], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    foretold: list[float] = []
    found = references_of(model, progress=lambda *done: told.append(done), foretold=foretold.append)
    assert sum(runs) == told[-1][0] == told[-1][1] >= 300
    assert told == sorted(told) and len(foretold) == 1 and foretold[0] >= 0
    assert {it.text for it in found} == {"bundled English text"}
    assert not any(file.exists() for file in files_of(model))  # nothing beside the weights
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == len(found)
    runs.clear()
    assert same(found, references_of(model, progress=lambda *done: told.append(done)))
    assert not runs


@pytest.mark.usefixtures("short")
def test_a_graph_takes_them(model: InstrumentedModel, runs: list[int]) -> None:
    graph = effect_graph(model, PROMPT, intervention="mean")
    assert runs
    expected = mean_intervention(model, references_of(model))
    assert graph.run.settings["intervention"] == expected.name
    assert graph.edges == effect_graph(model, PROMPT, intervention=expected).edges


@pytest.mark.usefixtures("short")
def test_what_is_kept_is_told_apart_by_weights_and_text(
    model: InstrumentedModel, runs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references_of(model)
    runs.clear()
    with torch.no_grad():
        model.stack.layers[1].sae.b_enc += 0.5
    references_of(model)  # of one layer alone
    assert runs
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4
    runs.clear()
    monkeypatch.setattr(reference, "bundled_text", lambda: [CORPUS * 20])
    assert references_of(model)[0].corpus
    assert runs


@pytest.mark.usefixtures("short")
def test_what_is_kept_and_damaged_is_taken_again(
    model: InstrumentedModel, runs: list[int], tmp_path: Path
) -> None:
    found = references_of(model)
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:99])
    runs.clear()
    assert same(found, references_of(model))
    assert runs


@pytest.mark.usefixtures("short")
def test_a_cache_that_cannot_be_written_does_not_stop_it(
    model: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(references_of(model)) == len(model.stack.layers)


def test_a_text_without_two_tokens_is_an_error(model: InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match="no two tokens") as caught:
        references_of(model, texts=[""])
    one_line(caught)


# -- beside contexts -------------------------------------------------------------------------------


def test_contexts_bring_them(model: InstrumentedModel, runs: list[int], tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("".join(TEXTS))
    stream_store(model, lambda: iter(TEXTS), corpus={"source": str(tmp_path / "corpus.txt")})
    found = references_of(model)
    assert not runs
    assert {it.text for it in found} == {"corpus.txt"}
    expected = references_of(model, texts=TEXTS)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.mean, other.mean) and torch.equal(one.density, other.density)
        assert (one.tokens, one.corpus) == (other.tokens, other.corpus)
    for file in files_of(model):
        with (
            safe_open(file, "pt") as opened,
            safe_open(file.with_name("contexts.safetensors"), "pt") as beside,
        ):
            about, theirs = opened.metadata(), beside.metadata()
            assert about["corpus"] == theirs["corpus"]
            assert about["tokens_seen"] == theirs["tokens_seen"]


def test_rows_of_tokens_bring_them(model: InstrumentedModel) -> None:
    rows = torch.cat(list(batches_of_text(model, TEXTS, length=12)))
    build_store(model, [rows])
    whole = references_of(model)
    build_store(model, rows.split(3))
    found = references_of(model)
    assert whole[0].corpus == found[0].corpus and whole[0].tokens == rows[:, 1:].numel()
    assert all(torch.allclose(a.mean, b.mean) for a, b in zip(whole, found, strict=True))


def test_an_interrupted_run_gives_the_same_means(
    model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_batches, "ROWS_TOGETHER", 2)
    stream_store(model, lambda: iter(TEXTS))
    expected = [file.read_bytes() for file in files_of(model)]
    for file in files_of(model):
        file.unlink()
    monkeypatch.setattr(row_batches, "MOST_ROWS", 2)
    monkeypatch.setattr(store, "SAVED_EVERY", 0.0)

    def broken() -> Any:
        yield from TEXTS[:4]
        raise KeyboardInterrupt

    kept: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        stream_store(model, broken, told=store.Told(kept=kept.append))
    assert kept and not any(file.exists() for file in files_of(model))
    resumed: list[int] = []
    stream_store(model, lambda: iter(TEXTS), told=store.Told(resumed=resumed.append))
    assert resumed == kept[-1:]
    assert [file.read_bytes() for file in files_of(model)] == expected


def shifted(file: Path) -> None:
    tensors = {name: values.clone() for name, values in load_file(file).items()}
    tensors["mean"][3] = float("nan")
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    save_file(tensors, file, metadata=about)


def narrower(file: Path) -> None:
    tensors = {name: values[:-1].contiguous() for name, values in load_file(file).items()}
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    save_file(tensors, file, metadata=about)


def of_other_weights(file: Path) -> None:
    tensors = {name: values.clone() for name, values in load_file(file).items()}
    with safe_open(file, framework="pt") as opened:
        about = {**opened.metadata(), "sae": "0123456789abcdef"}
    save_file(tensors, file, metadata=about)


def without_facts(file: Path) -> None:
    tensors = {name: values.clone() for name, values in load_file(file).items()}
    with safe_open(file, framework="pt") as opened:
        about = {name: opened.metadata()[name] for name in ("schema", "hook", "sae")}
    save_file(tensors, file, metadata=about)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:99]), "is damaged"),
        (lambda file: shutil.copy(file.with_name("contexts.safetensors"), file), "in format"),
        (shifted, "mean is not finite"),
        (narrower, f"holds {N_FEATURES - 1} features"),
        (of_other_weights, "other weights"),
        (without_facts, "is damaged"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    model: InstrumentedModel, spoil: Callable[[Path], None], said: str
) -> None:
    stream_store(model, lambda: iter(TEXTS[:3]))
    layer = model.stack.layers[1]
    spoil(reference_file(model, layer))
    with pytest.raises(SaeGraphsError, match=said) as caught:
        references_of(model)
    assert "build it again with `sae-graphs contexts`" in one_line(caught)
    with pytest.raises(SaeGraphsError, match=said):
        read_reference(reference_file(model, layer), layer)


# -- a stack of the hub ----------------------------------------------------------------------------


@pytest.mark.slow
def test_gpt2_of_the_hub(
    tmp_path: Path,
    runs: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Generated weights under the real names: means are taken once, time foretold, and used."""
    stack = build(tmp_path / "home", "gpt2-small")
    commands = Commands(monkeypatch, capsys, tmp_path)
    monkeypatch.setattr(reference, "TOKENS", 2000)
    again = ("--no-neuronpedia", "--min-path-edges", "1", "--formats", "html")
    with cache_in_use(tmp_path / "home", "gpt2-small"):
        for taken in (True, False):
            runs.clear()
            answer = commands(
                *(
                    "graph",
                    "the cat sat",
                    *EFFECT,
                    "--model",
                    "gpt2-small",
                    "--intervention",
                    "mean",
                    *again,
                )
            )
            assert answer.code == 0, answer.err
            assert bool(runs) == taken == ("no reference means yet" in answer.err)
        model = sg.load(stack.model, saes=stack.release)
        assert isinstance(model, InstrumentedModel)
        runs.clear()
        found = references_of(model)
    assert not runs and len(found) == 13
    assert {it.tokens for it in found} == {32 * 63}  # rows of 64, of which BOS does not count
    assert all((it.mean != 0).any() for it in found)
    (folder,) = (tmp_path / "outputs").iterdir()
    record = CausalGraph.load(folder).run
    assert record.settings["intervention"] == mean_intervention(model, found).name


@pytest.mark.slow
def test_two_saes_at_a_time_give_the_same(
    model_folder: Callable[[str], Path], model: InstrumentedModel, tmp_path: Path
) -> None:
    expected = references_of(model, texts=TEXTS)
    model.stack.layers[0].shelf.room = 0
    found = references_of(model, texts=TEXTS)
    assert model.stack.layers[0].shelf.n_loaded <= 2
    assert same(expected, found)


# -- the bundled text ------------------------------------------------------------------------------


def test_the_bundled_text_says_where_it_comes_from() -> None:
    file = Path(reference.__file__).with_name("english.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    about, paragraphs = data["about"], data["paragraphs"]
    assert hashlib.sha256(json.dumps(paragraphs).encode()).hexdigest() == about["sha256"]
    assert about["licence"] == "public domain" and len(about["sources"]) == 3
    for source in about["sources"]:
        assert {"title", "author", "year", "licence", "taken from"} == set(source)
        assert source["licence"] == "public domain"
    whole = "".join(bundled_text())
    assert 100_000 < len(whole) < 120_000
    assert "Gutenberg" not in whole and "\r" not in whole
    assert bundled_text() == [f"{paragraph}\n\n" for paragraph in paragraphs]
