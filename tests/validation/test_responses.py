"""Response curves worked out by hand on the linear model; see `test_joint_analytic.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import Selected, changing, run_edits, scaled_by
from sae_graphs.validation.evidence import Curve
from sae_graphs.validation.responses import COEFFICIENTS, WIDER, curve, response_curve
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_settings
from tests.support.linear_model import linear_model
from tests.support.models import KINDS, PROMPT, STACKS, random_stack
from tests.support.slow import first
from tests.support.stacks import one_line
from tests.support.subjects import names, subject_of

QUARTERS = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    return linear_model()


def test_the_range() -> None:
    assert list(COEFFICIENTS) == QUARTERS and WIDER == 10.0


def test_a_straight_line(model: InstrumentedModel) -> None:
    """1.1 times c: (1, 4c, 6) and (2, 5c, -1), so z2, the logit of b, is 4c - 1."""
    found = response_curve(model, "ab", "1.1", "b")
    assert (found.cause, found.effect, found.unit) == ("1.1", "logit of 'b'", "nats")
    assert list(found.coefficients) == QUARTERS
    assert list(found.responses) == [4 * c - 1 for c in QUARTERS]
    assert found.slope == pytest.approx(4.0) and found.gradient == 4.0
    assert found.r_squared == pytest.approx(1.0)
    assert found.largest_jump == pytest.approx(1 / 12)


def test_a_kink(model: InstrumentedModel) -> None:
    """0.0 times c: y1 at b is 1 + 4c, of which 1.1 is what is above 0."""
    found = response_curve(model, "ab", "0.0", "1.1")
    assert (found.effect, found.unit) == ("1.1", "activation")
    assert list(found.responses) == [max(0.0, 1 + 4 * c) for c in QUARTERS]
    assert found.gradient == 4.0 and 3.0 < found.slope < 4.0
    assert found.r_squared is not None and 0.9 < found.r_squared < 0.999
    assert found.largest_jump == pytest.approx(1 / 9) and found.jump_at > -0.25


def test_the_wider_curve(model: InstrumentedModel) -> None:
    wide = [WIDER * c for c in COEFFICIENTS]
    found = response_curve(model, "ab", "0.0", "1.1", coefficients=wide)
    assert found.responses[0] == 0.0 and found.responses[-1] == 81.0
    assert found.gradient == 4.0  # at coefficient 1, whatever the range


def test_an_effect_that_sleeps_at_first(model: InstrumentedModel) -> None:
    """0.0 times c: y2 at b is 3 - 6c + 2, above 0 where c is below 5/6; at 1 it is silent."""
    found = response_curve(model, "ab", "0.0", "1.2")
    assert list(found.responses) == [max(0.0, 5 - 6 * c) for c in QUARTERS]
    assert found.gradient == 0.0 and found.slope < 0


def test_a_whole_path_against_a_difference_of_logits(model: InstrumentedModel) -> None:
    """0.0 times c, then what 1.1 has become times c; without a name, it is called by its first."""
    here = subject_of(model, "ab", target="b", contrast="^")
    found = curve(here, names("0.0", "1.1"), None, coefficients=[0.0, 1.0, 2.0])
    # c = 0: (4.5, 0, 5). c = 2: x0 is 2 and 4, so y is (2, 6, 3) and (4, 9, -7), then y1 12 and 18;
    # z is (4 + 1.5, ..., -7 + 12).
    assert list(found.responses) == [0.5, -2.0, -0.5]
    assert found.effect == "logit of 'b' less that of '^'" and found.cause == "0.0"
    # z0 = 2c + (9 - 3c) / 2, z2 = 5 - 6c + c (2 + 2c): the difference's derivative is 4c - 4.5.
    assert found.gradient == pytest.approx(-0.5)
    assert curve(here, names("1.1"), None, name="Graph 1").cause == "Graph 1"


def test_positions_of_cause_and_effect(model: InstrumentedModel) -> None:
    """At a, y1 is 2 + 2 x0 and x0 is 1; at b nothing of 0.0 at a comes to feature 1."""
    at_a = response_curve(model, "ab", "0.0@1", "1.1@1", coefficients=[0.0, 1.0, 2.0])
    assert list(at_a.responses) == [2.0, 4.0, 6.0]
    at_b = response_curve(model, "ab", "0.0@1", "1.1", coefficients=[0.0, 1.0, 2.0])
    assert list(at_b.responses) == [5.0, 5.0, 5.0]
    assert at_b.r_squared is None and at_b.gradient == 0.0 == at_b.largest_jump
    both = response_curve(model, "ab", "0.0", "1.1@1", coefficients=[0.0, 2.0])
    assert list(both.responses) == [2.0, 6.0]


def test_in_another_prompt_positions_mean_nothing(model: InstrumentedModel) -> None:
    here = subject_of(model, "ab", effect_settings(ablate="each"), own=False)
    (cause, effect) = names("0.0@1", "1.1@1")
    assert list(curve(here, [cause], effect, coefficients=[0.0, 2.0]).responses) == [1.0, 9.0]


def test_coefficients_are_put_in_order(model: InstrumentedModel) -> None:
    found = response_curve(model, "ab", "1.1", "b", coefficients=[2, 0, 1, 1])
    assert found.coefficients == (0.0, 1.0, 2.0) and found.responses == (-1.0, 3.0, 7.0)


@pytest.mark.parametrize("kind", first(3, KINDS))
def test_gradients_are_derivatives(bridge_of: BridgeOf, kind: str) -> None:
    """Against small steps to both sides, for all kinds of SAEs."""
    bridge = bridge_of("gpt2", "float64")
    tiny = InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], [kind]))
    clean = tiny.clean_run(PROMPT)
    cause = f"0.{int(clean.activations[0].active(clean.logits[:, 0] != 0)[1])}"

    def at(*coefficients: float) -> Curve:
        here = subject_of(tiny, PROMPT)
        return curve(here, names(cause), None, coefficients=coefficients)

    step = 1e-3
    below, above = at(1 - step, 1 + step).responses
    assert at(0.0, 1.0).gradient == pytest.approx((above - below) / (2 * step), rel=0.02, abs=1e-6)
    assert at(0.0, 1.0).responses[1] == pytest.approx(float(clean.logits[-1].max()), rel=1e-6)


def test_curves_are_what_scaling_does(tiny: InstrumentedModel) -> None:
    here = subject_of(tiny, PROMPT)
    clean = here.clean
    cause = int(clean.activations[1].active(here.ablated)[2])
    found = curve(here, names(f"1.{cause}"), None, coefficients=[-1.0, 0.3, 2.0])
    chosen = here.ablated[None, :, None].expand(3, -1, 1)
    edit = changing(
        tiny,
        clean,
        1,
        Selected(torch.tensor([cause]), chosen),
        scaled_by(torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)),
    )
    ran = run_edits(tiny, clean, {1: edit}, 3, here.read)
    logits = tiny.unembed(ran.streams)[:, here.question.target]
    assert list(found.responses) == pytest.approx(logits.tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("cause", "effect", "options", "message"),
    [
        ("7.1", "b", {}, "no SAE layer '7'"),
        ("0.3", "b", {}, "layer 0 has features 0 to 2"),
        ("0.0", "1.9", {}, "layer 1 has features 0 to 2"),
        ("0.0", "8.1", {}, "no SAE layer '8'"),
        ("1.1", "1.0", {}, "1.0 is not above 1.1"),
        ("1.1", "0.0", {}, "0.0 is not above 1.1"),
        ("0.0", "ab", {}, "'ab' is 2 tokens"),
        ("0.0", "", {}, "'' is 0 tokens"),
        ("0.2@1", "b", {}, "0.2@1 is inactive"),
        ("0.0@3", "b", {}, "positions 0 to 2"),
        ("0.0", "1.1@3", {}, "positions 0 to 2"),
        ("zero", "b", {}, "not a feature"),
        ("0.0", "b", {"coefficients": []}, "at least 2 different"),
        ("0.0", "b", {"coefficients": [1.0, 1.0]}, "at least 2 different"),
        ("0.0", "b", {"coefficients": [1.0, float("nan")]}, "at least 2 different"),
        ("0.0", "b", {"coefficients": [1.0, float("inf")]}, "at least 2 different"),
    ],
)
def test_wrong_curves(
    model: InstrumentedModel, cause: str, effect: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        response_curve(model, "ab", cause, effect, **options)
    assert message in one_line(caught)
