"""`trace`, against full forward passes of the plain transformers model with hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.tracing.corrupt import corrupted, embedding_scale
from sae_graphs.tracing.partial import TracePartial
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.settings import SWEEPS, TraceSettings
from sae_graphs.tracing.trace import trace_ends
from tests.conftest import BridgeOf
from tests.support.linear_model import LinearModel
from tests.support.models import OTHER_PROMPT, PROMPT
from tests.support.stacks import one_line
from tests.support.trace_oracle import Plain, cell

SUBJECT = "cat sat"
RUNS = 2


@pytest.fixture(scope="module")
def model_of(bridge_of: BridgeOf) -> Callable[..., LanguageModel]:
    """A `LanguageModel` by architecture, made once."""
    made: dict[tuple[str, str], LanguageModel] = {}

    def model(architecture: str = "gpt2", dtype: str = "float64") -> LanguageModel:
        key = architecture, dtype
        if key not in made:
            made[key] = LanguageModel(bridge_of(architecture, dtype), name=architecture)
        return made[key]

    return model


@pytest.fixture
def gpt2(model_of: Callable[..., LanguageModel]) -> LanguageModel:
    """A tiny GPT-2 in double precision."""
    return model_of()


def fed(model: LanguageModel, trace: Trace) -> torch.Tensor:
    """The corrupted embeddings `[R, T, D]` of a trace, made again."""
    clean = model.run(trace.about["token_ids"])
    made = corrupted(
        model,
        clean,
        trace.subject,
        trace.settings,
        std=embedding_scale(model, clean).std,
        probability=trace.clean.probability,
        answered=lambda _: 0.0,
    )
    return made.embeddings


def assert_is_oracle(
    trace: Trace, model: LanguageModel, plain: Plain, tokens: Sequence[int], tolerance: float
) -> float:
    """Every cell at some tokens is what a full pass gives; returns the largest deviation."""
    ids, targets = trace.about["token_ids"], list(trace.target_ids)
    clean_logits, clean = plain.run(ids)
    log_clean = clean_logits[trace.read].double().log_softmax(-1)
    worst = 0.0
    for run, embeddings in enumerate(fed(model, trace)):
        corrupted_logits, below = plain.run(ids, embeddings)
        share = corrupted_logits[trace.read].double().softmax(-1)[targets].sum()
        assert trace.corrupted[run].probability == pytest.approx(float(share), abs=tolerance)
        for sweep in trace.sweeps:
            for token in tokens:
                for layer in range(trace.n_layers):
                    logits = cell(
                        plain, ids, embeddings, clean, below, sweep.name, token, layer, sweep.window
                    )
                    logs = logits[trace.read].double().log_softmax(-1)
                    probability = float(logs[targets].exp().sum())
                    at = run, token, layer
                    worst = max(worst, abs(sweep.probability[at] - probability))
                    odds = np.log(probability) - np.log1p(-probability)
                    assert sweep.log_odds[at] == pytest.approx(odds, abs=1e3 * tolerance)
                    kl = float((log_clean.exp() * (log_clean - logs)).sum())
                    assert sweep.kl[at] == pytest.approx(kl, abs=1e3 * tolerance)
    assert worst <= tolerance
    return float(worst)


@pytest.mark.parametrize(
    ("architecture", "window"),
    [
        ("gpt2", 1),
        ("llama", 3),
        *(
            pytest.param(name, window, marks=pytest.mark.slow)
            for name in ("gpt2", "llama", "neox", "gemma2", "qwen3", "gemma3")
            for window in (1, 2, 3)
            if (name, window) not in {("gpt2", 1), ("llama", 3)}
        ),
    ],
)
def test_every_cell_is_a_full_forward_pass(
    model_of: Callable[..., LanguageModel],
    model_folder: Callable[[str], Path],
    record_property: Callable[[str, Any], None],
    architecture: str,
    window: int,
) -> None:
    model = model_of(architecture)
    trace = sg.trace(
        model,
        PROMPT,
        subject=SUBJECT,
        sweeps=SWEEPS,
        strength="2s",
        noise_runs=RUNS,
        window=window,
        target=(" old", " the") if window == 1 else None,
    )
    plain = AutoModelForCausalLM.from_pretrained(
        model_folder(architecture), dtype=torch.float64, attn_implementation="eager"
    )
    tokens = (2, 3, 5, 9)  # of the subject, after it, and where it is read
    worst = assert_is_oracle(trace, model, Plain(plain.eval(), architecture), tokens, 1e-6)
    record_property(f"deviation trace, {architecture}, float64", worst)


@pytest.mark.parametrize(
    "options",
    [
        {"corruption": "interchange", "other": OTHER_PROMPT, "subject": None},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"corruption": "nearest", "rank": 3},
                {"corruption": "blend", "strength": "0.5", "rank": 2},
                {"corruption": "norm", "strength": "0.25"},
                {"corruption": "noise", "strength": "0.3", "noise_runs": 3, "seed": 4},
                {"corruption": "interchange", "other": OTHER_PROMPT, "read": 7},
            )
        ),
    ],
    ids=lambda options: options["corruption"],
)
@pytest.mark.parametrize("architecture", ["gpt2", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_other_corruptions(
    model_of: Callable[..., LanguageModel],
    model_folder: Callable[[str], Path],
    architecture: str,
    options: dict[str, Any],
) -> None:
    model = model_of(architecture)
    trace = sg.trace(model, PROMPT, **{"subject": SUBJECT, "window": 3, **options})
    plain = AutoModelForCausalLM.from_pretrained(
        model_folder(architecture), dtype=torch.float64, attn_implementation="eager"
    )
    assert len(trace.corrupted) == options.get("noise_runs", 1)
    assert_is_oracle(trace, model, Plain(plain.eval(), architecture), range(1, 8, 2), 1e-6)
    spread = max(float(np.ptp(sweep.probability)) for sweep in trace.sweeps)
    assert spread > 1e-5, "the cells are told apart"


@pytest.mark.slow
def test_single_precision_and_whole_copies_agree_with_double(
    model_of: Callable[..., LanguageModel], bridge_of: BridgeOf
) -> None:
    options: dict[str, Any] = {"subject": [5], "strength": "2s", "noise_runs": 2}
    exact = sg.trace(model_of(), PROMPT, sweeps=SWEEPS, **options)
    whole = LanguageModel(bridge_of("gpt2", "float64"))
    whole.run(PROMPT)  # its checks
    whole.replay.rows_alone = False
    single = LanguageModel(bridge_of("gpt2", "float64"))
    single.run(PROMPT)
    single.replay.rows_alone = single.replay.together = False
    tight = LanguageModel(bridge_of("gpt2", "float64"))
    tight.working_memory = 2**14  # less than the copies of one token take
    for model, tolerance in (
        (model_of("gpt2", "float32"), 1e-6),
        (whole, 1e-12),
        (single, 1e-12),
        (tight, 1e-12),
    ):
        trace = sg.trace(model, PROMPT, sweeps=SWEEPS, **options)
        for one, two in zip(exact.sweeps, trace.sweeps, strict=True):
            assert np.abs(one.probability - two.probability).max() <= tolerance


def test_a_hooked_transformer_is_traced(hooked: Any) -> None:
    trace = sg.trace(LanguageModel(hooked), PROMPT, subject=SUBJECT, strength="1s", noise_runs=2)
    subject = list(trace.subject)
    assert trace.sweep("state").log_odds[:, subject[0], 0].std() > 0


# -- what must hold --------------------------------------------------------------------------------


def test_cells_that_cannot_matter_are_the_corrupted_run(gpt2: LanguageModel) -> None:
    """Bit for bit: before the subject, after the read token, elsewhere in the first layer."""
    trace = sg.trace(gpt2, PROMPT, subject=SUBJECT, strength="1s", noise_runs=3, sweeps=SWEEPS)
    assert trace.subject == (2, 3)
    assert trace.read == 9
    early = sg.trace(gpt2, PROMPT, subject=SUBJECT, strength="1s", noise_runs=3, read=6)
    for each in (trace, early):
        for sweep in each.sweeps:
            for measure in ("log_odds", "probability", "kl"):
                cells = sweep.of(measure)
                expected = np.array([getattr(score, measure) for score in each.corrupted])
                unmoved = (cells == expected[:, None, None]).all(0)  # [T, L]
                reached = np.zeros_like(unmoved)
                reached[2 : each.read + 1] = True
                if sweep.name.startswith("state"):
                    reached[4:, 0] = False
                assert unmoved[~reached].all()
    moved = trace.sweep("state").log_odds != trace.sweep("state").log_odds[:, :1, :1]
    assert moved[:, 2:, 1:].all()


def test_every_cell_has_the_same_draws(gpt2: LanguageModel) -> None:
    """Whatever else is measured with them; another seed gives others."""
    options: dict[str, Any] = {"subject": SUBJECT, "strength": "1s"}
    both = sg.trace(gpt2, PROMPT, noise_runs=3, **options)
    alone = sg.trace(gpt2, PROMPT, noise_runs=2, sweeps=("mlp",), **options)
    for one, two in zip(alone.corrupted, both.corrupted, strict=False):
        assert one.log_odds == pytest.approx(two.log_odds, abs=1e-10)
    found, expected = alone.sweep("mlp"), both.sweep("mlp")
    assert np.allclose(found.log_odds, expected.log_odds[:2], atol=1e-10)
    other = sg.trace(gpt2, PROMPT, noise_runs=2, sweeps="mlp", seed=1, **options)
    assert abs(other.corrupted[0].log_odds - alone.corrupted[0].log_odds) > 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0},
        {"strength": "0s"},
        {"corruption": "blend", "strength": "0"},
        {"corruption": "norm", "strength": "1"},
    ],
    ids=str,
)
def test_strength_zero_is_the_identity(gpt2: LanguageModel, options: dict[str, Any]) -> None:
    trace = sg.trace(gpt2, PROMPT, subject=SUBJECT, sweeps=SWEEPS, **options)
    assert set(trace.corrupted) == {trace.clean}
    assert trace.clean.kl == 0
    for sweep in trace.sweeps:
        assert (sweep.log_odds == trace.clean.log_odds).all()
        assert (sweep.kl == 0).all()
    assert any("changes nothing" in warning for warning in trace.warnings)


def test_restoring_all_that_was_corrupted_is_the_clean_run(gpt2: LanguageModel) -> None:
    """A subject of one token, restored where it enters: all that differed."""
    trace = sg.trace(gpt2, PROMPT, subject=[4], strength="2s", noise_runs=4, sweeps="state")
    state = trace.sweep("state")
    assert state.log_odds[:, 4, 0] == pytest.approx(trace.clean.log_odds, abs=1e-9)
    assert state.kl[:, 4, 0] == pytest.approx(0, abs=1e-9)
    assert min(score.kl for score in trace.corrupted) > 1e-6
    whole = sg.trace(
        gpt2, PROMPT, subject=[4], strength="2s", noise_runs=2, window=99, sweeps="state"
    )
    assert whole.settings.window_of(3) == 99


def test_auto_is_the_smallest_noise_that_leaves_a_tenth(gpt2: LanguageModel) -> None:
    options: dict[str, Any] = {"target": "4", "noise_runs": 4, "sweeps": "state"}
    trace = sg.trace(gpt2, PROMPT, subject=(1, 2, 3, 4, 5, 6, 7, 8), **options)
    assert trace.noise is not None

    def kept(size: float) -> float:
        again = sg.trace(gpt2, PROMPT, subject=trace.subject, strength=size, **options)
        return float(np.mean([score.probability for score in again.corrupted]))

    most = 0.1 * trace.clean.probability
    assert kept(trace.noise) <= most < kept(trace.noise / 2 ** (1 / 8))


def test_a_group_is_asked_for_together(gpt2: LanguageModel) -> None:
    options: dict[str, Any] = {"subject": SUBJECT, "strength": "1s", "noise_runs": 1}
    one, two = (sg.trace(gpt2, PROMPT, target=name, **options) for name in (" old", " the"))
    both = sg.trace(gpt2, PROMPT, target=(" old", " the"), **options)
    assert both.targets == (" old", " the")
    summed = one.sweep("mlp").probability + two.sweep("mlp").probability
    assert np.allclose(both.sweep("mlp").probability, summed, atol=1e-12)
    assert np.allclose(both.sweep("mlp").kl, one.sweep("mlp").kl, atol=1e-12)
    assert any("not the likeliest" in warning for warning in one.warnings)


# -- a model whose numbers are worked out by hand --------------------------------------------------


def test_a_linear_model_by_hand() -> None:
    """Blocks as in `linear_model`, prompt `ab`, the embedding of `a` set to nothing.

    Clean, y_a = (1, 4, -3), y_b = (2, 5, -1), and the answer z_b = (0.5, 3, 3); corrupted,
    y_a = 0, y_b = (2, 5, -3), z_b = (2, 3, -3).
    """
    trace = sg.trace(
        LanguageModel(LinearModel()),
        "ab",
        subject="a",
        target="a",
        corruption="norm",
        strength=0,
        window=1,
        sweeps=SWEEPS,
    )
    corrupted_, clean = (2, 3, -3), (0.5, 3, 3)
    expected: dict[str, list[list[tuple[float, ...]]]] = {  # sweep: answers by token and layer
        "state": [[clean, (0.5, 3, 1)], [corrupted_, (2, 3, -1)]],
        "mlp": [[(0.5, 3, -1), corrupted_], [corrupted_, corrupted_]],
        "attention": [[corrupted_, corrupted_], [(2, 3, -1), (0.5, 3, 1)]],
        "state-mlp-severed": [[(2, 3, 1), (0.5, 3, 1)], [corrupted_, (2, 3, -1)]],
        "state-attention-severed": [[clean, (0.5, 3, 1)], [corrupted_, (2, 3, -1)]],
    }

    def odds(answer: Sequence[float]) -> float:
        return answer[1] - float(np.logaddexp(answer[0], answer[2]))

    def kl(answer: Sequence[float]) -> float:
        p, q = (np.exp(x) / np.exp(x).sum() for x in (np.array(clean), np.array(answer)))
        return float((p * np.log(p / q)).sum())

    assert trace.clean.log_odds == pytest.approx(odds(clean))
    assert trace.corrupted[0].log_odds == pytest.approx(odds(corrupted_))
    assert trace.next_tokens[0][0] in "ab"
    for name, answers in expected.items():
        sweep = trace.sweep(name)
        assert sweep.log_odds[0] == pytest.approx(np.array([[odds(a) for a in r] for r in answers]))
        assert sweep.kl[0] == pytest.approx(np.array([[kl(a) for a in r] for r in answers]))
        assert np.exp(sweep.log_odds) / (1 + np.exp(sweep.log_odds)) == pytest.approx(
            sweep.probability
        )


# -- interrupted and refused -----------------------------------------------------------------------


def test_an_interrupted_trace_goes_on(
    gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TracePartial, "patience", 0.0)
    options: dict[str, Any] = {"subject": "the (", "strength": "1s", "noise_runs": 4}
    whole = sg.trace(gpt2, PROMPT, resume=tmp_path / "whole", **options)
    at_once = sg.trace(gpt2, PROMPT, **options)
    assert np.abs(whole.sweeps[0].log_odds - at_once.sweeps[0].log_odds).max() < 1e-12
    tmp_path /= "stopped"

    def stop(done: int, total: int) -> None:
        if done > 0.7 * total:
            raise KeyboardInterrupt

    before = n_hooks(gpt2.model)
    with pytest.raises(KeyboardInterrupt):
        sg.trace(gpt2, PROMPT, resume=tmp_path, progress=stop, **options)
    assert n_hooks(gpt2.model) == before
    kept = sorted(file.name for file in tmp_path.iterdir())
    assert kept
    assert len(kept) < 4
    steps: list[int] = []
    again = sg.trace(
        gpt2, PROMPT, resume=tmp_path, progress=lambda done, total: steps.append(done), **options
    )
    for one, two in zip(whole.sweeps, again.sweeps, strict=True):
        assert (one.log_odds == two.log_odds).all()
    assert steps == sorted(steps)
    other = sg.trace(gpt2, PROMPT, resume=tmp_path, **{**options, "seed": 1})
    assert not (other.sweeps[0].log_odds == whole.sweeps[0].log_odds).all()
    file = next(tmp_path.glob("noise-run-0.*"))
    file.write_bytes(b"damaged")
    again = sg.trace(gpt2, PROMPT, resume=tmp_path, **options)
    assert (again.sweeps[1].kl == whole.sweeps[1].kl).all()


def n_hooks(model: Any) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (PROMPT, {}, "there is no subject"),
        (PROMPT, {"subject": "dog"}, "the subject 'dog' is not in the prompt"),
        (PROMPT, {"subject": "Cat"}, "did you mean 'cat'"),
        (PROMPT, {"subject": " "}, "the subject is empty"),
        (PROMPT, {"subject": [99]}, "token 99 is none of the prompt's"),
        (PROMPT, {"subject": 3.5}, "give some text of the prompt, or positions"),
        (PROMPT, {"subject": [True]}, "give some text of the prompt, or positions"),
        (PROMPT, {"subject": [-1]}, "the subject is the last token alone"),
        (PROMPT, {"subject": "mat", "read": 5}, "after token 5 where the answer"),
        (PROMPT, {"subject": "cat", "read": 10}, "read is 10; the prompt has tokens 0 to 9"),
        (PROMPT, {"subject": "cat", "read": "x"}, "read is 'x'"),
        ([5], {"subject": [0]}, "the prompt is one token"),
        (PROMPT, {"subject": "cat", "target": " zebra"}, "tokens of gpt2"),
        (PROMPT, {"subject": "cat", "target": (" the", " the")}, "several that differ"),
        (PROMPT, {"subject": "cat", "target": ()}, "several that differ"),
        (PROMPT, {"subject": "cat", "strength": "-1"}, "strength '-1'"),
        (PROMPT, {"subject": "cat", "strength": "much"}, "strength 'much'"),
        (PROMPT, {"subject": "cat", "strength": "900"}, None),
        (
            PROMPT,
            {"subject": "cat", "corruption": "blend", "strength": "2"},
            "the share of the way",
        ),
        (PROMPT, {"subject": "cat", "corruption": "blend"}, "the share of the way"),
        (PROMPT, {"subject": "cat", "corruption": "norm", "strength": "3s"}, "the factor"),
        (PROMPT, {"subject": "cat", "corruption": "nearest", "strength": "2"}, "takes none"),
        (PROMPT, {"subject": "cat", "corruption": "nearest", "rank": 999}, "other tokens"),
        (PROMPT, {"subject": "cat", "corruption": "swap"}, "corruption 'swap'"),
        (PROMPT, {"subject": "cat", "sweeps": ("states",)}, "sweep 'states'"),
        (PROMPT, {"subject": "cat", "sweeps": ()}, "sweeps are"),
        (PROMPT, {"subject": "cat", "window": 0}, "window is 0"),
        (PROMPT, {"subject": "cat", "noise_runs": 0}, "noise_runs is 0"),
        (PROMPT, {"subject": "cat", "noise_runs": 2.5}, "noise_runs is 2.5"),
        (PROMPT, {"subject": "cat", "seed": -1}, "seed is -1"),
        (PROMPT, {"subject": "cat", "rank": "1"}, "rank is '1'"),
        (PROMPT, {"subject": "cat", "strength": float("inf")}, "strength 'inf'"),
        (PROMPT, {"subject": "cat", "other": "x"}, "an interchange takes another prompt"),
        (PROMPT, {"corruption": "interchange", "other": "the cat"}, "tokens, the prompt 10"),
        (PROMPT, {"corruption": "interchange", "other": PROMPT}, "is the prompt itself"),
        (PROMPT, {"subject": "cat", "nose_runs": 3}, "did you mean noise_runs"),
    ],
)
def test_wrong_input_is_answered_in_one_line(
    gpt2: LanguageModel, prompt: Any, options: dict[str, Any], message: str | None
) -> None:
    if message is None:  # much, and no mistake
        assert sg.trace(gpt2, prompt, noise_runs=1, sweeps="state", **options).noise == 900
        return
    with pytest.raises(SaeGraphsError, match=message) as caught:
        sg.trace(gpt2, prompt, **options)
    one_line(caught)


def test_what_does_not_hang_on_the_subject_has_no_auto_strength(gpt2: LanguageModel) -> None:
    everything = tuple(gpt2.token_string(token) for token in range(1, 100))
    with pytest.raises(SaeGraphsError, match="does not hang on this subject") as caught:
        sg.trace(gpt2, PROMPT, subject="cat", target=everything)
    one_line(caught)
    with pytest.raises(SaeGraphsError, match="is no language model"):
        sg.trace(3, PROMPT, subject="cat")  # type: ignore[arg-type]


def test_the_two_rows_alone_are_those_of_the_whole_trace(gpt2: LanguageModel) -> None:
    settings = TraceSettings(sweeps=("state", "mlp"), strength="3s", noise_runs=RUNS)
    whole = sg.trace(gpt2, PROMPT, subject=SUBJECT, settings=settings)
    ends = trace_ends(gpt2, gpt2.run(PROMPT), subject=SUBJECT, settings=settings)
    rows = [whole.subject[-1], whole.read]
    for one, other in zip(whole.sweeps, ends.sweeps, strict=True):
        np.testing.assert_allclose(other.log_odds[:, rows], one.log_odds[:, rows], atol=1e-9)
        assert np.isnan(np.delete(other.log_odds, rows, axis=1)).all()
