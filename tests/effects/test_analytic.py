"""Effects worked out by hand on a linear model: every expected number below is a literal.

The prompt `ab` becomes `^ab`. Streams, from `linear_model.py`'s equations (rows: ^, a, b):

    layer 0         layer 1                               layer 2, at b alone
    (9, 9, 9)       (9, 27, -18)
    (1, 2, 0)       (1, 2+2, 0-3+9)  = (1, 4, 6)
    (2, 1, 3)       (2, 1+4, 3-6+2)  = (2, 5, -1)         (2+3, 5-2, -1+4) = (5, 3, 3)

Activations are `relu` of these, so feature 2 is silent at b in layer 1; its -1 is the SAE's error,
which every ablation must leave alone. Effects are read at b. `^` is not ablated unless told to.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.describe import token_effects
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention, mean_over, resample, scale
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.linear_model import linear_model

Effects = dict[tuple[str, str], float]

# 0.0 -> 0: y is (0, 1, 3+2) = (0, 1, 5): -2, 5 -> 1 is -4, and feature 2 wakes up, from 0 to 5.
# 0.1 -> 0 at a and b: y is (2, 4, 3-6+0) = (2, 4, -3): -1, and feature 2 stays silent.
# 0.2 -> 0 at b (silent at a): y2 is 0-6+2 = -4, silent as before: no effect at all.
FIRST_PAIR: Effects = {
    ("0.0", "1.0"): -2.0,
    ("0.0", "1.1"): -4.0,
    ("0.0", "1.2"): 5.0,
    ("0.1", "1.1"): -1.0,
}
# 1.0 -> 0: z is (0+3, 5-0, 3) = (3, 5, 3): -2 and +2 (it was suppressing 2.1).
# 1.1 -> 0 at a and b: z is (5, 0-2, -1+0): 3 -> 0 and 3 -> 0, both -3.
# 1.2 -> 0 at a, 6 -> 0: z0 is 2+0: -3. At b the feature is silent, so the -1 there stays.
SECOND_PAIR: Effects = {
    ("1.0", "2.0"): -2.0,
    ("1.0", "2.1"): 2.0,
    ("1.1", "2.1"): -3.0,
    ("1.1", "2.2"): -3.0,
    ("1.2", "2.0"): -3.0,
}


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    return linear_model()


def effects_of(
    model: InstrumentedModel, prompt: str = "ab", intervention: Intervention = ZERO, **options: Any
) -> Effects:
    graph = effect_graph(
        model, prompt, intervention=intervention, top_k=100, min_path_edges=1, **options
    )
    return {(str(edge.source), str(edge.target)): edge.effect for edge in graph.edges}


def first_pair(effects: Effects) -> Effects:
    return {ends: effect for ends, effect in effects.items() if ends[0].startswith("0.")}


def test_streams_and_activations(model: InstrumentedModel) -> None:
    clean = model.clean_run("ab")
    assert clean.tokens == ("^", "a", "b")
    assert clean.streams[1].tolist() == [[9, 27, -18], [1, 4, 6], [2, 5, -1]]
    assert clean.activations[1].dense().tolist() == [[9, 27, 0], [1, 4, 6], [2, 5, 0]]
    assert clean.streams[2][2].tolist() == [5, 3, 3]
    assert clean.logits[2].tolist() == [5, 3, 3]


def test_zero_ablation(model: InstrumentedModel) -> None:
    assert effects_of(model) == FIRST_PAIR | SECOND_PAIR


def test_totals_signs_and_order(model: InstrumentedModel) -> None:
    graph = effect_graph(model, "ab", top_k=2, min_path_edges=2)
    # Layer pair 0 keeps +5 and -4; pair 1 keeps two of the three -3, the first two by name:
    # 1.1 -> 2.1 and 1.1 -> 2.2. On a path of two edges lie 0.0 -> 1.1 and those two.
    assert [str(edge) for edge in graph.edges] == [
        "0.0 -> 1.1 (-4)",
        "1.1 -> 2.1 (-3)",
        "1.1 -> 2.2 (-3)",
    ]
    assert graph.run.total_abs_effect == 12 + 13
    assert graph.run.kept_abs_effect == 10
    assert [layer.total_abs_effect for layer in graph.run.layers] == [12, 13, None]
    assert [layer.kept_abs_effect for layer in graph.run.layers] == [4, 6, None]
    assert {edge.sign for edge in graph.edges} == {"promotes"}
    assert graph["1.1"].activation == 5
    assert graph["1.1"].activations == (27, 4, 5)
    assert graph.n_components == 1


def test_suppression_is_positive(model: InstrumentedModel) -> None:
    graph = effect_graph(model, "ab", min_path_edges=1)
    assert graph.edge("1.0", "2.1").effect == 2
    assert graph.edge("1.0", "2.1").sign == "suppresses"
    assert graph.edge("1.0", "2.0").sign == "promotes"


def test_ablating_at_the_read_position_alone(model: InstrumentedModel) -> None:
    # 1.1 is 0 at b only, so z2 = -1+4 = 3 as before; 1.2 is silent at b and is no source.
    expected = FIRST_PAIR | {
        ("1.0", "2.0"): -2.0,
        ("1.0", "2.1"): 2.0,
        ("1.1", "2.1"): -3.0,
    }
    assert effects_of(model, ablate="read") == expected


def test_reading_in_the_middle(model: InstrumentedModel) -> None:
    # Read at a. 0.0 -> 0 there: (0, 2, 0+9): -1, -2, +3. 0.1 -> 0 at a: (1, 2, 6): -2.
    expected = {
        ("0.0", "1.0"): -1.0,
        ("0.0", "1.1"): -2.0,
        ("0.0", "1.2"): 3.0,
        ("0.1", "1.1"): -2.0,
    }
    assert first_pair(effects_of(model, read=1)) == expected
    assert effects_of(model, read=1) == effects_of(model, read=-2)


def test_the_first_token_is_ablated_when_asked(model: InstrumentedModel) -> None:
    # Read at a. With ^ ablated too, 0.1 -> 0 takes the 9 from y2: 0-3+0, 6 -> 0 is -6.
    assert first_pair(effects_of(model, read=1, ablate_first=True)) == {
        ("0.0", "1.0"): -1.0,
        ("0.0", "1.1"): -2.0,
        ("0.0", "1.2"): 3.0,
        ("0.1", "1.1"): -2.0,
        ("0.1", "1.2"): -6.0,
    }


def test_one_token_is_ablated_although_it_is_first(model: InstrumentedModel) -> None:
    # Prompt `a`, no BOS: layer 1 is (1, 4, -3). 0.0 -> 0: (0, 2, 0): -1, -2. 0.1 -> 0: -2.
    effects = effects_of(model, "a", prepend_bos=False)
    assert first_pair(effects) == {
        ("0.0", "1.0"): -1.0,
        ("0.0", "1.1"): -2.0,
        ("0.1", "1.1"): -2.0,
    }


def test_scale(model: InstrumentedModel) -> None:
    # Twice 0.0: y is (4, 9, 3-12+2): +2, +4, silent still. Twice 0.1 at a (4) and b (2):
    # (2, 6, 3-6+4 = 1): +1 and +1. Twice 0.2 at b: 6-6+2 = 2: +2, newly active.
    assert first_pair(effects_of(model, intervention=scale(2))) == {
        ("0.0", "1.0"): 2.0,
        ("0.0", "1.1"): 4.0,
        ("0.1", "1.1"): 1.0,
        ("0.1", "1.2"): 1.0,
        ("0.2", "1.2"): 2.0,
    }
    # Half of 0.0: (1, 3, 3-3+2 = 2): -1, -2, +2. Half of 0.1: y1 is 0.5+4: -0.5; y2 stays < 0.
    assert first_pair(effects_of(model, intervention=scale(0.5))) == {
        ("0.0", "1.0"): -1.0,
        ("0.0", "1.1"): -2.0,
        ("0.0", "1.2"): 2.0,
        ("0.1", "1.1"): -0.5,
    }


def test_scale_zero_is_zero_ablation(model: InstrumentedModel) -> None:
    assert effects_of(model, intervention=scale(0)) == FIRST_PAIR | SECOND_PAIR


def test_scale_one_changes_nothing(model: InstrumentedModel) -> None:
    graph = effect_graph(model, "ab", intervention=scale(1), min_path_edges=1)
    assert graph.edges == ()
    assert graph.run.total_abs_effect == 0
    assert [layer.measured_features for layer in graph.run.layers] == [0, 0, None]
    assert all(layer.active_features for layer in graph.run.layers)


def test_mean(model: InstrumentedModel) -> None:
    # Means over `aa` without ^: (1, 2, 0). 0.0: 2 -> 1 at b: (1, 3, 2): -1, -2, +2.
    # 0.1: 1 -> 2 at b, as it is at a: y1 is 2+4: +1. 0.2: 3 -> 0 at b: silent still.
    assert first_pair(effects_of(model, intervention=mean_over(model, ["aa"]))) == {
        ("0.0", "1.0"): -1.0,
        ("0.0", "1.1"): -2.0,
        ("0.0", "1.2"): 2.0,
        ("0.1", "1.1"): 1.0,
    }


def test_resample(model: InstrumentedModel) -> None:
    # From `ba`, layer 0 is (2, 1, 3), (1, 2, 0). 0.0 at b: 2 -> 1, as above. 0.1 at a: 2 -> 1,
    # at b: 1 -> 2: y1 is 6: +1, y2 is 3-6+1: silent. 0.2 at a: 0 -> 3, not seen at b.
    assert first_pair(effects_of(model, intervention=resample(model, "ba", n_tokens=3))) == {
        ("0.0", "1.0"): -1.0,
        ("0.0", "1.1"): -2.0,
        ("0.0", "1.2"): 2.0,
        ("0.1", "1.1"): 1.0,
    }


def test_token_effects(model: InstrumentedModel) -> None:
    # 2.1 -> 0 turns the logits (5, 3, 3) into (5, 0, 3). Normalisers: ln(e^5 + 2 e^3) = 5.239545
    # and ln(e^5 + e^3 + 1) = 5.132845. So ^ and b gain 0.106700, and a changes by -2.893300.
    clean = model.clean_run("ab")
    places = places_of(clean, effect_settings())
    ablations = ablations_of(clean, 2, places, features=torch.tensor([1]))
    (effects,) = token_effects(model, clean, ablations, [FeatureId("2", 1)], places)
    (promoted,) = effects.promotes
    assert (promoted.token, promoted.effect_nats) == ("a", pytest.approx(-2.893300, abs=2e-6))
    assert promoted.probability == pytest.approx(0.106507, abs=1e-6)  # e^(3 - 5.239545)
    assert [token.token for token in effects.suppresses] == ["^", "b"]
    for token in effects.suppresses:
        assert token.effect_nats == pytest.approx(0.106700, abs=2e-6)


def test_preflight_numbers(model: InstrumentedModel) -> None:
    graph = effect_graph(model, "ab")
    # Layer 1 misses only the -1 at b, of rows (1, 4, 6) and (2, 5, -1) about their mean
    # (1.5, 4.5, 2.5): 2 (0.25 + 0.25 + 12.25) = 25.5, so the fraction unexplained is 1 / 25.5.
    # Layer 0 is reconstructed exactly. Active per position: a has 2, b has 3; then 3 and 2.
    first, second, _ = graph.run.layers
    assert first.fvu == 0
    assert second.fvu == pytest.approx(1 / 25.5)
    assert (first.l0, second.l0) == (2.5, 2.5)
    assert (first.active_features, second.active_features) == (3, 3)
    # Pair 0, changes of the stream at b, and what of them relu can express:
    # 0.0 (-2, -4, +6) expressed (-2, -4, +5), missing 1; 0.1 (0, -1, -2), missing 2;
    # 0.2 (0, 0, -3), missing 3. So 1 - (1 + 4 + 9) / (56 + 5 + 9) = 0.8.
    assert first.effect_in_features == pytest.approx(0.8)


def test_pinned_source(model: InstrumentedModel) -> None:
    expected = {ends: value for ends, value in SECOND_PAIR.items() if ends[0] == "1.1"}
    assert effects_of(model, pin=("1.1",)) == expected
