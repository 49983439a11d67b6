"""References beside contexts, of stacks of the hub, and their bundled text."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import batches as row_batches
from sae_graphs.features import reference, store
from sae_graphs.features.reference import (
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
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT
from tests.support.hub_cache import build, cache_in_use
from tests.support.loaded import TEXTS, files_of, same
from tests.support.models import N_FEATURES
from tests.support.stacks import one_line


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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
