"""The source's tables measured again: what we find, in plain values, beside what was published.

Each part is measured in two variants, `VARIANTS`: as this package does it, and with two of the
source's habits that are cheap to imitate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.published import Published
from benchmarks.reproduction_case import VARIANTS, Case, Found
from benchmarks.reproduction_corpus import corpus
from benchmarks.reproduction_features import (
    activations,
    edges,
    graph,
    promotes,
    sweep,
    weighted_edges,
)
from benchmarks.reproduction_paths import ablations, clean, weighted
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.settings import ValidationSettings

Told = Callable[[str], None]


@torch.no_grad()
def measure(
    model: InstrumentedModel,
    published: Published,
    *,
    settings: ValidationSettings,
    texts: Callable[[], Iterable[str]],
    told: Told = lambda part: None,
) -> Found:
    """All parts in all variants. `texts` are those of a corpus; `told` hears what comes next."""
    parts: dict[str, Callable[[Case], Any]] = {
        "clean": clean,
        "ablations": ablations,
        "weighted": weighted,
        "weighted_edges": weighted_edges,
        "sweep": sweep,
        "graph": graph,
        "edges": edges,
        "corpus": corpus,
    }
    found: Found = {}
    for variant in VARIANTS:
        case = Case(model, published, variant, settings, texts)
        found[variant.name] = {}
        for name, part in parts.items():
            told(f"{name}, {variant.name}")
            found[variant.name][name] = part(case)
    told("activations")
    case = Case(model, published, VARIANTS[0], settings, texts)
    found["activations"], found["promotes"] = activations(case), promotes(case)
    return found
