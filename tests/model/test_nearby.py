"""Features near their thresholds: the bound holds, and the effects stay exact where it is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_graphs.effects import exact as ablation
from sae_graphs.model import preactivations as nearby
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.preactivations import Nearby
from sae_graphs.model.saes import SAELayer
from tests.conftest import BridgeOf
from tests.support.against_oracle import (
    RELATIVE,
    Record,
    case_of,
    engine_effects,
    largest_deviation,
    oracle_effects,
)
from tests.support.effect_graphs import effect_settings
from tests.support.models import KINDS, PROMPT, STACKS, random_stack
from tests.support.slow import crossed, only

HALF = 2  # one feature in two is near: tiny SAEs have a quarter of theirs active


@pytest.fixture
def for_tiny_saes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearby, "SHARE", HALF)
    monkeypatch.setattr(ablation, "LEAST_FOR_NEARBY", 1)


def layer_and_row(bridge_of: BridgeOf, kind: str, dtype: str) -> tuple[SAELayer, torch.Tensor]:
    bridge = bridge_of("gpt2", dtype)
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], [kind], dtype=dtype))
    return model.stack.layers[1], model.clean_run(PROMPT).streams[1][-1]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["standard", "jumprelu"])
@pytest.mark.usefixtures("for_tiny_saes")
def test_shorter_changes_wake_no_other_feature(bridge_of: BridgeOf, kind: str, dtype: str) -> None:
    layer, row = layer_and_row(bridge_of, kind, dtype)
    near = nearby.nearby(layer, row)
    assert near is not None
    others = torch.ones(layer.n_features, dtype=torch.bool)
    others[near.features] = False
    assert others.sum() == layer.n_features // HALF
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(500, len(row), generator=generator, dtype=row.dtype)
    # The worst direction for each of the other features is its own encoder's.
    directions = torch.cat([directions, layer.sae.W_enc.T[others]])
    directions /= directions.norm(dim=-1, keepdim=True)
    short, long = 0.999 * near.reach * directions, 1.001 * near.reach * directions
    assert not layer.encode(row + short)[:, others].any()
    assert layer.encode(row + long)[:, others].any(), "the reach could be longer"
    assert torch.allclose(near.encode(row + short), layer.encode(row + short)[:, near.features])


@pytest.mark.parametrize(
    "kind", only(sorted(set(KINDS) - {"standard", "jumprelu"}), "topk", "layer_norm", "abstopk")
)
@pytest.mark.usefixtures("for_tiny_saes")
def test_other_kinds_are_encoded_whole(bridge_of: BridgeOf, kind: str) -> None:
    assert nearby.nearby(*layer_and_row(bridge_of, kind, "float64")) is None


def test_many_active_features_leave_no_reach(bridge_of: BridgeOf) -> None:
    """With one in 24 near and a quarter active, the nearest silent feature is not sought."""
    assert nearby.nearby(*layer_and_row(bridge_of, "standard", "float64")) is None


@pytest.mark.parametrize(
    ("architecture", "dtype"), crossed(["gpt2", "gemma2", "neox"], ["float64", "float32"])
)
@pytest.mark.usefixtures("for_tiny_saes")
def test_effects_are_exact(
    bridge_of: BridgeOf,
    record_property: Record,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    dtype: str,
) -> None:
    encoded = {"near": 0, "whole": 0}
    count_near(monkeypatch, encoded)
    case = case_of(bridge_of(architecture, dtype), "post", ["standard", "jumprelu"], dtype)
    worst = largest_deviation(
        engine_effects(case, effect_settings()), oracle_effects(case, effect_settings())
    )
    record_property(f"deviation {dtype} nearby features", worst)
    assert worst < RELATIVE
    assert min(encoded.values()) > 5, f"both ways must be taken: {encoded}"


@pytest.mark.usefixtures("for_tiny_saes")
def test_a_feature_left_out_is_noticed(
    bridge_of: BridgeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = nearby.nearby

    def without_one(layer: SAELayer, row: torch.Tensor) -> Nearby | None:
        near = find(layer, row)
        if near is None:
            return None
        strongest = near.encode(row).argmax()
        features = near.features[near.features != near.features[strongest]]
        return near._replace(features=features, encode=layer.encoder_of(features))

    monkeypatch.setattr(ablation, "nearby", without_one)
    case = case_of(bridge_of("gpt2", "float64"), "post", ["standard", "jumprelu"], "float64")
    engine = engine_effects(case, effect_settings())
    assert largest_deviation(engine, oracle_effects(case, effect_settings())) > RELATIVE


def count_near(monkeypatch: pytest.MonkeyPatch, encoded: dict[str, int]) -> None:
    """Count the rows that are encoded near and whole."""
    find, encode = nearby.nearby, SAELayer.encode

    def found(layer: SAELayer, row: torch.Tensor) -> Nearby | None:
        near = find(layer, row)
        if near is None:
            return None

        def counted(rows: torch.Tensor) -> torch.Tensor:
            encoded["near"] += len(rows)
            return near.encode(rows)

        return near._replace(encode=counted)

    def whole(layer: SAELayer, rows: Any) -> torch.Tensor:
        encoded["whole"] += len(rows)
        return encode(layer, rows)

    monkeypatch.setattr(ablation, "nearby", found)
    monkeypatch.setattr(SAELayer, "encode", whole)
