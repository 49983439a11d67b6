"""What the corrupted runs are fed, beside numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_graphs.errors import SaeGraphsError
from sae_graphs.tracing.corrupt import FIRST, corrupted, embedding_scale
from sae_graphs.tracing.settings import TraceSettings
from tests.tracing.test_planted_model import FILLERS, NAMES, QUESTION, WIDTH, model_of

IDS = (FILLERS[0], NAMES[0], QUESTION)
STD = 0.5


def fed(subject: int = 1, *, answered: Any = None, **options: Any) -> torch.Tensor:
    """What `corrupted` makes of the row of a token `[R, D]`; all others are as they were."""
    model = model_of(3)
    clean = model.run(IDS)
    found = corrupted(
        model,
        clean,
        (subject,),
        TraceSettings(**options),
        std=STD,
        probability=1.0,
        answered=answered or (lambda _: 0.0),
    )
    for place in {0, 1, 2} - {subject}:
        assert (found.embeddings[:, place] == clean.inputs[0][place]).all()
    return found.embeddings[:, subject]


def unit(*places: int, size: float = 1.0) -> torch.Tensor:
    row = torch.zeros(WIDTH, dtype=torch.float64)
    row[list(places)] = size
    return row


def test_noise_is_as_large_as_it_is_said_to_be() -> None:
    """A name is two ones; the noise of several strengths is the same, times its size."""
    half, two = (fed(strength=size, noise_runs=2000) - unit(0, 3) for size in (0.5, "4s"))
    assert float(half.std()) == pytest.approx(0.5, rel=0.02)
    assert two == pytest.approx(4 * STD / 0.5 * half)
    assert abs(float(half.mean())) < 0.01
    assert (fed(strength=0) == unit(0, 3)).all()
    other = fed(strength=0.5, noise_runs=2000, seed=1) - unit(0, 3)
    assert not torch.equal(half, other)


def test_standard_deviations_are_of_all_token_embeddings() -> None:
    """Of 15 tokens of width 16: three names of two ones, six fillers and a question of one."""
    model = model_of(3)
    ones, every = 3 * 2 + 6 + 1, 15 * WIDTH
    mean = ones / every
    expected = ((ones * (1 - mean) ** 2 + (every - ones) * mean**2) / (every - 1)) ** 0.5
    assert embedding_scale(model, model.run(IDS)).std == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rank", "row"),
    [
        (1, unit()),  # token 0, of zeros, at distance 1; so are tokens 10 to 13
        (5, unit()),
        (6, unit(8)),  # the first filler, at a distance of the root of 2
        (12, unit(0, 3)),  # the first name, at the root of 3
    ],
)
def test_the_nearest_tokens_of_the_question(rank: int, row: torch.Tensor) -> None:
    assert fed(2, corruption="nearest", rank=rank) == pytest.approx(row[None])
    blend = fed(2, corruption="blend", rank=rank, strength=0.25)
    assert blend == pytest.approx((0.75 * unit(4) + 0.25 * row)[None])


def test_norm_and_interchange() -> None:
    assert fed(corruption="norm", strength=2) == pytest.approx(unit(0, 3, size=2.0)[None])
    assert fed(corruption="interchange", other="four two no") == pytest.approx(unit(1, 3)[None])
    with pytest.raises(SaeGraphsError, match="2 tokens, the prompt 3"):
        fed(corruption="interchange", other="four two")


@pytest.mark.parametrize("limit", [0.01, FIRST, 3.0])
def test_auto_finds_the_size_below_which_the_answer_is_left(limit: float) -> None:
    """The answer is gone from a size of `limit` standard deviations on."""

    def size_of(embeddings: torch.Tensor) -> float:
        return float((embeddings[:, 1] - unit(0, 3)).std()) / STD

    plain = float((fed(strength=STD, noise_runs=4) - unit(0, 3)).std()) / STD

    def answered(embeddings: torch.Tensor) -> float:
        return 0.01 if size_of(embeddings) / plain >= limit else 0.9

    found = fed(answered=answered, noise_runs=4) - unit(0, 3)
    size = float(found.std()) / STD / plain
    assert limit <= size * (1 + 1e-9) and size <= limit * 2 ** (1 / 8) * (1 + 1e-9)
