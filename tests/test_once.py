"""What a process does once it does again where a model is other than before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import evidence, once


def grown(model: Any) -> None:
    model.weight.add_(1.0)


def moved(model: Any) -> None:
    model.running_mean.add_(1.0)


def replaced(model: Any) -> None:
    model.weight = nn.Parameter(model.weight.clone())


def other_data(model: Any) -> None:
    model.weight.data = model.weight + 1.0


def another_buffer(model: Any) -> None:
    model.running_mean = model.running_mean.clone()


def processed(model: Any) -> None:
    model._weights_processed = True


def in_use(model: Any) -> None:
    model.train()


CHANGES = [grown, moved, replaced, other_data, another_buffer, processed, in_use]


class Again:
    """Runs a model again, as `Replay` does."""

    together = True

    def __init__(self, model: Any) -> None:
        self.model = model

    def whole(self) -> None: ...


class AgainOtherwise(Again):
    """Does so in another way."""

    def whole(self) -> None: ...


RUN = SimpleNamespace(token_ids=(1, 2))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_checked_again(change: Callable[[Any], None]) -> None:
    model = nn.BatchNorm1d(3).eval()
    asked: list[str] = []
    passed = once._passed(lambda replay, run, name: asked.append("replay"))
    compared = once._compared(lambda model: asked.append("plain"))
    for _ in range(2):
        passed(Again(model), RUN, "it")
        compared(model)
    assert asked == ["replay", "plain"]
    with torch.no_grad():
        change(model)
    for _ in range(2):
        passed(Again(model), RUN, "it")
        compared(model)
    assert asked == ["replay", "plain"] * 2


def test_another_replay_or_prompt_is_checked_itself() -> None:
    model = nn.Linear(2, 2)
    asked: list[str] = []
    passed = once._passed(lambda replay, run, name: asked.append(type(replay).__name__))
    for replay in (Again(model), AgainOtherwise(model), Again(model)):
        passed(replay, RUN, "it")
    assert asked == ["Again", "AgainOtherwise"]
    passed(Again(model), SimpleNamespace(token_ids=(1, 3)), "it")
    assert len(asked) == 3


def test_a_plot_is_kept_by_all_of_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_plots", {})
    asked: list[object] = []

    def plot(*numbers: object) -> str:
        asked.append(numbers)
        return str(len(asked))

    plotted = once._plotted(plot)
    first, other = evidence.curve(), evidence.curve(responses=(0.0, 0.1, 0.30000000000000004))
    last = evidence.curve(responses=(0.0, 0.1, 0.3))
    answers = [plotted(*it) for it in ((first, 1.0), (other, 1.0), (last, 1.0), (first, None))]
    assert answers == ["1", "2", "3", "4"]
    assert plotted(evidence.curve(), 1.0) == "1" and len(asked) == 4
    assert once.drawn_anew(lambda: plotted(first, 1.0)) == "5"


def test_words_that_do_not_fit_their_values_fail_who_logs_them() -> None:
    with pytest.raises(TypeError, match="a real number is required"):
        logging.getLogger("sae_graphs").warning("%d prompts", "two")
