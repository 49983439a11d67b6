"""Path patching, interaction, minimality and keep-only, worked out by hand.

The linear model on `^ab`, as in `test_joint_analytic.py`: its logits at b are (5, 3, 3) of the
tokens `^`, `a`, `b`. The metric is the logit of `b` less that of `^`: -2. The path is
0.0 > 1.1 > 2.2, ablated at a and b.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.evidence import KeepOnly, Mediation
from sae_graphs.validation.mediation import keep_only, mediation
from tests.support.effect_graphs import effect_settings
from tests.support.linear_model import linear_model
from tests.support.models import PROMPT
from tests.support.subjects import edges, names, subject_of

PATH = names("0.0", "1.1", "2.2")
EDGES = edges(("0.0", "1.1"), ("1.1", "2.2"))
ASKED: dict[str, Any] = {"target": "b", "contrast": "^"}


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    return linear_model()


def mediated(model: InstrumentedModel, **options: Any) -> Mediation:
    return mediation(subject_of(model, "ab", **options), PATH, EDGES, lambda n: None)


def test_singles_joint_and_interaction(model: InstrumentedModel) -> None:
    found = mediated(model, **ASKED)
    # 0.0 off: (4.5, 1, 7). 1.1 off: (5, -2, -1). 2.2 off: (5, 3, 0).
    assert found.singles == dict(zip(PATH, (4.5, -4.0, -3.0), strict=True))
    # All off: (4.5, 0, 5) before 2.2 goes, then (4.5, 0, 0).
    assert found.joint == -2.5
    assert found.interaction == 0.0  # -2.5 - (4.5 - 4 - 3)
    # Without the first: (5, -2, -1), where 2.2 is silent; the second: (4.5, 1, 0); the last:
    # (4.5, 0, 5).
    assert found.without == dict(zip(PATH, (-4.0, -2.5, 2.5), strict=True))
    assert [found.needed(feature) for feature in PATH] == [-0.6, 0.0, 2.0]
    other = mediated(model, target="b", contrast="a")  # clean 0
    assert list(other.singles.values()) == [6.0, 1.0, -3.0] and other.joint == 0.0
    assert other.interaction == -4.0
    assert other.needed(PATH[0]) is None


def test_path_patching(model: InstrumentedModel) -> None:
    found = mediated(model, **ASKED)
    assert found.total == 4.5
    # 0.0 off, and only 1.1 follows: (1, 2, 6), (2, 1, -1), so z is (5, -1, 1), of which only 2.2
    # follows: (5, 3, 1).
    assert found.mediated == -2.0 and found.fraction == -2 / 4.5
    first, second = found.edges
    assert (first.source, first.target, first.effect) == (*PATH[:2], -1.0)
    assert (first.total, first.mediated) == (4.5, -2.0)  # above 1.1 everything is free: (5, -1, 1)
    # 1.1 off is (5, -2, -1), in which 2.2 is silent: (5, 3, 0), and -3 of -4 goes through it.
    assert (second.total, second.mediated, second.fraction) == (-4.0, -3.0, 0.75)


def test_without_contrast_the_likeliest_other_token_is_one(model: InstrumentedModel) -> None:
    """Of (5, 3, 3), `^`; a whole path off is (4.5, 0, 0), what flows along it (5, 3, 1)."""
    assert mediated(model, target="b") == mediated(model, **ASKED)
    found = mediated(model, target="a")
    assert (found.joint, found.mediated) == (-4.5 + 2, -2 + 2)


def test_a_component_with_two_first_features(model: InstrumentedModel) -> None:
    """0.0 and 0.1 to 1.1 to 2.2: both are sources, one edge each."""
    path = names("0.0", "0.1", "1.1", "2.2")
    links = edges(("0.0", "1.1"), ("0.1", "1.1"), ("1.1", "2.2"))
    found = mediation(subject_of(model, "ab", **ASKED), path, links, lambda n: None)
    # Both off: (0, 0, 9) and (0, 0, 3), so z is (4.5, 0, 3).
    assert found.total == 0.5
    # Only 1.1 follows: (1, 0, 6) and (2, 0, -1), so z is (5, -2, -1); of that 2.2: (5, 3, 0).
    assert found.mediated == -3.0
    # 0.1 off alone: 1.1 becomes 2 and 4: (1, 2, 6), (2, 4, -1), so z is (5, 2, 1).
    assert [edge.mediated for edge in found.edges] == [-2.0, -2.0, -3.0]


def test_one_feature_is_no_path_but_is_tested(model: InstrumentedModel) -> None:
    found = mediation(subject_of(model, "ab", **ASKED), names("1.1"), (), lambda n: None)
    assert found.edges == ()
    assert found.total == found.joint == found.mediated == -4.0
    assert found.without == {PATH[1]: 0.0} and found.interaction == 0.0


def test_an_output_at_the_end_is_left_out(model: InstrumentedModel) -> None:
    here = subject_of(model, "ab", **ASKED)
    longer = mediation(
        here, (*PATH, *names("out.2")), (*EDGES, *edges(("2.2", "out.2"))), lambda n: None
    )
    assert longer == mediated(model, **ASKED)


def test_positions_of_a_feature_are_told_apart(model: InstrumentedModel) -> None:
    """0.0 at a leads to 1.1 at a; 1.1 at b is where a path begins, not where 0.0's change goes."""
    path = names("0.0@1", "1.1@1", "1.1@2", "2.2@2")
    links = edges(("0.0@1", "1.1@1"), ("1.1@1", "2.2@2"), ("1.1@2", "2.2@2"))
    how = effect_settings(ablate="each")
    here = subject_of(model, "ab", how, target="b", contrast="a")
    found = mediation(here, path, links, lambda n: None)
    # The sources are 0.0 at a, and 1.1 at b. 1.1 at a becomes 2, 1.1 at b 0: (1, 2, 6), (2, 0, -1):
    # z is (5, -2, 1), of which 2.2 alone follows: (5, 3, 1), which is -2 where it was 0.
    assert found.mediated == -2.0


