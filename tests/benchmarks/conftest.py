"""A narrow GPT-2 small, published data whose features it has, and what is found beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_graphs as sg
from benchmarks.published import FILE, Published, read_published
from benchmarks.reproduction import measure
from benchmarks.reproduction_case import VARIANTS, beside, percent
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.settings import ValidationSettings
from tests.support.hub_cache import build, cache_in_use

OURS, BARE = (variant.name for variant in VARIANTS)
QUICK = ValidationSettings(controls=9, other_controls=3, snippets=3)
PARTS = ("clean", "kept", "none", "kept_bare", "none_bare", "all_bare")
LAYERS = ("3", "4", "5")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a narrow GPT-2 small and its release."""
    home = tmp_path_factory.mktemp("home")
    build(home, "gpt2-small")
    return home


@pytest.fixture(scope="session")
def model(home: Path) -> Iterator[InstrumentedModel]:
    with cache_in_use(home, "gpt2-small"):
        yield sg.load("gpt2-small")


def active(model: InstrumentedModel, prompt: str, layers: tuple[str, ...]) -> list[str]:
    """One feature of each layer that is active at the last token, not feature 0."""
    clean = model.clean_run(prompt, prepend_bos=False)
    found = []
    for layer in layers:
        acts = clean.activations[model.stack.depths[layer]]
        at_end = torch.arange(len(clean)) == len(clean) - 1
        found.append(f"{layer}.{next(i for i in acts.active(at_end).tolist() if i)}")
    return found


def top_of(model: InstrumentedModel, prompt: str) -> list[list[Any]]:
    """The next tokens without BOS that are tokens by their text alone."""
    points = percent(model.clean_run(prompt, prepend_bos=False).logits[-1])
    names = [model.token_string(i) for i in points.topk(40).indices.tolist()]
    rows = beside(model, tuple((name, 0.0) for name in names), points)
    return [[name, ours] for name, _, ours in rows if ours is not None][:8]


def stand_in(model: InstrumentedModel) -> dict[str, Any]:
    """Published data of the form of the real ones, whose features this model has."""
    prompt = "the cat sat on the (old mat"
    data = json.loads(FILE.read_text())
    nodes = active(model, prompt, LAYERS)
    top = top_of(model, prompt)
    changes = [[token, 0.0] for token, _ in top]
    one = {
        "name": "known",
        "prompt": prompt,
        "path_layers": list(LAYERS),
        "control_layers": list(LAYERS),
        "nodes": nodes,
        "top": top,
        "up": changes[:4],
        "down": changes[4:],
        "control_up": changes[:2],
        "control_down": changes[2:4],
        "control_tokens_lost_their_space": False,
    }
    data["figures"] = [one, {**one, "name": "union", "nodes": None}]
    data["nodes"] = nodes
    data["graph"].update(prompt=prompt, top=top, features=nodes)
    effect = active(model, prompt, ("8",))[0]
    data["weighted"] = {"features": [effect], "up_in": "known", "down_in": "union"}
    data["sweep"].update(prompt=prompt, cause=nodes[0], effect=nodes[1])
    data["edges"] = {"red": [[nodes[0], nodes[1]]], "blue": [[nodes[1], nodes[2]]]}
    data["promotes"] = {nodes[0]: ["no", "such", "tokens"]}
    tokens = len(model.tokenize(prompt, prepend_bos=False))
    values = {node: [1.0] * tokens for node in nodes}
    data["activations"] = {"prompt": prompt, "formula": "", "values": values}
    return data


def published_from(data: dict[str, Any], folder: Path) -> Published:
    file = folder / "published.json"
    file.write_text(json.dumps(data))
    return read_published(file)


TEXTS = ["the cat sat on the mat and the dog ran to the old red house " * 20]


class Measured:
    """A stand-in, what was found beside it, and the same with our numbers as the published."""

    def __init__(self, model: InstrumentedModel, folder: Path) -> None:
        self.data = stand_in(model)
        published = published_from(self.data, folder)
        self.found = measure(model, published, settings=QUICK, texts=lambda: TEXTS)
        self.published = published


@pytest.fixture(scope="session")
def measured(model: InstrumentedModel, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return Measured(model, tmp_path_factory.mktemp("data"))
