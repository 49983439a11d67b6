"""Estimates from gradients: by hand, against plain autograd, and by the laws that they obey.

The slow second implementation runs the whole model with hooks once for each point, and takes the
gradient of one target at a time in the activations `[T, F]` themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_graphs.effects.ablations import Ablations, ablations_of, places_of
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.exact import measure, measure_outputs
from sae_graphs.effects.gradients import estimate, estimate_outputs
from sae_graphs.effects.settings import GraphSettings, Method
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention, scale
from tests.conftest import BridgeOf
from tests.support.against_oracle import Case, case_of, kinds_for
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.linear_model import linear_model
from tests.support.models import KINDS, PROMPT
from tests.support.slow import first, only

Record = Callable[[str, object], None]
CASES = (
    *(("gpt2", "pre"), ("gpt2", "mixed"), ("llama", "pre")),
    *(("gemma2", "post"), ("neox", "post")),
)
Ends = tuple[int, int, int, int]  # source, its position, target, its position


def by_ends(blocks: Sequence[Effects]) -> dict[Ends, float]:
    """Effects by source, its position, target and its position; each pair of ends once."""
    found: dict[Ends, float] = {}
    for block in blocks:
        columns = [held.tolist() for held in block.arrays.values()]
        for *ends, value in zip(*columns, strict=True):
            assert tuple(ends) not in found
            found[tuple(ends)] = value
    return found


def estimates(
    model: InstrumentedModel,
    prompt: str,
    depth: int,
    settings: GraphSettings,
    steps: int | None = None,
    intervention: Intervention = ZERO,
    rows: int | None = None,
) -> dict[Ends, float]:
    clean = model.clean_run(prompt)
    places = places_of(clean, settings)
    ablations = ablations_of(clean, depth, places, intervention)
    return by_ends([*estimate(model, clean, ablations, places, steps=steps, rows=rows)])


# -- by hand: streams and features as in test_analytic.py ------------------------------------------


@pytest.fixture(scope="module")
def linear() -> InstrumentedModel:
    return linear_model()


def edges_of(
    model: InstrumentedModel, method: Method, steps: int = 10, intervention: Intervention = ZERO
) -> dict[tuple[str, str], float]:
    graph = effect_graph(
        model,
        "ab",
        intervention=intervention,
        top_k=100,
        min_path_edges=1,
        method=method,
        steps=steps,
    )
    return {(str(edge.source), str(edge.target)): edge.effect for edge in graph.edges}


# Exact are -2, -4, -1, and +5 from 0.0 to 1.2, which is silent (-1) and wakes up. Its gradient is
# 0. On the line to all features zeroed its stream is (1 - t) (3 - 6 + 2) < 0: silent all the way.
FIRST_PAIR = {("0.0", "1.0"): -2.0, ("0.0", "1.1"): -4.0, ("0.1", "1.1"): -1.0}
# 1.0 and 1.2 are as exact. 1.1 is 4 at a and 5 at b, z is (5, 5-2, -1+4): the gradients give -5 and
# -4, where the targets can only fall from 3 to 0.
SECOND_PAIR = {
    ("1.0", "2.0"): -2.0,
    ("1.0", "2.1"): 2.0,
    ("1.1", "2.1"): -5.0,
    ("1.1", "2.2"): -4.0,
    ("1.2", "2.0"): -3.0,
}


def test_gradients_by_hand(linear: InstrumentedModel) -> None:
    assert edges_of(linear, "gradient") == FIRST_PAIR | SECOND_PAIR


def test_integrated_gradients_by_hand(linear: InstrumentedModel) -> None:
    # On the line, z1 is 3 (1 - t) > 0, and z2 is -1 + 4 (1 - t): positive until t is 3/4. So of 10
    # steps, from t = 0 to 0.9, the gradient is 1 in 8; of 4 it is 1 in 3 (at 3/4 it is 0).
    found = edges_of(linear, "integrated-gradients", 10)
    assert found.pop(("1.1", "2.2")) == pytest.approx(-3.2)
    expected = FIRST_PAIR | SECOND_PAIR
    del expected["1.1", "2.2"]
    assert found == pytest.approx(expected)
    assert edges_of(linear, "integrated-gradients", 4)["1.1", "2.2"] == pytest.approx(-3.0)
    assert edges_of(linear, "integrated-gradients", 1) == FIRST_PAIR | SECOND_PAIR


def test_all_agree_where_all_is_linear(linear: InstrumentedModel) -> None:
    # A tenth less of a feature switches nothing on or off.
    exact = edges_of(linear, "exact", intervention=scale(0.9))
    assert exact == pytest.approx(
        {ends: value / 10 for ends, value in (FIRST_PAIR | SECOND_PAIR).items()}
    )
    for method in ("gradient", "integrated-gradients"):
        assert edges_of(linear, method, intervention=scale(0.9)) == pytest.approx(exact)


def test_each_position_by_hand(linear: InstrumentedModel) -> None:
    # At a, the stream of layer 2 is (1 - 9, 4 - 1, 6 + 27): feature 0 is silent. At b as above.
    assert estimates(linear, "ab", 1, effect_settings(ablate="each", read="all")) == {
        (0, 1, 1, 1): 1.0,
        (1, 1, 1, 1): -4.0,
        (2, 1, 2, 1): -6.0,
        (0, 2, 0, 2): -2.0,
        (0, 2, 1, 2): 2.0,
        (1, 2, 1, 2): -5.0,
        (1, 1, 2, 2): -4.0,
        (2, 1, 0, 2): -3.0,
    }


def test_logits_by_hand(linear: InstrumentedModel) -> None:
    # The logits are layer 2's stream itself, (5, 3, 3), so each feature writes its own.
    clean = linear.clean_run("ab")
    places = places_of(clean, effect_settings())
    tokens = torch.tensor([0, 2])

    def found(depth: int, contrast: int | None = None) -> dict[Ends, float]:
        ablations = ablations_of(clean, depth, places)
        return by_ends([*estimate_outputs(linear, clean, ablations, places, tokens, contrast)])

    assert found(2) == {(0, -1, 0, -1): -5.0, (2, -1, 2, -1): -3.0}
    assert found(2, 1) == {
        (0, -1, 0, -1): -5.0,
        (1, -1, 0, -1): 3.0,
        (1, -1, 2, -1): 3.0,
        (2, -1, 2, -1): -3.0,
    }
    assert found(1) == {(0, -1, 0, -1): -2.0, (1, -1, 2, -1): -4.0, (2, -1, 0, -1): -3.0}


# -- against plain autograd ------------------------------------------------------------------------


def slow_estimates(
    case: Case, layer: int, ablated: Sequence[int], read: int, points: Sequence[float]
) -> Tensor:
    """`[F, F']`: mean gradient of every target in every activation, times its change to 0."""
    oracle = case.oracle
    sae, target = oracle.saes[layer], oracle.saes[layer + 1]
    x, a = oracle.streams[layer], oracle.activations[layer]  # [T, D], [T, F]
    where = torch.zeros(len(a), 1, dtype=a.dtype)
    where[list(ablated)] = 1
    sae.encode(x)
    error = x - sae.decode(a)
    found = torch.zeros(a.shape[1], int(target.cfg.d_sae), dtype=a.dtype)
    for point in points:
        with torch.enable_grad():
            leaf = (a - point * where * a).requires_grad_()
            sae.encode(x)  # a decode belongs to the encode just before it
            changed = error + sae.decode(leaf)
            _, streams = oracle._run(layer, changed[None], oracle.hooks[layer + 1])
            values = target.encode(streams[0])[read]  # [F']
            each = values.unbind()
        for feature, value in enumerate(each):
            (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)  # [T, F]
            found[:, feature] -= (gradient * where * a).sum(0) / len(points)
    return found


@pytest.mark.parametrize(
    ("architecture", "stack", "ablate", "steps"),
    only(
        ((*case, *how) for case in CASES for how in product(("all", "read"), (None, 3))),
        *[
            ("gpt2", "mixed", "all", None),
            ("gemma2", "post", "read", 3),
            ("neox", "post", "all", None),
        ],
    ),
)
def test_against_plain_autograd(
    bridge_of: BridgeOf,
    record_property: Record,
    architecture: str,
    stack: str,
    ablate: str,
    steps: int | None,
) -> None:
    case = case_of(bridge_of(architecture, "float64"), stack, kinds_for(architecture), "float64")
    settings = effect_settings(ablate=ablate)  # type: ignore[arg-type]
    clean = case.model.clean_run(PROMPT)
    places = places_of(clean, settings)
    points = [step / (steps or 1) for step in range(steps or 1)]
    worst = 0.0
    for depth in range(len(case.oracle.saes) - 1):
        ablated = places.ablated.nonzero()[:, 0].tolist()
        slow = slow_estimates(case, depth, ablated, places.read, points)
        ours = torch.zeros_like(slow)
        for block in estimate(
            case.model, clean, ablations_of(clean, depth, places), places, steps=steps
        ):
            ends = torch.from_numpy(block.sources).long(), torch.from_numpy(block.targets).long()
            ours[ends] = torch.from_numpy(block.values)
        assert slow.abs().max() > 1e-3, "the case is too tame to prove anything"
        difference, size = (ours - slow).abs(), slow.abs()
        # Llama's and Gemma's norms round to float32 whatever the precision, so there small
        # effects, in which large parts cancel, are held to the same error as larger ones.
        floor = float(size.max()) * (1e-9 if architecture in ("gpt2", "neox") else 1e-2)
        worst = max(worst, float((difference / size.clamp(min=floor)).max()))
    record_property(f"deviation float64 gradients {architecture}", worst)
    assert worst < 1e-5


@pytest.mark.parametrize("kind", first(6, KINDS))
def test_a_gradient_is_the_effect_of_a_small_change(bridge_of: BridgeOf, kind: str) -> None:
    """What a ten-millionth less of a feature does, measured and extrapolated."""
    case = case_of(bridge_of("gpt2", "float64"), "pre", [kind], "float64")  # float64 throughout
    little = 1e-7
    settings = effect_settings()
    clean = case.model.clean_run(PROMPT)
    places = places_of(clean, settings)
    ablations = ablations_of(clean, 1, places, scale(1 - little))
    measured = by_ends([*measure(case.model, clean, ablations, places)])
    extrapolated = {ends: effect / little for ends, effect in measured.items()}
    estimated = estimates(case.model, PROMPT, 1, settings)
    assert_close(estimated, extrapolated)


def assert_close(found: dict[Ends, float], expected: dict[Ends, float]) -> None:
    """To 1e-5 of the largest; an effect that is not there is 0."""
    largest = max(map(abs, expected.values()))
    for ends in found.keys() | expected.keys():
        assert abs(found.get(ends, 0.0) - expected.get(ends, 0.0)) < 1e-5 * largest


# -- laws ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(bridge_of: BridgeOf) -> Case:
    return case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")


def completeness_error(case: Case, depth: int, steps: int) -> float:
    """How far the estimates' sum is from the effect of changing all together, at worst.

    In units of the largest such effect.
    """
    model, oracle = case.model, case.oracle
    a, x, sae = oracle.activations[depth], oracle.streams[depth], oracle.saes[depth]
    none = a.clone()
    none[1:] = 0
    sae.encode(x)
    changed = x - (sae.decode(a) - sae.decode(none))
    _, streams = oracle._run(depth, changed[None], oracle.hooks[depth + 1])
    joint = (oracle.saes[depth + 1].encode(streams[0]) - oracle.activations[depth + 1])[-1]  # [F']
    total = torch.zeros_like(joint)
    for ends, value in estimates(model, PROMPT, depth, effect_settings(), steps).items():
        total[ends[2]] += value
    return float((total - joint).abs().max() / joint.abs().max())


@pytest.mark.parametrize("depth", first(1, [0, 2]))
def test_integrated_gradients_are_complete(gpt2: Case, depth: int) -> None:
    """All sources' estimates add up to the effect of changing them all: the line's two ends."""
    errors = [completeness_error(gpt2, depth, steps) for steps in (1, 10, 100, 300)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[2] < 0.05
    assert errors[3] < 0.02


@pytest.mark.parametrize("steps", [None, 4])
def test_positions_add_up(gpt2: Case, steps: int | None) -> None:
    """An estimate over all positions is the sum of those at each of them."""
    last = len(gpt2.oracle.ids[0]) - 1
    together = estimates(gpt2.model, PROMPT, 1, effect_settings(), steps)
    added: dict[Ends, float] = {}
    for (source, _, target, read), value in estimates(
        gpt2.model, PROMPT, 1, effect_settings(ablate="each", read="all"), steps
    ).items():
        if read == last:
            added[source, -1, target, -1] = added.get((source, -1, target, -1), 0.0) + value
    assert added == pytest.approx(together, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("ablate", first(1, ["all", "each"]))
def test_packs_do_not_matter(gpt2: Case, monkeypatch: pytest.MonkeyPatch, ablate: str) -> None:
    settings = effect_settings(ablate=ablate)  # type: ignore[arg-type]
    whole = estimates(gpt2.model, PROMPT, 1, settings, steps=5)
    monkeypatch.setattr("sae_graphs.effects.gradients.LINE_ROWS", 1)
    packed = estimates(gpt2.model, PROMPT, 1, settings, steps=5, rows=30)
    assert packed == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_output_estimates_are_effects_of_a_small_change(gpt2: Case) -> None:
    model, little, tokens = gpt2.model, 1e-7, torch.tensor([3, 17])
    clean = model.clean_run(PROMPT)
    places = places_of(clean, effect_settings())

    def measured(ablations: Ablations) -> dict[Ends, float]:
        return by_ends([*measure_outputs(model, clean, ablations, places, tokens, 5)])

    for depth in (1, 3):
        extrapolated = measured(ablations_of(clean, depth, places, scale(1 - little)))
        ablations = ablations_of(clean, depth, places)
        found = by_ends([*estimate_outputs(model, clean, ablations, places, tokens, 5)])
        assert_close(found, {ends: value / little for ends, value in extrapolated.items()})


# -- settings and the record -----------------------------------------------------------------------


def test_the_method_is_recorded_and_warned_about(tiny: InstrumentedModel) -> None:
    exact = effect_graph(tiny, PROMPT, min_path_edges=1)
    assert (exact.run.settings["method"], exact.run.settings["steps"]) == ("exact", None)
    assert not any("estimate" in warning for warning in exact.run.warnings)
    graph = effect_graph(tiny, PROMPT, min_path_edges=1, method="gradient")
    assert (graph.run.settings["method"], graph.run.settings["steps"]) == ("gradient", None)
    graph = effect_graph(tiny, PROMPT, min_path_edges=1, method="integrated-gradients", steps=3)
    assert graph.run.settings["method"] == "integrated-gradients"
    assert graph.run.settings["steps"] == 3
    (warning,) = [warning for warning in graph.run.warnings if "estimate" in warning]
    assert "integrated gradients" in warning
    assert "sae-graphs compare" in warning


def test_pinned_features_keep_their_estimates(tiny: InstrumentedModel) -> None:
    """Integrated gradients move all features of the layer along, whichever are asked for."""
    options: dict[str, Any] = {
        "top_k": 10_000,
        "min_path_edges": 1,
        "method": "integrated-gradients",
    }
    whole = effect_graph(tiny, PROMPT, **options)
    pin = str(whole.edges[0].source)
    pinned = effect_graph(tiny, PROMPT, pin=(pin,), **options)
    expected = {edge.target: edge.effect for edge in whole.edges if str(edge.source) == pin}
    found = {edge.target: edge.effect for edge in pinned.edges}
    assert found == pytest.approx(expected, rel=1e-9)


def test_outputs_are_estimated(tiny: InstrumentedModel) -> None:
    options: dict[str, Any] = {"outputs": 2, "top_k": 3, "min_path_edges": 1}
    graph = effect_graph(tiny, PROMPT, method="gradient", **options)
    assert any(edge.target.is_output for edge in graph.edges)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_steps_are_a_positive_whole_number(steps: object) -> None:
    with pytest.raises(SaeGraphsError, match=r"steps is .*whole number of at least 1"):
        effect_settings(steps=steps)  # type: ignore[arg-type]


def test_unknown_method() -> None:
    with pytest.raises(SaeGraphsError, match="method is 'guess'; expected one of exact, gradient"):
        effect_settings(method="guess")  # type: ignore[arg-type]


def test_an_encoder_without_gradients_is_refused(
    tiny: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = tiny.stack.layers[1].sae
    encode = sae.encode
    monkeypatch.setattr(sae, "encode", lambda stream: encode(stream).detach())
    with pytest.raises(SaeGraphsError, match="passes no gradients; use the method 'exact'"):
        effect_graph(tiny, PROMPT, method="gradient")


def test_nothing_to_estimate(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    places = places_of(clean, effect_settings())
    ablations = ablations_of(clean, 0, places, scale(1))
    assert len(ablations) == 0
    assert [*estimate(tiny, clean, ablations, places, steps=2)] == []


def test_inference_mode_is_refused(tiny: InstrumentedModel) -> None:
    """There are no gradients there: an empty graph would be a lie."""
    with torch.inference_mode(), pytest.raises(SaeGraphsError, match="gradients are off"):
        effect_graph(tiny, PROMPT, method="gradient")
    with torch.inference_mode():
        assert effect_graph(tiny, PROMPT).edges
