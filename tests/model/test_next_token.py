"""Scores, ranks, divergences and tokens, from logits whose softmax is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.next_token import (
    Question,
    clean_scores,
    moved_tokens,
    rank,
    scores,
    top_tokens,
)
from sae_graphs.validation.path_ablation import token_changes
from tests.support.linear_model import linear_model


def logs(*weights: float) -> Tensor:
    """Logits of probabilities that are in these proportions."""
    return torch.tensor(weights, dtype=torch.float64).log()


CLEAN = logs(1, 2, 5)  # 0.125, 0.25, 0.625
ABLATED = logs(2, 1, 1)  # 0.5, 0.25, 0.25


def test_scores_of_a_target() -> None:
    found = scores(Question(CLEAN, 2), torch.stack([ABLATED, CLEAN, ABLATED + 3]))
    assert found.probability.tolist() == pytest.approx([0.25, 0.625, 0.25])
    # the log-odds: 1 to 3, and 5 to 3
    assert found.score.tolist() == pytest.approx([math.log(p) for p in (1 / 3, 5 / 3, 1 / 3)])
    # beside the likeliest other token, 1: they are as likely as each other, then 5 to 2
    assert found.metric.tolist() == pytest.approx([0.0, math.log(2.5), 0.0])
    # from the clean distribution: 1/8 log(1/4) + 1/4 log(1) + 5/8 log(5/2)
    expected = -math.log(4) / 8 + 5 / 8 * math.log(2.5)
    assert found.kl.tolist() == pytest.approx([expected, 0.0, expected])
    assert found.kl[1] == 0.0


def test_scores_with_a_contrast() -> None:
    question = Question(CLEAN, 2, 0)
    found = scores(question, ABLATED[None])
    assert found.score.tolist() == pytest.approx([math.log(1 / 2)])
    assert found.metric.tolist() == found.score.tolist()
    assert found.probability.tolist() == pytest.approx([0.25])
    assert clean_scores(question).score.tolist() == pytest.approx([math.log(5)])


def test_the_rival() -> None:
    """The contrast, or the likeliest other token of the clean run."""
    assert Question(CLEAN, 2).rival == 1
    assert Question(CLEAN, 1).rival == Question(CLEAN, 0).rival == 2
    assert Question(CLEAN, 2, 0).rival == 0
    # whatever is likelier once something is ablated: log(2 / 1), not log(2 / 4)
    assert scores(Question(CLEAN, 2), logs(4, 1, 2)[None]).metric.tolist() == pytest.approx(
        [math.log(2)]
    )


def test_the_metric_does_not_run_out() -> None:
    """Where the model is sure, 100 to 0 and 90 to 0: next to nothing in log-probability."""
    sure, less = torch.tensor([100.0, 0.0]), torch.tensor([[90.0, 0.0]])
    question = Question(sure, 0)
    change = scores(question, less).metric - clean_scores(question).metric
    assert change.tolist() == [-10.0]
    assert scores(question, less).probability.tolist() == [1.0]


def test_float32_logits_are_scored_in_double_precision() -> None:
    clean = torch.zeros(50000)
    ablated = clean.clone()
    ablated[7] = 1e-3
    found = scores(Question(clean, 7), ablated[None])
    # p = 1/n: the divergence is log((n - 1 + e^d) / n) - d / n, about d^2 / 2n = 1e-11
    exact = math.log1p(math.expm1(float(ablated[7])) / 50000) - float(ablated[7]) / 50000
    assert float(found.kl[0]) == pytest.approx(exact, rel=1e-3)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6), st.integers(0, 2**31))
def test_divergences_are_never_negative(logits: list[float], seed: int) -> None:
    clean = torch.tensor(logits, dtype=torch.float64)
    noise = torch.randn(len(clean), generator=torch.Generator().manual_seed(seed))
    found = scores(Question(clean, 0), (clean + 1e-8 * noise)[None])
    assert float(found.kl[0]) >= 0.0
    assert float(scores(Question(clean, 0), clean[None]).kl[0]) == 0.0


def test_ranks() -> None:
    assert [rank(torch.tensor([1.0, 3.0, 2.0]), token) for token in range(3)] == [3, 1, 2]
    assert rank(torch.tensor([2.0, 2.0, 1.0]), 1) == 1  # none is likelier


def test_tokens_that_rise_and_fall() -> None:
    """One rises, from 0.125 to 0.5, and one falls, from 0.625 to 0.25."""
    lowered, raised = moved_tokens(Question(CLEAN, 0), ABLATED)
    assert raised[0] == 0 and lowered[0] == 2
    assert moved_tokens(Question(CLEAN, 0), CLEAN) == ([], [])
    clean, ablated = logs(4, 3, 2, 1), logs(1, 2, 3, 4)
    assert moved_tokens(Question(clean, 0), ablated) == ([0, 1], [3, 2])
    assert moved_tokens(Question(clean, 0), ablated, 1) == ([0], [3])


def test_likeliest_tokens() -> None:
    assert top_tokens(Question(CLEAN, 0)) == [2, 1, 0]
    assert top_tokens(Question(CLEAN, 0), 1) == [2]


def test_changes_of_a_token() -> None:
    model: InstrumentedModel = linear_model()
    (change,) = token_changes(model, Question(CLEAN, 2), ABLATED + 1, [2])
    assert (change.token, change.token_id) == ("b", 2)
    assert (change.before, change.after) == pytest.approx((0.625, 0.25))
    assert change.points == pytest.approx(-37.5)
    assert change.relative_change == pytest.approx(-0.6)
    assert change.log_probability_change == pytest.approx(math.log(0.4))
    assert change.logit_change == pytest.approx(1 - math.log(5))  # of the logit itself
