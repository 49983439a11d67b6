"""A tiny model with SAEs in folders, beside whose weights stores and references lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import sae_graphs as sg
from sae_graphs.features.reference import Reference, reference_file
from sae_graphs.features.token_rows import batches_of_text
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.models import CORPUS, STACKS, random_stack, save_saes

TEXTS = [CORPUS, "(the dog) ran to the old mat and sat", "the red (old) house and the cat"] * 2


def loaded(
    model_folder: Callable[[str], Path], bridge_of: Callable, folder: Path, *, seed: int = 0
) -> InstrumentedModel:
    """Loaded from folders; other seeds have other SAEs."""
    kinds = ["topk", "jumprelu"]
    saes = random_stack(bridge_of("gpt2"), STACKS["mixed"], kinds, dtype="float32", seed=seed)
    found = sg.load(model_folder("gpt2"), saes=save_saes(saes, folder / "saes"))
    assert isinstance(found, InstrumentedModel)
    return found


def rows_of(model: InstrumentedModel) -> Tensor:
    return torch.cat(list(batches_of_text(model, TEXTS, length=12)))


def held_in(file: Path) -> dict[str, Tensor]:
    """A store's tensors, which stay when the file is written again."""
    return {name: values.clone() for name, values in load_file(file).items()}


def same(one: list[Reference], other: list[Reference]) -> bool:
    return all(
        torch.equal(a.mean, b.mean)
        and torch.equal(a.density, b.density)
        and (a.tokens, a.corpus, a.text) == (b.tokens, b.corpus, b.text)
        for a, b in zip(one, other, strict=True)
    )


def files_of(model: InstrumentedModel) -> list[Path]:
    return [reference_file(model, layer) for layer in model.stack.layers]
