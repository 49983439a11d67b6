"""A model made by hand in which one block hands over, and one in which nothing does.

Its attention is zero but in one block, where the last token, marked as a question, looks at the
only marked token, the subject, and writes who that is where the answers are read. So the state of
the subject matters up to that block's input, that of the last token after it, and nothing else.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

import sae_graphs as sg
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.tracing.reading import Reading, read
from sae_graphs.tracing.records import Trace
from tests.support.planted import WORDS, Words
from tests.support.slow import slow

LAYERS, WIDTH, LOUD = 6, 16, 400.0
NAMES, FILLERS, ANSWERS, QUESTION = (1, 2, 3), range(4, 10), (10, 11, 12), 14
WHO, IS_NAME, IS_QUESTION, HEARD = slice(0, 3), 3, 4, slice(5, 8)  # coordinates of the stream


class Padded(Words):
    """What a HookedTransformer asks of a tokenizer besides."""

    padding_side, pad_token_id = "right", 0


class Planted(NamedTuple):
    """A prompt, the subject's position, and the block that hands over."""

    ids: tuple[int, ...]
    subject: int
    block: int


def planted(seed: int) -> Planted:
    """Any name at any place but the last, among any other tokens."""
    rng = random.Random(seed)
    ids = [rng.choice(FILLERS) for _ in range(rng.randint(3, 7))]
    subject = rng.randrange(len(ids))
    ids[subject] = rng.choice(NAMES)
    return Planted((*ids, QUESTION), subject, rng.randrange(1, LAYERS - 1))


def model_of(block: int, *, hears: bool = True) -> LanguageModel:
    """The model. Streams are normalised, so that no noise makes an answer surer than the name does.

    Where it `hears` nothing of the subject, there is no norm, and the answer is decided by what is
    0 in each name, and as often above as below it under noise.
    """
    cfg = HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=WIDTH,
        n_ctx=10,
        d_head=WIDTH,
        n_heads=1,
        d_mlp=4,
        d_vocab=len(WORDS),
        act_fn="relu",
        normalization_type="LNPre" if hears else None,
        dtype=torch.float64,
        device="cpu",
    )
    model = HookedTransformer(cfg)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
        for place, name in enumerate(NAMES):
            model.embed.W_E[name, place] = 1.0
            model.embed.W_E[name, IS_NAME] = 1.0
        for place, filler in enumerate(FILLERS):
            model.embed.W_E[filler, 8 + place % 8] = 1.0
        model.embed.W_E[QUESTION, IS_QUESTION] = 1.0
        attention = model.blocks[block].attn
        attention.W_Q[0, IS_QUESTION, 0] = LOUD
        attention.W_K[0, IS_NAME, 0] = 1.0
        sources = range(3) if hears else range(8, 11)  # of the latter a name has none
        for place, source in enumerate(sources):
            attention.W_V[0, source, place] = 1.0
            attention.W_O[0, place, HEARD.start + place] = 1.0
        model.unembed.b_U.fill_(-60.0)
        if hears:
            model.unembed.b_U[list(ANSWERS)] = 0.0
            for place, answer in enumerate(ANSWERS):
                model.unembed.W_U[HEARD.start + place, answer] = 8.0
        else:
            model.unembed.b_U[ANSWERS[0]], model.unembed.b_U[ANSWERS[1]] = 1.0, 0.0
            model.unembed.W_U[HEARD.start, ANSWERS[0]] = 2.0
    model.tokenizer = Padded()
    return LanguageModel(model, name="planted")


def traced(seed: int, *, hears: bool = True) -> tuple[Planted, Trace, Reading]:
    """Its trace, and what that says."""
    found = planted(seed)
    trace = sg.trace(
        model_of(found.block, hears=hears),
        found.ids,
        subject=[found.subject],
        strength=1.5,
        noise_runs=10,
        seed=seed,
        window=1,
    )
    return found, trace, read(trace)


@pytest.mark.parametrize("seed", [*range(4), *map(slow, range(4, 40))])
def test_the_planted_handover_is_found(seed: int) -> None:
    found, trace, reading = traced(seed)
    assert trace.target_ids == (ANSWERS[NAMES.index(found.ids[found.subject])],)
    last = len(found.ids) - 1
    expected = {
        ("state", (found.subject, found.subject), (0, found.block), "subject"),
        ("state", (last, last), (found.block + 1, LAYERS - 1), "read"),
        ("attention", (last, last), (found.block, found.block), "read"),
    }
    assert {(it.sweep, it.tokens, it.layers, it.role) for it in reading.sites} == expected
    assert reading.handover is not None and reading.handover.block == found.block
    assert reading.handover.crosses == pytest.approx(found.block + 0.5)
    assert all(site.share == pytest.approx(1.0) for site in reading.sites)


def test_what_is_moved_is_moved_in_full() -> None:
    """The subject's state, up to the block that moves it, gives the clean answer to rounding."""
    found, trace, _ = traced(0)
    odds = trace.sweep("state").log_odds
    clean, corrupted = trace.clean.log_odds, [score.log_odds for score in trace.corrupted]
    assert max(corrupted) < clean
    for run, lost in enumerate(corrupted):
        assert odds[run, found.subject, : found.block + 1] == pytest.approx(clean)
        assert odds[run, found.subject, found.block + 1 :] == pytest.approx(lost)


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 200])
def test_without_a_handover_hardly_any_site_is_claimed(count: int) -> None:
    """What noise does to the answer is as often good as bad: restoring helps by chance alone."""
    claimed = []
    for seed in range(count):
        _, trace, reading = traced(seed, hears=False)
        assert len({score.log_odds for score in trace.corrupted}) > 5
        claimed.append(bool(reading.sites))
    assert sum(claimed) <= 0.05 * count
