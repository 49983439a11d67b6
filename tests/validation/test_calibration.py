"""On the bundled model, paths that are as good as their controls have p-values to match.

A path here is any five features that are active at the token that is read, one a layer, in a
prompt that the model was not trained on: what its controls are drawn from. Then p is at most 0.1
in a tenth of all paths, and at most 0.05 in a twentieth.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

import sae_graphs as sg
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation import controls
from sae_graphs.validation.evidence import Null
from sae_graphs.validation.path_ablation import ablate_path
from sae_graphs.validation.settings import ValidationSettings
from tests.support.subjects import subject_of
from training.demo.corpus.stream import held_out_cases

ALPHA = 0.001
DEPTHS = range(1, 6)
PROMPTS, PATHS, CONTROLS = 6, 10, 39  # ten paths in each of six prompts


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    found: InstrumentedModel = sg.load("demo")
    return found


def random_paths(
    model: InstrumentedModel, clean: CleanRun, n: int, generator: torch.Generator
) -> list[list[FeatureId]]:
    """Features that are active in the last row, one of each layer."""
    active = []
    for depth in DEPTHS:
        width = model.stack.layers[depth].n_features
        row = clean.activations[depth].of(torch.arange(width))[-1]
        active.append(row.nonzero()[:, 0].tolist())
    return [
        [
            FeatureId(
                model.stack.layers[depth].label,
                here[int(torch.randint(len(here), (), generator=generator))],
            )
            for depth, here in zip(DEPTHS, active, strict=True)
        ]
        for _ in range(n)
    ]


def nulls_of_random_paths(model: InstrumentedModel) -> list[Null]:
    settings = ValidationSettings(controls=CONTROLS, other_controls=1)
    generator = torch.Generator().manual_seed(0)
    found = []
    for case in held_out_cases("closings", PROMPTS, 0):
        here = subject_of(model, case.prompt)
        for path in random_paths(model, here.clean, PATHS, generator):
            null = ablate_path(here, path, path, settings, lambda n: None).null("matched")
            assert null is not None
            found.append(null)
    return found


def not_too_many(p_values: Sequence[float], level: float) -> bool:
    """Whether so many of them are at or below a level by chance."""
    n = sum(p <= level for p in p_values)
    return bool(binom.sf(n - 1, len(p_values), level) > ALPHA)


@pytest.mark.slow
def test_random_paths_are_no_findings(model: InstrumentedModel) -> None:
    nulls = nulls_of_random_paths(model)
    kept = [null for null in nulls if null.refused is None]
    assert len(kept) >= 0.9 * PROMPTS * PATHS
    for p_values in ([null.p for null in kept], [null.p_kl for null in kept]):
        there = [p for p in p_values if p is not None]
        assert len(there) == len(kept)
        assert all(not_too_many(there, level) for level in (0.05, 0.1))
        assert all(not_too_many([1 - p for p in there], level) for level in (0.1, 0.5))


@pytest.mark.slow
def test_controls_that_act_elsewhere_would_make_findings_of_them(
    model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn among all active features, most act through attention alone, and do less."""

    def nowhere(clean: CleanRun, depth: int, features: Tensor, places: Tensor, read: int) -> Tensor:
        return torch.zeros(len(features), dtype=torch.bool, device=features.device)

    monkeypatch.setattr(controls, "_active_at", nowhere)
    p_values = [null.p for null in nulls_of_random_paths(model) if null.p is not None]
    assert len(p_values) >= 0.9 * PROMPTS * PATHS
    assert not not_too_many(p_values, 0.1)