# -- keep-only -------------------------------------------------------------------------------------


def kept(model: InstrumentedModel, path: tuple[Any, ...] = PATH, **options: Any) -> KeepOnly:
    return keep_only(subject_of(model, "ab", **{**ASKED, **options}), path, lambda n: None)


def test_keep_only(model: InstrumentedModel) -> None:
    found = kept(model)
    assert (found.first, found.last) == ("0", "2")
    # 0.0 alone: (1, 0, 0) and (2, 0, 0), so y is (1, 2, 6) and (2, 4, -6). 1.1 alone, and the
    # error, which is what the encoder does not see: (0, 2, 0) and (0, 4, -6), so z is (0, 4, -4).
    # 2.2 is silent there; its error stays: (0, 0, -4).
    assert found.kept.metric == -4.0
    assert found.none.metric == 0.0  # nothing is left at a and b, and `^` does not reach b
    assert found.clean.metric == -2.0
    assert found.complement.metric == -4.5  # the path ablated: (4.5, 0, 0)
    assert found.faithfulness == 2.0 and found.completeness == 2.25
    # Without errors: (0, 2, 0) and (0, 4, 0), so z is (0, 4, 2), of which 2.2 stays.
    assert found.kept_bare.metric == 2.0 and found.none_bare.metric == 0.0
    # Only errors go, -1 at b in layer 1: (2, 5, 0), so z is (5, 3, 4).
    assert found.all_bare.metric == -1.0
    assert found.kept.probability == pytest.approx(math.exp(-4) / (2 + math.exp(-4)))


def test_keep_only_spans_the_layers_of_the_path(model: InstrumentedModel) -> None:
    found = kept(model, names("1.1"))
    assert (found.first, found.last) == ("1", "1")
    # Only 1.1: (0, 4, 0) and (0, 5, -1), so z is (0, 5, 3); nothing: (0, 0, -1).
    assert found.kept.metric == 3.0 and found.none.metric == -1.0
    assert found.complement.metric == -6.0  # (5, -2, -1)
    assert found.faithfulness == -4.0 and found.completeness == 5.0


def test_everything_kept_is_faithful(tiny: InstrumentedModel) -> None:
    here = subject_of(tiny, PROMPT)
    everything = names(*(f"{layer}.{index}" for layer in range(4) for index in range(40)))
    found = keep_only(here, everything, lambda n: None)
    assert found.faithfulness == pytest.approx(1.0) and found.completeness == pytest.approx(0.0)
    assert found.all_bare.metric == pytest.approx(found.kept_bare.metric)
    assert abs(found.all_bare.metric - found.kept.metric) > 0.01
    assert found.clean.probability == pytest.approx(
        float(here.question.logits.softmax(-1)[here.question.target])
    )
